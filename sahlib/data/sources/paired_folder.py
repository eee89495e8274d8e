"""The paper's own layout (section 2.1): images/ and masks/, one file per slice, matched by stem.

A mask holds background and one other value, SAH; or, with a label map such as ("#00ffff=SAH", "#ffff00=IVH"), the
colours or values it names (`masks` says how pixels are read). Who the slices belong to comes from `slices.csv` beside
the two folders (columns `file` and `patient_id`), or from a regular expression over the stem whose first group is the
patient. Without either the folder is refused, because slices of one patient on both sides of a split make every score
too good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import Scan, parse_label_map
from sahlib.data.sources.masks import Meaning, meaning
from sahlib.data.sources.names import by_stem, natural, patient_by_pattern, plain, read_table, spellings, without_ending
from sahlib.data.sources.pictures import ENDINGS, read_grey
from sahlib.study import StudyError

name = "paired_folder"
FIELDS = ("patient_pattern", "slices_are_patients", "label_map")


@dataclass(frozen=True)
class Pair:
    """One slice on disk and whose it is."""

    slice_id: str
    patient_id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairedFolder:
    """A checked folder; every pair is yielded as a Scan of one slice, patients in order, slices by number."""

    name = name

    root: Path
    pairs: tuple[Pair, ...]
    meaning: Meaning
    label_map: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Scan]:
        return map(self.scan, range(len(self)))

    def scan(self, index: int) -> Scan:
        """The Scan of one pair; StudyError where a file is unreadable or the two do not fit together."""
        pair = self.pairs[index]
        image, labels = read_grey(pair.image), self.meaning.labels(pair.mask)
        if image.shape != labels.shape:
            raise StudyError(
                f"{pair.mask} is {_size(labels)} but its image {pair.image} is {_size(image)}; export both at one size."
            )
        return Scan(
            patient_id=pair.patient_id,
            image=image[None],
            labels=labels[None],
            slice_ids=(pair.slice_id,),
            unit="grey",
            sources=(pair.image.relative_to(self.root), pair.mask.relative_to(self.root)),
        )

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, names and patients."""
        total = hashlib.sha256()
        for pair in self.pairs:
            total.update(f"{pair.slice_id}\0{pair.patient_id}\0".encode())
            for path in (pair.image, pair.mask):
                total.update(hashlib.sha256(path.read_bytes()).digest())
        facts = {"source": self.name, "slices": len(self.pairs), "sha256": total.hexdigest()}
        return facts | ({"label_map": sorted(self.label_map)} if self.label_map else {})


def recognises(root: Path) -> bool:
    """Whether a folder holds pictures in images/ and masks/."""
    return (root / "images").is_dir() and any((root / masks).is_dir() for masks in ("masks", "masks_rgb"))


def open(
    root: str | Path, patient_pattern: str = "", slices_are_patients: bool = False, label_map: tuple[str, ...] = ()
) -> PairedFolder:
    """Pairs the files, names their patients, and judges what the masks' values mean.

    Masks come from masks_rgb/ where a label map speaks of colours and the folder has one, else from masks/. Raises
    StudyError for a folder that is missing or empty, a mask without an image or the reverse, a slice without a
    patient, and masks whose values nobody explains.
    """
    root = Path(root).expanduser()
    parse_label_map(label_map)
    in_colour = label_map and (root / "masks_rgb").is_dir()
    images, masks = _pictures(root / "images"), _pictures(root / ("masks_rgb" if in_colour else "masks"))
    for stem in sorted(images.keys() ^ masks.keys(), key=natural):
        have, lack = ("image", "mask") if stem in images else ("mask", "image")
        file = images.get(stem) or masks[stem]
        raise StudyError(f"{file} has no {lack}: add {root}/{lack}s/{stem}.png or remove the {have}.")
    patients, remarks = _patients(root, list(images), patient_pattern, slices_are_patients)
    pairs = [Pair(stem, patients[stem], images[stem], masks[stem]) for stem in images]
    pairs.sort(key=lambda pair: (natural(pair.patient_id), natural(pair.slice_id)))
    return PairedFolder(root, tuple(pairs), meaning(masks.values(), label_map), tuple(label_map), remarks)


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise StudyError(f"{folder} is not there; a paired folder holds images/ and masks/ with one file per slice.")
    found = (p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    files = by_stem(found, ENDINGS)
    if not files:
        raise StudyError(f"{folder} holds no picture; expected {', '.join(ENDINGS)} files.")
    return files


def _patients(
    root: Path, stems: list[str], pattern: str, slices_are_patients: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
    """(stem -> patient, remarks), from the first of: slices_are_patients, the pattern, slices.csv."""
    if slices_are_patients:
        return {stem: stem for stem in stems}, ()
    if pattern:
        return {stem: patient_by_pattern(stem, pattern) for stem in stems}, ()
    table = root / "slices.csv"
    if not table.is_file():
        raise StudyError(
            f"{root} does not say whose the slices are: add slices.csv with the columns file and patient_id, or give "
            "--patient-pattern (patient_pattern in a notebook), a regular expression over the file names, for example "
            "'^(\\d+)_'. If every slice is another patient's, or you accept scores that are too good, add "
            "--slices-are-patients (slices_are_patients)."
        )
    known, named, written = set(stems), {}, []
    for row in read_table(table, ("file", "patient_id")):
        file = plain(row["file"]).replace("\\", "/").rpartition("/")[2]
        stem = file if file in known else without_ending(file, ENDINGS)
        patient = plain(row["patient_id"])
        if patient and named.setdefault(stem, patient) != patient:
            raise StudyError(f"{table} gives {file} two patients; keep one.")
        written.append(row["patient_id"])
    if without := [stem for stem in stems if stem not in named]:
        more = f" and {len(without) - 1} more slices" if len(without) > 1 else ""
        raise StudyError(f"{table} names no patient for {without[0]}{more}; add them.")
    return {stem: named[stem] for stem in stems}, spellings(written)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
