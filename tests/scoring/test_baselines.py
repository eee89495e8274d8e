"""The brain-window threshold: the best band, found on what it was given and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahlib.scoring import metrics
from sahlib.scoring.baselines import Band, band_masks, fit_band, head


def a_scan(slices=3, seed=0):
    """Brain around 90, blood around 150, bone 255, air 0."""
    rng = np.random.default_rng(seed)
    images = rng.normal(90, 10, (slices, 20, 20)).clip(1, 254).astype(np.uint8)
    truth = np.zeros(images.shape, bool)
    truth[:, 8:12, 8:12] = True
    images[truth] = rng.normal(150, 8, truth.sum()).clip(1, 254)
    images[:, 0], images[:, 1] = 0, 255
    return images, truth


def dice_of(band, images, truth):
    return metrics.score(metrics.pixel_counts(band_masks(images, band), truth), "dice", "pooled")


def test_it_finds_the_blood_of_a_clean_scan():
    images, truth = a_scan()
    band = fit_band(images, truth)
    assert 100 < band.low < 145 and 155 < band.high < 255
    assert dice_of(band, images, truth) > 0.95


def test_both_ends_of_the_band_are_in_it():
    masks = band_masks(np.array([[[9, 10, 11, 12, 13]]], np.uint8), Band(10, 12))
    assert masks.tolist() == [[[False, True, True, True, False]]] and masks.dtype == bool


def test_air_and_saturated_bone_are_never_lesion():
    # The whole lesion is drawn into bone but for one pixel: the band is that pixel's level.
    images = np.full((1, 4, 4), 255, np.uint8)
    images[0, 0] = 0
    images[0, 1, 1] = 77
    truth = np.zeros(images.shape, bool)
    truth[0, :3] = True
    band = fit_band(images, truth)
    assert (band.low, band.high) == (77, 77)


def test_it_does_not_look_at_other_slices():
    images, truth = a_scan()
    other, _ = a_scan(seed=5)
    assert fit_band(images, truth) == fit_band(np.concatenate([images, other])[:3], truth)


def test_slices_may_come_one_by_one():
    images, truth = a_scan()
    assert fit_band(images, (mask for mask in truth)) == fit_band(images, truth)


def test_without_a_visible_lesion_there_is_no_band():
    images, truth = a_scan()
    with pytest.raises(ValueError, match="no slice to fit on"):
        fit_band(images, np.zeros_like(truth))
    with pytest.raises(ValueError, match="no slice to fit on"):
        fit_band(np.full_like(images, 255), truth)


def test_wrong_input_is_named():
    images, truth = a_scan()
    with pytest.raises(ValueError, match="uint8"):
        fit_band(images.astype(float), truth)
    with pytest.raises(ValueError, match="bool"):
        fit_band(images, truth.astype(np.uint8))
    with pytest.raises(ValueError):
        fit_band(images, truth[:2])
    with pytest.raises(ValueError, match="uint8"):
        band_masks(images / 255, Band(1, 2))


def test_the_head_is_where_there_is_not_air():
    images, _ = a_scan()
    assert not head(images)[:, 0].any() and head(images)[:, 1:].all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_band_is_better(seed):
    rng = np.random.default_rng(seed)
    # few levels, so that every band can be tried
    images = rng.choice(np.array([0, 1, 3, 100, 101, 250, 254, 255], np.uint8), (2, 6, 6))
    truth = rng.random(images.shape) < 0.1 + 0.5 * (images == 101)
    if not truth[(images > 0) & (images < 255)].any():
        return
    band = fit_band(images, truth)
    levels = [1, 2, 3, 100, 101, 250, 254]
    tried = [dice_of(Band(low, high), images, truth) for low in levels for high in levels if low <= high]
    assert dice_of(band, images, truth) == pytest.approx(max(tried))
