import numpy as np
import torch

from sahlib.training.augment import draw_transforms, transform


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
