"""Blood volume per patient in mL, and how far the predicted volume is off (Bland and Altman).

A patient's volume is the sum over slices of pixels x pixel area x slice thickness (Cavalieri). It takes slices as
touching: gaps or overlaps between slices are not in the data.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t

from sahlib.scoring import metrics
from sahlib.scoring.distances import checked_sides


def patient_volumes(
    counts: pd.DataFrame, row_mm: np.ndarray, column_mm: np.ndarray, thickness_mm: np.ndarray
) -> pd.DataFrame:
    """True and predicted lesion volume of each patient.

    counts: one row per slice, patient_id, tp, fp, fn (pixels); row_mm, column_mm, thickness_mm: [k] mm of the same
    slices, NaN where unknown
    returns: one row per patient in order of appearance, columns patient_id, slices, truth_ml, predicted_ml, mean_ml,
    difference_ml (predicted - truth), and reason: "" or why the volumes are NaN. One slice of unknown spacing makes a
    patient's volume unknown, even if it shows no lesion: what is left out would be a guess
    raises: ValueError for a missing column or patient_id, or spacings that do not fit or are not above 0
    """
    metrics.checked(counts, ("patient_id", "tp", "fp", "fn"))
    sides = checked_sides(len(counts), row_mm=row_mm, column_mm=column_mm, thickness_mm=thickness_mm)
    pixel_ml = np.prod(list(sides.values()), axis=0) / 1000
    slices = pd.DataFrame({name: np.isnan(values) for name, values in sides.items()}).assign(
        patient_id=counts["patient_id"].to_numpy(),
        truth_ml=(counts.tp + counts.fn).to_numpy() * pixel_ml,
        predicted_ml=(counts.tp + counts.fp).to_numpy() * pixel_ml,
    )
    patients = slices.groupby("patient_id", sort=False)
    volumes = patients[["truth_ml", "predicted_ml"]].sum()
    unknown = patients[list(sides)].sum()
    volumes[unknown.any(axis=1)] = np.nan
    volumes.insert(0, "slices", patients.size())
    volumes["mean_ml"] = (volumes.truth_ml + volumes.predicted_ml) / 2
    volumes["difference_ml"] = volumes.predicted_ml - volumes.truth_ml
    volumes["reason"] = [
        "; ".join(f"{name} unknown in {n} of {size} slices" for name, n in row.items() if n)
        for (_, row), size in zip(unknown.iterrows(), volumes["slices"], strict=True)
    ]
    return volumes.reset_index()


def bland_altman(volumes: pd.DataFrame) -> dict[str, float]:
    """Bias and 95 % limits of agreement of the predicted against the true volume.

    volumes: from `patient_volumes`; patients without a volume are left out and counted
    returns: bias_ml (mean difference), sd_ml, lower_ml and upper_ml (bias -/+ 1.96 sd), patients, left_out, and the
    95 % intervals bias_low_ml, bias_high_ml and limit_margin_ml (a limit lies within -/+ this margin of its estimate).
    What is not known (of one patient all but the bias) is NaN

    Bland and Altman 1986, Lancet 327:307: standard errors sd/sqrt(n) of the bias, sd sqrt(3/n) of a limit, Student's t
    with n - 1 degrees of freedom. The limits suppose differences of equal spread at every volume; volumes of blood
    rarely oblige, which the plot shows.
    """
    difference = volumes["difference_ml"].dropna().to_numpy(float)
    n, nan = len(difference), float("nan")
    bias = float(difference.mean()) if n else nan
    sd = float(difference.std(ddof=1)) if n > 1 else nan
    step = float(t.ppf(0.975, n - 1) * sd / np.sqrt(n)) if n > 1 else nan
    return {
        "bias_ml": bias,
        "sd_ml": sd,
        "lower_ml": bias - 1.96 * sd,
        "upper_ml": bias + 1.96 * sd,
        "patients": n,
        "left_out": len(volumes) - n,
        "bias_low_ml": bias - step,
        "bias_high_ml": bias + step,
        "limit_margin_ml": float(np.sqrt(3) * step),
    }
