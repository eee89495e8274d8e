import dataclasses
import math

import numpy as np
import pytest
import torch

from sahlib.data.grey_window import KNOWN
from sahlib.data.scan import Scan
from sahlib.data.slices import WIDE, preprocess, window_to_grey
from sahlib.study import WINDOWS, Study
from sahlib.training.augment import RANGES, augmentation, draw, draw_transforms, transform

CPU = torch.device("cpu")
PAPER = Study(size=32, models=("unet", "attention_unet"))
TRAVELS = dataclasses.replace(PAPER, augmentation="travels")
NEUTRAL = {"low": 0, "high": 80, "contrast": 1, "shift": 0, "noise": 0, "sharpness": 0, "gamma": 1, "start": 0}


def matrices(count=64, flip=0.5, degrees=15.0, seed=0):
    return draw_transforms(count, flip, degrees, torch.Generator().manual_seed(seed))


def test_without_flip_and_rotation_nothing_changes():
    x = torch.rand(3, 1, 16, 16)
    image, label = transform(x, x.round(), matrices(3, 0, 0))
    torch.testing.assert_close(image, x, atol=1e-5, rtol=0)
    assert torch.equal(label, x.round())


def test_a_certain_flip_mirrors_left_and_right():
    x = torch.rand(2, 1, 16, 24)
    image, _ = transform(x, x, matrices(2, 1, 0))
    torch.testing.assert_close(image, x.flip(3), atol=1e-5, rtol=0)


def test_a_quarter_turn_is_a_quarter_turn():
    x = torch.rand(1, 1, 16, 16)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    image, _ = transform(x, x, quarter)
    torch.testing.assert_close(image, torch.rot90(x, 1, (2, 3)), atol=1e-5, rtol=0)


def test_matrices_are_flips_and_rotations_within_the_limit():
    drawn = matrices(500, 0.5, 15)[:, :, :2].numpy()
    determinant = np.linalg.det(drawn)
    np.testing.assert_allclose(np.abs(determinant), 1, atol=1e-5)
    assert 0.4 < (determinant < 0).mean() < 0.6
    angle = np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 1, 1]))
    assert np.abs(angle).max() <= 15.001 and angle.min() < -12 and angle.max() > 12


def test_labels_stay_two_valued_and_on_their_image():
    """An image that is its own label: after nearest and bilinear resampling they differ at the edge alone."""
    y, x = np.mgrid[:64, :64]
    disc = torch.tensor(((y - 24) ** 2 + (x - 40) ** 2 <= 100).astype(np.float32))[None, None].repeat(8, 1, 1, 1)
    image, label = transform(disc, disc, matrices(8))
    assert set(label.unique().tolist()) == {0.0, 1.0}
    assert ((image > 0.5) != (label > 0.5)).float().mean() < 0.005


def test_the_same_generator_draws_the_same_and_torch_s_own_is_not_touched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(matrices(seed=4), matrices(seed=4)) and not torch.equal(matrices(seed=4), matrices(seed=5))
    assert torch.equal(before, torch.get_rng_state())


def test_the_paper_s_batches_are_to_the_bit_what_they_were_before_there_was_another_augmentation():
    generator = torch.Generator().manual_seed(3)
    flip = torch.where(torch.rand(5, generator=generator) < 0.5, -1.0, 1.0)
    angle = (torch.rand(5, generator=generator) * 2 - 1) * math.radians(15.0)
    rows = [[flip * angle.cos(), -flip * angle.sin(), 0 * flip], [angle.sin(), angle.cos(), 0 * flip]]
    expected = torch.stack([torch.stack(row, 1) for row in rows], 1)
    drawn = draw(PAPER, 5, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, expected)
    images, labels = (torch.randint(0, top, (5, 1, 32, 32), dtype=torch.uint8) for top in (256, 2))
    x, y = augmentation(PAPER, CPU)(images, labels, drawn)
    grid = torch.nn.functional.affine_grid(expected, [5, 1, 32, 32], align_corners=False)
    resampled = torch.nn.functional.grid_sample
    assert torch.equal(x, resampled(images.float() / 255, grid, align_corners=False))
    assert torch.equal(y, resampled(labels.float(), grid, mode="nearest", align_corners=False))


# "travels"


def tuned(images, **changes):
    """Slices uint8 [B,1,H,W] of WIDE in one pose through the step, all by the same numbers."""
    numbers = torch.tensor([1.0, 0, 0, 0, 1, 0, *(NEUTRAL | changes).values()]).repeat(len(images), 1)
    return augmentation(TRAVELS, CPU)(images, torch.zeros_like(images), numbers)[0]


def hounsfield(seed=0):
    """A scan int16 [4,32,32] from air to bone."""
    return np.random.default_rng(seed).integers(-1000, 1500, (4, 32, 32)).astype(np.int16)


def of_wide(image):
    return torch.from_numpy(window_to_grey(image, *WIDE))[:, None]


@pytest.mark.parametrize(("level", "width"), [(40, 80), (75, 215), (127.5, 255), (40, 400)])
def test_without_any_change_a_slice_is_what_the_store_holds_of_that_window(level, width):
    image = hounsfield()
    scan = Scan("p", image, np.zeros(image.shape, np.uint8), tuple("abcd"), "HU")
    (stored,), _ = preprocess(scan, 32, [(level, width)])
    shown = tuned(of_wide(image), low=level - width / 2, high=level + width / 2)[:, 0]
    # Half a step of 2 HU, and half a step of 8 bits.
    np.testing.assert_allclose(shown, stored / 255, atol=1.001 / width + 0.501 / 255)


