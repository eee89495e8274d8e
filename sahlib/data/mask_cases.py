"""One scan or picture with everybody's masks of it: where its files lie, and its arrays once they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.sources.dicom_series import Slice


@dataclass(frozen=True)
class Case:
    """One scan, or one picture: its name, whose it is, and its files.

    truths   one per rater
    masks    per competitor; None where it has none
    sides_mm (row, column, thickness) as a table tells them, NaN where it does not
    slices   of a DICOM series, in order
    """

    name: str
    patient_id: str
    truths: tuple[Path, ...]
    masks: dict[str, Path | None]
    image: Path | None = None
    sides_mm: tuple[float, float, float] = (np.nan,) * 3
    slices: tuple[Slice, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Every file of it."""
        return [*self.truths, *filter(None, (self.image, *self.masks.values())), *(one.path for one in self.slices)]


@dataclass(frozen=True)
class Read:
    """The arrays of a case in the canonical view, [D,H,W] each.

    truths   class values uint8, one per rater; masks: per competitor class values uint8, or probabilities float
    image    grey levels uint8 in the brain window, or None
    sides_mm (row, column, thickness) of a voxel, NaN where unknown, or of the voxels of each slice, [D,3]
    """

    slice_ids: tuple[str, ...]
    truths: list[np.ndarray]
    masks: dict[str, np.ndarray]
    image: np.ndarray | None
    sides_mm: np.ndarray | tuple[float, float, float]


@dataclass(frozen=True)
class MaskFolders:
    """Paired folders, patients in order.

    read     case -> its arrays; StudyError for a file that is damaged, lies on another grid or is no such mask
    missing  competitor -> the cases it has no mask of
    remarks  on files in the folders that are none of these
    """

    cases: tuple[Case, ...]
    raters: tuple[str, ...]
    read: Callable[[Case], Read]
    missing: dict[str, list[str]]
    remarks: tuple[str, ...]
