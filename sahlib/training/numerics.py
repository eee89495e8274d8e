"""How a process computes: precision and determinism for a block, put back after; cores and freed memory for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch

from sahlib.study import Study
from sahlib.workspace import cores

# cuBLAS reads this when it starts, and torch once in a process (its notes on reproducibility).
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Of mallopt(3), in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@contextlib.contextmanager
def numerics(study: Study) -> Iterator[None]:
    """How numbers are computed within the block: all cores, or OMP_NUM_THREADS of them, fp32 that is no TF32, and with
    `study.deterministic` only operations that give the same bits each time."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or cores()))
    _keep_freed_memory()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    torch.use_deterministic_algorithms(study.deterministic)
    # Nearly all batches have one shape, so cuDNN's search for the fastest kernels is paid once.
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = not study.deterministic, False, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before[1:]


def _keep_freed_memory() -> None:
    """Lets glibc keep the memory of a step for the next one; giving it back each time cost 5 to 10 % on two cores."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, -1)
