"""A network's name -> a torch module. All known by a name are MONAI's; nothing here invents a layer (layers.py computes
two faster). "my_package.nets:build" is anybody's: a function (channels, in_channels, out_channels) -> module.

Every network takes images [B,in_channels,H,W] in [0,1] and returns logits [B,out_channels,H,W]; H and W are multiples
of 16, of 32 for ResNet34.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sahlib.networks.gates import open_gates
from sahlib.networks.layers import without_detours
from sahlib.study import FOREIGN, MODELS, StudyError

# Encoder strides between the levels: each halves the image.
STRIDES = (2, 2, 2, 2)


def build(
    name: str,
    channels: tuple[int, ...],
    in_channels: int = 1,
    out_channels: int = 1,
    priors: Sequence[float] | None = None,
) -> nn.Module:
    """The network called `name`, randomly initialised from torch's global generator, as this project trains it.

    name          one of study.MODELS, or of study.FOREIGN
    channels      five widths, top level first. `unet_resnet34` has ResNet34's own encoder widths (64 to 512),
                  and takes `channels` for its decoder, bottom level first.
    priors        share of lesion pixels in the training set, one per output, strictly between 0 and 1; its
                  bias then starts at the log-odds, so that the untrained network predicts that share everywhere
                  (Lin et al. 2017, focal loss, section 4.1). None keeps MONAI's initialisation.
    """
    make = foreign(name) if FOREIGN.fullmatch(name) else partial(of_monai, name)
    network = make(channels, in_channels, out_channels)
    if priors is not None:
        if wrong := [prior for prior in priors if not 0 < prior < 1]:
            raise StudyError(
                "prior_bias needs a training set with both lesion and background pixels; the lesion share is "
                f"{wrong[0]}."
            )
        with torch.no_grad():
            output_layer(network).bias.copy_(torch.tensor([math.log(prior / (1 - prior)) for prior in priors]))
    return without_detours(network)


def of_monai(name: str, channels: tuple[int, ...], in_channels: int = 1, out_channels: int = 1) -> nn.Module:
    """MONAI's own module of a network, of which `build` computes two layers faster."""
    # MONAI takes seconds to import; a notebook that only looks at results should not wait for it.
    from monai.networks.nets.attentionunet import AttentionUnet
    from monai.networks.nets.flexible_unet import FlexibleUNet
    from monai.networks.nets.swin_unetr import SwinUNETR
    from monai.networks.nets.unet import UNet

    if name == "unet":
        return UNet(2, in_channels, out_channels, channels, STRIDES, num_res_units=2)
    if name == "unet_free_output":
        # Built as "unet" first, so that with the same seed all weights that both have start the same.
        network = UNet(2, in_channels, out_channels, channels, STRIDES, num_res_units=2)
        del network.model[2][0].adn
        return network
    if name == "attention_unet":
        return AttentionUnet(2, in_channels, out_channels, channels, STRIDES)
    if name == "attention_unet_open_gates":
        # Drawn with its gates first, so that with the same seed all other weights start as those of attention_unet.
        return open_gates(AttentionUnet(2, in_channels, out_channels, channels, STRIDES))
    if name == "unet_resnet34":
        widths = tuple(reversed(channels))
        # Every size is a multiple of 32, so nothing needs padding, and an empty one would cost a copy in NCHW.
        return FlexibleUNet(
            in_channels, out_channels, "resnet34", decoder_channels=widths, spatial_dims=2, is_pad=False
        )
    if name == "swin_unetr":
        # Its widths are multiples of 12, since a stage has 3, 6, 12 or 24 heads; as wide as the others, about.
        return SwinUNETR(in_channels, out_channels, feature_size=12 * max(1, channels[0] // 16), spatial_dims=2)
    raise StudyError(f"no network is called {name!r}; choose one of {', '.join(MODELS)}.")


def foreign(name: str) -> Callable[[Sequence[int], int, int], nn.Module]:
    """The function that a name of study.FOREIGN names; StudyError where there is none."""
    module, _, function = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module may raise anything while it is imported
        raise StudyError(
            f"{name} cannot be imported ({type(error).__name__}: {error}); install {module.partition('.')[0]}, or put "
            "the folder that holds it into PYTHONPATH."
        ) from error
    if not callable(made):
        raise StudyError(f"{name} is no function; one that takes (channels, in_channels, out_channels) is needed.")
    return made


def code_digest(name: str) -> str:
    """A digest of the file that a foreign network is written in: with other code it is another network."""
    return hashlib.sha256(Path(inspect.getfile(foreign(name))).read_bytes()).hexdigest()[:12]


def require_usable(name: str, channels: tuple[int, ...], in_channels: int, out_channels: int, size: int) -> None:
    """StudyError where a foreign network does not make logits [2,K,size,size] of images [2,C,size,size], or has no
    convolution with the weights of an output."""
    shape = (2, out_channels, size, size)
    try:
        network = build(name, channels, in_channels, out_channels)
        with torch.no_grad():
            found = network(torch.zeros(2, in_channels, size, size))
        answer = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        last = output_layer(network).out_channels
    except StudyError:
        raise
    except Exception as error:  # of somebody's code, which may raise anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StudyError(f"{name} cannot be used on images of {size}x{size} ({why}); try it by itself.") from error
    if answer != shape or last != out_channels:
        raise StudyError(
            f"{name} returned {answer} for images of shape {(2, in_channels, size, size)}, its last convolution having "
            f"{last} channels; it must return logits of shape {shape} by a last convolution."
        )


def forward(network: nn.Module, images: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits float32 [B,K,H,W] of images in [0,1]; "bf16" runs the convolutions in bfloat16."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        return network(images).float()


def output_layer(network: nn.Module) -> nn.Module:
    """The last convolution, whose bias is the logit of an image without features."""
    return [m for m in network.modules() if isinstance(m, nn.modules.conv._ConvNd)][-1]


def blank_image(network: nn.Module, size: int) -> torch.Tensor:
    """An image [1,C,size,size] that shows nothing, with the channels that the network takes, on its device."""
    first = next(m for m in network.modules() if isinstance(m, nn.modules.conv._ConvNd))  # over the input
    return torch.zeros(1, first.in_channels, size, size, device=first.weight.device)


def gflop(network: nn.Module, size: int) -> float:
    """Billions of floating-point operations of one image [1,C,size,size] forward, a multiply-add counted as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(blank_image(network, size))
    return counter.get_total_flops() / 1e9