def test_each_number_does_what_its_name_says():
    image = np.full((1, 32, 32), 45, np.int16)
    image[:, 0], image[:, -1], image[:, 10:16] = -1000, 1500, 65
    plain = tuned(of_wide(image))

    def at(row, **changes):
        return tuned(of_wide(image), **changes)[0, 0, row, 16].item()

    assert plain[0, 0, [0, 12, 20, 31], 16].tolist() == pytest.approx([0, 65 / 80, 45 / 80, 1], abs=1e-5)
    assert at(12, contrast=1.4) == pytest.approx((35 + 1.4 * 30) / 80) and at(20, shift=6) == pytest.approx(51 / 80)
    assert at(12, gamma=2) == pytest.approx((65 / 80) ** 2) and at(12, low=-20, high=100) == pytest.approx(85 / 120)
    assert at(10, sharpness=1) > at(10) > at(10, sharpness=-1) and at(9, sharpness=1) < at(9) < at(9, sharpness=-1)
    noisy = 80 * (tuned(of_wide(image), noise=5.0) - plain)[0, 0, 18:29]
    assert noisy.std().item() == pytest.approx(5, rel=0.15) and abs(noisy.mean()) < 1
    assert not torch.equal(tuned(of_wide(image), noise=5.0), tuned(of_wide(image), noise=5.0, start=7))


def test_batches_are_pictures_and_labels_move_with_them():
    images, labels = of_wide(hounsfield()).repeat(50, 1, 1, 1), torch.zeros((200, 2, 32, 32), dtype=torch.uint8)
    labels[:, 0, 8:20, 4:14] = 1
    drawn = draw(TRAVELS, 200, torch.Generator().manual_seed(0))
    x, y = augmentation(TRAVELS, CPU)(images, labels, drawn)
    assert x.dtype == torch.float32 and x.isfinite().all() and x.min() >= 0 and x.max() <= 1
    assert torch.equal(y, transform(images.float(), labels.float(), drawn[:, :6].unflatten(1, (2, 3)))[1])
    assert set(y.unique().tolist()) == {0.0, 1.0}


def test_an_image_that_is_its_own_label_stays_so_in_any_pose():
    y, x = np.mgrid[:32, :32]
    disc = ((y - 12) ** 2 + (x - 20) ** 2 <= 36)[None].repeat(64, 0)
    drawn = draw(TRAVELS, 64, torch.Generator().manual_seed(0))
    drawn[:, 6:] = torch.tensor([*NEUTRAL.values()])
    images, labels = of_wide(np.where(disc, 80, 0).astype(np.int16)), torch.from_numpy(disc.astype(np.uint8))[:, None]
    image, label = augmentation(TRAVELS, CPU)(images, labels, drawn)
    assert ((image > 0.5) != (label > 0.5)).float().mean() < 0.01


def test_poses_are_flips_rotations_zooms_and_shifts_within_the_limits():
    pose = draw(TRAVELS, 2000, torch.Generator().manual_seed(0))[:, :6].view(-1, 2, 3).numpy().astype(float)
    determinant = np.linalg.det(pose[:, :, :2])
    zoom = np.abs(determinant) ** -0.5
    assert 0.75 <= zoom.min() + 1e-5 < 0.77 and 1.23 < zoom.max() - 1e-5 <= 1.25
    assert 0.45 < (determinant < 0).mean() < 0.55 and 0.45 < (pose[:, 1, 1] < 0).mean() < 0.55
    angle = np.degrees(np.arctan(np.abs(pose[:, 1, 0] / pose[:, 1, 1])))
    assert 24 < angle.max() <= 25.001 and 0.19 < np.abs(pose[:, :, 2]).max() <= 0.2001


def test_windows_of_every_kind_are_drawn():
    low, high = draw(TRAVELS, 4000, torch.Generator().manual_seed(0))[:, 6:8].T
    assert -164.01 <= low.min() < low.max() <= 15.01 and 59.99 <= high.min() < high.max() <= 304.01
    for level, width in {*WINDOWS.values(), *KNOWN} - {WINDOWS["bone"]}:
        for ends, end in ((low, level - width / 2), (high, level + width / 2)):
            assert 0.005 < (ends < end).float().mean() < 0.995, (level, width)
    assert (high > 200).float().mean() > 0.15 and (low.abs() < 10).float().mean() > 0.2


def test_air_is_black_and_bone_white_in_whatever_is_drawn():
    """Contrast and shift move the ends of WIDE, and no window may reach beyond them."""
    level, width = WIDE
    for contrast in RANGES.contrast:
        for shift in RANGES.shift:
            low, high = 35 - RANGES.below[1], 35 + RANGES.above[1]
            ends = of_wide(np.tile(np.int16([[level - width / 2, level + width / 2]]), (1, 32, 16)))
            shown = tuned(ends, low=low, high=high, contrast=contrast, shift=shift)
            assert shown[0, 0, 5, :2].tolist() == [0, 1]


def test_no_window_reaches_beyond_what_an_export_held():
    """Of a brain window's 0 to 80 HU: black and white stay black and white, and so does what lies outside."""
    exported = hounsfield().clip(0, 80)
    shown = tuned(of_wide(exported), low=-100, high=250)[:, 0].numpy()
    assert (shown[exported == 0] == 0).all() and (shown[exported >= 80] > 0.97).all()


def test_draws_of_travels_depend_on_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (draw(TRAVELS, 9, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    augmentation(TRAVELS, CPU)(of_wide(hounsfield()), of_wide(hounsfield()), one[:4])
    assert torch.equal(one, again) and not torch.equal(one, other) and one.shape == (9, 14)
    assert torch.equal(before, torch.get_rng_state())
