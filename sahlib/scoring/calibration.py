"""Does a probability of 0.7 mean 7 lesion pixels in 10? Reliability, Brier skill, soft counts.

The reliability curve and the Brier score are functions of one small table of sums per bin, read from the slices one at
a time. Air fills half of a slice and every network is right about it, so whatever is averaged over all pixels flatters;
the table therefore has every bin for "all pixels" and, where images tell, for the "head" (grey level above 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sahlib.scoring import baselines, metrics

REGIONS = ("all pixels", "head")
SUMS = ("pixels", "lesion_pixels", "probability_sum", "squared_error_sum")
BINS = 10
TOGETHER = 32  # slices tallied at once
# Every float16 from 0 to 1, by its bits.
HALVES = np.arange(np.float16(1).view(np.uint16) + 1, dtype=np.uint16).view(np.float16).astype(np.float64)


def reliability_bins(probabilities: np.ndarray, truth: np.ndarray, images: np.ndarray | None = None) -> pd.DataFrame:
    """Sums per bin of equal width on the predicted probability.

    probabilities: [k,H,W] float in [0, 1]; truth: [k,H,W] bool; images: [k,H,W] uint8; without them the head is not
    known, and its rows are left out
    returns: one row per region (REGIONS) and bin: region, low, high, SUMS, and their ratios mean_probability and
    lesion_share (NaN in an empty bin). A bin holds low < p <= high, the first also p = 0, as in scikit-learn's
    calibration_curve
    raises: ValueError where shapes or types do not fit, or a probability is NaN or outside [0, 1]
    """
    regions = REGIONS[: 1 + (images is not None)]
    images = np.broadcast_to(np.uint8(1), np.shape(truth)) if images is None else images  # the head, then, is not shown
    truth = _checked(truth, probabilities=probabilities, images=images)
    edges = np.linspace(0, 1, BINS + 1)
    sums = np.zeros((len(REGIONS), BINS, len(SUMS)))
    for first in range(0, len(truth), TOGETHER):  # sums of float64 over a whole test set would not fit in memory
        part = slice(first, first + TOGETHER)
        values, (air, head, lesion_in_air, lesion_in_head) = _tally(
            np.asarray(probabilities[part]), first, truth[part], baselines.head(images[part])
        )
        index = np.searchsorted(edges[1:-1], values)
        lesion, free = lesion_in_air + lesion_in_head, air + head
        for r, (without, with_lesion) in enumerate(((free, lesion), (head, lesion_in_head))):
            pixels = without + with_lesion
            error = without * values**2 + with_lesion * (values - 1) ** 2
            for s, weight in enumerate((pixels, with_lesion, pixels * values, error)):
                sums[r, :, s] += np.bincount(index, weight, minlength=BINS)
    place = {"low": np.tile(edges[:-1], len(regions)), "high": np.tile(edges[1:], len(regions))}
    table = pd.DataFrame({"region": np.repeat(regions, BINS), **place})
    table[list(SUMS)] = sums[: len(regions)].reshape(-1, len(SUMS))
    return _with_ratios(table.astype(dict.fromkeys(SUMS[:2], np.int64)))


def added(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The reliability bins of all slices from those of parts of them."""
    sums = sum(table[list(SUMS)] for table in tables)
    return _with_ratios(tables[0].assign(**{name: sums[name] for name in SUMS}))


def _with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    filled = table["pixels"].where(table["pixels"] > 0)
    return table.assign(
        mean_probability=table["probability_sum"] / filled, lesion_share=table["lesion_pixels"] / filled
    )


def brier_skill(bins: pd.DataFrame) -> float:
    """1 - Brier score / that of saying the lesion share everywhere, of one region's rows of `reliability_bins`.

    The Brier score is the mean squared error of the probability (Brier 1950), exact, not from the bins' means. Above 0
    is better than knowing nothing but how rare lesions are. NaN without a lesion.
    """
    pixels, lesion, error = bins[["pixels", "lesion_pixels", "squared_error_sum"]].sum()
    share = lesion / pixels if pixels else 0
    return 1 - error / pixels / (share * (1 - share)) if 0 < share < 1 else float("nan")


