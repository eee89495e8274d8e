"""CT-ICH, intracranial hemorrhage in head CT of trauma patients (PhysioNet 1.3.1, Hssayeni et al., Data 5:14, 2020).

Three forms of it are read; the first table found of hemorrhage_diagnosis_raw_ct.csv and hemorrhage_diagnosis.csv tells
the types of hemorrhage in every slice:

- 1.3.1: ct_scans/049.nii with masks/049.nii in Hounsfield units. SliceNumber counts the file's slices from 1.
- before 1.3: Patients_CT/049/brain/14.jpg with 14_HGE_Seg.jpg where there is hemorrhage. Grey levels of a brain window.
- what the authors' script exports: image/0.png with label/0.png, numbered by the table's rows from 0. Grey levels of
  level 40, width 120.
  JPEG and PNG do not say how they are oriented; `orientation` does.

The masks mix all types of hemorrhage, so a slice's pixels get the type the table names for it where it names exactly
one. A slice that cannot be told is neither lesion nor background and is left out and counted: several types, a type
but no pixels, pixels but no type, no row. Pixels in a slice that the table says has no hemorrhage are an error. With
`any_hemorrhage` the pixels of a slice with several types get the first of them in CLASSES, since types do not matter.

Documented by its README and script: the directory of 1.3.1, the columns, the counting from 1. Told by code that reads
them: masks are 0 and 1 or 0 and 255, up to the rounding of a scale factor.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sahlib.data.orientation import AS_STORED, in_doubt, turn_of, turned
from sahlib.data.scan import CLASSES, Scan, ToLookAt
from sahlib.data.sources import files
from sahlib.data.sources.files import READER, FolderSource
from sahlib.data.sources.names import read_table
from sahlib.data.sources.nifti_file import hounsfield, read_volume
from sahlib.data.sources.pictures import read_grey, readable
from sahlib.data.sources.volume_folder import read_labels
from sahlib.study import StudyError

TABLES = ("hemorrhage_diagnosis_raw_ct.csv", "hemorrhage_diagnosis.csv")
TYPES = {
    "No_Hemorrhage": "background",
    "Intraventricular": "IVH",
    "Intraparenchymal": "IPH",
    "Subarachnoid": "SAH",
    "Epidural": "EDH",
    "Subdural": "SDH",
}
SEGMENTATION = "_HGE_Seg"
BLEEDS = {1: 1, 255: 1}  # what a mask may hold
EXPORTED = "40/120"  # level/width of the authors' script
LEFT_OUT = 255  # no class value
WHOLE_SCAN = 0  # in place of a slice number; those begin at 1


class Pair(NamedTuple):
    """One picture of a patient and its mask, if any, or a NIfTI scan and its mask, as number WHOLE_SCAN."""

    patient: int
    number: int
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class CtIch(FolderSource):
    """A checked folder; one Scan per patient, of the slices whose pixels have a type.

    rows  (patient, slice number) -> the class values that the table names, 0 for no hemorrhage
    """

    name = "ct_ich"

    root: Path
    table: Path
    rows: dict[tuple[int, int], tuple[int, ...]]
    cases: tuple[tuple[Pair, ...], ...]
    any_hemorrhage: bool = False
    orientation: str = AS_STORED

    def scan(self, index: int) -> Scan:
        """The Scan of one patient; StudyError where table and mask contradict each other or no slice is left."""
        whole, classes = self._told(self.cases[index])
        kept = classes != LEFT_OUT
        if not kept.any():
            raise StudyError(
                f"{self.table} leaves no slice of patient {whole.patient_id} whose pixels have a type; remove it."
            )
        return replace(
            whole,
            image=whole.image[kept],
            labels=whole.labels[kept] * classes[kept, None, None],
            slice_ids=tuple(itertools.compress(whole.slice_ids, kept)),
        )

    @functools.cached_property
    def turns(self) -> dict[int, str]:
        """Patient -> what turns the pictures, "" where that is in doubt; "auto" reads them all once."""
        pictures = {case[0].patient: case for case in self.cases if case[0].number != WHOLE_SCAN}
        return {who: turn_of(self.orientation, readable(p.image for p in case)) for who, case in pictures.items()}

    @functools.cached_property
    def left_out(self) -> int:
        """Slices in no Scan, because nothing tells what their pixels are; reads the whole folder once."""
        return sum(int((self._told(case)[1] == LEFT_OUT).sum()) for case in self.cases)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the check page should know of what is left out, and of the authors' pictures."""
        why = "the table names several types or none for their pixels; --target any takes those of several types"
        left_out = [f"{self.left_out} slices are left out: {why}."] if self.left_out else []
        if absent := sorted({patient for patient, _ in self.rows} - {case[0].patient for case in self.cases}):
            without = f"{self.table.name} has rows of patients without a scan: {', '.join(map(str, absent))}."
            left_out.append(ToLookAt(without))
        exported = self.cases[0][0].image.parent == self.root / "image"
        window = f"The authors' script exports the window {EXPORTED}; --set grey_window={EXPORTED} gives HU."
        turns = {f"{patient:03d}": turn for patient, turn in self.turns.items()}
        return (*left_out, *([window] if exported else []), *in_doubt(turns))

    def fingerprint(self) -> dict:
        """SHA-256 over the table, the files' contents and their numbers, and how slices of several types are read."""
        parts = [part for case in self.cases for p in case for part in (*p[:3], p.mask or b"no mask")]
        return {
            "source": self.name,
            "reader": READER,
            "scans": len(self),
            "any_hemorrhage": self.any_hemorrhage,
            "orientation": self.orientation,
            "sha256": files.digest([self.table, *parts]),
        }

    def _told(self, case: tuple[Pair, ...]) -> tuple[Scan, np.ndarray]:
        """All slices of a patient, labels 1 where they bleed, and the class of each one's pixels or LEFT_OUT [D]."""
        patient, paths = case[0].patient, [path for p in case for path in p[2:] if path]
        if case[0].number == WHOLE_SCAN:
            volume = read_volume(case[0].image)
            numbers = (volume.stored_slice + 1).tolist()
            image, labels = hounsfield(volume), read_labels(case[0].mask, volume, BLEEDS)
            known = {"unit": "HU", "spacing_mm": volume.spacing_mm, "thickness_mm": volume.thickness_mm}
        else:
            numbers = [p.number for p in case]
            (image, labels), known = _pictures(case), {"unit": "grey"}
            paths = sorted({path.parent for path in paths})
        if beyond := {number for whose, number in self.rows if whose == patient} - set(numbers):
            raise StudyError(
                f"{self.table} has a row for slice {max(beyond)} of patient {patient}, whose scan has {len(numbers)} "
                "slices, and it is not among them; correct the table or add the slice."
            )
        classes = []
        for number, bleeds in zip(numbers, labels.any(axis=(1, 2)), strict=True):
            named = self.rows.get((patient, number))
            if bleeds and named == (0,):
                raise StudyError(
                    f"{self.table} says that slice {number} of patient {patient} has no hemorrhage, but its mask has "
                    "one; correct the row or the mask."
                )
            told = named is not None and bleeds == any(named) and (len(named) < 2 or self.any_hemorrhage)
            classes.append(min(named, default=0) if told else LEFT_OUT)
        scan = Scan(
            patient_id=f"{patient:03d}",
            image=image,
            labels=labels,
            slice_ids=tuple(f"{patient:03d}_{number:02d}" for number in numbers),
            sources=tuple(path.relative_to(self.root) for path in paths),
            **known,
        )
        if scan.unit == "grey":
            scan = turned(scan, self.turns[patient])
        return scan, np.array(classes, np.uint8)


