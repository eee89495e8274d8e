"""Any folder of NIfTI scans with masks, and the pairing rule that other NIfTI datasets share.

A scan finds its mask by the first of these that is there:

- `pairs.csv` in the folder, with the columns `image`, `mask` and, if wanted, `patient_id`; paths start at the folder.
- Two folders, images/ with masks/ or labels/, or nnU-Net's imagesTr/ with labelsTr/ (imagesTs/ with labelsTs/), matched
  by stem. Where the stems differ, endings such as `_0000` (nnU-Net's first channel) or `_mask` are left aside.
- Scan and mask beside each other, in the folder or in one folder per scan: `X.nii.gz` with `X_mask.nii.gz`, or
  `ct.nii.gz` with `mask.nii.gz`. IMAGE_WORDS and MASK_WORDS in `files` hold the words that may end a name.

A scan is its own patient unless pairs.csv or a patient pattern says more. Scans that share a folder below the dataset's
are refused without either, since that folder may be a patient or a hospital.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from sahlib.data.scan import SAH
from sahlib.data.sources import files
from sahlib.data.sources.files import MASK_WORDS, Case, stem, without_word
from sahlib.data.sources.names import plain, read_table, spellings
from sahlib.data.sources.volume_folder import VolumeFolder, agreed, read_values, value_classes
from sahlib.study import StudyError

FOLDERS = (("images", "masks"), ("images", "labels"), ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))


def recognises(root: Path) -> bool:
    """Whether a folder looks like scans with masks in NIfTI; in images/ and masks/, where it has those."""
    if chosen := _folders(root, FOLDERS):
        found = any(files.within(images) for images, _ in chosen)
    else:
        found = any(True for _ in _folders_with_scans(root))
    return found or (root / "pairs.csv").is_file()


def open_folder(root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = ()) -> VolumeFolder:
    """The source of a folder in any of the layouts above.

    Masks hold what nnU-Net's dataset.json says where there is one, else what `label_map` says, else 0 and 1 = SAH.
    """
    root = files.require_folder(root)
    table, classes = root / "dataset.json", value_classes(label_map, {1: SAH})
    if table.is_file():
        classes = agreed(label_map, read_values(table, label_map), table)
    cases, remarks = find_cases(root, patient_pattern)
    return VolumeFolder("nifti", root, cases, classes, remarks=remarks)


def find_cases(
    root: Path,
    patient_pattern: str = "",
    folders: tuple[tuple[str, str], ...] = FOLDERS,
    own_patient: Callable[[str], str] = str,
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """(every scan of a folder with its mask, patients in order; remarks on names and on files left aside).

    folders      pairs of folder names to look for, images first
    own_patient  scan id -> patient, where neither patient_pattern nor pairs.csv says more

    Raises StudyError for a scan without a mask or the reverse, two files that claim one name, a file that is named for
    two scans, and an empty folder.
    """
    chosen, by_table = _folders(root, folders), (root / "pairs.csv").is_file()
    if by_table:
        cases = _from_table(root)
    elif chosen:
        cases = [case for kinds in chosen for case in files.matched(*map(files.within, kinds))]
    else:
        cases = [case for folder in _folders_with_scans(root) for case in _beside(root, folder)]
        if not patient_pattern:
            _require_one_scan_each(root, cases)
    if not cases:
        raise StudyError(
            f"{root} holds no NIfTI scans with masks; expected images/ and masks/, or X.nii.gz beside X_mask.nii.gz, "
            "or a table pairs.csv with the columns image and mask."
        )
    claimed: dict[str, Case] = {}
    for case in cases:
        for claim in (case.scan_id, os.path.abspath(case.image), *map(os.path.abspath, case.masks)):
            if (other := claimed.setdefault(claim, case)) is not case:
                pairs = ", and ".join(f"{c.image} with {c.masks[0]}" for c in (case, other))
                raise StudyError(f"{claim!r} is there twice: {pairs}; rename or remove one of them.")
    named = files.with_patients(cases, patient_pattern, own_patient)
    remarks = spellings(case.patient_id for case in (cases if by_table and not patient_pattern else named))
    return named, (*remarks, *files.unread(root, (path for c in cases for path in (c.image, *c.masks))))


def _folders(root: Path, folders: tuple[tuple[str, str], ...]) -> list[tuple[Path, Path]]:
    """Those pairs of folders, images first, that are both there."""
    return [(root / i, root / m) for i, m in folders if (root / i).is_dir() and (root / m).is_dir()]


def _from_table(root: Path) -> list[Case]:
    cases, rows = [], read_table(root / "pairs.csv", ("image", "mask"))
    named = any(plain(row.get("patient_id", "")) for row in rows)
    for row in rows:
        if named and not plain(row["patient_id"]):
            raise StudyError(f"{root}/pairs.csv names no patient for {row['image']!r}; add it.")
        places = [row[kind].strip().replace("\\", "/") for kind in ("image", "mask")]
        image, mask = (root / place for place in places)
        for kind, path in (("image", image), ("mask", mask)):
            if not (files.has_ending(path.name) and path.is_file()):
                raise StudyError(f"{root}/pairs.csv names the {kind} {row[kind]!r}, which is no NIfTI file there.")
        scan_id = "_".join((*Path(places[0]).parent.parts, stem(image)))
        cases.append(Case(row.get("patient_id", ""), scan_id, image, (mask,)))
    return cases


def _beside(root: Path, folder: Path) -> list[Case]:
    """Scans within one folder, the mask known by the word that ends its name; patients are not named yet."""
    found = files.within(folder)
    masks = [path for path in found if without_word(stem(path), MASK_WORDS) != stem(path)]
    place = folder.relative_to(root).parts
    return [
        replace(case, scan_id="_".join((*place, case.scan_id) if case.scan_id else place) or stem(case.image))
        for case in files.matched([path for path in found if path not in masks], masks)
    ]


def _folders_with_scans(root: Path) -> Iterator[Path]:
    """`root` and the folders below it that hold NIfTI files; each once, whatever links lead where."""
    return (folder for folder, names in files.walk(root) if any(map(files.has_ending, names)))


def _require_one_scan_each(root: Path, cases: list[Case]) -> None:
    """StudyError where a folder directly below `root` holds several scans: they may be one patient's, or not."""
    seen: dict[str, Path] = {}
    for case in cases:
        place, *below = case.image.relative_to(root).parts
        if (other := seen.setdefault(place, case.image)) is not case.image and below:
            raise StudyError(
                f"{case.image} and {other} share the folder {place}, and nothing says whether they are one "
                f"patient's; give --patient-pattern, for example '^([^_]+)_', or {root}/pairs.csv with patient_id."
            )
