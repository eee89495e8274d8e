"""Scores against values worked out by hand, against the properties they must have, and against the libraries."""

import warnings

import monai.metrics
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import classification, segmentation
from torchmetrics.functional import classification as functional

from sahlib.scoring import metrics
from sahlib.scoring.metrics import CONVENTIONS, METRICS, score


def masks(*rows):
    """Slices of one row each, drawn as text: '#' is lesion."""
    return np.array([[[c == "#" for c in row]] for row in rows])


# Four slices of 1x8 pixels, two patients:
#                      predicted   lesion      tp fp fn tn   Dice  IoU  precision  recall  F1
#   0  ann, partly    ####....   ..######       2  2  4  0   4/10  2/8     2/4       2/6   4/10
#   1  ann, missed    ........   ##......       0  0  2  6    0     0      0/0        0     0
#   2  bob, rightly   ........   ........       0  0  0  8   0/0   0/0     0/0       0/0   0/0
#   3  bob, alarm     ##......   ........       0  2  0  6    0     0       0        0/0    0
PREDICTION = masks("####....", "........", "........", "##......")
TRUTH = masks("..######", "##......", "........", "........")
COUNTS = metrics.pixel_counts(PREDICTION, TRUTH).assign(patient_id=["ann", "ann", "bob", "bob"])

BY_HAND = {
    # (0.4 + 0 + [0/0] + 0) / 4 and so on, with [0/0] = 1
    "mean_empty_1": {"dice": 1.4 / 4, "iou": 1.25 / 4, "precision": 2.5 / 4, "recall": (1 / 3 + 0 + 1 + 1) / 4, "f1": 1.4 / 4},  # noqa: E501
    "mean_empty_0": {"dice": 0.4 / 4, "iou": 0.25 / 4, "precision": 0.5 / 4, "recall": (1 / 3) / 4, "f1": 0.4 / 4},
    # three slices have a Dice, two a precision (0 and 3), two a recall (0 and 1)
    "mean_empty_excluded": {"dice": 0.4 / 3, "iou": 0.25 / 3, "precision": 0.5 / 2, "recall": (1 / 3) / 2, "f1": 0.4 / 3},  # noqa: E501
    # slices 0 and 1; the missed lesion has precision 0
    "sah_slices": {"dice": 0.4 / 2, "iou": 0.25 / 2, "precision": 0.5 / 2, "recall": (1 / 3) / 2, "f1": 0.4 / 2},
    # tp 2, fp 4, fn 6
    "pooled": {"dice": 4 / 14, "iou": 2 / 12, "precision": 2 / 6, "recall": 2 / 8, "f1": 4 / 14},
    # all four in one batch of 16
    "batches": {"dice": 4 / 14, "iou": 2 / 12, "precision": 2 / 6, "recall": 2 / 8, "f1": 4 / 14},
    # ann: tp 2, fp 2, fn 6; bob: tp 0, fp 2, fn 0, so his recall is 0/0 and is left out
    "per_patient": {"dice": (4 / 12 + 0) / 2, "iou": (2 / 10 + 0) / 2, "precision": (2 / 4 + 0) / 2, "recall": 2 / 8,
                        "f1": (4 / 12 + 0) / 2},
}  # fmt: skip


def test_counts_by_hand():
    assert COUNTS[["tp", "fp", "fn", "tn"]].values.tolist() == [[2, 2, 4, 0], [0, 0, 2, 6], [0, 0, 0, 8], [0, 2, 0, 6]]
    assert (COUNTS[["tp", "fp", "fn", "tn"]].dtypes == np.int64).all()


def test_slice_scores_by_hand():
    nan = np.nan
    np.testing.assert_allclose(metrics.dice(COUNTS), [0.4, 0, nan, 0])
    np.testing.assert_allclose(metrics.iou(COUNTS), [0.25, 0, nan, 0])
    np.testing.assert_allclose(metrics.precision(COUNTS), [0.5, nan, nan, 0])
    np.testing.assert_allclose(metrics.recall(COUNTS), [1 / 3, 0, nan, nan])
    np.testing.assert_allclose(metrics.f1(COUNTS), [0.4, 0, nan, 0])


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_conventions_by_hand(convention, metric):
    assert score(COUNTS, metric, convention) == pytest.approx(BY_HAND[convention][metric])


