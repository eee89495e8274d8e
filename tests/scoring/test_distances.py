"""Distances against values worked out by hand, MONAI and surface-distance, and the rules for empty masks."""

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sahlib.scoring import distances
from sahlib.scoring.distances import mean_with_lesion, surface_scores

SIZE = 24


def square(row, column, side=4, size=SIZE):
    mask = np.zeros((size, size), bool)
    mask[row : row + side, column : column + side] = True
    return mask


def blobs(count, seed, size=32):
    """Smooth random masks, some empty, some touching the border."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(count, size, size))
    smooth = gaussian_filter(noise, (0, 2.5, 2.5))
    return smooth > np.quantile(smooth, 0.85)


def score(prediction, truth, row_mm=1.0, column_mm=1.0):
    """The one row of a single slice."""
    return surface_scores(prediction[None], truth[None], [row_mm], [column_mm]).iloc[0]


NOTHING = np.zeros((SIZE, SIZE), bool)


# By hand


def test_equal_masks():
    row = score(square(5, 5), square(5, 5), 0.7, 1.3)
    assert (row["nsd_1mm"], row["nsd_2mm"], row["hd95_mm"], row["case"]) == (1, 1, 0, "scored")


def test_a_square_moved_by_three_pixels_of_half_a_millimetre():
    # Every element of one outline is at most 1.5 mm (3 pixels) from the other; the whole far side is exactly that.
    row = score(square(5, 5, 8), square(8, 5, 8), 0.5, 0.5)
    assert row["hd95_mm"] == pytest.approx(1.5)
    assert row["nsd_2mm"] == 1
    assert row["nsd_1mm"] < 1


def test_nsd_of_single_pixels_by_hand():
    # One pixel each, 3 columns apart, 1 mm: four corners, each cut over half a diagonal. Corner columns 5, 6 against
    # 8, 9: the near pair is 2 mm from the other pixel, the far pair 3 mm. So half of each outline lies within 2 mm.
    row = score(square(5, 5, 1), square(5, 8, 1))
    assert row["nsd_1mm"] == 0
    assert row["nsd_2mm"] == pytest.approx(0.5)
    assert row["hd95_mm"] == pytest.approx(3)


def test_rows_and_columns_have_their_own_spacing():
    down, right = (square(5, 5), square(8, 5)), (square(5, 5), square(5, 8))
    assert score(*down, 2.0, 0.5)["hd95_mm"] == pytest.approx(6)
    assert score(*right, 2.0, 0.5)["hd95_mm"] == pytest.approx(1.5)


def test_a_distance_of_exactly_the_tolerance_counts_whatever_the_last_bit_says():
    side = np.nextafter(1, 2)  # a little more than 1
    assert score(square(5, 5, 1), square(5, 6, 1), side, side)["nsd_1mm"] == 1


# Empty masks and unknown spacing


def test_both_empty_has_no_score():
    row = score(NOTHING, NOTHING)
    assert row["case"] == "empty" and row[["nsd_1mm", "nsd_2mm", "hd95_mm"]].isna().all()


@pytest.mark.parametrize(
    "prediction, truth, case", [(NOTHING, square(3, 3), "missed"), (square(3, 3), NOTHING, "false alarm")]
)
def test_a_miss_and_a_false_alarm_are_counted(prediction, truth, case):
    row = score(prediction, truth, 0.5, 2.0)
    assert (row["nsd_1mm"], row["nsd_2mm"], row["case"]) == (0, 0, case)
    assert row["hd95_mm"] == pytest.approx(np.hypot(SIZE * 0.5, SIZE * 2.0))


@pytest.mark.parametrize("prediction", [NOTHING, square(3, 3)])
@pytest.mark.parametrize("spacing", [(np.nan, 1.0), (1.0, np.nan)])
def test_unknown_spacing_is_not_taken_for_pixels(prediction, spacing):
    row = score(prediction, square(4, 4), *spacing)
    assert row["case"] == "unknown spacing" and row[["nsd_1mm", "nsd_2mm", "hd95_mm"]].isna().all()


def test_mean_with_lesion_by_hand():
    """A hit, a miss, an empty slice, a false alarm, and a hit of unknown spacing."""
    prediction = np.stack([square(5, 5), NOTHING, NOTHING, square(5, 5), square(5, 5)])
    truth = np.stack([square(5, 5), square(5, 5), NOTHING, NOTHING, square(5, 5)])
    scores = surface_scores(prediction, truth, [1, 1, 1, 1, np.nan], np.ones(5))
    assert scores["case"].tolist() == ["scored", "missed", "empty", "false alarm", "unknown spacing"]
    expected = {"nsd_1mm": 1 / 2, "nsd_2mm": 1 / 2, "hd95_mm": np.hypot(SIZE, SIZE) / 2}
    assert mean_with_lesion(scores).to_dict() == pytest.approx(expected)


def test_mean_of_nothing_is_nan():
    assert mean_with_lesion(surface_scores(NOTHING[None], NOTHING[None], [1.0], [1.0])).isna().all()


@pytest.mark.parametrize(
    "row_mm, message", [([1.0, 1.0], "row_mm must hold"), ([0.0], "above 0 mm"), ([-1.0], "above 0 mm")]
)
def test_wrong_spacing_is_named(row_mm, message):
    with pytest.raises(ValueError, match=message):
        surface_scores(NOTHING[None], NOTHING[None], row_mm, [1.0])


def test_wrong_masks_are_named():
    with pytest.raises(ValueError, match="must be bool"):
        surface_scores(NOTHING[None].astype(int), NOTHING[None], [1.0], [1.0])
    with pytest.raises(ValueError, match="same"):
        surface_scores(NOTHING[None], np.zeros((1, 3, 3), bool), [1.0], [1.0])


def test_no_slice_at_all():
    table = surface_scores(np.zeros((0, 8, 8), bool), np.zeros((0, 8, 8), bool), [], [])
    assert len(table) == 0 and {"nsd_1mm", "hd95_mm", "case"} <= set(table)


# Other libraries


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.45, 0.45), (1.3, 0.7)])
def test_nsd_is_monais_with_subvoxels(spacing):
    import torch
    from monai.metrics.surface_dice import compute_surface_dice

    prediction, truth = blobs(6, 1), blobs(6, 2)
    ours = surface_scores(prediction, truth, np.full(6, spacing[0]), np.full(6, spacing[1]))
    one_hot = [torch.from_numpy(np.stack([~m, m], axis=1)).float() for m in (prediction, truth)]
    for tolerance in (1.0, 2.0):
        theirs = compute_surface_dice(*one_hot, [tolerance], spacing=spacing, use_subvoxels=True)
        np.testing.assert_allclose(ours[f"nsd_{tolerance:g}mm"], theirs[:, 0], atol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.45, 0.45), (1.3, 0.7)])
def test_both_scores_are_those_of_surface_distance(spacing):
    prediction, truth = blobs(12, 3), blobs(12, 4)
    ours = surface_scores(prediction, truth, np.full(12, spacing[0]), np.full(12, spacing[1]))
    assert (ours["case"] == "scored").all()
    for k in range(12):
        theirs = surface_distance.compute_surface_distances(truth[k], prediction[k], spacing)
        for tolerance in (1.0, 2.0):
            expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
            assert ours[f"nsd_{tolerance:g}mm"][k] == pytest.approx(expected)
        assert ours["hd95_mm"][k] == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95))


def test_hd95_is_close_to_monais_that_knows_only_pixels():
    # MONAI measures between centres of border pixels and does not weigh them by length: near, never equal.
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    prediction, truth = blobs(8, 5), blobs(8, 6)
    ours = surface_scores(prediction, truth, np.full(8, 0.8), np.full(8, 0.8))["hd95_mm"]
    one_hot = [torch.from_numpy(np.stack([~m, m], axis=1)).float() for m in (prediction, truth)]
    theirs = compute_hausdorff_distance(*one_hot, percentile=95, spacing=(0.8, 0.8))[:, 0]
    np.testing.assert_allclose(ours, theirs, atol=2 * 0.8 * np.sqrt(2))


# Properties

two_masks = st.tuples(*[arrays.arrays(bool, (9, 11))] * 2)


@settings(max_examples=60, deadline=None)
@given(two_masks, st.floats(0.3, 3), st.floats(0.3, 3))
def test_bounds_symmetry_and_order(pair, row_mm, column_mm):
    row, swapped = score(*pair, row_mm, column_mm), score(*pair[::-1], row_mm, column_mm)
    if row["case"] == "empty":
        return
    assert 0 <= row["nsd_1mm"] <= row["nsd_2mm"] <= 1
    # Nothing that was found at all is worse than what was missed.
    assert 0 <= row["hd95_mm"] <= np.hypot(9 * row_mm, 11 * column_mm)
    for column in ("nsd_1mm", "nsd_2mm", "hd95_mm"):
        assert row[column] == pytest.approx(swapped[column])


@settings(max_examples=30, deadline=None)
@given(two_masks, st.floats(0.3, 3))
def test_distances_and_tolerances_are_in_mm(pair, side):
    """On pixels twice as large 2 mm are what 1 mm was, and HD95 doubles."""
    one, scaled = score(*pair, side, side), score(*pair, 2 * side, 2 * side)
    if one["case"] == "empty":
        return
    assert scaled["nsd_2mm"] == pytest.approx(one["nsd_1mm"])
    assert scaled["hd95_mm"] == pytest.approx(2 * one["hd95_mm"])


def test_the_length_of_an_outline():
    # A square of 3x5 pixels: the sides less half a pixel at each corner, which is cut.
    lengths = distances._outline_lengths(np.pad(np.ones((1, 3, 5), bool), ((0, 0), (2, 2), (2, 2))), np.array([1.0, 1]))
    assert lengths.sum() == pytest.approx(2 * 2 + 2 * 4 + 4 * np.sqrt(2) / 2)
