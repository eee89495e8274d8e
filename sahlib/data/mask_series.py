"""Masks of DICOM series, as DICOM-SEG or NIfTI, on the slices of the series; nothing is resampled.

The series lie below the folder of images, or of the truth, each in a folder of its own. A DICOM-SEG names its series
itself; a NIfTI mask is called like the series' folder, in the same folders below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.mask_cases import Case, Read
from sahlib.data.slices import window_to_grey
from sahlib.data.sources import dicom
from sahlib.data.sources.dicom_seg import nifti_labels, segmentation_labels
from sahlib.data.sources.dicom_series import Slice, hounsfield, ordered, spacing_mm, thickness_mm
from sahlib.data.sources.files import has_ending, require_folder, stem, walk
from sahlib.study import WINDOWS, StudyError


@dataclass(frozen=True)
class Found:
    """The series below a folder: name -> its slices in order."""

    root: Path
    slices: dict[str, tuple[Slice, ...]]


def find(truth: Path, images: Path | None) -> Found | None:
    """The series of the images, or of the truth; None where the truth holds no DICOM.

    Raises StudyError where it does and there is no series.
    """
    if not dicom.recognises(truth):
        return None
    root = images or truth
    slices, others = dicom.headers_below(require_folder(root))
    if not slices:
        raise dicom.no_series(root, others)
    named = {folder.relative_to(root).as_posix(): own for folder, own in slices.items()}
    return Found(root, {name: ordered(str(root / name), own) for name, own in named.items()})


def cases(
    series: Found, truths: Mapping[str, Path], masks: Mapping[str, Path], pattern: str, slices_are_patients: bool
) -> list[Case]:
    """A case per series, with its mask by every rater and competitor.

    Raises StudyError for a mask of no series, two of one, and a rater who lacks one.
    """
    identities = {name: own[0].patient for name, own in series.slices.items()}
    patients = dicom.patients_of(series.root, identities, pattern, slices_are_patients)
    seen = {rater: _masks_below(folder, series) for rater, folder in truths.items()}
    found = {competitor: _masks_below(folder, series) for competitor, folder in masks.items()}
    for rater, own in seen.items():
        if lacking := [name for name in series.slices if name not in own]:
            raise StudyError(f"{series.root / lacking[0]} has no mask by {rater}; add one, empty where nothing bleeds.")
    return [
        Case(
            name,
            patients[name],
            tuple(own[name] for own in seen.values()),
            {competitor: own.get(name) for competitor, own in found.items()},
            slices=slices,
        )
        for name, slices in series.slices.items()
    ]


def _masks_below(folder: Path, series: Found) -> dict[str, Path]:
    """The masks below a folder by the names of their series."""
    by_uid = {slices[0].series_uid: name for name, slices in series.slices.items()}
    root, found = require_folder(folder), {}
    drawn = [(other.path, by_uid.get(other.series_uid)) for other in dicom.headers_below(root)[1] if other.is_mask]
    volumes = [place / name for place, names in walk(root) for name in names if has_ending(name)]
    drawn += [(path, (path.parent.relative_to(root) / stem(path)).as_posix()) for path in volumes]
    for path, name in drawn:
        if name not in series.slices:
            raise StudyError(f"{path} is the mask of no series in {series.root}; add the series, or remove the mask.")
        if name in found:
            raise StudyError(f"{path} and {found[name]} are both masks of the series {name}; keep one of them.")
        found[name] = path
    if not found:
        raise StudyError(f"{folder} holds no DICOM-SEG and no NIfTI masks of the series in {series.root}.")
    return found


def read(case: Case, classes: Mapping[int, int]) -> Read:
    """The arrays of a series and its masks; `classes`: what values or segment numbers mean, where names do not tell."""

    def labels(path: Path | None) -> np.ndarray:
        if path is None:
            return np.zeros((len(case.slices), *case.slices[0].plane.shape), np.uint8)
        return (nifti_labels if has_ending(path.name) else segmentation_labels)(path, case.slices, classes)

    image = np.stack([hounsfield(slice_) for slice_ in case.slices])
    sides = np.column_stack([np.tile(spacing_mm(case.slices), (len(image), 1)), thickness_mm(case.slices)])
    return Read(
        tuple(f"{case.name}_z{z:02d}" for z in range(len(image))),
        [labels(path) for path in case.truths],
        {name: labels(path) for name, path in case.masks.items()},
        window_to_grey(image, *WINDOWS["brain"]),
        sides,
    )
