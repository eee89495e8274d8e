"""A function of batches as one CUDA graph: its kernels are launched together, not one by one from Python.

A small network waits longer for launches than for arithmetic; replaying a captured step takes the waiting away
(CUDA Graphs in PyTorch's notes on CUDA semantics, "whole-network capture"). What cannot be compiled is captured as it
is, and what cannot be captured runs as it is: each costs time and a line, not the training.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

# Libraries choose their kernels and the allocator settles in the first calls, which must not be captured.
WARM_UP_CALLS = 3
TIMED_REPLAYS = 10  # to decide whether compiling pays
# Assumed until they are measured on a GPU: what torch.compile takes, and the share of a captured step that it saves.
COMPILATION_SECONDS, COMPILATION_GAIN = 50, 0.35


class Captured:
    """`function` of device tensors shaped like `example`, replayed from a graph; other shapes run through `otherwise`.

    The tensor returned by a replay is overwritten by the next one.
    """

    def __init__(self, function: Callable, example: tuple[torch.Tensor, ...], otherwise: Callable):
        self.inputs = tuple(tensor.clone() for tensor in example)
        self.function = function  # the graph calls kernels that a compiled function owns
        self.otherwise = otherwise
        aside, usual = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(usual)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_CALLS):
                function(*self.inputs)
        usual.wait_stream(aside)
        self.graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            with _no_garbage_collected(), torch.cuda.graph(self.graph, pool=pool):
                self.output = function(*self.inputs)
        except BaseException:
            # What torch leaves behind when a capture fails: its stream as the current one and, before 2.12, an
            # allocator that takes the capture to be going on (pytorch issue 180395).
            torch.cuda.set_stream(usual)
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            raise

    def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
        if batch[0].shape != self.inputs[0].shape:
            with _no_search():  # for the last batch of an epoch
                return self.otherwise(*batch)
        for own, given in zip(self.inputs, batch, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output

    def seconds(self) -> float:
        """Mean time of one replay."""
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(TIMED_REPLAYS):
            self.graph.replay()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / TIMED_REPLAYS


def captured(function: Callable, example: tuple[torch.Tensor, ...], otherwise: Callable, what: str) -> Callable:
    """Captured(function, example, otherwise), or `otherwise` itself where that fails."""
    return _tried(lambda: Captured(function, example, otherwise), what) or otherwise


def captured_step(
    step_of: Callable[[nn.Module], Callable],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    example: tuple[torch.Tensor, ...],
    calls: int,
    may_compile: bool,
) -> Callable:
    """The training step `step_of(network)` captured, compiled first where that pays within `calls` calls.

    Network and optimizer are afterwards what they were before.
    """
    eager = step_of(network)
    with undone(network, optimizer):
        step = captured(eager, example, eager, "a training step")
        if step is eager or not may_compile or COMPILATION_GAIN * step.seconds() * calls <= COMPILATION_SECONDS:
            return step
        del step  # its memory is needed for the other one
        compiled = _tried(lambda: Captured(_compiled(step_of, network), example, eager), "a compiled training step")
        return compiled or captured(eager, example, eager, "a training step")


def _tried(make: Callable[[], Captured], what: str) -> Captured | None:
    """What `make` returns; None, and a line about `what`, where it fails.

    Memory that runs out is no reason to go on: a plain step needs about as much.
    """
    try:
        return make()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a driver, a compiler or an operation has against it
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        print(f"Capturing {what} failed ({reason}); training goes on without.", flush=True)
        return None


def _compiled(step_of: Callable, network: nn.Module) -> Callable:
    """The step through torch.compile; a missing Triton or C compiler, or a bug in them, shows in its first call."""
    from torch._inductor import config

    # In torch 2.13.0 this launcher may outlive its kernel (pytorch issue 188607); a graph launches without it.
    if hasattr(config, "use_fast_triton_launcher"):
        config.use_fast_triton_launcher = False
    torch.compiler.reset()  # what earlier trainings of this process compiled is of no use, and counts against a limit
    return step_of(torch.compile(network))


@contextlib.contextmanager
def _no_search() -> Iterator[None]:
    """Within the block cuDNN takes the kernels that it deems best and tries none, which costs seconds a shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Collects now and not within the block: a graph or kernel destroyed during a capture invalidates it."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def undone(network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Puts weights, running statistics and Adam's moments back to what they were, in place, when the block ends."""
    # A compiled network shares these tensors, and a graph remembers where they lie: they are overwritten, not replaced.
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moments = {weight: {k: v.clone() for k, v in state.items()} for weight, state in optimizer.state.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                tensor.copy_(before[name])
            for weight, state in optimizer.state.items():
                for name, tensor in state.items():
                    # Adam starts with no moments, which is the same as moments and a step count of zero.
                    tensor.copy_(moments[weight][name]) if weight in moments else tensor.zero_()
