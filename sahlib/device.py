"""The device that computes: a GPU where torch can use one, else the processor; and why it is not the GPU there is."""

from __future__ import annotations

import os
from pathlib import Path

import torch

NODES = Path("/dev")  # where Linux shows an NVIDIA GPU as nvidia0, nvidia1, ...


def device() -> torch.device:
    """Where networks are trained and tested."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def why_unused() -> str:
    """Torch's own reason not to use the NVIDIA GPU of this machine, a sentence; "" where it does, or there is none.

    A GPU that CUDA_VISIBLE_DEVICES hides counts as none: that was somebody's choice.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if torch.cuda.is_available() or hidden or not list(NODES.glob("nvidia[0-9]*")):
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"{str(error).splitlines()[0].split(' Please ')[0].rstrip('.')}."
    return f"torch {torch.__version__} finds none that it can use."


def multiplies_in_bf16() -> bool:
    """Whether the device itself does, without emulation."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older releases of torch cannot say.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
