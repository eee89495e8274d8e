"""Pixel counts per slice; every score is a function of those counts and of a named convention.

A score of one slice is a ratio of counts, and 0/0 when there is nothing to count. How many slices that hits, and what
stands in for it, moves the mean over a test set more than most architectures do: where one slice in ten bleeds,
"background everywhere" gets a mean Dice of 0.9 if empty-against-empty counts as 1, and 0 if it counts as 0. So a score
here never goes without the `Convention` it was taken under.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

COUNTS = ("tp", "fp", "fn", "tn")
LABELS = {"dice": "Dice", "iou": "IoU", "precision": "Precision", "recall": "Recall", "f1": "F1"}
METRICS = tuple(LABELS)


def pixel_counts(prediction: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Counts agreeing and disagreeing pixels, slice by slice.

    prediction, truth: [N,H,W] bool, True where a pixel is (said to be) lesion
    returns: one row per slice, columns tp, fp, fn, tn (int64, pixels); they add up to H*W
    raises: ValueError naming the argument where it is not bool, not [N,H,W], or the two differ in shape
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.ndim != 3:
            raise ValueError(f"{name} must be [N,H,W]; its shape is {mask.shape}")
        if mask.dtype != bool:  # class indices above 1 would be counted as lesion without a word
            found = f"{mask.dtype} of shape {mask.shape}"
            raise ValueError(f"{name} must be bool, for instance labels == SAH; it is {found}")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must have the same [N,H,W]")
    pixels = prediction.shape[1] * prediction.shape[2]
    # Slice by slice, because count_nonzero along axes is a sum, which takes ten times as long.
    masks = (prediction, truth, prediction & truth)
    predicted, lesion, tp = (np.fromiter(map(np.count_nonzero, mask), np.int64, len(mask)) for mask in masks)
    columns = {"tp": tp, "fp": predicted - tp, "fn": lesion - tp, "tn": pixels - predicted - lesion + tp}
    return pd.DataFrame(columns, dtype=np.int64)


def box_around(mask: np.ndarray) -> tuple[slice, slice]:
    """(rows, columns) of the smallest box that holds every pixel of a mask [H,W] bool, which has some."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def background_everywhere(counts: pd.DataFrame) -> pd.DataFrame:
    """The counts on the same slices of the trivial predictor that calls every pixel background."""
    counts = checked(counts)
    lesion, pixels = counts.tp + counts.fn, counts[list(COUNTS)].sum(axis=1)
    return counts.assign(tp=0, fp=0, fn=lesion, tn=pixels - lesion)


def is_collapsed(counts: pd.DataFrame) -> bool:
    """True if not one pixel of any slice was called lesion although some are: no scores should go out unlabelled."""
    counts = checked(counts)
    return bool((counts.tp + counts.fp).sum() == 0 and (counts.tp + counts.fn).sum() > 0)


# Scores row by row. 0/0 is NaN: a row cannot know what its 0/0 should count as, a convention does.


def dice(counts: pd.DataFrame) -> np.ndarray:
    """2 |P and G| / (|P| + |G|) of each row (formula 1 of the paper); NaN where neither mask has a pixel."""
    tp, predicted, lesion = _sizes(counts)
    return _ratio(2 * tp, predicted + lesion)


def iou(counts: pd.DataFrame) -> np.ndarray:
    """|P and G| / |P or G| of each row (formula 2 of the paper); NaN where neither mask has a pixel."""
    tp, predicted, lesion = _sizes(counts)
    return _ratio(tp, predicted + lesion - tp)


def precision(counts: pd.DataFrame) -> np.ndarray:
    """Share of predicted pixels that are lesion, tp / (tp + fp), of each row; NaN where nothing was predicted."""
    tp, predicted, _ = _sizes(counts)
    return _ratio(tp, predicted)


def recall(counts: pd.DataFrame) -> np.ndarray:
    """Share of lesion pixels that were found, tp / (tp + fn), of each row; NaN where there is no lesion."""
    tp, _, lesion = _sizes(counts)
    return _ratio(tp, lesion)


