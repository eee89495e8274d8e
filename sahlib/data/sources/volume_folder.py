"""Volumes: folders of NIfTI scans with masks, yielded one scan at a time; what every NIfTI dataset shares.

A mask may be stored in another orientation than its scan (`nifti_file` turns both to one view); on another grid it is
refused, because resampling would change it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import CLASSES, Scan, parse_label_map, to_classes
from sahlib.data.sources.files import READER, Case, FolderSource, digest
from sahlib.data.sources.nifti_file import Volume, hounsfield, read_volume, scaled
from sahlib.study import StudyError

# Words by which a dataset.json or a segment may call a class.
WORDS = {
    "SAH": ("subarachnoid",), "IVH": ("intraventricular",), "IPH": ("intraparenchymal",), "SDH": ("subdural",),
    "EDH": ("epidural", "extradural"),
}  # fmt: skip
NEGATIONS = {"non", "no", "not", "without", "except", "other", "than"}  # what makes such a word say nothing
GRID_TOLERANCE_MM = 1e-2  # of the corners; affines are stored in single precision and often as quaternions
SCALED_MASK_TOLERANCE = 1e-2  # masks saved through a scale factor come back as 0.99999 or 254.998


@dataclass(frozen=True)
class VolumeFolder(FolderSource):
    """A checked folder of NIfTI scans with masks; a source of Scans, patients in order.

    classes   value in the masks -> class value, for every value they may hold besides 0, background
    raters    how several masks of a scan become one: "majority" or "union"; see `merge_raters`
    left_out  scans the folder holds that are not among `cases`
    remarks   what a reader of the check page should know of what was left out, and of patients' names
    """

    name: str
    root: Path
    cases: tuple[Case, ...]
    classes: dict[int, int]
    raters: str = "majority"
    left_out: int = 0
    remarks: tuple[str, ...] = ()

    def scan(self, index: int) -> Scan:
        """The Scan of one case; StudyError where a file is unreadable or a mask does not fit its scan."""
        case = self.cases[index]
        volume = read_volume(case.image)
        image = hounsfield(volume)
        labels = [read_labels(path, volume, self.classes) for path in case.masks]
        return Scan(
            patient_id=case.patient_id,
            image=image,
            labels=labels[0] if len(labels) == 1 else merge_raters(labels, self.raters),
            slice_ids=tuple(f"{case.scan_id}_z{level:02d}" for level in range(len(image))),
            unit="HU",
            spacing_mm=volume.spacing_mm,
            thickness_mm=volume.thickness_mm,
            sources=tuple(Path(os.path.relpath(path, self.root)) for path in (case.image, *case.masks)),
        )

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, names and patients, and how masks are read."""
        parts = [(c.scan_id, c.patient_id, len(c.masks), c.image, *c.masks) for c in self.cases]
        return {
            "source": self.name,
            "reader": READER,
            "scans": len(self.cases),
            "left_out": self.left_out,
            "classes": {str(value): CLASSES[index] for value, index in sorted(self.classes.items())},
            "raters": self.raters,
            "sha256": digest(part for case in parts for part in case),
        }


def read_labels(path: Path, image: Volume, classes: Mapping[int, int]) -> np.ndarray:
    """A mask as class values, uint8 [D,H,W], on the grid of its `image`; `classes` as `to_classes` takes it.

    Raises StudyError where the mask lies on another grid, holds fractions, or a value that `classes` does not name.
    """
    mask = read_volume(path)
    require_same_grid(mask, image)
    return to_classes(whole(mask), classes, path)


def whole(mask: Volume) -> np.ndarray:
    """The values [D,H,W] of a mask, whole numbers; StudyError where it holds fractions."""
    values = scaled(mask)
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if np.abs(values - rounded).max() > (0 if mask.scale is None else SCALED_MASK_TOLERANCE):
            raise StudyError(f"{mask.path} holds fractions, so it is no mask of classes; export it without resampling.")
        values = rounded
    return values


def merge_raters(labels: list[np.ndarray], raters: str) -> np.ndarray:
    """Several raters' class values uint8 [D,H,W] as one.

    "majority": the value that most raters gave, background included; a tie is background. "union": a lesion wherever
    one rater saw one, of the type most raters gave, and the first of CLASSES where they tie.
    """
    votes = np.stack([sum((rater == index for rater in labels), np.uint8(0)) for index in range(len(CLASSES))])
    if raters == "union":
        votes[0] = ~votes[1:].any(axis=0)
    merged = votes.argmax(axis=0).astype(np.uint8)
    if raters == "majority":
        merged[(votes == votes.max(axis=0)).sum(axis=0) > 1] = 0
    return merged