def test_batches_are_cut_in_store_order_and_the_last_may_be_short():
    # Three and one: tp 2, fp 2, fn 6 makes Dice 4/12; slice 3 alone makes 0, its recall 0/0 counts as 0.
    assert score(COUNTS, "dice", "batches", batch_size=3) == pytest.approx((4 / 12 + 0) / 2)
    assert score(COUNTS, "recall", "batches", batch_size=3) == pytest.approx((2 / 8 + 0) / 2)
    assert score(COUNTS, "precision", "batches", batch_size=1) == pytest.approx(0.5 / 4)
    assert len(metrics.unit_counts(pd.concat([COUNTS] * 9), "batches")) == 3  # 36 slices: 16, 16, 4
    order = COUNTS.iloc[[0, 3, 1, 2]]  # another order, other batches, another score
    assert score(order, "dice", "batches", batch_size=2) == pytest.approx((4 / 12 + 0) / 2)


def test_unit_counts_by_hand():
    per_patient = metrics.unit_counts(COUNTS, "per_patient")
    assert per_patient.index.tolist() == ["ann", "bob"]
    assert per_patient.to_numpy().tolist() == [[2, 2, 6, 6], [0, 2, 0, 14]]
    assert metrics.unit_counts(COUNTS, "pooled").to_numpy().tolist() == [[2, 4, 6, 20]]
    assert metrics.unit_counts(COUNTS, "sah_slices").index.tolist() == [0, 1]


def test_f1_mean_is_not_the_harmonic_mean_of_the_means():
    # One slice with precision 1 and recall 1/2, one the other way round: F1 is 2/3 in both and so in the mean, while
    # the harmonic mean of the means 3/4 and 3/4 is 3/4. A printed F1 below that of the printed P and R was averaged.
    counts = pd.DataFrame({"tp": [1, 1], "fp": [0, 1], "fn": [1, 0], "tn": [2, 2]})
    found = {m: score(counts, m, "mean_empty_0") for m in ("precision", "recall", "f1")}
    assert found == pytest.approx({"precision": 3 / 4, "recall": 3 / 4, "f1": 2 / 3})


# Nothing to find, or nothing found.

EMPTY = metrics.pixel_counts(np.zeros((3, 2, 2), bool), np.zeros((3, 2, 2), bool)).assign(patient_id=["a", "a", "b"])
MISSED = metrics.pixel_counts(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)).assign(patient_id=["a", "b"])
ALARMS = metrics.pixel_counts(np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)).assign(patient_id=["a", "b"])
NAN = float("nan")


@pytest.mark.parametrize(
    ("counts", "convention", "dice", "precision", "recall"),
    [
        (EMPTY, "mean_empty_1", 1, 1, 1),
        (EMPTY, "mean_empty_0", 0, 0, 0),
        (EMPTY, "mean_empty_excluded", NAN, NAN, NAN),
        (EMPTY, "sah_slices", NAN, NAN, NAN),
        (EMPTY, "pooled", 0, 0, 0),
        (EMPTY, "batches", 0, 0, 0),
        (EMPTY, "per_patient", NAN, NAN, NAN),
        (MISSED, "mean_empty_1", 0, 1, 0),
        (MISSED, "mean_empty_0", 0, 0, 0),
        (MISSED, "mean_empty_excluded", 0, NAN, 0),
        (MISSED, "sah_slices", 0, 0, 0),
        (MISSED, "pooled", 0, 0, 0),
        (MISSED, "batches", 0, 0, 0),
        (MISSED, "per_patient", 0, NAN, 0),
        (ALARMS, "mean_empty_1", 0, 0, 1),
        (ALARMS, "mean_empty_0", 0, 0, 0),
        (ALARMS, "mean_empty_excluded", 0, 0, NAN),
        (ALARMS, "sah_slices", NAN, NAN, NAN),
        (ALARMS, "pooled", 0, 0, 0),
        (ALARMS, "batches", 0, 0, 0),
        (ALARMS, "per_patient", 0, 0, NAN),
    ],
)
def test_empty_cases(counts, convention, dice, precision, recall):
    expected = {"dice": dice, "iou": dice, "precision": precision, "recall": recall, "f1": dice}
    for metric, value in expected.items():
        assert score(counts, metric, convention) == pytest.approx(value, nan_ok=True), metric


