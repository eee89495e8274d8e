"""The paper's own layout (section 2.1): images/ and masks/, one file per slice, matched by stem.

A mask holds background and one other value, SAH; or, with a label map such as ("#00ffff=SAH", "#ffff00=IVH"), the
colours or values it names (`masks` says how pixels are read). Masks in colours may lie in masks_rgb/ instead.

Who the slices belong to comes from `slices.csv` beside the two folders (columns `file` and `patient_id`), or from a
regular expression over the image's stem whose first group is the patient. Without either the folder is refused, because
slices of one patient on both sides of a split make every score too good.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sahlib.data.orientation import AS_STORED, in_doubt, turn_of, turned
from sahlib.data.scan import Scan, ToLookAt, parse_label_map
from sahlib.data.sources import files
from sahlib.data.sources.files import ENDINGS, PICTURE_ENDINGS, READER, Case, FolderSource
from sahlib.data.sources.masks import Meaning, meaning
from sahlib.data.sources.names import plain, read_table, spellings, without_ending
from sahlib.data.sources.pictures import read_grey, readable
from sahlib.study import StudyError

MASK_FOLDERS = ("masks", "masks_rgb")


@dataclass(frozen=True)
class PairedFolder(FolderSource):
    """A checked folder; every slice is yielded as a Scan of its own, patients in order."""

    name = "paired_folder"

    root: Path
    cases: tuple[Case, ...]
    meaning: Meaning
    label_map: tuple[str, ...] = ()
    orientation: str = AS_STORED
    told: tuple[str, ...] = ()

    @functools.cached_property
    def turns(self) -> dict[str, str]:
        """Patient -> what turns the pictures, "" where that is in doubt; "auto" reads them all once."""
        by_patient = itertools.groupby(self.cases, lambda case: case.patient_id)
        return {who: turn_of(self.orientation, readable(case.image for case in own)) for who, own in by_patient}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the check page should know of names, files left aside and heads in doubt."""
        return (*self.told, *in_doubt(self.turns))

    def scan(self, index: int) -> Scan:
        """The Scan of one slice; StudyError where a file is unreadable or the two do not fit together."""
        case = self.cases[index]
        (mask,) = case.masks
        image, labels = read_grey(case.image), self.meaning.labels(mask)
        if image.shape != labels.shape:
            (height, width), (rows, columns) = labels.shape, image.shape
            raise StudyError(
                f"{mask} is {width}x{height} but its image {case.image} is {columns}x{rows}; export both at one size."
            )
        scan = Scan(
            patient_id=case.patient_id,
            image=image[None],
            labels=labels[None],
            slice_ids=(case.scan_id,),
            unit="grey",
            sources=(case.image.relative_to(self.root), mask.relative_to(self.root)),
        )
        return turned(scan, self.turns[case.patient_id])

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, names and patients."""
        parts = [part for c in self.cases for part in (c.scan_id, c.patient_id, c.image, *c.masks)]
        return {
            "source": self.name,
            "reader": READER,
            "slices": len(self),
            "label_map": sorted(self.label_map),
            "orientation": self.orientation,
            "sha256": files.digest(parts),
        }


def recognises(root: Path) -> bool:
    """Whether a folder holds images/ and masks/ or masks_rgb/."""
    return (root / "images").is_dir() and any((root / masks).is_dir() for masks in MASK_FOLDERS)


def open_folder(
    root: str | Path,
    patient_pattern: str = "",
    slices_are_patients: bool = False,
    label_map: tuple[str, ...] = (),
    orientation: str = AS_STORED,
) -> PairedFolder:
    """Pairs the files, names their patients, and judges what the masks' values mean.

    Masks come from masks_rgb/ where it is there and a label map speaks of colours or masks/ is not there, else from
    masks/. Raises StudyError for a folder that is missing or empty, a mask without an image or the reverse, a slice
    without a patient, and masks whose values nobody explains.
    """
    root = files.require_folder(root)
    in_colour = any(value.startswith("#") for value in parse_label_map(label_map))
    grey, coloured = (root / masks for masks in MASK_FOLDERS)
    folders = root / "images", coloured if coloured.is_dir() and (in_colour or not grey.is_dir()) else grey
    pairs = files.matched(*(files.within(folder, PICTURE_ENDINGS) for folder in folders))
    if not pairs:
        raise StudyError(f"{folders[0]} and {folders[1]} hold no scan or picture; expected {', '.join(ENDINGS)} files.")
    cases = [replace(case, scan_id=files.stem(case.image)) for case in pairs]
    if slices_are_patients or patient_pattern:
        named = files.with_patients(cases, "" if slices_are_patients else patient_pattern, str)
        remarks = spellings(case.patient_id for case in named)
    else:
        patients, remarks = _patients_by_table(root / "slices.csv", cases)
        named = files.with_patients(cases, "", patients.__getitem__)
    meant = meaning((case.masks[0] for case in cases), label_map)
    return PairedFolder(
        root, named, meant, tuple(label_map), orientation, (*remarks, *files.unread(root, _known(root, cases)))
    )


def _known(root: Path, cases: list[Case]) -> Iterable[Path]:
    """The pictures of the cases, with the masks of the same names that were not chosen."""
    for case in cases:
        yield from (case.image, *(root / masks / case.masks[0].name for masks in MASK_FOLDERS))


def _patients_by_table(table: Path, cases: list[Case]) -> tuple[dict[str, str], tuple[str, ...]]:
    """(slice -> patient, remarks) by slices.csv."""
    if not table.is_file():
        raise StudyError(
            f"{table.parent} does not say whose the slices are: add slices.csv with the columns file and patient_id, "
            "or give --patient-pattern (patient_pattern in a notebook), a regular expression over the file names, for "
            "example '^(\\d+)_'. If every slice is another patient's, or you accept scores that are too good, add "
            "--slices-are-patients (slices_are_patients)."
        )
    known, patients, written = {case.scan_id for case in cases}, {}, []
    for row in read_table(table, ("file", "patient_id")):
        if not plain(row["file"]):
            raise StudyError(f"{table} names the patient {row['patient_id']} without a file; add it or remove the row.")
        file, patient = plain(row["file"]).replace("\\", "/").rpartition("/")[2], plain(row["patient_id"])
        name = file if file in known else without_ending(file, PICTURE_ENDINGS)
        if patient and patients.setdefault(name, patient) != patient:
            raise StudyError(f"{table} gives {file} two patients; keep one.")
        written.append(row["patient_id"])
    if without := [case.scan_id for case in cases if case.scan_id not in patients]:
        more = f" and {len(without) - 1} more slices" if len(without) > 1 else ""
        raise StudyError(f"{table} names no patient for {without[0]}{more}; add them.")
    remarks = spellings(written)
    if absent := [name for name in patients if name not in known]:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        what = f"{table.name} names {absent[0]}{more}, which {'are' if more else 'is'} not in the folder."
        remarks += (ToLookAt(what),)
    return patients, remarks
