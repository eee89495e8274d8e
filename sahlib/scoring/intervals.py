"""How sure a score is: intervals and paired tests from counts, clustered by patient.

Slices of one patient resemble each other, so ten thousand slices of thirty patients are nearer to thirty observations
than to ten thousand: whole patients are drawn, or swapped (Davison & Hinkley 1997, section 3.8). With several training
seeds a score is their mean, taken within each draw on the same patients; their spread is reported beside the interval,
and `Difference.over_seeds` takes it in.

    interval(counts["attention_unet"], "dice", "sah_slices")
    difference(counts["attention_unet_open_gates"], counts["attention_unet"], "dice", "sah_slices").p

What holds everywhere:
- A patient with nothing that a score counts (no lesion under sah_slices, no lesion pixel for the recall of pooled
  pixels), whatever the seed or model, cannot move it: such patients are neither drawn nor counted in `patients`.
- A draw in which the score of any seed is undefined (NaN) is left out.
- With fewer than two patients there is no interval: low and high are NaN.
- With fewer than FEW_PATIENTS all is computed; such an interval covers less than it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from sahlib.scoring import metrics, resampling
from sahlib.scoring.metrics import CONVENTIONS, COUNTS, Convention

Counts = pd.DataFrame | Sequence[pd.DataFrame]  # one table per training seed

DRAWS, LEVEL = 2000, 0.95
FEW_PATIENTS = 20
TERCILES = ("small", "medium", "large")
TIE = 1e-12  # scores nearer than this are equal: sums taken in another order differ in the last digits


@dataclass(frozen=True)
class Estimate:
    """A number and how far it would move with other patients.

    low, high   ends of the interval, as in `interval`
    patients    how many the number depends on
    """

    estimate: float
    low: float
    high: float
    patients: int


@dataclass(frozen=True)
class Interval(Estimate):
    """A score, mean over training seeds; `seed_scores` is that of each seed on all patients, in the order given."""

    seed_scores: tuple[float, ...]

    @property
    def seed_spread(self) -> float:
        """Largest minus smallest score over seeds, NaN for one seed; of three seeds an SD would say little."""
        return float(np.ptp(self.seed_scores)) if len(self.seed_scores) > 1 else float("nan")


@dataclass(frozen=True)
class Difference(Estimate):
    """Score of b minus score of a, positive where b is higher.

    p              two-sided, of the permutation test in `difference`; not corrected for other tests (see `holm`)
    patient_error  its standard error over patients, of these trained networks: the SD of the draws
    seed_scores    the scores of a and of b, one per training seed, on all patients
    """

    p: float
    patient_error: float
    seed_scores: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def seed_variances(self) -> tuple[float, float]:
        """Variance of the scores of a and of b from training to training; NaN for one seed."""
        return tuple(float(np.var(own, ddof=1)) if len(own) > 1 else float("nan") for own in self.seed_scores)

    def over_seeds(self, level: float = LEVEL) -> Estimate:
        """The difference with an interval over patients and trainings; over patients alone where a model has one seed.

        Each end is as far from the estimate as the root of two squares: its distance over patients (low and high, of
        the same level), and t times the standard error over trainings with Welch's degrees of freedom (the ends of two
        independent intervals recover their variances: Zou & Donner 2008, Statistics in Medicine 27:1693).
        """
        parts = [v / len(own) for v, own in zip(self.seed_variances, self.seed_scores, strict=True)]
        if not sum(parts) > 0:  # NaN, or no spread at all
            return Estimate(self.estimate, self.low, self.high, self.patients)
        freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, self.seed_scores, strict=True))
        far = stats.t.isf((1 - level) / 2, freedom) * np.sqrt(sum(parts))
        below, above = np.hypot(self.estimate - self.low, far), np.hypot(self.high - self.estimate, far)
        return Estimate(self.estimate, float(self.estimate - below), float(self.estimate + above), self.patients)


def interval(
    counts: Counts,
    metric: str,
    convention: str | Convention,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
    batch_size: int = 16,
) -> Interval:
    """A score with its bootstrap interval over patients.

    counts: one table per training seed, all of the same slices in the same order; columns tp, fp, fn, tn, patient_id
    metric, convention, batch_size: as in metrics.score
    draws: test sets of as many patients, drawn with replacement; seed: of their random numbers
    raises: ValueError for tables that are not of the same slices, a patient_id that is missing, an unknown name, a
        level outside (0, 1), or, for "batches", a patient whose slices do not stand together

    The interval is the "expanded" percentile interval: its ends are the quantiles of the draws at Phi(-c) and Phi(c),
    c = sqrt(n/(n-1)) t, with t the (1+level)/2 quantile of Student's t with n-1 degrees of freedom and n the number of
    patients (Hesterberg 2015, The American Statistician 69:371). Why not the plain percentile interval (Efron &
    Tibshirani 1993, chapter 13), nor BCa (Efron 1987): in a simulation of clustered, skewed Dice scores (1,500 test
    sets each, three patients in five with SAH) nominal 95 % covered, in per cent, as mean over SAH slices | pooled

        patients    percentile      BCa       expanded
               8     81 | 85      80 | 84     88 | 90
              12     86 | 88      86 | 87     92 | 92
              20     88 | 90      89 | 89     93 | 92
              40     92 | 93      92 | 92     94 | 94

    BCa corrects skewness but estimates that correction from the same few patients, and not the narrowness.
    For "batches" the patients of a draw stand in the order drawn and are cut into batches anew, so that this interval
    also holds how far the score depends on the order in which patients happen to stand in the store.
    """
    frames = _frames("counts", counts)
    scores = tuple(metrics.score(frame, metric, convention, batch_size) for frame in frames)
    sums = resampling.sums_by_patient([frames], metric, convention, batch_size)
    low, high = resampling.ends(resampling.drawn(sums, draws, seed)[0], sums.patients, level)
    return Interval(float(np.mean(scores)), low, high, sums.patients, scores)


def difference(
    a: Counts,
    b: Counts,
    metric: str,
    convention: str | Convention,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
    batch_size: int = 16,
    permutations: int = 4999,
) -> Difference:
    """Two models on the same slices: the score of b minus that of a, its interval, and a permutation test.

    a, b: one table per training seed, as in `interval`; the two may have different numbers of seeds
    permutations: random swaps for p; the other arguments, and errors, are as in `interval`
    returns: Difference; its interval is that of `interval`, with the same patients drawn for both models

    p: if the models were alike, exchanging their masks for all slices of a patient would change nothing but chance.
    p is the share of such swaps, patient by patient, in which the difference is at least as far from 0 as the observed
    one. All 2**patients are made where half of them (the other half mirrors it) are no more than `permutations`; else
    that many are drawn and p = (1 + as far) / (1 + permutations), never 0 (Phipson & Smyth 2010). n patients cannot
    give a p below 2 / 2**n. Every seed of a is paired with every seed of b, so that the order of seeds does not
    matter. Swaps that leave a score undefined are left out.
    """
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1; it is {permutations}")
    frames = [_frames("a", a), _frames("b", b)]
    _same_slices("a and b", frames[0][0], frames[1][0])
    scores = tuple(tuple(metrics.score(f, metric, convention, batch_size) for f in own) for own in frames)
    estimate = float(np.mean(scores[1]) - np.mean(scores[0]))
    sums = resampling.sums_by_patient(frames, metric, convention, batch_size)
    drawn = resampling.drawn(sums, draws, seed)
    apart = drawn[1] - drawn[0]
    low, high = resampling.ends(apart, sums.patients, level)
    half = 2 ** max(sums.patients - 1, 0)
    exact = half <= permutations
    blocks = resampling.swaps(sums, half if exact else permutations, exact, seed)
    swapped = np.concatenate([resampling.swapped(sums, swaps) for swaps in blocks])
    swapped = swapped[~np.isnan(swapped)]
    far = int(np.count_nonzero(np.abs(swapped) >= abs(estimate) - TIE))
    p = float("nan")
    if not np.isnan(estimate):  # then the swap of nobody is defined, so an exact test has at least one
        p = far / len(swapped) if exact else (1 + far) / (1 + len(swapped))
    apart = apart[~np.isnan(apart)]
    error = float(np.std(apart)) if sums.patients > 1 and len(apart) else float("nan")
    return Difference(estimate, low, high, sums.patients, p, error, scores)


def mean_interval(values: np.ndarray, patients: np.ndarray) -> Estimate:
    """The mean of one number per slice with its 95 % bootstrap interval over patients, as in `interval`.

    values: float [k], NaN is left out; patients: the patient of each, [k]
    """
    values, patients = np.asarray(values, dtype=float), np.asarray(patients)
    if values.shape != patients.shape or values.ndim != 1:
        raise ValueError(f"values {values.shape} and patients {patients.shape} must be the same [k]")
    if missing := pd.isna(patients).sum():
        raise ValueError(f"patients has {missing} missing of {len(patients)}")
    defined = ~np.isnan(values)
    owner, names = pd.factorize(patients[defined], sort=True)
    columns = np.stack([values[defined], np.ones(defined.sum())], axis=1)
    per_patient = resampling.grouped(columns, owner, len(names))
    sums = resampling.Sums(len(names), [[per_patient]], "dice", CONVENTIONS["mean_empty_excluded"])
    estimate = float(values[defined].mean()) if defined.any() else float("nan")
    low, high = resampling.ends(resampling.drawn(sums, DRAWS, seed=0)[0], len(names), LEVEL)
    return Estimate(estimate, low, high, len(names))


def in_words(found: Estimate, signed: bool = False) -> str:
    """The estimate to 3 decimals with its interval in brackets, where it has one; signed for differences."""
    sign = "+" if signed else ""
    if np.isnan(found.low):
        return f"{found.estimate:{sign}.3f}"
    return f"{found.estimate:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p values adjusted so that the chance of one false finding among them all stays at the level (Holm 1979).

    p_values: [k] in [0, 1]; NaN is a test that was not made: it stays NaN and does not count
    returns: float64 [k] in the order given; reject where it is at most the level
    raises: ValueError for a value outside [0, 1]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must lie in [0, 1]; they are {p.tolist()}")
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def size_terciles(counts: pd.DataFrame) -> pd.Series:
    """Which third of the lesions, by area, a slice belongs to.

    counts: one row per slice; the lesion's area is tp + fn pixels
    returns: "small", "medium" or "large" with the index of counts, NaN where a slice has no lesion. Equal areas stay
        together, so the thirds may be uneven, and one may be empty
    """
    area = (counts.tp + counts.fn).to_numpy()
    lesions = np.sort(area[area > 0])
    labels = pd.Series(np.nan, index=counts.index, dtype=object, name="tercile")
    if len(lesions):
        # The smallest area that at least one third, or two thirds, of the lesions do not exceed.
        first, second = (lesions[-(-len(lesions) * k // 3) - 1] for k in (1, 2))
        labels[area > 0] = np.array(TERCILES)[np.searchsorted([first, second], area[area > 0], side="left")]
    return labels


def by_size(counts_by_series: Mapping[str, Counts]) -> pd.DataFrame:
    """Dice over SAH slices by lesion size: the paper claims an advantage on small SAH.

    counts_by_series: {series: one table per training seed}
    returns: one row per series and tercile: series, tercile, slices, patients, lesion_min, lesion_max (pixels),
        estimate, low, high. The bounds between terciles are those of the whole test set, the same in every draw. An
        empty tercile has 0 slices and NaN for the rest
    """
    rows = []
    for series, counts in counts_by_series.items():
        frames = _frames(series, counts)
        labels = size_terciles(frames[0]).to_numpy()
        for tercile in TERCILES:
            inside = [frame[labels == tercile] for frame in frames]
            row = {"series": series, "tercile": tercile, "slices": len(inside[0]), "patients": 0}
            if len(inside[0]):
                area, found = inside[0].tp + inside[0].fn, interval(inside, "dice", "sah_slices")
                row |= {"patients": found.patients, "lesion_min": area.min(), "lesion_max": area.max()}
                row |= {"estimate": found.estimate, "low": found.low, "high": found.high}
            rows.append(row)
    names = ["series", "tercile", "slices", "patients", "lesion_min", "lesion_max", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _frames(name: str, counts: Counts) -> list[pd.DataFrame]:
    """The tables of `counts`, rows numbered from 0, after checking that they are of the same slices."""
    frames = [counts] if isinstance(counts, pd.DataFrame) else list(counts)
    if not frames:
        raise ValueError(f"{name} must hold at least one table of counts")
    for frame in frames:
        _same_slices(name, frames[0], metrics.checked(frame, (*COUNTS, "patient_id"), name))
    return [frame.reset_index(drop=True) for frame in frames]


def _same_slices(name: str, first: pd.DataFrame, other: pd.DataFrame) -> None:
    columns = [c for c in ("slice_id", "patient_id") if c in first and c in other]
    same = len(first) == len(other) and all(first[c].tolist() == other[c].tolist() for c in columns)
    if not same or (first.tp + first.fn).tolist() != (other.tp + other.fn).tolist():
        raise ValueError(f"the tables of {name} are not of the same test slices in the same order")
