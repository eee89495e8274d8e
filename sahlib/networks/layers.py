"""MONAI's norm and activation without the detours that they take on a processor: the same functions, to rounding.

torch's InstanceNorm returns NCHW whatever it is given, and what comes after it then mixes two layouts in every
operation. The backward pass of its PReLU is not vectorised in bfloat16: 22 ms for 16x16x128x128 numbers on one core,
where leaky ReLU takes 0.7 ms.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import leaky_relu


class InstanceNorm2d(nn.InstanceNorm2d):
    """As torch's, but channels-last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).contiguous(memory_format=torch.channels_last)


class PReLU(nn.PReLU):
    """As torch's with one slope for all channels; on a processor by way of leaky ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The slope as a number would make a GPU wait, and torch.compile has its own way.
        if x.is_cuda or torch.compiler.is_compiling():
            return super().forward(x)
        return _LeakyReLU.apply(x, self.weight)


class _LeakyReLU(torch.autograd.Function):
    """Leaky ReLU of x [B,C,H,W] whose slope [1] is learned."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope.item()
        return leaky_relu(x, ctx.slope)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (x,) = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_slope = (gradient * x.clamp(max=0)).sum(dtype=torch.float32).view(1)
        return torch.ops.aten.leaky_relu_backward(gradient, x, ctx.slope, False), of_slope


def without_detours(network: nn.Module) -> nn.Module:
    """The network with its InstanceNorms and PReLUs replaced by those above; weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.InstanceNorm2d:
            module.__class__ = InstanceNorm2d
        elif type(module) is nn.PReLU and module.num_parameters == 1:
            module.__class__ = PReLU
    return network
