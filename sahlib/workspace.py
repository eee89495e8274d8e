"""Where things lie on disk, writing that survives a crash, and what made a file."""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from sahlib.study import Study, StudyError, digest

if TYPE_CHECKING:
    import pandas as pd

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"
# Columns of names, in whatever file; pandas would take some names for missing values and others for numbers.
TEXT = ("slice_id", "patient_id", "source", "side", "series", "label", "slice", "sample", "Seed")
LIBRARIES = ("torch", "monai", "numpy", "opencv-python", "opencv-python-headless", "scikit-learn", "nilearn", "pandas")


@dataclass(frozen=True)
class Workspace:
    """Where one reproduction keeps its files: `output`, or the project's own folder when it is empty."""

    output: str = ""

    @property
    def root(self) -> Path:
        return absolute(self.output) if self.output else PROJECT

    @property
    def processed(self) -> Path:
        return self.root / "data" / "processed"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def executed_notebooks(self, study: Study, fingerprint: dict) -> Path:
        """The folder of a Study's executed notebooks, named like that of its figures."""
        return self.runs / "notebooks" / self.figures(study, fingerprint).name

    def figures(self, study: Study, fingerprint: dict) -> Path:
        """The folder of a Study's figures and tables: `<dataset>-<profile>` for a profile as it is, on the phantom.

        Whatever differs, in a field or in the data behind `fingerprint`, gets a folder of its own, so that no folder
        ever mixes two studies and no trial overwrites published results.
        """
        name = f"{study.dataset}-{study.profile}"
        if study != Study.of_profile(study.profile):
            own = {key: value for key, value in study.as_dict().items() if key != "data_dir"}
            name += f"-{digest(own, fingerprint)[:6]}"
        return self.root / "paper_figures" / name


def absolute(path: str | Path) -> Path:
    """A path that a user gave, without ~, ".." and links; StudyError where no file can be there."""
    try:
        found = Path(path).expanduser().resolve()
        found.exists()  # refuses what resolve() lets pass, such as a name that is too long
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, or the home of nobody
        raise StudyError(f"{path} leads nowhere ({getattr(error, 'strerror', error)}); name another folder.") from error
    return found


def partial_name(path: Path) -> Path:
    """The temporary name under which this process writes what is to become `path`.

    Leftovers that a killed process of this machine wrote under such a name are removed; of another's, which may share
    the folder, nobody here can tell whether it lives.
    """
    own = f".{path.name}.partial-{platform.node()}-"
    for leftover in path.parent.glob(f"{glob.escape(own)}*"):
        process = leftover.name.removeprefix(own)
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path.with_name(f"{own}{os.getpid()}")


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV that this project wrote; names stay text, so that a patient called NA or 007 comes back as written."""
    import pandas as pd

    numbers = [column for column in pd.read_csv(path, nrows=0) if column not in TEXT]
    blank = {column: [""] for column in numbers}
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=blank)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` to write a file to; it takes the place of `path` once it is whole.

    What the disk refuses becomes a StudyError; the temporary file never stays.
    """
    with disk_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = partial_name(path)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_named(path: Path, way: str = "choose another folder") -> Iterator[None]:
    """Turns what a disk can refuse while `path` is written into one sentence; `way` out where the error names none."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StudyError(f"The disk is full; {path} was not written. Free some space and run again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StudyError(f"No permission to write {path}; choose another folder.") from error
        raise StudyError(f"{path} cannot be written ({error}); {way}.") from error


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the lock of `folder`, so that two processes never write the same run or store; the second says that it
    waits.

    The lock goes with its process, however that ends.
    """
    with disk_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process works in {folder}; waiting for it to end.", flush=True)
            held = lock.acquire()
    with held:
        yield


def provenance() -> dict:
    """Git commit, library versions, device and the time in UTC."""
    libraries = {}  # that can change a result
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries[name] = importlib.metadata.version(name)
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        "libraries": libraries,
        "device": device_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def made_by() -> str:
    """Commit, versions and device in one line, for a notebook's first output."""
    facts = provenance()
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return f"Commit {shortened(facts['commit'])}, Python {facts['python']}, {libraries}; {facts['device']}"


def shortened(commit: str) -> str:
    """The first ten digits of what `git_commit` gives, and its "+changes"."""
    return commit[:10] + "+changes" * commit.endswith("+changes")


def git_commit() -> str:
    """The commit of this checkout, "+changes" where the code differs from it; "unknown" outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", PROJECT, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # Regenerated results are output, not a change of the code that made them.
        changed = git("status", "--porcelain", "--", ":/sahlib", ":/notebooks", ":/run_all.sh")
        return git("rev-parse", "HEAD") + "+changes" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name() -> str:
    """The GPU's name, or the processor's with the number of cores that may be used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    named = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{named or platform.processor() or platform.machine()}, {cores()} cores"


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
