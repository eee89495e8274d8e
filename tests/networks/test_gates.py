"""The control arm and what the gates let through."""

import numpy as np
import pytest
import torch

from sahlib.networks import gates, models

CHANNELS = (4, 8, 8, 8, 8)


def build(name, seed=0):
    torch.manual_seed(seed)
    return models.build(name, CHANNELS).eval()


def test_the_control_is_the_attention_network_with_every_coefficient_1():
    """Forcing each gate of the attention network to 1 must give the control's output, pixel for pixel."""
    from monai.networks.nets.attentionunet import AttentionBlock

    attention, control = build("attention_unet"), build("attention_unet_open_gates")
    blocks = [module for module in attention.modules() if isinstance(module, AttentionBlock)]
    assert len(blocks) == 4
    for block in blocks:
        block.psi = torch.nn.Sequential(block.psi, Ones())
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(attention(image), control(image))


class Ones(torch.nn.Module):
    def forward(self, x):
        return torch.ones_like(x)


def test_the_control_starts_with_the_same_weights_and_lacks_the_gates_alone():
    attention, control = build("attention_unet").state_dict(), build("attention_unet_open_gates").state_dict()
    assert set(control) < set(attention) and all(".attention." in key for key in set(attention) - set(control))
    assert all(torch.equal(value, attention[key]) for key, value in control.items())


def test_gate_maps_are_coefficients_per_level_and_do_not_depend_on_the_batch():
    images = np.random.default_rng(0).integers(0, 256, (gates.BATCH + 3, 1, 32, 32)).astype(np.uint8)
    network = build("attention_unet")
    maps = gates.gate_maps(network, images, "fp32")
    assert [level.shape for level in maps] == [(len(images), side, side) for side in (32, 16, 8, 4)]
    assert all((level >= 0).all() and (level <= 1).all() for level in maps)
    for last, level in zip(gates.gate_maps(network, images[-1:], "fp32"), maps, strict=True):
        np.testing.assert_allclose(last, level[-1:], atol=1e-6)
    assert not [m for m in network.modules() if m._forward_hooks]
    for exact, rounded in zip(maps, gates.gate_maps(network, images, "bf16"), strict=True):
        assert rounded.dtype == np.float32 and 0 < abs(rounded - exact).max() < 0.05


def test_a_network_without_gates_is_refused():
    with pytest.raises(ValueError, match="no attention gates"):
        gates.gate_maps(build("unet"), np.zeros((1, 1, 32, 32), np.uint8), "fp32")


def test_inside_and_outside_by_hand():
    maps = np.array([[[0.2, 0.4], [0.6, 0.8]]])
    truth = np.zeros((1, 4, 4), bool)
    truth[0, :2, :2] = True  # the pixel with 0.2
    truth[0, 2, 0] = True  # a quarter of the one with 0.6
    head = np.ones((1, 4, 4), bool)
    head[0, :, 3] = False  # half of the right column's pixels
    inside, outside = gates.inside_and_outside(maps, truth, head)[0]
    assert inside == pytest.approx((4 * 0.2 + 0.6) / 5)
    assert outside == pytest.approx((2 * 0.4 + 3 * 0.6 + 2 * 0.8) / 7)
    assert np.isnan(gates.inside_and_outside(maps, np.zeros((1, 4, 4), bool), head)[0, 0])
