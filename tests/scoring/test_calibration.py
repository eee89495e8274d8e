"""Reliability, Brier score and soft counts by hand and against scikit-learn and MONAI."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from sahlib.scoring import metrics
from sahlib.scoring.calibration import brier_skill, reliability_bins, soft_counts


def predictions(slices=4, size=16, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((slices, size, size)).astype(np.float16)
    truth = rng.random(probabilities.shape) < probabilities.astype(float) ** 2
    images = np.where(rng.random(truth.shape) < 0.5, 0, 90).astype(np.uint8)
    return probabilities, truth, images


def one_row(*values):
    return np.array([[values]])


def bright(truth):
    """Images in which all is head."""
    return np.full(np.shape(truth), 90, np.uint8)


def regions(table):
    """The rows of "all pixels", and those of "head"."""
    return [table[table["region"] == region] for region in ("all pixels", "head")]


def test_bins_by_hand():
    # 0, 0.05 and 0.1 in the first bin (closed above), 0.86 and 0.9 in the ninth
    truth = one_row(False, False, True, False, True)
    table = reliability_bins(one_row(0, 0.05, 0.1, 0.86, 0.9), truth, bright(truth))
    for rows in regions(table):
        np.testing.assert_allclose(rows[["low", "high"]], [[k / 10, (k + 1) / 10] for k in range(10)])
        assert rows["pixels"].tolist() == [3, *[0] * 7, 2, 0] and rows["lesion_pixels"].tolist() == [1, *[0] * 7, 1, 0]
        filled = rows[rows["pixels"] > 0]
        np.testing.assert_allclose(filled["probability_sum"], [0.15, 1.76])
        np.testing.assert_allclose(filled["squared_error_sum"], [0.05**2 + 0.9**2, 0.86**2 + 0.1**2])
        np.testing.assert_allclose(filled["mean_probability"], [0.05, 0.88])
        np.testing.assert_allclose(filled["lesion_share"], [1 / 3, 1 / 2])
        brier = (0.05**2 + 0.9**2 + 0.86**2 + 0.1**2) / 5
        assert brier_skill(rows) == pytest.approx(1 - brier / (0.4 * 0.6))


def test_air_flatters_so_the_head_stands_beside_it():
    # Four pixels of air rightly called 0; of the head's, the lesion is called 0 and the rest 1.
    probabilities, truth = one_row(0.0, 0, 0, 0, 0, 1), one_row(False, False, False, False, True, False)
    table = reliability_bins(probabilities, truth, np.array([[[0, 0, 0, 0, 80, 80]]], np.uint8))
    everywhere, head = regions(table)
    assert (everywhere["pixels"].sum(), head["pixels"].sum()) == (6, 2)
    assert brier_skill(everywhere) == pytest.approx(1 - (2 / 6) / (1 / 6 * 5 / 6))
    assert brier_skill(head) == pytest.approx(1 - 1 / (1 / 2 * 1 / 2))


def test_without_a_lesion_or_a_pixel_there_is_nothing_to_beat():
    images = np.zeros((1, 1, 2), np.uint8)
    everywhere, head = regions(reliability_bins(one_row(0.1, 0.2), np.zeros((1, 1, 2), bool), images))
    assert head["pixels"].sum() == 0 and head["lesion_share"].isna().all()
    assert np.isnan([brier_skill(everywhere), brier_skill(head)]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scikit_learn_says_the_same(dtype):
    probabilities, truth, images = predictions()
    probabilities = probabilities.astype(dtype)
    probabilities[0, 0, :5] = [0, 0.5, 1, 0.25, -0.0]
    table = reliability_bins(probabilities, truth, images)
    for bins, inside in zip(regions(table), (np.ones_like(truth), images > 0), strict=True):
        y, p = truth[inside], probabilities[inside].astype(float)
        share, mean = calibration_curve(y, p, n_bins=10)
        np.testing.assert_allclose(bins["lesion_share"].dropna(), share)
        np.testing.assert_allclose(bins["mean_probability"].dropna(), mean)
        assert brier_skill(bins) == pytest.approx(1 - brier_score_loss(y, p) / y.var())
        assert bins["pixels"].sum() == len(y)


def test_bins_of_parts_add_up_to_those_of_the_whole():
    probabilities, truth, images = predictions(slices=70)  # more than are tallied at once
    whole = reliability_bins(probabilities, truth, images)
    parts = [reliability_bins(probabilities[s], truth[s], images[s]) for s in (slice(0, 3), slice(3, 70))]
    for column in ("pixels", "lesion_pixels", "probability_sum", "squared_error_sum"):
        np.testing.assert_allclose(parts[0][column] + parts[1][column], whole[column])


def bins_of(probabilities, truth):
    return reliability_bins(probabilities, truth, bright(truth))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
@pytest.mark.parametrize("function", [bins_of, soft_counts])
def test_what_is_no_probability_is_refused(function, wrong, dtype):
    probabilities = np.full((40, 1, 2), 0.5, dtype)
    probabilities[37, 0, 1] = wrong
    with pytest.raises(ValueError, match="slice 37 "):
        function(probabilities, np.zeros(probabilities.shape, bool))


@pytest.mark.parametrize("function", [bins_of, soft_counts])
def test_wrong_input_is_named(function):
    with pytest.raises(ValueError, match="truth must be bool"):
        function(one_row(0.5), one_row(1))
    with pytest.raises(ValueError, match="probabilities"):
        function(one_row(0.5, 0.5), one_row(True))


def test_images_are_checked():
    with pytest.raises(ValueError, match="images"):
        reliability_bins(one_row(0.5), one_row(True), np.zeros((1, 2, 2), np.uint8))


# Soft counts


def test_soft_counts_by_hand():
    counts = soft_counts(one_row(0.25, 0.5, 1, 0), one_row(True, True, False, False))
    assert counts.values.tolist() == [[0.75, 1, 1.25, 1]]
    assert set(counts.dtypes) == {np.dtype(float)}
    assert metrics.score(counts, "dice", "pooled") == pytest.approx(2 * 0.75 / (1.75 + 2))


def test_of_a_mask_they_are_the_pixel_counts():
    probabilities, truth, _ = predictions()
    mask = probabilities > 0.5
    pd.testing.assert_frame_equal(soft_counts(mask, truth), metrics.pixel_counts(mask, truth), check_dtype=False)


def test_every_convention_takes_them():
    probabilities, truth, _ = predictions(slices=6)
    truth[4:] = False
    counts = soft_counts(probabilities, truth).assign(patient_id=list("aabbcc"))
    table = metrics.all_scores(counts)
    assert table["value"].between(0, 1).all() and set(table["convention"]) == set(metrics.CONVENTIONS)
    assert len(metrics.unit_counts(counts, "sah_slices")) == 4


def test_soft_dice_is_monais_dice_loss_without_smoothing():
    import torch
    from monai.losses.dice import DiceLoss

    probabilities, truth, _ = predictions(slices=5)
    loss = DiceLoss(reduction="none", smooth_nr=0, smooth_dr=0)
    tensors = [torch.from_numpy(a[:, None].astype(np.float64)) for a in (probabilities, truth)]
    np.testing.assert_allclose(metrics.dice(soft_counts(probabilities, truth)), 1 - loss(*tensors).ravel())
    pooled = DiceLoss(batch=True, smooth_nr=0, smooth_dr=0)(*tensors)
    assert metrics.score(soft_counts(probabilities, truth), "dice", "pooled") == pytest.approx(1 - float(pooled))


def test_an_empty_slice_has_soft_dice_0_unless_the_prediction_is_exactly_0():
    truth = np.zeros((2, 4, 4), bool)
    probabilities = np.zeros((2, 4, 4), np.float16)
    probabilities[0] = 1e-4
    np.testing.assert_array_equal(metrics.dice(soft_counts(probabilities, truth)), [0, np.nan])


def test_half_precision_does_not_lose_pixels():
    ones = np.ones((1, 300, 300), np.float16)  # a float16 sum would end at 2048
    assert soft_counts(ones, ones.astype(bool)).values.tolist() == [[90000, 0, 0, 0]]


unit = st.floats(0, 1, width=16)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float16, (2, 4, 5), elements=unit), arrays.arrays(bool, (2, 4, 5)))
def test_counts_are_positive_and_add_up(probabilities, truth):
    counts = soft_counts(probabilities, truth)
    assert (counts >= 0).all(axis=None)
    np.testing.assert_allclose(counts.sum(axis=1), 20)
    np.testing.assert_allclose(counts.tp + counts.fn, truth.sum(axis=(1, 2)))
    table, _ = regions(bins_of(probabilities, truth))
    assert table["pixels"].sum() == 40
    np.testing.assert_allclose(table["probability_sum"].sum(), (counts.tp + counts.fp).sum())
    assert not brier_skill(table) > 1
