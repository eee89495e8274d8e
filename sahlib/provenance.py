"""What made a file: code, versions, device and time, as JSON-able values without anything private."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime

LIBRARIES = ("torch", "monai", "numpy", "opencv-python", "opencv-python-headless", "scikit-learn", "nilearn", "pandas")


def provenance() -> dict:
    """Git commit, library versions, device and the time in UTC."""
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        "libraries": versions(),
        "device": device_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def in_words() -> str:
    """One line for a notebook's first output."""
    facts = provenance()
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return f"Commit {facts['commit'][:10]}, Python {facts['python']}, {libraries}; {facts['device']}"


def git_commit() -> str:
    """The commit of this checkout, "+changes" where files differ from it; "unknown" outside a checkout."""
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # Regenerated results are output, not a change of the code that made them.
        changed = _git(folder, "status", "--porcelain", "--", ":/sahlib", ":/notebooks", ":/run_all.sh")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Installed version of each library that can change a result."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    """The GPU's name, or the processor's with the number of cores that may be used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{_processor()}, {cores()} cores"


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git(folder: str, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
