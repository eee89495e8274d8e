"""Batches of a store's slices on the device, whether the slices fit into its memory or not.

Where all fit they are copied to the device once; else they are read from the memory-mapped store while the device
works. Both give the same batches.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from sahlib.data.slices import SliceStore

# Of the memory that is free when training begins; the rest is for the network and its activations.
RESIDENT_SHARE = 0.4
# Threads that read, for a disk answers many at once sooner than one by one; and batches read before they are asked for.
READERS, READ_AHEAD = 4, 8


@dataclass(frozen=True)
class Resident:
    """Slices that lie on the device as a whole: `images` uint8 [k,C,H,W], `labels` uint8 [k,K,H,W]."""

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images uint8 [b,C,H,W] and masks uint8 [b,K,H,W] at the positions `order` int64 [n], in that order."""
        for batch in order.to(self.device).split(batch_size):
            yield self.images[batch], self.labels[batch]


@dataclass(frozen=True)
class Streamed:
    """Slices at `rows` int [k] of a store, read a few batches ahead by threads of their own."""

    store: SliceStore
    rows: np.ndarray
    device: torch.device
    lesions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As those of Resident."""
        left = iter(order.split(batch_size))
        with ThreadPoolExecutor(READERS) as readers:
            ahead = deque(readers.submit(self._read, batch) for batch in itertools.islice(left, READ_AHEAD))
            try:
                while ahead:
                    ahead.extend(readers.submit(self._read, batch) for batch in itertools.islice(left, 1))
                    yield tuple(tensor.to(self.device, non_blocking=True) for tensor in ahead.popleft().result())
            finally:
                readers.shutdown(cancel_futures=True)

    def _read(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pair = _pair(self.store, self.rows[positions.numpy()], self.lesions)
        # Only from pinned memory does a copy to the GPU run beside its work.
        return tuple(tensor.pin_memory() if self.device.type == "cuda" else tensor for tensor in pair)


def open_feed(
    store: SliceStore, rows: np.ndarray, device: torch.device, lesions: tuple[str, ...]
) -> Resident | Streamed:
    """The slices at `rows` int [k] of the store: Resident where they fit into RESIDENT_SHARE of the free memory."""
    pixels = len(rows) * store.images[0].size
    if (1 + len(store.further_images) + len(lesions)) * pixels <= RESIDENT_SHARE * free_memory(device):
        return Resident(*(tensor.to(device) for tensor in _pair(store, rows, lesions)))
    return Streamed(store, rows, device, lesions)


def _pair(store: SliceStore, rows: np.ndarray, lesions: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    masks = np.stack([store.of(lesion).masks(rows) for lesion in lesions], 1)
    return torch.from_numpy(store.inputs(rows)), torch.from_numpy(masks.view(np.uint8))


def free_memory(device: torch.device) -> int:
    """Bytes that may still be allocated on the device."""
    if device.type == "cpu":
        return psutil.virtual_memory().available
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, of what was freed
    return torch.cuda.mem_get_info(device)[0] + kept
