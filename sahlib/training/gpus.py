"""One GPU per process: on a machine with several, trainings that run side by side each take one of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

POLL_SECONDS = 2.0


@contextlib.contextmanager
def own_gpu() -> Iterator[None]:
    """Within the block the current GPU is one that no other such block on this machine has, whoever's; waits for one.

    Where there is one GPU or none, nothing is chosen: a scheduler that shows a job only its own GPU needs no help.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        yield
        return
    index, held = _first_free(count)
    with held:
        torch.cuda.set_device(index)
        yield


def _first_free(count: int) -> tuple[int, BinaryIO]:
    """(index, held lock) of the first GPU that nobody holds."""
    # A GPU's uuid is the same whatever CUDA_VISIBLE_DEVICES makes of its number.
    names = [torch.cuda.get_device_properties(index).uuid for index in range(count)]
    said = False
    while True:
        for index, name in enumerate(names):
            if held := _locked(Path(tempfile.gettempdir()) / f"sahlib-gpu-{name}.lock"):
                return index, held
        if not said:
            print(f"All {count} GPUs are at work for others; waiting for one.", flush=True)
            said = True
        time.sleep(POLL_SECONDS)


def _locked(path: Path) -> BinaryIO | None:
    """The lock file, opened; closing it, or the end of the process, sets it free. None where another holds it.

    Not by filelock, which wants to write: in /tmp only the user who made the file may, and all may read and lock it.
    """
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)
        path.chmod(0o644)  # whatever the umask
    try:
        file = path.open("rb")
    except PermissionError:
        # Of another user who was ended between the two lines above; at least one's own trainings keep apart.
        return _locked(path.with_stem(f"{path.stem}-{os.getuid()}"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
