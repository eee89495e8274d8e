"""Flips and rotations of a whole batch on the device, as one resampling (section 2.2: training only)."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import affine_grid, grid_sample


def draw_transforms(
    count: int, flip_probability: float, rotation_degrees: float, generator: torch.Generator
) -> torch.Tensor:
    """`count` random affine matrices [count,2,3] in grid_sample's coordinates, on the CPU.

    Each is a horizontal flip with probability `flip_probability`, then a rotation about the centre by an angle
    uniform in +-`rotation_degrees`. Only `generator` is used, so nothing else in a run moves these draws.
    """
    flip = torch.where(torch.rand(count, generator=generator) < flip_probability, -1.0, 1.0)
    angle = (torch.rand(count, generator=generator) * 2 - 1) * math.radians(rotation_degrees)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros(count)
    return torch.stack([torch.stack([flip * cos, -flip * sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)


def transform(images: torch.Tensor, labels: torch.Tensor, matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Float images [B,C,H,W] and labels [B,K,H,W] resampled by `matrices` [B,2,3]: bilinear and nearest, 0 outside."""
    grid = affine_grid(matrices, list(images.shape), align_corners=False)
    return (
        grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False),
        grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=False),
    )
