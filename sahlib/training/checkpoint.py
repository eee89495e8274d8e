"""The state of an unfinished training on disk: all that the next epoch needs, as tensors and JSON.

Nothing but safetensors is written and read: a file from a stranger holds numbers and cannot run code.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from sahlib.study import StudyError
from sahlib.workspace import writing


def save(path: Path, network: nn.Module, best: dict, optimizer: torch.optim.Optimizer, history: list[dict]) -> None:
    """Replaces the state at `path` by that of now, once it is whole on disk."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
    with writing(path) as file:
        # A contiguous copy of each: safetensors knows neither channels_last nor tensors that share memory.
        copies = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(copies, file, metadata={"history": json.dumps(history)})


def resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[dict], dict | None]:
    """(history, best weights) of an interrupted training, whose network and optimizer are put back; else ([], None)."""
    if not path.exists():
        return [], None
    groups: dict[str, dict] = {"network": {}, "best": {}, "adam": {}}
    try:
        with safe_open(path, "pt") as file:
            history = json.loads(file.metadata()["history"])
            for key in file.keys():  # noqa: SIM118 (not a dict)
                group, name = key.split(".", 1)
                groups[group][name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"The saved state {path} is damaged ({error}); delete it to train from the start.") from error
    device = next(network.parameters()).device
    network.load_state_dict(groups["network"])
    weights = optimizer.param_groups[0]["params"]
    adam: dict[int, dict] = {}
    for key, tensor in groups["adam"].items():
        index, name = key.split(".")
        if tensor.ndim:
            # Fused Adam walks weight and moments in memory order, so both must lie alike (channels_last).
            tensor = torch.empty_like(weights[int(index)]).copy_(tensor)
        adam.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": adam, "param_groups": optimizer.state_dict()["param_groups"]})
    return history, {name: tensor.to(device) for name, tensor in groups["best"].items()}
