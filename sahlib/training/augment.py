"""Augmentation of a whole batch on the device (section 2.2: training only).

"paper" flips and rotates the slices as they are stored, as one resampling. "travels" makes of their Hounsfield units
what other scanners, reconstructions, viewers and head rests would have made of them.

What is random is drawn on the CPU before an epoch, a row of numbers per slice, so that the step is the same operations
on the same shapes whatever is drawn: it waits for nothing, and a CUDA graph can hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample

from sahlib.data.slices import WIDE
from sahlib.study import Study

TISSUE_HU, TISSUE_REACH = 35.0, 50.0  # grey matter, and how far from it blood and cerebrospinal fluid lie
# White noise, of which each slice takes a stretch that begins anywhere. Drawn once: for each batch, 16 slices of
# 256x256 pixels would take a CPU core 8 ms and as many megabytes to the device.
NOISE_STARTS = 1 << 20
BLUR_PIXELS = 1.2  # standard deviation of a Gaussian, of which 5x5 pixels are taken


@dataclass(frozen=True)
class Ranges:
    """From where to where "travels" draws, for each slice; evenly, or in the logarithm where both are above 0.

    Every window of study.WINDOWS and grey_window.KNOWN but bone's lies among those drawn, also 0 to 255, HU taken as
    grey. SynthSeg, made to travel between scanners, zooms by 15 % and rotates by 15 degrees (SynthSeg/training.py of
    github.com/BBillot/SynthSeg); pictures on the web are cropped more freely.
    """

    below: tuple[float, float] = (20.0, 199.0)  # HU from grey matter down to the window's lower end
    above: tuple[float, float] = (25.0, 269.0)  # and up to its upper end; WIDE holds both after what comes next
    contrast: tuple[float, float] = (0.7, 1.4)  # of soft tissue, about grey matter
    shift: tuple[float, float] = (-6.0, 6.0)  # HU
    noise: tuple[float, float] = (0.0, 6.0)  # HU, standard deviation
    sharpness: tuple[float, float] = (-1.0, 1.0)  # share of what a blur takes away: -1 is blurred, 1 sharpened
    gamma: tuple[float, float] = (0.7, 1.4)
    degrees: tuple[float, float] = (-25.0, 25.0)
    zoom: tuple[float, float] = (0.75, 1.25)
    move: tuple[float, float] = (-0.1, 0.1)  # of the picture's height and width


RANGES = Ranges()  # other ranges make other weights: raise runs.TRAINING_VERSION


def draw(study: Study, count: int, generator: torch.Generator) -> torch.Tensor:
    """What is drawn for `count` slices under the Study's augmentation, [count,...] on the CPU.

    Only `generator` is used, so nothing else in a run moves these draws.
    """
    if study.augmentation == "travels":
        return draw_travels(count, generator)
    return draw_transforms(count, study.flip_probability, study.rotation_degrees, generator)


def augmentation(study: Study, device: torch.device) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The function (images uint8 [B,C,H,W], labels uint8 [B,K,H,W], what `draw` gave for them) -> both as float32

    on the device, images in [0, 1]. For "travels" the images are those of slices.wide.
    """
    if study.augmentation == "travels":
        count = NOISE_STARTS + study.size**2 - 1
        noise = torch.randn(count, generator=torch.Generator().manual_seed(0)).to(device)
        return lambda images, labels, draws: travel(images, labels, draws, noise)
    return lambda images, labels, draws: transform(images.float() / 255, labels.float(), draws)


def draw_transforms(
    count: int, flip_probability: float, rotation_degrees: float, generator: torch.Generator
) -> torch.Tensor:
    """`count` random affine matrices [count,2,3] in grid_sample's coordinates, on the CPU.

    Each is a horizontal flip with probability `flip_probability`, then a rotation about the centre by an angle
    uniform in +-`rotation_degrees`.
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


def draw_travels(count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` rows [count,14] on the CPU: an affine matrix as of draw_transforms, and the eight numbers of `travel`."""

    def drawn(name: str) -> torch.Tensor:
        first, last = getattr(RANGES, name)
        share = torch.rand(count, generator=generator)
        return first * (last / first) ** share if first > 0 else first + (last - first) * share

    flips = torch.where(torch.rand(2, count, generator=generator) < 0.5, -1.0, 1.0) / drawn("zoom")
    angle = torch.deg2rad(drawn("degrees"))
    cos, sin = torch.cos(angle), torch.sin(angle)
    # A picture is 2 wide in grid_sample's coordinates.
    matrix = [flips[0] * cos, -flips[0] * sin, 2 * drawn("move"), flips[1] * sin, flips[1] * cos, 2 * drawn("move")]
    window = [TISSUE_HU - drawn("below"), TISSUE_HU + drawn("above")]
    tone = [drawn(name) for name in ("contrast", "shift", "noise", "sharpness", "gamma")]
    start = torch.randint(NOISE_STARTS, (count,), generator=generator)  # below 2^24, so exact in float32
    return torch.stack([*matrix, *window, *tone, start], 1)


def travel(
    images: torch.Tensor, labels: torch.Tensor, draws: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices uint8 [B,1,H,W] in the window WIDE and labels uint8 [B,K,H,W] by `draws` [B,14] and white `noise` [N].

    In the order in which a picture comes about: pose, the detector's noise, the kernel, tissue, window, viewer.
    """
    x, y = transform(images.float(), labels.float(), draws[:, :6].unflatten(1, (2, 3)))
    low, high, contrast, shift, noisy, sharpness, gamma, start = draws[:, 6:, None, None, None].unbind(1)
    level, width = WIDE
    air, step = level - width / 2, width / 255
    x = x * step  # HU above air, which is what lies outside of a picture
    x = x + noisy * noise.unfold(0, x[0].numel(), 1)[start.flatten().long()].view_as(x)
    x = x + sharpness * (x - _blurred(x))

    def toned(hounsfield: torch.Tensor) -> torch.Tensor:
        return hounsfield + (contrast - 1) * (hounsfield - TISSUE_HU).clamp(-TISSUE_REACH, TISSUE_REACH) + shift

    # What an export's window cut off stays black or white in every other: none reaches beyond what the slice holds.
    ends = (toned(air + step * end(images, (1, 2, 3), True).float()) for end in (torch.amin, torch.amax))
    low, high = torch.maximum(low, next(ends)), torch.minimum(high, next(ends))
    x = (toned(air + x) - low) / (high - low).clamp(min=1)
    return x.clamp(0, 1) ** gamma, y


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Images [B,1,H,W] through a Gaussian of BLUR_PIXELS, 0 outside; by rows and by columns, which is cheaper."""
    weights = torch.exp(-((torch.arange(-2, 3, device=images.device) / BLUR_PIXELS) ** 2) / 2)
    weights = weights / weights.sum()
    return conv2d(conv2d(images, weights.view(1, 1, 1, 5), padding=(0, 2)), weights.view(1, 1, 5, 1), padding=(2, 0))