def soft_counts(probabilities: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Counts with each pixel split by its probability, so that `metrics.score` gives soft Dice and its like.

    probabilities: [k,H,W] float in [0, 1], or masks bool; truth: [k,H,W] bool
    returns: one row per slice, columns tp, fp, fn, tn (float64, pixels): tp = sum of p over the lesion, fp = sum of p
    elsewhere, fn and tn the rest. A mask gives the numbers of `metrics.pixel_counts`
    raises: ValueError where the two do not fit, or a probability is NaN or outside [0, 1]

    Dice of these counts is 2 sum(p t) / (sum p + sum t), the form of MONAI's DiceLoss without its smoothing; V-Net's
    form with squares in the denominator is another number. No sigmoid is ever 0, so without a lesion soft Dice is 0
    and not 0/0, unless p was rounded to 0.
    """
    truth = _checked(truth, probabilities=probabilities)
    if np.asarray(probabilities).dtype == bool:
        return metrics.pixel_counts(np.asarray(probabilities), truth).astype(np.float64)
    rows = np.zeros((len(truth), 4))
    for k, y in enumerate(truth):
        p = _slice(probabilities, k)
        tp, fp, lesion = p[y].sum(), p[~y].sum(), np.count_nonzero(y)
        # Rounding must not turn a full score into a count below 0.
        rows[k] = tp, fp, max(lesion - tp, 0), max(y.size - lesion - fp, 0)
    return pd.DataFrame(rows, columns=list(metrics.COUNTS))


def _tally(probabilities: np.ndarray, first: int, truth: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values float64 [v] that occur, or may; pixels with each value, int64 [4,v], without and with lesion, each in the
    air and in the head) of the slices `first` and following, [n,H,W]."""
    if probabilities.dtype == bool:
        every, called = (_by_group(own, truth, head) for own in (None, probabilities))
        return np.array([0.0, 1.0]), np.stack([every - called, called], axis=1)
    if probabilities.dtype == np.float16:  # few values, so counting their bits is faster than any sum
        bits, values = probabilities.view(np.uint16), HALVES
        if (bits >= len(HALVES)).any():
            bits = (_in_range(probabilities, first) + np.float16(0)).view(np.uint16)  # 0 for -0
    else:
        values, bits = np.unique(_in_range(probabilities, first), return_inverse=True)
    group = 2 * truth + head
    pixels = np.bincount((group * len(values) + bits.reshape(group.shape)).ravel(), minlength=4 * len(values))
    return values.astype(np.float64), pixels.reshape(4, -1)


def _by_group(within: np.ndarray | None, truth: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Pixels within a mask, or of all, int64 [4]: without and with lesion, each in the air and in the head."""
    lesion, inside = (truth, head) if within is None else (truth & within, head & within)
    both = np.count_nonzero(lesion & head)
    lesions, insides = np.count_nonzero(lesion), np.count_nonzero(inside)
    everything = truth.size if within is None else np.count_nonzero(within)
    return np.array([everything - lesions - insides + both, insides - both, lesions - both, both])


def _checked(truth: np.ndarray, **others: np.ndarray) -> np.ndarray:
    truth = np.asarray(truth)
    if truth.dtype != bool or truth.ndim != 3:
        raise ValueError(f"truth must be bool [k,H,W]; it is {truth.dtype} of shape {truth.shape}")
    for name, array in others.items():
        if np.shape(array) != truth.shape:
            raise ValueError(f"{name} {np.shape(array)} and truth {truth.shape} must have the same [k,H,W]")
    return truth


def _slice(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Slice k as float64: a float16 sum would stop growing at a few thousand pixels."""
    return _in_range(np.asarray(probabilities[k : k + 1], dtype=np.float64), k)[0]


def _in_range(probabilities: np.ndarray, first: int) -> np.ndarray:
    """The probabilities [n,H,W] of slices `first` and following; ValueError where one is none."""
    if not (probabilities.min() >= 0 and probabilities.max() <= 1):  # also False for NaN
        wrong = ~((probabilities >= 0) & (probabilities <= 1)).all((1, 2))
        raise ValueError(f"probabilities of slice {first + np.flatnonzero(wrong)[0]} are NaN or outside [0, 1]")
    return probabilities
