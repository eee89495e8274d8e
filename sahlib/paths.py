"""Every folder the study reads or writes, in one place."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .study import Study, StudyError

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"


@dataclass(frozen=True)
class Workspace:
    """Where one reproduction keeps its files: `output`, or the project's own folder when it is empty."""

    output: str = ""

    @property
    def root(self) -> Path:
        return Path(self.output).expanduser().resolve() if self.output else PROJECT

    @property
    def processed(self) -> Path:
        return self.root / "data" / "processed"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def executed_notebooks(self) -> Path:
        return self.runs / "notebooks"

    def figures(self, study: Study) -> Path:
        """One folder per dataset and profile, so that a quick look never overwrites published results."""
        return self.root / "paper_figures" / f"{study.dataset}-{study.profile}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` to write a file to; it takes the place of `path` once it is whole.

    A full disk or a missing permission becomes a StudyError; the temporary file never stays.
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with disk_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    """Turns what a disk can refuse while `path` is written into one sentence with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StudyError(f"The disk is full; {path} was not written. Free some space and run again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StudyError(f"No permission to write {path}; choose another folder with --output.") from error
        raise
