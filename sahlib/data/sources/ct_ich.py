"""CT-ICH, intracranial hemorrhage in head CT of trauma patients (PhysioNet 1.3.1, Hssayeni et al., Data 5:14, 2020).

Three forms of it are read; the first table found of hemorrhage_diagnosis_raw_ct.csv and hemorrhage_diagnosis.csv tells
the types of hemorrhage in every slice:

- 1.3.1: ct_scans/049.nii with masks/049.nii in Hounsfield units. SliceNumber counts the file's slices from 1.
- before 1.3: Patients_CT/049/brain/14.jpg with 14_HGE_Seg.jpg where there is hemorrhage. Grey levels of a brain window.
- what the authors' script exports: image/0.png with label/0.png, numbered by the table's rows from 0. Grey levels.
  JPEG and PNG are taken as they lie; they do not say how they are oriented.

The masks mix all types of hemorrhage, so a slice's pixels get the type the table names for it where it names exactly
one. A slice that cannot be told is neither lesion nor background and is left out and counted (`left_out`): several
types, a type but no pixels, pixels but no type, no row at all. Pixels in a slice that the table says has no hemorrhage
are an error. With the target "any" the pixels of a slice with several types get the first of them in CLASSES, which is
right as long as types do not matter.

The directory of 1.3.1, the columns and the counting from 1 are documented by its README and script; masks that are 0
and 1 or 0 and 255 up to the rounding of a scale factor are what code that reads them tells.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import Scan, class_value
from sahlib.data.sources.nifti_file import hounsfield, read_volume
from sahlib.data.sources.pictures import read_grey
from sahlib.data.sources.volume_folder import READER, file_digest, nifti_files, read_labels, require_folder, stem
from sahlib.study import StudyError

name = "ct_ich"
FIELDS = ("target",)
TABLES = ("hemorrhage_diagnosis_raw_ct.csv", "hemorrhage_diagnosis.csv")
TYPES = {
    "Intraventricular": "IVH",
    "Intraparenchymal": "IPH",
    "Subarachnoid": "SAH",
    "Epidural": "EDH",
    "Subdural": "SDH",
}
SEGMENTATION = "_HGE_Seg"
BLEEDS = {1: 1, 255: 1}  # what a mask may hold
WHOLE_SCAN = 0  # in place of a slice number; those begin at 1


@dataclass(frozen=True)
class Row:
    """One slice in the table: class values of the types it names, and whether it says that there is no hemorrhage."""

    patient: int
    slice_number: int
    types: tuple[int, ...]
    healthy: bool


@dataclass(frozen=True)
class Slices:
    """One patient's slices as stored: image [D,H,W] int16 HU or uint8, bleeds bool [D,H,W], and each one's number."""

    image: np.ndarray
    bleeds: np.ndarray
    numbers: tuple[int, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float


@dataclass(frozen=True)
class CtIch:
    """A checked folder; one Scan per patient, of the slices whose pixels have a type.

    files  for each patient its (slice number, image, mask or None); WHOLE_SCAN and one entry for a NIfTI scan
    """

    name = name

    root: Path
    table: Path
    rows: tuple[Row, ...]
    files: tuple[tuple[int, tuple[tuple[int, Path, Path | None], ...]], ...]
    any_hemorrhage: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Scan]:
        return map(self.scan, range(len(self)))

    def scan(self, index: int) -> Scan:
        """The Scan of one patient; StudyError where table and mask contradict each other or no slice is left."""
        patient, files = self.files[index]
        slices = _read(files)
        classes = self._classes(patient, slices)
        sources = [path for _, *pair in files for path in pair if path]
        if files[0][0] != WHOLE_SCAN:  # of pictures, the folders
            sources = sorted({path.parent for path in sources})
        kept = [level for level, value in enumerate(classes) if value is not None]
        if not kept:
            raise StudyError(f"{self.table} leaves no slice of patient {patient} whose pixels have a type; remove it.")
        values = np.array([classes[level] for level in kept], np.uint8)
        return Scan(
            patient_id=f"{patient:03d}",
            image=slices.image[kept],
            labels=slices.bleeds[kept] * values[:, None, None],
            slice_ids=tuple(f"{patient:03d}_{slices.numbers[level]:02d}" for level in kept),
            unit="HU" if slices.image.dtype == np.int16 else "grey",
            spacing_mm=slices.spacing_mm,
            thickness_mm=slices.thickness_mm,
            sources=tuple(path.relative_to(self.root) for path in sources),
        )

    @functools.cached_property
    def left_out(self) -> int:
        """Slices in no Scan, because nothing tells what their pixels are; reads the whole folder once."""
        return sum(self._classes(patient, _read(files)).count(None) for patient, files in self.files)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the check page should know of slices left out."""
        count = self.left_out
        why = "the table names several types or none for their pixels; --target any takes those of several types"
        return (f"{count} slices are left out: {why}.",) if count else ()

    def fingerprint(self) -> dict:
        """SHA-256 over the table, the files' contents and their numbers, and how slices of several types are read."""
        total = hashlib.sha256(file_digest(self.table))
        for patient, files in self.files:
            for number, *pair in files:
                total.update(f"{patient}\0{number}\0".encode())
                for path in pair:
                    total.update(file_digest(path) if path else b"no mask")
        return {
            "source": self.name,
            "reader": READER,
            "scans": len(self),
            "left_out": self.left_out,
            "any_hemorrhage": self.any_hemorrhage,
            "sha256": total.hexdigest(),
        }

    def _classes(self, patient: int, slices: Slices) -> list[int | None]:
        """For each slice the class value of its mask's pixels, 0 where it has none, None where it is left out."""
        rows = {row.slice_number: row for row in self.rows if row.patient == patient}
        if slices.image.dtype == np.int16 and (beyond := sorted(rows.keys() - set(slices.numbers))):
            raise StudyError(
                f"{self.table} has a row for slice {beyond[-1]} of patient {patient}, whose scan has "
                f"{len(slices.numbers)} slices, so the numbers do not fit; correct the table."
            )
        classes = []
        for number, bleeds in zip(slices.numbers, slices.bleeds.any(axis=(1, 2)), strict=True):
            row = rows.get(number)
            if row and row.healthy and bleeds:
                raise StudyError(
                    f"{self.table} says that slice {number} of patient {patient} has no hemorrhage, but its mask has "
                    "one; correct the row or the mask."
                )
            if row is None or bleeds != bool(row.types):
                classes.append(None)
            elif len(row.types) > 1:
                classes.append(row.types[0] if self.any_hemorrhage else None)
            else:
                classes.append(row.types[0] if row.types else 0)
        return classes


