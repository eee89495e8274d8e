"""One network trained by several processes of torchrun, each on its GPU (or its share of the cores):

    torchrun --nproc-per-node 4 -m sahlib train --profile paper --model unet

Each process takes its share of every batch, and all take the loss of the whole batch: the Dice term pools all pixels of
a batch, so that the mean of the shares' losses would be another loss. The process of rank 0 alone writes and prints.
Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from .study import StudyError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
# A process waits long for a good reason, as while slices are made; if another one dies, torchrun ends it at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """This process among those that train together: `rank` of `size`, and `local_rank` of those on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part_of(self, batch: torch.Tensor) -> torch.Tensor:
        """This rank's share of a batch [b,...]; the shares of all ranks in turn are the batch, equal to within one.

        A batch with fewer slices than ranks is everyone's as a whole, since a network cannot learn from no slice. All
        slices then count equally often, which changes neither a mean over pixels nor a ratio of sums over them.
        """
        if len(batch) < self.size:
            return batch
        return batch[self.rank * len(batch) // self.size : (self.rank + 1) * len(batch) // self.size]


def world() -> World:
    """What torchrun says in the environment; without it, one process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    return World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within the block this process can talk to the others, and only rank 0 prints."""
    own = world()
    if own.size == 1:
        yield
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        if own.local_rank >= (count := torch.cuda.device_count()):
            raise StudyError(f"There are fewer GPUs than processes; start torchrun with --nproc-per-node {count}.")
        torch.cuda.set_device(own.local_rank)
    # Decisions and records travel by gloo, from CPU to CPU; gradients on GPUs by nccl.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if own.is_first else nowhere):
        yield
    # Not after an exception: leaving waits for the others, who may wait for this process.
    distributed.destroy_process_group()


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The block runs on rank 0, then on all others, who find what it made."""
    if not world().is_first:
        from_first(lambda: None)
    yield
    if world().is_first:
        from_first(lambda: None)


def from_first(work: Callable[[], T]) -> T:
    """What `work()` returns, which rank 0 alone does; the others wait for it."""
    own = world()
    if own.size == 1:
        return work()
    from torch import distributed

    result = [work() if own.is_first else None]
    distributed.broadcast_object_list(result, src=0)
    return result[0]


def from_all(value: T) -> list[T]:
    """The `value` of each rank, in order."""
    own = world()
    if own.size == 1:
        return [value]
    from torch import distributed

    values: list = [None] * own.size
    distributed.all_gather_object(values, value)
    return values


def of_whole_batch(loss: Callable) -> Callable:
    """`loss` of logits and truth, given this rank's shares [b,K,H,W] of them, taken over those of all ranks.

    Its gradient is `size` times that of the own share, so that the mean over ranks, which DistributedDataParallel
    takes, is the gradient of the whole batch's loss.
    """
    return loss if world().size == 1 else lambda *shares: loss(*(_gathered(share) for share in shares))


def shared(network: nn.Module) -> DistributedDataParallel:
    """`network` with its gradients meant over ranks. Where it normalises batches it does so, from now on, by the
    statistics of the slices of all ranks.
    """
    from torch.nn.parallel import DistributedDataParallel

    from .whole_batch_norm import normalise_together

    normalise_together(network)
    devices = [world().local_rank] if next(network.parameters()).is_cuda else None
    return DistributedDataParallel(network, device_ids=devices)


def _gathered(share: torch.Tensor) -> torch.Tensor:
    """The shares [b,...] of all ranks in turn. Gradients flow to the own one alone, `size` times as large."""
    import torch
    from torch import distributed

    own = world()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(own.size)]
    distributed.all_gather(sizes, torch.tensor([len(share)]))
    sizes = [int(size) for size in sizes]
    # All tensors of a gathering are equally large; the shares differ by one at most.
    padded = torch.cat([share.detach(), share.detach()[: max(sizes) - len(share)]]).contiguous()
    shares = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(shares, padded)
    if share.requires_grad:
        share.register_hook(lambda gradient: gradient * own.size)
    return torch.cat([share if rank == own.rank else shares[rank][:size] for rank, size in enumerate(sizes)])
