"""The layers that stand in for torch's compute what torch's compute, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sahlib.networks import layers, models
from sahlib.study import MODELS

CHANNELS = (4, 8, 8, 8, 16)


def gradients(network, images, precision):
    network.zero_grad()
    logits = models.forward(network, images, precision)
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_network_computes_what_monai_s_does(model, training):
    torch.manual_seed(0)
    network = models.build(model, CHANNELS).to(memory_format=torch.channels_last).train(training)
    own = models.of_monai(model, CHANNELS).to(memory_format=torch.channels_last).train(training)
    own.load_state_dict(network.state_dict())
    images = torch.rand(3, 1, 64, 64)
    found, expected = gradients(network, images, "fp32"), gradients(own, images, "fp32")
    torch.testing.assert_close(found[0], expected[0])
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-6, msg=name)


@pytest.mark.parametrize(("model", "norms", "slopes"), [("unet", 17, 17), ("unet_free_output", 16, 16)])
def test_none_of_torch_s_is_left_where_they_matter(model, norms, slopes):
    kinds = [type(module) for module in models.build(model, CHANNELS).modules()]
    assert kinds.count(layers.InstanceNorm2d) == norms and kinds.count(layers.PReLU) == slopes
    assert nn.InstanceNorm2d not in kinds and nn.PReLU not in kinds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_slope_is_learned_as_torch_learns_it(dtype, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8).to(dtype).contiguous(memory_format=layout)
    weights = torch.randn(2, 3, 8, 8).to(dtype)
    results = []
    for kind in (layers.PReLU, nn.PReLU):
        layer, own = kind(init=0.3).to(dtype), x.clone().requires_grad_()
        (layer(own) * weights).sum().backward()
        results.append((layer(own).detach(), own.grad, layer.weight.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.02 if dtype is torch.bfloat16 else 1e-5, atol=1e-5)


def test_the_gradient_is_the_difference_quotient():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    slope = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    # The slope's gradient is added up in float32.
    assert torch.autograd.gradcheck(layers._LeakyReLU.apply, (x, slope), atol=1e-4, rtol=1e-4)


def test_what_comes_out_of_a_norm_is_channels_last():
    x = torch.rand(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    out = layers.InstanceNorm2d(4)(x)
    assert out.is_contiguous(memory_format=torch.channels_last) and not nn.InstanceNorm2d(4)(x).is_contiguous(
        memory_format=torch.channels_last
    )