def f1(counts: pd.DataFrame) -> np.ndarray:
    """Harmonic mean of precision and recall of each row, written 2 tp / (2 tp + fp + fn); NaN where all three are 0.

    So written it is Dice, and 0, as in scikit-learn, where a lesion was missed without any prediction: there is no
    precision then, and the harmonic mean would be NaN.
    """
    counts = checked(counts)
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


SCORES = {"dice": dice, "iou": iou, "precision": precision, "recall": recall, "f1": f1}


@dataclass(frozen=True)
class Convention:
    """How scores of slices become one number.

    unit       what a score is taken of before the mean: "slice", "batch", "patient" or "all" (one unit: no mean)
    undefined  what a unit's 0/0 counts as; NaN: the unit is left out of the mean, and if none is left the score is NaN
    lesions    True: slices without a lesion in the truth are left out

    "0/0" is each metric's own, so under mean_empty_1 a false positive on a slice without lesion has recall 1 and all
    else 0, and a lesion missed without any prediction precision 1 and all else 0.
    """

    name: str
    label: str
    unit: str
    undefined: float
    lesions: bool = False


CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention("mean_empty_1", "mean over slices, 0/0 = 1", "slice", 1.0),
        # A rightly empty prediction is punished like a miss.
        Convention("mean_empty_0", "mean over slices, 0/0 = 0", "slice", 0.0),
        # A false positive on a slice without lesion stays in as Dice 0.
        Convention("mean_empty_excluded", "mean over slices, 0/0 left out", "slice", float("nan")),
        # False positives elsewhere are not seen, and a lesion missed without any prediction has precision 0.
        Convention("sah_slices", "mean over SAH slices only, 0/0 = 0", "slice", 0.0, lesions=True),
        # One score of the pixels of all slices: large lesions weigh most.
        Convention("pooled", "all pixels pooled", "all", 0.0),
        # Batches are in store order, the last one perhaps short.
        Convention("batches", "pooled per batch, 0/0 = 0, mean over batches", "batch", 0.0),
        Convention("per_patient", "pooled per patient, mean over patients", "patient", float("nan")),
    )
}
# Settings of libraries that give the number of a convention, for the metrics named there. What the libraries do was
# read in their sources: MONAI 1.6.1 (metrics/meandice.py, meaniou.py), scikit-learn 1.9.1
# (metrics/_classification.py), torchmetrics 1.9.0 (segmentation/dice.py, mean_iou.py, functional/classification),
# segmentation_models.pytorch 5006616 (metrics/functional.py), nnU-Net 0e49508 (evaluation/evaluate_predictions.py),
# MetricsReloaded ca3d352 (metrics/pairwise_measures.py). Tests hold the first three to it.
SAME_AS = {
    "mean_empty_1": (
        "segmentation_models.pytorch, reduction='micro-imagewise' (zero_division=1.0 is its default): all metrics",
        "MONAI DiceMetric(ignore_empty=False), MeanIoU(ignore_empty=False): Dice, IoU",
        "MetricsReloaded dsc() of each slice, then the mean: Dice alone",
    ),
    "mean_empty_0": (
        "scikit-learn f1_score, jaccard_score, precision_score, recall_score of each slice, then the mean "
        "(zero_division='warn', the default, gives 0): all metrics",
        "torchmetrics binary_f1_score, binary_precision, binary_recall with multidim_average='samplewise' "
        "(zero_division=0 is the default), then the mean: precision, recall, F1",
    ),
    "mean_empty_excluded": (
        "nnU-Net, its nanmean over cases, with a slice as a case: Dice, IoU",
        "torchmetrics DiceScore(num_classes=1), MeanIoU(num_classes=1) on the lesion channel alone: Dice, IoU",
        "MetricsReloaded intersection_over_union() and recall() of each slice, then a nanmean: IoU, recall",
    ),
    "sah_slices": (
        "MONAI DiceMetric(ignore_empty=True), MeanIoU(ignore_empty=True), both the default: Dice, IoU "
        "(except that MONAI gives 0 and this NaN if no slice has a lesion)",
    ),
    "pooled": (
        "scikit-learn f1_score, jaccard_score, precision_score, recall_score on the flattened masks: all metrics",
        "torchmetrics BinaryF1Score, BinaryJaccardIndex, BinaryPrecision, BinaryRecall: all metrics",
        "segmentation_models.pytorch, reduction='micro' (except 0/0, which that leaves NaN): all metrics",
        "torchmetrics DiceScore(aggregation_level='global'), lesion channel alone (except 0/0, NaN there): Dice",
    ),
    "batches": (
        "an evaluation loop that averages scikit-learn's or torchmetrics' binary scores of each batch: all metrics",
    ),
    "per_patient": ("nnU-Net, its nanmean over cases, with a patient's scan as a case: Dice, IoU",),
}