def recognises(root: Path) -> bool:
    """Whether a folder holds one of the tables."""
    return any((root / table).is_file() for table in TABLES)


def open_folder(root: str | Path, target: str = "SAH", orientation: str = AS_STORED) -> CtIch:
    """The source of the unpacked set in any of its three forms, with `any_hemorrhage` for the target "any".

    Raises StudyError for a folder without table or scans, a scan without a mask or the reverse, and a table that is
    incomplete, ambiguous or at odds with itself.
    """
    root = files.require_folder(root)
    if not (tables := [root / table for table in TABLES if (root / table).is_file()]):
        raise StudyError(f"{root} holds no {TABLES[0]}; the folder of CT-ICH has it beside ct_scans/ and masks/.")
    table, rows = tables[0], read_rows(tables[0])
    found = sorted(_pairs(root, list(rows)), key=lambda p: p[:2])
    if not found:
        raise StudyError(
            f"{root} holds {table.name}, but no scans in ct_scans/, Patients_CT/ or image/ beside it; add the scans."
        )
    if unknown := sorted({p.patient for p in found} - {patient for patient, _ in rows}):
        raise StudyError(f"{table} has no row for patient {unknown[0]}; add its slices or remove the scan.")
    for one, other in itertools.pairwise(found):
        if one[:2] == other[:2]:
            raise StudyError(f"{one.image} and {other.image} have the same number; keep one of them.")
    cases = [tuple(group) for _, group in itertools.groupby(found, lambda p: p.patient)]
    if orientation != AS_STORED and cases[0][0].number == WHOLE_SCAN:
        raise StudyError(f"{root} holds NIfTI scans, which say how they lie; leave orientation out.")
    return CtIch(root, table, rows, tuple(cases), target == "any", orientation)