def recognises(root: Path) -> bool:
    """Whether a folder holds one of the tables."""
    return any((root / table).is_file() for table in TABLES)


def open(root: str | Path, target: str = "SAH") -> CtIch:
    """The source of the unpacked set in any of its three forms.

    Raises StudyError for a folder without table or scans, a scan without a mask or the reverse, and a table that is
    incomplete, ambiguous or at odds with itself.
    """
    root = require_folder(root)
    table = next((root / table for table in TABLES if (root / table).is_file()), None)
    if table is None:
        raise StudyError(f"{root} holds no {TABLES[0]}; the folder of CT-ICH has it beside ct_scans/ and masks/.")
    rows = read_table(table)
    if (root / "ct_scans").is_dir():
        files = _scans(root)
    elif (root / "Patients_CT").is_dir():
        files = _jpegs(root)
    elif (root / "image").is_dir():
        files = _pngs(root, rows)
    else:
        raise StudyError(
            f"{root} holds {table.name}, but no ct_scans/, Patients_CT/ or image/ beside it; add the scans."
        )
    if not files:
        raise StudyError(f"{root} holds {table.name}, but no scans; unpack the whole set.")
    known = {row.patient for row in rows}
    if unknown := [patient for patient in files if patient not in known]:
        raise StudyError(f"{table} has no row for patient {unknown[0]}; add its slices or remove the scan.")
    return CtIch(root, table, rows, tuple(sorted(files.items())), target == "any")


def read_table(table: Path) -> tuple[Row, ...]:
    """The rows of a table, in its order; StudyError where it lacks a column, repeats a slice or contradicts itself."""
    import pandas as pd

    try:
        frame = pd.read_csv(table).rename(columns=str.strip)
    except (OSError, ValueError) as error:
        raise StudyError(f"{table} cannot be read as CSV ({error}).") from error
    columns = ["PatientNumber", "SliceNumber", *TYPES, "No_Hemorrhage"]
    if missing := [column for column in columns if column not in frame.columns]:
        raise StudyError(f"{table} lacks the column {missing[0]}; it has {', '.join(map(str, frame.columns))}.")
    numbers = frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    rows, seen = [], set()
    for line, values in enumerate(numbers, 2):
        if not (np.isfinite(values).all() and (values == np.rint(values)).all() and set(values[2:]) <= {0.0, 1.0}):
            raise StudyError(f"{table} line {line} must hold whole numbers, the types as 0 or 1; correct it.")
        patient, slice_number, *flags = (int(value) for value in values)
        types = sorted(class_value(short) for short, flag in zip(TYPES.values(), flags[:-1], strict=True) if flag)
        if (patient, slice_number) in seen or (types and flags[-1]):
            what = "names a type and says that there is no hemorrhage in" if types and flags[-1] else "repeats"
            raise StudyError(f"{table} line {line} {what} slice {slice_number} of patient {patient}; correct it.")
        seen.add((patient, slice_number))
        rows.append(Row(patient, slice_number, tuple(types), bool(flags[-1])))
    return tuple(rows)