def value_classes(label_map: tuple[str, ...], default: Mapping[int, int]) -> dict[int, int]:
    """What mask values mean: the label map's word where there is one, else `default`."""
    if colours := [entry for entry in label_map if entry.strip().startswith("#")]:
        raise StudyError(f"label_map entry {colours[0]!r} is a colour, but NIfTI masks hold numbers; write 4=SAH.")
    return {int(value): index for value, index in parse_label_map(label_map).items()} or dict(default)


def read_values(table: Path, label_map: tuple[str, ...] = ()) -> dict[int, int]:
    """{mask value: class value} of a dataset.json, as nnU-Net 1 ("1": "EDH") or 2 ("EDH": 1) writes its labels.

    A class is known by its letters or by a word of its name ("subarachnoid hemorrhage"); what a name does not tell the
    label map may, also that two values are one class. Raises StudyError where neither does, for a class that stands
    there twice otherwise, and for a value that does.
    """
    try:
        labels = json.loads(table.read_text(encoding="utf-8-sig"))["labels"]
        named = {int(v) if isinstance(v, int) else int(k): k if isinstance(v, int) else v for k, v in labels.items()}
        words = {value: re.findall("[a-z]+", text.lower()) for value, text in named.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{table} does not say what mask values mean ({error!r}); its labels must read like {{'4': 'SAH'}}."
        ) from error
    classes, mapped = {}, value_classes(label_map, {})
    for value, own in words.items():
        found = named_classes(own)
        if len(found) != 1 and value not in mapped:
            raise StudyError(
                f"{table} calls the value {value} {named[value]!r}; known are {', '.join(CLASSES)}; say what it means "
                f"with --label-map {value}=SAH, or correct its labels."
            )
        classes[value] = found.pop() if len(found) == 1 else mapped[value]
    unmapped = [index for value, index in classes.items() if value not in mapped]
    if len(set(unmapped)) < len(unmapped) or len(classes) < len(labels) or classes.pop(0, 0) != 0:
        raise StudyError(f"{table} gives a class or a value twice, or 0 to a lesion; correct its labels.")
    return classes


def named_classes(words: list[str]) -> set[int]:
    """The classes that words in small letters speak of, by their letters or a word of WORDS; none if one denies it."""
    if NEGATIONS & {*words}:
        return set()
    return {CLASSES.index(name) for name in CLASSES for word in words if word in (name.lower(), *WORDS.get(name, ()))}


def agreed(label_map: tuple[str, ...], told: dict[int, int], where: Path | str) -> dict[int, int]:
    """`told`, what mask values mean by `where`; StudyError where the label map says otherwise."""
    for value, index in value_classes(label_map, {}).items():
        if told.get(value, 0) != index:
            means = CLASSES[told[value]] if value in told else "no class"
            raise StudyError(
                f"label_map says {value}={CLASSES[index]}, but by {where} {value} is {means}; leave label_map out, or "
                "correct one of them."
            )
    return told


def require_same_grid(mask: Volume, image: Volume) -> None:
    """StudyError, with both geometries, where two volumes do not lie on one grid."""
    if mask.voxels.shape == image.voxels.shape:
        corners = np.array(np.meshgrid(*[(0, length - 1) for length in image.voxels.shape[::-1]])).reshape(3, -1)
        shifts = (mask.affine - image.affine) @ np.vstack([corners, np.ones(8)])
        distance = np.linalg.norm(shifts[:3], axis=0).max()
        if distance <= GRID_TOLERANCE_MM:
            return
        apart = f"up to {distance:.3g} mm beside it: "
    else:
        apart = ""
    raise StudyError(
        f"{mask.path} is not on the grid of {image.path} ({apart}{_geometry(mask)} against {_geometry(image)}); export "
        "the mask on that grid, or save it with the other's affine if its voxels are the same."
    )


def _geometry(volume: Volume) -> str:
    """Slices, rows and columns, their spacing, and where the first voxel lies."""
    sizes = "x".join(map(str, volume.voxels.shape))
    spacing = " x ".join(f"{side:.4g}" for side in (volume.thickness_mm, *volume.spacing_mm))
    return f"{sizes} voxels of {spacing} mm from ({', '.join(f'{place:.4g}' for place in volume.affine[:3, 3])})"