def read_rows(table: Path) -> dict[tuple[int, int], tuple[int, ...]]:
    """(patient, slice number) -> class values that are named, in the table's order; none where a row says nothing.

    Raises StudyError where the table lacks a column, repeats a slice or contradicts itself.
    """
    columns = ["PatientNumber", "SliceNumber", *TYPES]
    rows: dict[tuple[int, int], tuple[int, ...]] = {}
    for line, row in enumerate(read_table(table, columns), 2):
        try:
            patient, number, *flags = (int(row[column].strip().removesuffix(".0")) for column in columns)
        except ValueError:
            flags = [-1]
        if not set(flags) <= {0, 1}:
            raise StudyError(f"{table} line {line} must hold whole numbers, the types as 0 or 1; correct it.")
        named = sorted(CLASSES.index(name) for name, flag in zip(TYPES.values(), flags, strict=True) if flag)
        if (patient, number) in rows or named[1:] and named[0] == 0:
            what = "repeats" if (patient, number) in rows else "names a type and says that there is no hemorrhage in"
            raise StudyError(f"{table} line {line} {what} slice {number} of patient {patient}; correct it.")
        rows[patient, number] = tuple(named)
    return rows


def _pairs(root: Path, rows: list[tuple[int, int]]) -> Iterator[Pair]:
    if (root / "ct_scans").is_dir():
        for scan in files.matched(files.within(root / "ct_scans"), files.within(root / "masks")):
            yield Pair(_number(scan.image, scan.scan_id), WHOLE_SCAN, scan.image, scan.masks[0])
    elif (root / "Patients_CT").is_dir():
        for folder in sorted((root / "Patients_CT").glob("*/brain")):
            pictures = files.by_stem(files.within(folder, (".jpg",)))
            for key, path in pictures.items():
                if not key.endswith(SEGMENTATION):
                    patient = _number(folder, folder.parent.name)
                    yield Pair(patient, _number(path, key), path, pictures.get(key + SEGMENTATION))
                elif key.removesuffix(SEGMENTATION) not in pictures:
                    raise StudyError(f"{path} has no slice beside it; add it, or remove the segmentation.")
    elif (root / "image").is_dir():
        if (count := len(files.within(root / "image", (".png",)))) != len(rows):
            raise StudyError(f"{root / 'image'} holds {count} PNG files for {len(rows)} rows; export all again.")
        for index, row in enumerate(rows):
            paths = [root / kind / f"{index}.png" for kind in ("image", "label")]
            if missing := [path for path in paths if not path.is_file()]:
                raise StudyError(f"{missing[0]} is not there, though the table has a row for it; export all again.")
            yield Pair(*row, *paths)


def _number(path: Path, text: str) -> int:
    if not text.isdecimal():
        raise StudyError(f"{path} is not named by a number, as everything in CT-ICH is; rename or remove it.")
    return int(text)


def _pictures(case: tuple[Pair, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [D,H,W], 1 where it bleeds uint8 [D,H,W]) of a patient's pictures."""
    images = [read_grey(p.image) for p in case]
    masks = [read_grey(p.mask) if p.mask else np.zeros_like(images[0]) for p in case]
    for array, path in zip(images + masks, [p.image for p in case] + [p.mask for p in case], strict=True):
        if array.shape != images[0].shape:
            raise StudyError(f"{path} differs in size from {case[0].image}; the slices of a patient have one size.")
    # Above half, as the authors' script takes it, since JPEG and resizing blur masks.
    bleeds = [mask > (127 if mask.max() > 1 else 0) for mask in masks]
    return np.stack(images), np.stack(bleeds).astype(np.uint8)