def _scans(root: Path) -> dict[int, tuple]:
    found: dict[str, dict[int, Path]] = {}
    for kind in ("ct_scans", "masks"):
        if not (root / kind).is_dir():
            raise StudyError(f"{root / kind} is not there; CT-ICH has a mask in masks/ for every scan in ct_scans/.")
        found[kind] = {}
        for path in nifti_files(root / kind):
            patient = _number(path, stem(path))
            if (other := found[kind].setdefault(patient, path)) is not path:
                raise StudyError(f"{path} and {other.name} are both patient {patient}; keep one of them.")
    scans, masks = found["ct_scans"], found["masks"]
    for patient in sorted(scans.keys() ^ masks.keys()):
        lonely, lack = (scans[patient], "masks") if patient in scans else (masks[patient], "ct_scans")
        raise StudyError(f"{lonely} has no counterpart in {root / lack}; add it, or remove {lonely.name}.")
    return {patient: ((WHOLE_SCAN, scans[patient], masks[patient]),) for patient in scans}


def _jpegs(root: Path) -> dict[int, tuple]:
    found = {}
    for folder in sorted((root / "Patients_CT").glob("*/brain")):
        pictures = {path.stem: path for path in sorted(folder.glob("*.jpg")) if not path.name.startswith(".")}
        images = {key: path for key, path in pictures.items() if not key.endswith(SEGMENTATION)}
        if orphans := sorted(pictures.keys() - images.keys() - {key + SEGMENTATION for key in images}):
            raise StudyError(f"{pictures[orphans[0]]} has no slice beside it; add it, or remove the segmentation.")
        slices = [(_number(path, key), path, pictures.get(key + SEGMENTATION)) for key, path in images.items()]
        if slices:
            found[_number(folder, folder.parent.name)] = tuple(sorted(slices, key=lambda entry: entry[0]))
    return found


def _pngs(root: Path, rows: tuple[Row, ...]) -> dict[int, tuple]:
    count = sum(1 for _ in (root / "image").glob("*.png"))
    if count != len(rows):
        raise StudyError(
            f"{root / 'image'} holds {count} PNG files for {len(rows)} rows of the table; export all again."
        )
    found: dict[int, list] = {}
    for index, row in enumerate(rows):
        image, mask = (root / kind / f"{index}.png" for kind in ("image", "label"))
        if missing := [path for path in (image, mask) if not path.is_file()]:
            raise StudyError(f"{missing[0]} is not there, though the table has a row for it; export all again.")
        found.setdefault(row.patient, []).append((row.slice_number, image, mask))
    return {patient: tuple(sorted(slices, key=lambda entry: entry[0])) for patient, slices in found.items()}


def _read(files: tuple[tuple[int, Path, Path | None], ...]) -> Slices:
    if files[0][0] == WHOLE_SCAN:
        _, image, mask = files[0]
        volume = read_volume(image)
        numbers = tuple(int(level) + 1 for level in volume.stored_slice)
        bleeds = read_labels(mask, volume, BLEEDS) > 0
        return Slices(hounsfield(volume), bleeds, numbers, volume.spacing_mm, volume.thickness_mm)
    images = [read_grey(image) for _, image, _ in files]
    masks = [read_grey(mask) if mask else np.zeros(images[0].shape, np.uint8) for _, _, mask in files]
    for image, mask, (_, *paths) in zip(images, masks, files, strict=True):
        if not image.shape == mask.shape == images[0].shape:
            path = paths[image.shape == images[0].shape]
            raise StudyError(f"{path} differs in size from {files[0][1]}; the slices of a patient have one size.")
    # Above half, as the authors' script takes it, since JPEG and resizing blur a mask.
    bleeds = np.stack([mask > (127 if mask.max() > 1 else 0) for mask in masks])
    unknown = float("nan")
    return Slices(np.stack(images), bleeds, tuple(number for number, _, _ in files), (unknown, unknown), unknown)


def _number(path: Path, text: str) -> int:
    if not text.isdecimal():
        raise StudyError(f"{path} is not named by a number, as everything in CT-ICH is; rename or remove it.")
    return int(text)
