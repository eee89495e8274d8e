"""One GPU per process: on a machine with several, trainings that run side by side each take one of their own."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

POLL_SECONDS = 2.0


@contextlib.contextmanager
def own_gpu() -> Iterator[None]:
    """Within the block the current GPU is one that no other such block of this user's machine has; waits for one.

    Where there is one GPU or none, nothing is chosen: a scheduler that shows a job only its own GPU needs no help.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        yield
        return
    index, lock = _first_free(count)
    try:
        torch.cuda.set_device(index)
        yield
    finally:
        lock.release()


def _first_free(count: int):
    """(index, held lock) of the first GPU that nobody holds; a lock goes with its process."""
    from filelock import FileLock, Timeout

    # A GPU's uuid is the same whatever CUDA_VISIBLE_DEVICES makes of its number.
    names = [torch.cuda.get_device_properties(index).uuid for index in range(count)]
    locks = [FileLock(Path(tempfile.gettempdir()) / f"sahlib-gpu-{name}.lock") for name in names]
    said = False
    while True:
        for index, lock in enumerate(locks):
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return index, lock
        if not said:
            print(f"All {count} GPUs are at work for others; waiting for one.", flush=True)
            said = True
        time.sleep(POLL_SECONDS)
