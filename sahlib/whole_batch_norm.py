"""Batch normalisation by the slices of all processes, where each has only a share of the batch."""

from __future__ import annotations

import torch
from torch import distributed, nn


def normalise_together(network: nn.Module) -> None:
    """Every BatchNorm2d of `network` takes, from now on, the mean and variance of the batches of all processes."""
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # The same weights and statistics, computed otherwise.
            module.__class__ = WholeBatchNorm


class WholeBatchNorm(nn.BatchNorm2d):
    """nn.SyncBatchNorm for the CPU, where PyTorch has none (Ioffe & Szegedy 2015, algorithm 1, over all processes)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [b,C,H,W], the own share; returns the same shape and type."""
        if not self.training:
            return super().forward(images)
        values = images.to(self.weight.dtype)
        pixels = values.new_tensor([values.numel() / values.shape[1]])
        total = SumOverRanks.apply(torch.cat([values.sum((0, 2, 3)), pixels]))
        mean, pixels = total[:-1] / total[-1], total[-1].detach()
        centred = values - mean[:, None, None]
        variance = SumOverRanks.apply(centred.square().sum((0, 2, 3))) / pixels
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * pixels / (pixels - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; what each does with it flows back to all."""

    @staticmethod
    def forward(_, tensor: torch.Tensor) -> torch.Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(_, gradient: torch.Tensor) -> torch.Tensor:
        return _summed(gradient)


def _summed(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total
