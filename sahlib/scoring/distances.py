"""Distances between the outlines of two masks, in mm, with the missed lesion counted.

Both scores here are of one slice. They have no natural value where a mask is empty, and what stands in for it decides
the mean: MONAI's HD95 of a missed lesion is infinite or NaN and its default mean drops it, so that a network which
finds only the easy lesions looks precise. The rules of this module (column `case` says which one applied):

- both masks empty ("empty"): there is no outline to measure, so NSD and HD95 are NaN and stay out of a mean;
- the lesion was missed altogether ("missed"), or something was found where there is none ("false alarm"): NSD 0, and
  HD95 is the diagonal of the slice, the largest distance two points of it can have. A miss can thus never score
  better than a hit. BraTS does the same with the diagonal of its volume, 374 mm (lesion-wise scores of 2023);
- the pixel spacing is not known ("unknown spacing"): NaN. A distance in pixels is not passed off as one in mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sahlib.scoring import metrics

TOLERANCES_MM = (1.0, 2.0)
PERCENTILE = 95.0
# Three pixels of 1/3 mm are 1 mm, and 19 of 20 elements are 95 %, whatever the last bit of a sum says.
ROUNDING = 1e-9
CASES = ("scored", "missed", "false alarm", "empty", "unknown spacing")
_TOTALS = {"missed": "missed", "false_alarms": "false alarm", "empty": "empty", "unknown_spacing": "unknown spacing"}


def surface_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    row_mm: np.ndarray,
    column_mm: np.ndarray,
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
) -> pd.DataFrame:
    """Normalized surface Dice and 95 % Hausdorff distance, slice by slice.

    prediction, truth: [k,H,W] bool; row_mm, column_mm: [k] height and width of a pixel in mm, NaN where unknown
    tolerances_mm: an outline that far off still counts as right
    returns: one row per slice, columns nsd_<t>mm in [0, 1] for each tolerance, hd95_mm (mm), case (one of CASES); the
    rules for empty masks and unknown spacing are the module's
    raises: ValueError for masks or spacings that do not fit, or a spacing that is not above 0

    The outline is made of elements at the corners between pixels, each with its length in mm; NSD is the share of both
    outlines' length that lies within the tolerance of the other, HD95 the larger of the two directed 95th percentiles
    over length. Definitions: Nikolov et al. 2018, arXiv:1809.04430, as in their package surface-distance. Distances
    are within a slice; thickness plays no part.
    """
    counts = metrics.pixel_counts(prediction, truth)
    spacing = np.stack([_spacing(n, v, len(truth)) for n, v in (("row_mm", row_mm), ("column_mm", column_mm))], axis=1)
    columns = [f"nsd_{tolerance:g}mm" for tolerance in tolerances_mm]
    values = np.full((len(truth), len(columns) + 1), np.nan)
    cases = _cases(counts.tp + counts.fp > 0, counts.tp + counts.fn > 0, np.isfinite(spacing).all(axis=1))
    for k, case in enumerate(cases):
        if case == "scored":
            values[k] = _scores(prediction[k], truth[k], spacing[k], tolerances_mm)
        elif case in ("missed", "false alarm"):
            values[k, :-1] = 0
            values[k, -1] = diagonal_mm(truth.shape[1:], *spacing[k])
    return pd.DataFrame(values, columns=[*columns, "hd95_mm"]).assign(case=cases)


def diagonal_mm(shape: tuple[int, int], row_mm: float, column_mm: float) -> float:
    """Length of the diagonal of a slice [H,W] in mm: what HD95 is of a mask against an empty one."""
    return float(np.hypot(shape[0] * row_mm, shape[1] * column_mm))


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of `surface_scores` over a test set, with what they are means of.

    returns: two rows, `slices` "with lesion" (missed ones included, false alarms not seen) and "any outline" (false
    alarms included); columns the mean of each score, hd95_mm_median, counted (slices in these means; NaN where none),
    and how many slices of the whole set were missed, false_alarms, empty and of unknown_spacing (these two count
    nowhere)
    """
    numbers = [c for c in scores if c != "case"]
    total = {column: int((scores["case"] == case).sum()) for column, case in _TOTALS.items()}
    rows = []
    for name, cases in (("with lesion", ("scored", "missed")), ("any outline", ("scored", "missed", "false alarm"))):
        group = scores[scores["case"].isin(cases)]
        row = {"slices": name, **group[numbers].mean().to_dict(), "hd95_mm_median": float(group["hd95_mm"].median())}
        rows.append(row | {"counted": len(group)} | total)
    return pd.DataFrame(rows)


def _cases(predicted: np.ndarray, lesion: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The case of each slice; [k] bool arguments. An empty slice is empty whatever its spacing."""
    conditions = [~predicted & ~lesion, ~known, ~predicted, ~lesion]
    return np.select(conditions, ["empty", "unknown spacing", "missed", "false alarm"], "scored").astype(object)


def _scores(prediction: np.ndarray, truth: np.ndarray, spacing: np.ndarray, tolerances_mm) -> list[float]:
    """NSD at each tolerance, then HD95, of two masks [H,W] that both have pixels."""
    from scipy.ndimage import distance_transform_edt

    # All outlines lie in the box around both masks, so a distance map of the box holds every distance asked for.
    rows, columns = (np.flatnonzero((prediction | truth).any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    lengths = _outline_lengths(np.stack([prediction[box], truth[box]]), spacing)
    edges = lengths > 0
    to_prediction, to_truth = (distance_transform_edt(~edge, sampling=spacing) for edge in edges)
    distances = [to_truth[edges[0]], to_prediction[edges[1]]]
    weights = [lengths[0][edges[0]], lengths[1][edges[1]]]
    total = weights[0].sum() + weights[1].sum()
    near = [
        sum(w[d <= tolerance + ROUNDING].sum() for d, w in zip(distances, weights, strict=True))
        for tolerance in tolerances_mm
    ]
    hausdorff = max(_weighted_percentile(d, w, PERCENTILE) for d, w in zip(distances, weights, strict=True))
    return [*(float(n / total) for n in near), hausdorff]


def _outline_lengths(masks: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Length in mm of the outline through each corner between pixels, float [n,H+1,W+1] of masks [n,H,W].

    Marching squares over the four pixels around a corner: one or three inside, a cut across it; two side by side, a
    line of one pixel; two diagonal ones, two cuts. Codes and lengths are those of surface-distance.
    """
    height, width = spacing
    cut = np.hypot(height, width) / 2
    table = np.full(16, cut)  # bits: 8 top left, 4 top right, 2 bottom left, 1 bottom right
    table[[0b0000, 0b1111]] = 0
    table[[0b0011, 0b1100]] = width
    table[[0b0101, 0b1010]] = height
    table[[0b0110, 0b1001]] = 2 * cut
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    codes = 8 * padded[:, :-1, :-1] + 4 * padded[:, :-1, 1:] + 2 * padded[:, 1:, :-1] + padded[:, 1:, 1:]
    return table[codes]


def _weighted_percentile(values: np.ndarray, weights: np.ndarray, percentile: float) -> float:
    """The smallest value that `percentile` per cent of the weight do not exceed."""
    order = np.lexsort((weights, values))
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(np.searchsorted(share, percentile / 100 - ROUNDING), len(values) - 1)])


def _spacing(name: str, values: np.ndarray, slices: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.shape != (slices,):
        raise ValueError(f"{name} must hold one number per slice, [{slices}]; its shape is {values.shape}")
    if (values <= 0).any():
        raise ValueError(f"{name} must be above 0 mm, or NaN where unknown; the smallest is {np.nanmin(values)}")
    return values
