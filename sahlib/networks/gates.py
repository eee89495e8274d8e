"""Attention gates: held open for the control arm, and read out to see what they look at.

MONAI's AttentionUnet multiplies each skip connection by one coefficient in [0,1] per pixel (Oktay et al. 2018). The
control is the same network with every coefficient 1, so that what differs between the two is the gates alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

BATCH = 16  # images that are looked at together


class OpenGate(nn.Module):
    """Stands where an attention block was, and lets the skip connection pass unchanged."""

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x


def open_gates(network: nn.Module) -> nn.Module:
    """Replaces every attention block of an AttentionUnet by an OpenGate; all other weights stay as they are."""
    from monai.networks.nets.attentionunet import AttentionLayer

    for module in network.modules():
        if isinstance(module, AttentionLayer):
            module.attention = OpenGate()
    return network


def gate_maps(network: nn.Module, images: np.ndarray, precision: str) -> list[np.ndarray]:
    """Gate coefficients of uint8 images [k,C,H,W], one float32 array [k,h,w] per level, full resolution first, as they
    are when the network predicts in `precision`.

    Raises ValueError for a network without attention gates.
    """
    from monai.networks.nets.attentionunet import AttentionBlock

    from sahlib.networks.models import forward  # which imports this module

    read = {module.psi: [] for module in network.modules() if isinstance(module, AttentionBlock)}
    if not read:
        raise ValueError("the network has no attention gates")
    device = next(network.parameters()).device
    hooks = [
        gate.register_forward_hook(lambda own, _, psi: read[own].append(psi[:, 0].float().cpu().numpy()))
        for gate in read
    ]
    try:
        with torch.inference_mode():
            for batch in np.split(images, range(BATCH, len(images), BATCH)):
                forward(network, torch.from_numpy(batch).to(device).float() / 255, precision)
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(map(np.concatenate, read.values()), key=lambda level: -level.shape[1])


def inside_and_outside(maps: np.ndarray, truth: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Mean gate coefficient inside the lesion and in the rest of the head, float64 [k,2]; NaN where there is none.

    maps [k,h,w]; truth and head bool [k,H,W]. A coefficient counts for all pixels of the block that it gates.
    """
    factor = truth.shape[1] // maps.shape[1]
    full = maps.repeat(factor, 1).repeat(factor, 2).astype(np.float64)
    regions = (truth, head & ~truth)
    sums = np.stack([(full * region).sum((1, 2)) for region in regions], 1)
    areas = np.stack([region.sum((1, 2)) for region in regions], 1)
    return np.divide(sums, areas, out=np.full(sums.shape, np.nan), where=areas > 0)
