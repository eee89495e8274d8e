"""What a network is made of, read off one forward pass: the blocks of Figures 3 and 4 and how they are joined."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from sahlib.networks.models import blank_image


class Block(NamedTuple):
    """What is drawn as one block: its modules in the order they run, and the block whose output is joined to its
    input (by concatenation), if any."""

    name: str
    kind: str  # encoder, bottom, up, gate, decoder or output
    modules: tuple[nn.Module, ...]
    joins: str = ""


def blocks(model: nn.Module, size: int) -> pd.DataFrame:
    """One row per block of `model` in the order they run, read off one forward pass of a [1,C,size,size] image.

    Columns: block, kind (input, encoder, bottom, up, gate, decoder, output), in_channels, channels and size (of the
    output; of a gate, the channels inside it), resampling (the layer that changes the size, "" where none does),
    convolutions (the layers that ran), parameters, joins (the block whose output is concatenated to the input).
    ValueError for a network that is not MONAI's UNet, AttentionUnet or FlexibleUNet with a ResNet encoder.
    """
    columns = ["block", "kind", "in_channels", "channels", "size", "resampling", "convolutions", "parameters", "joins"]
    known, ran = _known_blocks(model), _layers_run(model, size)
    channels = ran[0][1][1]
    rows = [("Input", "input", channels, channels, size, "", 0, 0, "")]
    for name, kind, modules, joins in known:
        members = {m for module in modules for m in module.modules()}
        calls = [call for call in ran if call[0] in members]
        if not calls:  # a gate that is held open computes nothing
            continue
        convolutions = [call for call in calls if hasattr(call[0], "kernel_size") and hasattr(call[0], "in_channels")]
        channels = (convolutions[0] if kind == "gate" else calls[-1])[2][1]
        resampling = next((_layer(m) for m, before, after in calls if before[-1] != after[-1]), "")
        parameters = sum(p.numel() for module in modules for p in module.parameters())
        ends = (calls[0][1][1], channels, calls[-1][2][-1])
        rows.append((name, kind, *ends, resampling, len(convolutions), parameters, joins))
    return pd.DataFrame(rows, columns=columns)


def layers(model: nn.Module, size: int) -> dict[str, str]:
    """How many norms, activations and skips a network of `blocks` has, by kind, counted from its modules."""
    counted = Counter(type(module).__name__ for module in model.modules())
    try:
        joins = int((blocks(model, size)["joins"] != "").sum())
    except ValueError:  # of a network whose blocks are not known, nothing is known of what it joins
        joins = 0
    skips = {"concatenated": joins, "gated": counted["AttentionBlock"], "in residual units": counted["ResidualUnit"]}
    skips["in residual units"] += counted["ResNetBlock"]
    found = {
        "Norms": {kind: n for kind, n in counted.items() if "Norm" in kind},
        "Activations": {kind: counted[kind] for kind in nn.modules.activation.__all__ if kind in counted},
        "Skips": skips,
    }
    return {what: ", ".join(f"{n} {kind}" for kind, n in own.items() if n) for what, own in found.items()}


def _layers_run(model: nn.Module, size: int) -> list[tuple[nn.Module, tuple, tuple]]:
    """The layers in the order they run, each with the shapes of its input and output."""
    ran: list[tuple[nn.Module, tuple, tuple]] = []
    # Layers alone: what holds other modules computes nothing itself, and neither does a gate held open.
    leaves = [m for m in model.modules() if not list(m.children()) and type(m).__name__ != "OpenGate"]
    hooks = [
        leaf.register_forward_hook(lambda m, args, out: ran.append((m, tuple(args[0].shape), tuple(out.shape))))
        for leaf in leaves
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(blank_image(model, size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return ran


def _layer(module: nn.Module) -> str:
    """What a resampling layer is, in words; height and width are treated alike in every network here."""
    kind = type(module).__name__
    if "Upsample" in kind:
        return f"{module.mode} upsampling ×{np.ravel(module.scale_factor)[0]:g}"
    words = {"ConvTranspose": "transposed convolution", "Conv": "convolution", "MaxPool": "max pooling"}
    kind = next((said for part, said in words.items() if part in kind), kind)
    kernel, stride = (np.ravel(value)[0] for value in (module.kernel_size, module.stride))
    return f"{kernel}×{kernel} {kind}, stride {stride}"


def _known_blocks(model: nn.Module) -> list[Block]:
    # By their names, because importing the classes would cost seconds; by where they come from, because the networks of
    # others have parts that are called alike.
    readers = {
        "monai.networks.nets.unet.UNet": _unet,
        "monai.networks.nets.attentionunet.AttentionUnet": _attention_unet,
        "monai.networks.nets.flexible_unet.FlexibleUNet": _flexible_unet,
    }
    for kind in type(model).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        # Of FlexibleUNet's encoders the ResNets alone have levels of that name.
        if name in readers and (readers[name] is not _flexible_unet or hasattr(model.encoder, "layer4")):
            return readers[name](model)
    raise ValueError(f"{type(model).__name__}: only MONAI's UNet, AttentionUnet and FlexibleUNet (ResNet) can be read")


def _unet(model: nn.Module) -> list[Block]:
    """monai/networks/nets/unet.py, _create_block: Sequential(down, SkipConnection(next level), up), nested."""
    downs, ups, level = [], [], model.model
    while (inner := list(level.children())) and type(inner[1]).__name__ == "SkipConnection":
        k = len(downs) + 1
        downs.append(Block(f"Encoder {k}", "encoder", (inner[0],)))
        ups.insert(0, Block(f"Decoder {k}", "decoder", (inner[2],), f"Encoder {k}"))
        level = inner[1].submodule
    return [*downs, Block("Bottom", "bottom", (level,)), *ups]


def _attention_unet(model: nn.Module) -> list[Block]:
    """monai/networks/nets/attentionunet.py: Sequential(head, AttentionLayer, 1x1 convolution), layers nested."""
    head, layer, output = model.model
    downs, ups = [Block("Encoder 1", "encoder", (head,))], []
    while layer is not None:
        k = len(downs)
        # From the bottom up, as they run.
        ups[:0] = [
            Block(f"Up {k}", "up", (layer.upconv,)),
            Block(f"Gate {k}", "gate", (layer.attention,)),
            Block(f"Decoder {k}", "decoder", (layer.merge,), f"Encoder {k}"),
        ]
        inner = list(layer.submodule.children())
        if len(inner) == 2 and type(inner[1]).__name__ == "AttentionLayer":
            downs.append(Block(f"Encoder {k + 1}", "encoder", (inner[0],)))
            layer = inner[1]
        else:
            downs.append(Block("Bottom", "bottom", (layer.submodule,)))
            layer = None
    return [*downs, *ups, Block("Output", "output", (output,))]


def _flexible_unet(model: nn.Module) -> list[Block]:
    """monai/networks/nets/flexible_unet.py over resnet.py: five features, the last is the bottom."""
    e = model.encoder
    levels = ((e.conv1, e.bn1, e.act), (e.maxpool, e.layer1), (e.layer2,), (e.layer3,))
    found = [Block(f"Encoder {k}", "encoder", modules) for k, modules in enumerate(levels, 1)]
    found.append(Block("Bottom", "bottom", (e.layer4,)))
    for i, block in enumerate(model.decoder.blocks):
        k = len(levels) - i
        joins = f"Encoder {k}" if i < model.skip_connect else ""
        found += [Block(f"Up {k}", "up", (block.upsample,)), Block(f"Decoder {k}", "decoder", (block.convs,), joins)]
    return [*found, Block("Output", "output", (model.segmentation_head,))]