def test_background_everywhere_is_flattered_by_counting_empty_as_one():
    # Nine slices in ten without lesion: the trivial predictor gets 0.9, and is called collapsed.
    truth = np.zeros((10, 2, 2), bool)
    truth[0, 0, 0] = True
    prediction = truth | (np.arange(10) == 9)[:, None, None]
    trivial = metrics.background_everywhere(metrics.pixel_counts(prediction, truth))
    assert score(trivial, "dice", "mean_empty_1") == pytest.approx(0.9)
    assert score(trivial, "dice", "sah_slices") == score(trivial, "dice", "pooled") == 0
    pd.testing.assert_frame_equal(trivial, metrics.pixel_counts(np.zeros_like(truth), truth))
    assert metrics.is_collapsed(trivial)


def test_collapse_needs_a_lesion_and_no_prediction():
    assert metrics.is_collapsed(MISSED)
    assert not metrics.is_collapsed(EMPTY)  # nothing to find, nothing found: no collapse
    assert not metrics.is_collapsed(ALARMS)
    assert not metrics.is_collapsed(COUNTS)


def test_all_scores_is_tidy_and_agrees_with_score():
    table = metrics.all_scores(COUNTS, batch_size=3)
    assert table.columns.tolist() == ["convention", "metric", "value", "units", "undefined"]
    assert len(table) == len(CONVENTIONS) * len(METRICS)
    assert not table.duplicated(["convention", "metric"]).any()
    for row in table.itertuples():
        assert row.value == pytest.approx(score(COUNTS, row.metric, row.convention, batch_size=3))
    table = table.set_index(["convention", "metric"])
    assert table.loc[("mean_empty_excluded", "precision"), ["units", "undefined"]].tolist() == [2, 2]
    assert table.loc[("mean_empty_0", "precision"), ["units", "undefined"]].tolist() == [4, 2]
    assert table.loc[("sah_slices", "dice"), ["units", "undefined"]].tolist() == [2, 0]
    assert metrics.all_scores(EMPTY).set_index(["convention", "metric"]).loc[("sah_slices", "dice"), "units"] == 0


# Properties

SIDE = 4
slices = st.lists(
    st.tuples(st.integers(0, SIDE), st.integers(0, SIDE), st.integers(0, SIDE), st.integers(0, SIDE)),
    min_size=1, max_size=40,
)  # fmt: skip


def frame(rows):
    counts = pd.DataFrame(rows, columns=["tp", "fp", "fn", "tn"], dtype=np.int64)
    return counts.assign(patient_id=np.arange(len(counts)) // 3)


@settings(deadline=None, max_examples=40)
@given(slices)
def test_per_slice_dice_is_f1_and_follows_from_iou(rows):
    counts = frame(rows)
    dice, iou, f1 = metrics.dice(counts), metrics.iou(counts), metrics.f1(counts)
    np.testing.assert_allclose(dice, f1)
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))
    p, r = metrics.precision(counts), metrics.recall(counts)
    both = (p > 0) & (r > 0)
    np.testing.assert_allclose(f1[both], 2 / (1 / p[both] + 1 / r[both]))


@settings(deadline=None, max_examples=25)
@given(slices)
def test_scores_lie_between_0_and_1_and_dice_is_f1_under_every_convention(rows):
    table = metrics.all_scores(frame(rows))
    assert table.value.dropna().between(0, 1).all()
    wide = table.pivot(index="convention", columns="metric", values="value")
    np.testing.assert_allclose(wide.dice, wide.f1)
    assert (wide.iou.dropna() <= wide.dice.dropna() + 1e-12).all()


@settings(deadline=None, max_examples=25)
@given(slices)
def test_swapping_prediction_and_truth_swaps_precision_and_recall(rows):
    counts = frame(rows)
    swapped = counts.rename(columns={"fp": "fn", "fn": "fp"})
    for name in CONVENTIONS.keys() - {"sah_slices"}:  # that one looks at the truth to choose its slices
        for one, other in [("dice", "dice"), ("iou", "iou"), ("f1", "f1"), ("precision", "recall")]:
            assert score(counts, one, name) == pytest.approx(score(swapped, other, name), nan_ok=True)


@settings(deadline=None, max_examples=40)
@given(slices)
def test_pooled_lies_between_the_lowest_and_the_highest_slice(rows):
    counts = frame(rows)
    for metric in METRICS:
        values = metrics.unit_scores(counts, metric, "mean_empty_excluded").dropna()
        if len(values):
            assert values.min() - 1e-12 <= score(counts, metric, "pooled") <= values.max() + 1e-12


