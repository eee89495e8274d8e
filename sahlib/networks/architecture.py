"""What a network is made of, read off one forward pass: the blocks of Figures 3 and 4 and how they are joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from torch import nn


class Block(NamedTuple):
    """What is drawn as one block: its modules in the order they run, and the block whose output is joined to its
    input (by concatenation), if any."""

    name: str
    kind: str  # encoder, bottom, up, gate, decoder or output
    modules: tuple[nn.Module, ...]
    joins: str = ""


def blocks(model: nn.Module, size: int) -> pd.DataFrame:
    """One row per block of `model` in the order they run, read off one forward pass of a [1,1,size,size] image.

    Columns: block, kind (input, encoder, bottom, up, gate, decoder, output), in_channels, channels and size (of the
    output; of a gate, the channels inside it), resampling (the layer that changes the size, "" where none does),
    convolutions (the layers that ran), parameters, joins (the block whose output is concatenated to the input).
    ValueError for a network that is not MONAI's UNet, AttentionUnet or FlexibleUNet with a ResNet encoder.
    """
    import torch

    blocks = _known_blocks(model)
    ran: list[tuple[nn.Module, tuple, tuple]] = []
    # Layers alone: what holds other modules computes nothing itself, and neither does a gate held open.
    leaves = [m for m in model.modules() if not list(m.children()) and type(m).__name__ != "OpenGate"]
    hooks = [
        leaf.register_forward_hook(lambda m, args, out: ran.append((m, tuple(args[0].shape), tuple(out.shape))))
        for leaf in leaves
    ]
    training, weight = model.training, next(model.parameters())
    try:
        model.eval()
        with torch.no_grad():
            # The first weight is that of a convolution over the input's channels.
            model(torch.zeros(1, weight.shape[1], size, size, dtype=weight.dtype, device=weight.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()

    rows = [("Input", "input", 1, 1, size, "", 0, 0, "")]
    for block in blocks:
        members = {m for module in block.modules for m in module.modules()}
        calls = [call for call in ran if call[0] in members]
        if not calls:  # a gate that is held open computes nothing
            continue
        convolutions = [call for call in calls if hasattr(call[0], "kernel_size") and hasattr(call[0], "in_channels")]
        rows.append(
            (
                block.name,
                block.kind,
                calls[0][1][1],
                (convolutions[0] if block.kind == "gate" else calls[-1])[2][1],
                calls[-1][2][-1],
                next((_layer(m) for m, before, after in calls if before[-1] != after[-1]), ""),
                len(convolutions),
                sum(p.numel() for module in block.modules for p in module.parameters()),
                block.joins,
            )
        )
    columns = ["block", "kind", "in_channels", "channels", "size", "resampling", "convolutions", "parameters", "joins"]
    return pd.DataFrame(rows, columns=columns)


def _layer(module: nn.Module) -> str:
    """What a resampling layer is, in words."""
    kind = type(module).__name__
    if "ConvTranspose" in kind:
        kind = "transposed convolution"
    elif "Conv" in kind:
        kind = "convolution"
    elif "Pool" in kind:
        kind = "max pooling" if "Max" in kind else "average pooling"
    elif "Upsample" in kind:
        return f"{module.mode} upsampling ×{_first(module.scale_factor):g}"
    kernel = _first(module.kernel_size)
    return f"{kernel}×{kernel} {kind}, stride {_first(module.stride)}"


def _first(value):
    """Of a pair for height and width, the first; they are equal in every network here."""
    return value[0] if isinstance(value, (tuple, list)) else value


def _known_blocks(model: nn.Module) -> list[Block]:
    # Told apart by what they hold, because importing the classes would cost seconds.
    if hasattr(model, "encoder") and hasattr(model.encoder, "layer4") and hasattr(model, "segmentation_head"):
        return _flexible_unet(model)
    if any(type(module).__name__ == "AttentionLayer" for module in model.modules()):
        return _attention_unet(model)
    if any(type(module).__name__ == "SkipConnection" for module in model.modules()):
        return _unet(model)
    raise ValueError(f"{type(model).__name__}: only MONAI's UNet, AttentionUnet and FlexibleUNet (ResNet) can be read")


def _unet(model: nn.Module) -> list[Block]:
    """monai/networks/nets/unet.py, _create_block: Sequential(down, SkipConnection(next level), up), nested."""
    downs, ups, level = [], [], model.model
    while (inner := list(level.children())) and type(inner[1]).__name__ == "SkipConnection":
        k = len(downs) + 1
        downs.append(Block(f"Encoder {k}", "encoder", (inner[0],)))
        ups.append(Block(f"Decoder {k}", "decoder", (inner[2],), f"Encoder {k}"))
        level = inner[1].submodule
    return [*downs, Block("Bottom", "bottom", (level,)), *reversed(ups)]


def _attention_unet(model: nn.Module) -> list[Block]:
    """monai/networks/nets/attentionunet.py: Sequential(head, AttentionLayer, 1x1 convolution), layers nested."""
    head, layer, output = model.model
    downs, ups = [Block("Encoder 1", "encoder", (head,))], []
    while layer is not None:
        k = len(downs)
        ups = [
            Block(f"Up {k}", "up", (layer.upconv,)),
            Block(f"Gate {k}", "gate", (layer.attention,)),
            Block(f"Decoder {k}", "decoder", (layer.merge,), f"Encoder {k}"),
            *ups,
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
    encoder = model.encoder
    downs = [
        Block("Encoder 1", "encoder", (encoder.conv1, encoder.bn1, encoder.act)),
        Block("Encoder 2", "encoder", (encoder.maxpool, encoder.layer1)),
        Block("Encoder 3", "encoder", (encoder.layer2,)),
        Block("Encoder 4", "encoder", (encoder.layer3,)),
        Block("Bottom", "bottom", (encoder.layer4,)),
    ]
    ups = []
    for i, block in enumerate(model.decoder.blocks):
        k = len(downs) - 1 - i
        ups.append(Block(f"Up {k}", "up", (block.upsample,)))
        ups.append(Block(f"Decoder {k}", "decoder", (block.convs,), f"Encoder {k}" if i < model.skip_connect else ""))
    return [*downs, *ups, Block("Output", "output", (model.segmentation_head,))]
