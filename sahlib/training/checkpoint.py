"""The state of an unfinished training on disk: all that the next epoch needs, as tensors and JSON.

Nothing but safetensors is written and read: a file from a stranger holds numbers and cannot run code.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from sahlib.study import StudyError
from sahlib.workspace import writing


@contextlib.contextmanager
def saving(path: Path, beside: bool) -> Iterator[Callable[[nn.Module, dict, torch.optim.Optimizer, list[dict]], None]]:
    """Yields save(network, best, optimizer, history), which replaces the state at `path` by that of now.

    beside  whether a copy of it is written by a thread while training goes on, as pays on a GPU; on a processor that
            thread would have threads of torch's of its own, and all wait for each other: on two cores it cost a third
            of an epoch

    Each call waits for the state before, so never more than one finished epoch is not on disk. What the disk refuses is
    an error in this call or the next, or at the end of the block.
    """
    with ThreadPoolExecutor(1) as writer:
        written: Future | None = None

        def save(network: nn.Module, best: dict, optimizer: torch.optim.Optimizer, history: list[dict]) -> None:
            nonlocal written
            if written:
                written.result()
            tensors = {f"network.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"adam.{index}.{name}": tensor.clone() for name, tensor in moments.items()}
            tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
            state = path, tensors, json.dumps(history), _aside(network)
            if beside:
                written = writer.submit(write, *state)
            else:
                write(*state)

        yield save
        if written:
            written.result()


def write(path: Path, tensors: dict[str, torch.Tensor], history: str, stream: AbstractContextManager) -> None:
    """Writes a state; tensors are read within `stream`."""
    with writing(path) as file, stream:
        # Safetensors does not know channels_last.
        copies = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(copies, file, metadata={"history": history})


def _aside(network: nn.Module) -> AbstractContextManager:
    """On a GPU a stream that begins where the work given so far ends, so that reading waits for no later step."""
    if not next(network.parameters()).is_cuda:
        return contextlib.nullcontext()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    return torch.cuda.stream(stream)


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