def unit_counts(counts: pd.DataFrame, convention: str | Convention, batch_size: int = 16) -> pd.DataFrame:
    """The counts of the units (slices, batches, patients, or all in one row) that a convention scores.

    returns: columns tp, fp, fn, tn; the index is the slice's row, the batch's number, the patient_id or "all"
    """
    convention = convention_of(convention)
    counts = checked(counts, (*COUNTS, "patient_id") if convention.unit == "patient" else COUNTS)
    if len(counts) == 0:
        raise ValueError("counts has no rows, so there is nothing to score")
    if convention.lesions:
        counts = counts[(counts.tp + counts.fn) > 0]
    numbers = counts[list(COUNTS)]
    if convention.unit == "slice":
        return numbers
    if convention.unit == "patient":
        return numbers.groupby(counts["patient_id"], sort=False).sum()
    if convention.unit == "all":
        return numbers.sum().to_frame("all").T
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; it is {batch_size}")
    return numbers.groupby(np.arange(len(numbers)) // batch_size).sum()


def unit_scores(counts: pd.DataFrame, metric: str, convention: str | Convention, batch_size: int = 16) -> pd.Series:
    """The score of each unit, 0/0 already replaced as the convention says; their mean without NaN is `score`."""
    if metric not in SCORES:
        raise ValueError(f"metric {metric!r} is not known; choose one of {', '.join(METRICS)}")
    convention = convention_of(convention)
    units = unit_counts(counts, convention, batch_size)
    return pd.Series(SCORES[metric](units), index=units.index, name=metric).fillna(convention.undefined)


def score(counts: pd.DataFrame, metric: str, convention: str | Convention, batch_size: int = 16) -> float:
    """One number for a test set.

    counts: one row per slice in store order, columns tp, fp, fn, tn, and patient_id for per_patient
    metric: one of METRICS; convention: one of CONVENTIONS or its name; batch_size: slices, for "batches" alone
    returns: a float in [0, 1], or NaN if no unit has a defined score
    raises: ValueError for an unknown name, a missing column, or no rows
    """
    return float(unit_scores(counts, metric, convention, batch_size).mean())  # pandas leaves NaN out


def all_scores(counts: pd.DataFrame, batch_size: int = 16) -> pd.DataFrame:
    """Every metric under every convention.

    returns: columns convention, metric, value, units (how many scores the mean is of) and undefined (units that were
    0/0, whatever the convention made of them), one row per pair
    """
    rows = []
    for name, convention in CONVENTIONS.items():
        units = unit_counts(counts, convention, batch_size)
        for metric in METRICS:
            scores = unit_scores(counts, metric, convention, batch_size)
            undefined = int(np.isnan(SCORES[metric](units)).sum())
            rows.append((name, metric, float(scores.mean()), int(scores.count()), undefined))
    return pd.DataFrame(rows, columns=["convention", "metric", "value", "units", "undefined"])


def checked(counts: pd.DataFrame, columns: Sequence[str] = COUNTS, name: str = "counts") -> pd.DataFrame:
    """`counts`; ValueError where one of `columns` is missing, or a patient_id in it."""
    if missing := [c for c in columns if c not in counts]:
        raise ValueError(f"{name} has no column {', '.join(missing)}; it has {', '.join(map(str, counts.columns))}")
    if "patient_id" in columns and (unknown := counts["patient_id"].isna().sum()):
        raise ValueError(f"{name} has {unknown} rows without a patient_id")  # groupby would drop them without a word
    return counts


def convention_of(convention: str | Convention) -> Convention:
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is not known; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]


def _sizes(counts: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    counts = checked(counts)
    return counts.tp, counts.tp + counts.fp, counts.tp + counts.fn


def _ratio(numerator: pd.Series, denominator: pd.Series) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator != 0)
