"""The mask of a DICOM series, as NIfTI or DICOM-SEG, brought onto the series' slices.

A mask has to lie on the series' own grid: its axes may come in another order or direction, its voxels may not lie
elsewhere. Nothing is resampled. A stack under a gantry tilt has several grids: the one acquired, with steps as long as
the way between the slices' corners and along it; the upright one that ITK (and so SimpleITK and ITK-SNAP) makes of it
when it reads the files, with such steps along the slices' normal (itkImageSeriesReader.hxx); and dcm2niix's, whose
steps are as long as the slices lie apart along their normal, in either direction (its sform, its qform). Each has the
first slice's place, and all are accepted. NIfTI has one step for all slices, so a series that is thin at the base and
thick above needs a DICOM-SEG.

Segmentations follow DICOM PS3.3 C.8.20: BINARY has a frame per segment and slice, LABELMAP (Supplement 243) one per
slice whose pixels are segment numbers. A slice without a frame shows nothing. FRACTIONAL is read where every pixel is
shown wholly or not at all, for a share wants a threshold that nothing here names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from sahlib.data.scan import CLASSES, to_classes
from sahlib.data.sources.dicom_series import Plane, Slice, opened, plane, require_decoder, stored_pixels
from sahlib.data.sources.nifti_file import read_volume
from sahlib.data.sources.volume_folder import named_classes, whole
from sahlib.study import StudyError

TOLERANCE = 0.25  # of a pixel: the most by which a mask may lie beside its series
BINARY_VALUES = ([1], [255])  # what a NIfTI mask of SAH alone may hold besides 0, as in a paired folder
UNDRAWN = 255  # no class
# Words that say no more than that something was drawn.
DRAWN = {
    "segment", "segmentation", "label", "mask", "lesion", "roi",
    "blood", "bleed", "bleeding", "hemorrhage", "haemorrhage", "hematoma",
}  # fmt: skip


def nifti_labels(mask: Path, slices: Sequence[Slice], classes: dict[int, int]) -> np.ndarray:
    """A NIfTI mask of ordered slices in the canonical view, uint8 [D,H,W] of CLASSES.

    classes tells what values mean, 0 being background; where it is empty the mask must hold nothing but 0 and 1, or
    0 and 255. StudyError for values that stay unexplained and for a mask on another grid.
    """
    volume = read_volume(mask)
    affine, depth = volume.affine[:3], len(volume.voxels)
    _require_size(mask, volume.voxels.shape, slices)
    if _distance(slices, affine[:, 3] + np.outer(np.arange(depth), affine[:, 2]), affine[:, :2]) > TOLERANCE:
        raise _off_grid(mask, "lies on another grid than", slices)
    values = whole(volume)
    found = np.unique(values[values != 0]).tolist()
    if found in BINARY_VALUES and not classes:
        classes = {int(found[0]): CLASSES.index("SAH")}
    return to_classes(values, _meaning(mask, "value", {int(value): "" for value in found}, classes) | {0: 0}, mask)


def segmentation_labels(mask: Path, slices: Sequence[Slice], classes: dict[int, int]) -> np.ndarray:
    """A DICOM-SEG of ordered slices in the canonical view, uint8 [D,H,W] of CLASSES.

    classes tells what segment numbers mean; else SegmentLabel does where it names a class (`SAH`, `Subdural hematoma`),
    and a single segment of no telling name is SAH. StudyError for segments that stay unexplained, frames that lie on no
    slice, and pixels of two classes.
    """
    with opened(mask) as dataset:
        if (kind := dataset.get("SegmentationType")) not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise StudyError(f"{mask} is no segmentation of a kind that is read here; export it as BINARY.")
        require_decoder(dataset, mask)
        frames = stored_pixels(dataset)
        if kind == "FRACTIONAL" and not np.isin(frames, (0, int(dataset.MaximumFractionalValue))).all():
            raise StudyError(f"{mask} shows shares of pixels (FRACTIONAL); set a threshold and export it as BINARY.")
        groups = dataset.PerFrameFunctionalGroupsSequence
        if len(groups) != len(frames):
            raise ValueError(f"it has {len(frames)} frames and describes {len(groups)}")
        background = int(dataset.get("PixelPaddingValue", 0)) if kind == "LABELMAP" else 0
        labelled = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in dataset.SegmentSequence}
        names = {number: " ".join(name.split()) for number, name in labelled.items() if number != background}
        meaning = _meaning(mask, "segment", names, classes)
        shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
        labels = np.full((len(slices), *slices[0].plane.shape), UNDRAWN, np.uint8)
        for frame, group in zip(frames, groups, strict=True):
            # What holds for all frames, then what the frame says itself, as a file of that one frame would say it.
            described = Dataset()
            for sequence in (element for part in (*shared, group) for element in part):
                if sequence.VR == "SQ" and sequence.value:
                    described.update(sequence.value[0])
            z, lies = _place(mask, described, frame.shape, slices)
            frame = lies.view(frame)
            _require_size(mask, (len(slices), *frame.shape), slices)
            if kind != "LABELMAP":
                frame = (frame > 0) * int(described.ReferencedSegmentNumber)
            for number in np.unique(frame[frame != background]).tolist():
                if number not in meaning:
                    raise StudyError(f"{mask} shows segment {number} without describing it; export it again.")
                where = frame == number
                if not np.isin(labels[z][where], (UNDRAWN, meaning[number])).all():
                    raise StudyError(f"{mask} gives a pixel of {slices[z].path.name} two classes; keep one of them.")
                labels[z][where] = meaning[number]
        return np.where(labels == UNDRAWN, np.uint8(0), labels)


def _meaning(mask: Path, noun: str, names: dict[int, str], classes: dict[int, int]) -> dict[int, int]:
    """Number -> class of all values or segments in a mask: by label_map, by names, or by both, which must agree.

    Values have no names. A single segment whose name says no more than that something was drawn is SAH. StudyError
    for a number that stays without a class.
    """
    words = {number: re.findall("[a-z]+", name.lower()) for number, name in names.items()}
    told = {number: found.pop() for number, own in words.items() if len(found := named_classes(own)) == 1}
    for number in told.keys() & classes.keys():
        if told[number] != classes[number]:
            said = f"label_map says {number}={CLASSES[classes[number]]}, but {mask} calls it {names[number]!r}"
            raise StudyError(f"{said}; leave label_map out, or correct one of them.")
    meaning = told | classes
    if noun == "segment" and len(names) == 1 and not meaning and set(*words.values()) <= DRAWN:
        meaning = dict.fromkeys(names, CLASSES.index("SAH"))
    if unknown := {number: name for number, name in names.items() if number not in meaning}:
        found = ", ".join(f"{number} ({name})" if name else str(number) for number, name in unknown.items())
        raise StudyError(f"{mask} holds the {noun}s {found}; say what they mean with label_map, for example 4=SAH.")
    return meaning


def _place(mask: Path, described: Dataset, shape: tuple[int, int], slices: Sequence[Slice]) -> tuple[int, Plane]:
    """(slice, the frame's plane) of a frame: by its position, by the slice it refers to, or by both, which must agree.

    A frame that says nothing about its place besides the reference lies on the slice as that was acquired.
    """
    uids = {str(source.ReferencedSOPInstanceUID) for source in described.get("SourceImageSequence") or []}
    referred = [z for z, s in enumerate(slices) if s.instance_uid in uids]
    if "ImagePositionPatient" not in described:
        if len(referred) != 1:
            raise _off_grid(mask, "has a frame that belongs to no slice of", slices)
        return referred[0], slices[referred[0]].plane
    lies = plane(described, shape)
    corner = lies.affine[:3, 3]
    z = int(np.argmin([np.linalg.norm(s.plane.affine[:3, 3] - corner) for s in slices]))
    if _distance(slices[z : z + 1], corner, lies.affine[:3, :2]) > TOLERANCE:
        raise _off_grid(mask, "has a frame that lies on no slice of", slices)
    if referred and z not in referred:
        there, said = slices[z].path.name, slices[referred[0]].path.name
        raise StudyError(f"{mask} has a frame at the position of {there} that refers to {said}; export it again.")
    return z, lies


def _distance(slices: Sequence[Slice], corners: np.ndarray, axes: np.ndarray) -> float:
    """Most by which voxels with these corners [D,3] and (column, row) axes [3,2] lie beside the slices', in pixels."""
    first = slices[0].plane
    turned = (np.abs(axes - first.affine[:3, :2]).max(axis=0) * (np.array(first.shape[::-1]) - 1)).sum()
    acquired, normal = np.array([s.plane.affine[:3, 3] for s in slices]), first.affine[:3, 2]
    steps = np.diff(acquired, axis=0)
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    ways = [length * way for length in (lengths, steps @ normal[:, None]) for way in (steps / lengths, normal)]
    stacks = [np.cumsum([0 * normal, *way], axis=0) for way in ways]
    # A reader may start at either end of the stack.
    shifted = min(np.abs(corners - stack - acquired[k] + stack[k]).max() for stack in stacks for k in (0, -1))
    return float((turned + shifted) / np.linalg.norm(first.affine[:3, :2], axis=0).min())


def _require_size(mask: Path, found: tuple[int, ...], slices: Sequence[Slice]) -> None:
    """StudyError where a mask is not [D,H,W] as the series is."""
    wanted = (len(slices), *slices[0].plane.shape)
    if found != wanted:
        sizes = ["x".join(map(str, shape[::-1])) for shape in (found, wanted)]
        raise _off_grid(mask, f"is {sizes[0]}, not {sizes[1]} as", slices)


def _off_grid(mask: Path, what: str, slices: Sequence[Slice]) -> StudyError:
    return StudyError(
        f"{mask} {what} the series in {slices[0].path.parent}; export the mask on the grid of this series."
    )