@settings(deadline=None, max_examples=40)
@given(slices)
def test_what_0_over_0_counts_as_orders_the_means(rows):
    counts = frame(rows)
    for metric in METRICS:
        low, high = score(counts, metric, "mean_empty_0"), score(counts, metric, "mean_empty_1")
        middle = score(counts, metric, "mean_empty_excluded")
        assert low <= high
        assert np.isnan(middle) or low - 1e-12 <= middle <= high + 1e-12


@settings(deadline=None, max_examples=40)
@given(slices)
def test_one_slice_per_unit_makes_the_unit_the_slice(rows):
    counts = frame(rows).assign(patient_id=range(len(rows)))
    for metric in METRICS:
        assert score(counts, metric, "per_patient") == pytest.approx(
            score(counts, metric, "mean_empty_excluded"), nan_ok=True
        )
        assert score(counts, metric, "batches", batch_size=1) == pytest.approx(score(counts, metric, "mean_empty_0"))
        assert score(counts, metric, "batches", batch_size=len(rows)) == pytest.approx(score(counts, metric, "pooled"))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_counts_add_up(seed):
    prediction, truth = random_masks(seed)
    counts = metrics.pixel_counts(prediction, truth)
    assert (counts.sum(axis=1) == prediction[0].size).all()
    assert (counts.tp + counts.fp == prediction.sum((1, 2))).all()
    assert (counts.tp + counts.fn == truth.sum((1, 2))).all()
    pd.testing.assert_frame_equal(
        metrics.pixel_counts(truth, prediction).rename(columns={"fp": "fn", "fn": "fp"})[counts.columns], counts
    )


# Errors


def test_errors_name_the_argument_and_the_shape():
    good = np.zeros((2, 4, 4), bool)
    with pytest.raises(ValueError, match=r"prediction must be \[N,H,W\].*\(4, 4\)"):
        metrics.pixel_counts(good[0], good)
    with pytest.raises(ValueError, match=r"truth must be bool.*uint8.*\(2, 4, 4\)"):
        metrics.pixel_counts(good, good.astype(np.uint8))
    with pytest.raises(ValueError, match=r"prediction \(2, 4, 4\) and truth \(1, 4, 4\)"):
        metrics.pixel_counts(good, good[:1])
    with pytest.raises(ValueError, match="counts has no column fn"):
        metrics.dice(COUNTS.drop(columns="fn"))
    with pytest.raises(ValueError, match="counts has no column patient_id"):
        score(COUNTS.drop(columns="patient_id"), "dice", "per_patient")
    with pytest.raises(ValueError, match="1 rows without a patient_id"):
        score(COUNTS.assign(patient_id=["a", "a", None, "b"]), "dice", "per_patient")
    with pytest.raises(ValueError, match="metric 'jaccard' is not known; choose one of dice"):
        score(COUNTS, "jaccard", "pooled")
    with pytest.raises(ValueError, match="convention 'mean' is not known; choose one of mean_empty_1"):
        score(COUNTS, "dice", "mean")
    with pytest.raises(ValueError, match="no rows"):
        score(COUNTS.iloc[:0], "dice", "pooled")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        score(COUNTS, "dice", "batches", batch_size=0)


# The libraries. Every kind of slice is in the masks: hit, miss, false alarm, rightly empty.


def random_masks(seed, slices=20, side=6):
    rng = np.random.default_rng(seed)
    prediction, truth = (rng.random((slices, side, side)) < 0.4 for _ in range(2))
    prediction[rng.random(slices) < 0.4] = False
    truth[rng.random(slices) < 0.4] = False
    prediction[0], truth[0] = False, False
    prediction[1], truth[1] = False, True
    prediction[2], truth[2] = True, False
    truth[3, 0, 0] = prediction[3, 0, 0] = True
    return prediction, truth


@pytest.fixture(params=[0, 1, 2, 3])
def pair(request):
    prediction, truth = random_masks(request.param)
    return prediction, truth, metrics.pixel_counts(prediction, truth)


