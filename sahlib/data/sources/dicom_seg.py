"""The mask of a DICOM series, as NIfTI or DICOM-SEG, brought onto the series' slices.

A mask has to lie on the series' own grid: its axes may come in another order or direction, its voxels may not lie
elsewhere. Nothing is resampled. A stack under a gantry tilt has two grids: the one acquired, and the upright one that
ITK (and so SimpleITK and ITK-SNAP) makes of it when it reads the files: the first slice's place and the slices'
normal, with steps as long as the way between the slices' corners (itkImageSeriesReader.hxx). Both are accepted.
NIfTI has one step for all slices, so a series that is thin at the base and thick above needs a DICOM-SEG.

Segmentations follow DICOM PS3.3 C.8.20: BINARY has a frame per segment and slice, LABELMAP (Supplement 243) one per
slice whose pixels are segment numbers. A slice without a frame shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sahlib.data.scan import CLASSES, SAH, parse_label_map
from sahlib.data.sources.dicom_series import Plane, Slice, check_decoder, numbers, parsed, plane, to_canonical
from sahlib.data.sources.nifti_file import read_volume, scaled
from sahlib.study import StudyError

NIFTI_ENDINGS = (".nii.gz", ".nii")
TOLERANCE = 0.25  # of a pixel: the most by which a mask may lie beside its series
BINARY_VALUES = {1, 255}  # what a mask of SAH alone may hold besides 0, as in a paired folder


def labels_of(mask: Path, slices: Sequence[Slice], label_map: tuple[str, ...]) -> np.ndarray:
    """The mask of ordered slices in the canonical view, uint8 [D,H,W] of CLASSES.

    label_map tells what NIfTI values or segment numbers mean, 0 being background. Without it a NIfTI mask must be
    binary, and segments are what SegmentLabel says when it names classes (`SAH`, `IVH`, ...) or SAH when there is
    one; StudyError for values that stay unexplained and for a mask on another grid.
    """
    read = _nifti_labels if mask.name.lower().endswith(NIFTI_ENDINGS) else _segmentation_labels
    return read(mask, slices, number_map(label_map))


def number_map(label_map: tuple[str, ...]) -> dict[int, int]:
    """{4: 1} of ("4=SAH",); StudyError for a colour, which neither NIfTI nor DICOM-SEG masks hold."""
    parsed_map = parse_label_map(label_map)
    if colours := [key for key in parsed_map if key.startswith("#")]:
        raise StudyError(f"label_map names the colour {colours[0]}, but masks of DICOM series hold numbers: 4=SAH.")
    return {int(key): value for key, value in parsed_map.items()}


def _nifti_labels(mask: Path, slices: Sequence[Slice], classes: dict[int, int]) -> np.ndarray:
    planes = [s.plane.canonical() for s in slices]
    volume = read_volume(mask)
    depth, rows, columns = volume.voxels.shape
    if volume.voxels.shape != (len(planes), *planes[0].shape):
        raise StudyError(
            f"{mask} is {columns}x{rows}x{depth} but the series in {slices[0].path.parent} is "
            f"{planes[0].shape[1]}x{planes[0].shape[0]}x{len(planes)}; export the mask on the grid of this series."
        )
    # NIfTI's axes run to the patient's right and front, DICOM's to the left and the back.
    affine = np.diag([-1.0, -1.0, 1.0]) @ volume.affine[:3]
    corners = affine[:, 3] + np.outer(np.arange(depth), affine[:, 2])
    if _distance(planes, corners, affine[:, 1], affine[:, 0]) > TOLERANCE:
        raise StudyError(
            f"{mask} lies on another grid than the series in {slices[0].path.parent} (its voxels are elsewhere in the "
            "patient); export the mask on the grid of this series."
        )
    values = scaled(volume)
    found = np.unique(values[values != 0]).tolist()
    if any(value != round(value) or value < 0 for value in found):
        raise StudyError(f"{mask} holds values that are no whole numbers from 0 on; export it as a label map.")
    if classes:
        if unknown := [int(value) for value in found if value not in classes]:
            raise StudyError(
                f"{mask} holds the value {unknown[0]}, which label_map does not name; add {unknown[0]}=..."
            )
    elif len(found) <= 1 and set(found) <= BINARY_VALUES:
        classes = dict.fromkeys(found, SAH)
    else:
        raise StudyError(
            f"{mask} holds the values {', '.join(f'{value:g}' for value in found[:8])}; say what they mean with "
            "label_map, for example 4=SAH."
        )
    labels = np.zeros(values.shape, np.uint8)
    for value in found:
        labels[values == value] = classes[value]
    return labels


def _distance(planes: Sequence[Plane], corners: np.ndarray, down: np.ndarray, across: np.ndarray) -> float:
    """Most by which voxels with these corners [D,3] and steps [3] lie beside those of the planes, in pixels."""
    first = planes[0]
    rows, columns = first.shape
    turned = np.abs((down - first.down) * (rows - 1)).max() + np.abs((across - first.across) * (columns - 1)).max()
    acquired = np.array([p.corner for p in planes])
    travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(acquired, axis=0), axis=1))])
    # A reader may start at either end of the stack.
    upright = [acquired[k] + first.normal * (travelled - travelled[k])[:, None] for k in (0, -1)]
    shifted = min(np.abs(corners - stack).max() for stack in (acquired, *upright))
    pixel = min(np.linalg.norm(first.down), np.linalg.norm(first.across))
    return float((turned + shifted) / pixel)


def _segmentation_labels(mask: Path, slices: Sequence[Slice], classes: dict[int, int]) -> np.ndarray:
    return parsed(mask, lambda dataset: _frames(dataset, mask, slices, classes))


def _frames(dataset, mask: Path, slices: Sequence[Slice], classes: dict[int, int]) -> np.ndarray:
    kind = dataset.get("SegmentationType")
    if kind not in ("BINARY", "LABELMAP"):
        raise StudyError(f"{mask} is no BINARY or LABELMAP segmentation; export it as one of these.")
    check_decoder(dataset.file_meta.TransferSyntaxUID, mask)
    frames = dataset.pixel_array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    groups = dataset.PerFrameFunctionalGroupsSequence
    if len(groups) != len(frames):
        raise ValueError(f"it has {len(frames)} frames and describes {len(groups)}")
    background = int(dataset.get("PixelPaddingValue", 0)) if kind == "LABELMAP" else 0
    segments = {int(s.SegmentNumber): " ".join(str(s.get("SegmentLabel", "")).split()) for s in dataset.SegmentSequence}
    segments.pop(background, None)
    meaning = _segment_classes(mask, segments, classes)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    planes = [s.plane.canonical() for s in slices]
    labels = np.zeros((len(planes), *planes[0].shape), np.uint8)
    seen = np.zeros(labels.shape, bool)
    for frame, group in zip(frames, groups, strict=True):
        z, acquired = _place(mask, group, shared, frame.shape, slices, planes)
        frame = to_canonical(frame, acquired)
        if kind == "BINARY":
            number = int(_functional(group, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            frame = np.where(frame > 0, number, 0)
        for number in np.unique(frame[frame != background]).tolist():
            if number not in meaning:
                raise StudyError(f"{mask} shows segment {number} without describing it; export it again.")
            where = frame == number
            if (seen[z][where] & (labels[z][where] != meaning[number])).any():
                raise StudyError(f"{mask} gives a pixel of {slices[z].path.name} two classes; keep one of them.")
            labels[z][where], seen[z][where] = meaning[number], True
    return labels


def _segment_classes(mask: Path, segments: dict[int, str], classes: dict[int, int]) -> dict[int, int]:
    """Segment number -> class: by label_map, else by labels that name classes, else a single segment is SAH."""
    if classes:
        if unknown := [number for number in segments if number not in classes]:
            raise StudyError(f"{mask} has segment {unknown[0]}, which label_map does not name; add {unknown[0]}=...")
        return {number: classes[number] for number in segments}
    names = {name.casefold(): value for value, name in enumerate(CLASSES)}
    if all(label.casefold() in names for label in segments.values()):
        return {number: names[label.casefold()] for number, label in segments.items()}
    if len(segments) == 1:
        return dict.fromkeys(segments, SAH)
    described = ", ".join(f"{number} ({label})" for number, label in list(segments.items())[:8])
    raise StudyError(f"{mask} has the segments {described}; say what they mean with label_map, for example 1=SAH.")


def _place(mask, group, shared, shape, slices: Sequence[Slice], planes: Sequence[Plane]) -> tuple[int, Plane]:
    """(slice, the frame's plane) of a frame: by its position, by the slice it refers to, or by both, which must agree.

    A frame that says nothing about its place besides the reference lies on the slice as that was acquired.
    """
    derivation = _functional(group, shared, "DerivationImageSequence")
    sources = (derivation.get("SourceImageSequence") or []) if derivation else []
    uids = {str(source.ReferencedSOPInstanceUID) for source in sources}
    referred = [z for z, s in enumerate(slices) if s.instance_uid and s.instance_uid in uids]
    position = _functional(group, shared, "PlanePositionSequence")
    if position is None:
        if len(referred) != 1:
            raise StudyError(
                f"{mask} has a frame that belongs to no slice of {slices[0].path.parent}; export it again."
            )
        acquired = slices[referred[0]].plane
        if acquired.shape != shape:
            raise StudyError(
                f"{mask} is {shape[1]}x{shape[0]} but the series in {slices[0].path.parent} is "
                f"{acquired.shape[1]}x{acquired.shape[0]}; export the mask on the grid of this series."
            )
        return referred[0], acquired
    acquired = plane(
        numbers(position, "ImagePositionPatient", 3),
        numbers(_functional(group, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        numbers(_functional(group, shared, "PixelMeasuresSequence"), "PixelSpacing", 2),
        shape,
    )
    turned = acquired.canonical()
    z = int(np.argmin([np.linalg.norm(p.corner - turned.corner) for p in planes]))
    beside = _distance(planes[z : z + 1], turned.corner, turned.down, turned.across)
    if turned.shape != planes[z].shape or beside > TOLERANCE:
        raise StudyError(
            f"{mask} has a frame that lies on no slice of the series in {slices[0].path.parent} (it is elsewhere in "
            "the patient); export the mask on the grid of this series."
        )
    if referred and z not in referred:
        raise StudyError(
            f"{mask} has a frame at the position of {slices[z].path.name} that refers to "
            f"{slices[referred[0]].path.name}; export it again."
        )
    return z, acquired


def _functional(group, shared, name: str):
    """The first item of a functional group, the frame's own or that of all frames; None where there is none."""
    for source in (group, shared):
        if source is not None and (items := source.get(name)):
            return items[0]
    return None