def test_scikit_learn(pair):
    theirs = sklearn.metrics
    functions = {
        "dice": theirs.f1_score, "iou": theirs.jaccard_score, "precision": theirs.precision_score,
        "recall": theirs.recall_score, "f1": theirs.f1_score,
    }  # fmt: skip
    prediction, truth, counts = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zero_division="warn", the default, warns
        for metric, function in functions.items():
            pooled = function(truth.ravel(), prediction.ravel())
            each = [function(t.ravel(), p.ravel()) for t, p in zip(truth, prediction, strict=True)]
            ones = [function(t.ravel(), p.ravel(), zero_division=1) for t, p in zip(truth, prediction, strict=True)]
            cut = [slice(0, 16), slice(16, 32)]
            batches = [function(truth[c].ravel(), prediction[c].ravel()) for c in cut]
            assert score(counts, metric, "pooled") == pytest.approx(pooled)
            assert score(counts, metric, "mean_empty_0") == pytest.approx(np.mean(each))
            assert score(counts, metric, "mean_empty_1") == pytest.approx(np.mean(ones))
            assert score(counts, metric, "batches") == pytest.approx(np.mean(batches))


def test_monai(pair):
    prediction, truth, counts = pair
    y_pred, y = (torch.from_numpy(m[:, None].astype(np.float32)) for m in (prediction, truth))
    for cls, metric in [(monai.metrics.DiceMetric, "dice"), (monai.metrics.MeanIoU, "iou")]:
        for kwargs, convention in [
            ({}, "sah_slices"),
            ({"ignore_empty": True}, "sah_slices"),
            ({"ignore_empty": False}, "mean_empty_1"),
        ]:
            theirs = cls(**kwargs)
            theirs(y_pred, y)
            assert score(counts, metric, convention) == pytest.approx(theirs.aggregate().item(), rel=1e-6)


def test_monai_gives_0_where_no_slice_has_a_lesion():
    # The one case in which sah_slices is not MONAI's default: no score is not a score of 0.
    for cls, metric in [(monai.metrics.DiceMetric, "dice"), (monai.metrics.MeanIoU, "iou")]:
        theirs = cls()
        theirs(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))
        assert theirs.aggregate().item() == 0
        assert np.isnan(score(EMPTY, metric, "sah_slices"))


def test_torchmetrics(pair):
    prediction, truth, counts = pair
    preds, target = torch.from_numpy(prediction.astype(int)), torch.from_numpy(truth.astype(int))
    pooled = {
        "f1": classification.BinaryF1Score, "dice": classification.BinaryF1Score,
        "iou": classification.BinaryJaccardIndex,
        "precision": classification.BinaryPrecision, "recall": classification.BinaryRecall,
    }  # fmt: skip
    for metric, cls in pooled.items():
        whole = cls()
        for start in (0, 16):  # a metric object pools what it is shown
            whole.update(preds[start : start + 16], target[start : start + 16])
        assert score(counts, metric, "pooled") == pytest.approx(whole.compute().item(), rel=1e-6)
        # ... while the mean of what it returns per batch is another number
        forward = [cls()(preds[s : s + 16], target[s : s + 16]).item() for s in (0, 16)]
        assert score(counts, metric, "batches") == pytest.approx(np.mean(forward), rel=1e-6)
    samplewise = {"f1": functional.binary_f1_score, "precision": functional.binary_precision,
                      "recall": functional.binary_recall}  # fmt: skip
    for metric, function in samplewise.items():
        each = function(preds, target, multidim_average="samplewise")
        assert score(counts, metric, "mean_empty_0") == pytest.approx(each.mean().item(), rel=1e-6)

    one_hot = preds[:, None], target[:, None]
    for cls, metric in [(segmentation.DiceScore, "dice"), (segmentation.MeanIoU, "iou")]:
        theirs = cls(num_classes=1)
        theirs.update(*one_hot)
        assert score(counts, metric, "mean_empty_excluded") == pytest.approx(theirs.compute().item(), rel=1e-6)
    theirs = segmentation.DiceScore(num_classes=1, aggregation_level="global")
    theirs.update(*one_hot)
    assert score(counts, "dice", "pooled") == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_libraries_disagree_with_each_other_on_the_same_masks():
    # What makes the conventions worth their names: one pair of mask stacks, five different "Dice" scores.
    prediction, truth = random_masks(0)
    counts = metrics.pixel_counts(prediction, truth)
    names = ["mean_empty_1", "mean_empty_0", "mean_empty_excluded", "sah_slices", "pooled"]
    assert len({round(score(counts, "dice", n), 3) for n in names}) == 5
