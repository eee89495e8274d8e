"""Any folder of NIfTI scans with masks, and the pairing rule that other NIfTI datasets share.

A scan finds its mask by the first of these that is there:

- `pairs.csv` in the folder, with the columns `image`, `mask` and, if wanted, `patient_id`; paths start at the folder.
- Two folders, images/ with masks/ or labels/, or nnU-Net's imagesTr/ with labelsTr/ (imagesTs/ with labelsTs/), matched
  by stem. Where the stems differ, endings such as `_0000` (nnU-Net's first channel) or `_mask` are left aside.
- Scan and mask beside each other, in the folder or in one folder per scan: `X.nii.gz` with `X_mask.nii.gz`, or
  `ct.nii.gz` with `mask.nii.gz`. IMAGE_WORDS and MASK_WORDS in `folder` hold the words that may end a name.

A scan is its own patient unless pairs.csv or a patient pattern says more. Scans that share a folder below the dataset's
are refused without either, since that folder may be a patient or a hospital.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sahlib.data.scan import SAH, patient_by_pattern
from sahlib.data.sources.folder import (
    MASK_WORDS,
    Case,
    files,
    has_ending,
    matched,
    read_table,
    require_folder,
    stem,
    without_words,
)
from sahlib.data.sources.volume_folder import VolumeFolder, value_classes
from sahlib.study import StudyError

FOLDERS = (("images", "masks"), ("images", "labels"), ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))

# (patient by itself or None, image, mask, scan id) of one pair, before patients are settled
Pair = tuple[str | None, Path, Path, str]


def recognises(root: Path) -> bool:
    """Whether a folder looks like scans with masks in NIfTI."""
    return (root / "pairs.csv").is_file() or any(True for _ in _folders_with_scans(root))


def open_folder(root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = ()) -> VolumeFolder:
    """The source of a folder in any of the layouts above; masks hold 0 and 1 = SAH unless `label_map` says more."""
    root = require_folder(root)
    return VolumeFolder("nifti", root, find_cases(root, patient_pattern), value_classes(label_map, {1: SAH}))


def find_cases(
    root: Path,
    patient_pattern: str = "",
    folders: tuple[tuple[str, str], ...] = FOLDERS,
    own_patient: Callable[[str], str] = lambda scan_id: scan_id,
) -> tuple[Case, ...]:
    """Every scan of a folder with its mask, patients in order.

    folders      pairs of folder names to look for, images first
    own_patient  scan id -> patient, where neither patient_pattern nor pairs.csv says more

    Raises StudyError for a scan without a mask or the reverse, two files that claim one name, and an empty folder.
    """
    chosen = [(root / i, root / m) for i, m in folders if (root / i).is_dir() and (root / m).is_dir()]
    if (root / "pairs.csv").is_file():
        pairs = _from_table(root)
    elif chosen:
        if len({images for images, _ in chosen}) < len(chosen):
            raise StudyError(
                f"{root} has {' and '.join(m.name for _, m in chosen)} for one folder of images; keep one of them."
            )
        found = [pair for both in chosen for pair in matched(files(both[0]), files(both[1]), both).items()]
        pairs = [(None, image, mask, scan_id) for scan_id, (image, mask) in found]
    else:
        pairs = [pair for folder in _folders_with_scans(root) for pair in _beside(root, folder)]
        if not patient_pattern:
            _require_one_scan_each(root, pairs)
    if not pairs:
        raise StudyError(
            f"{root} holds no NIfTI scans with masks; expected images/ and masks/, or X.nii.gz beside X_mask.nii.gz, "
            "or a table pairs.csv with the columns image and mask."
        )
    cases: dict[str, Case] = {}
    for patient, image, mask, scan_id in pairs:
        if scan_id in cases:
            raise StudyError(f"{image} and {cases[scan_id].image} have the same name {scan_id!r}; rename one of them.")
        if patient_pattern:
            patient = patient_by_pattern(scan_id, patient_pattern)
        cases[scan_id] = Case(scan_id, patient or own_patient(scan_id), image, (mask,))
    return tuple(sorted(cases.values(), key=lambda case: (case.patient_id, case.scan_id)))


def _from_table(root: Path) -> list[Pair]:
    table = root / "pairs.csv"
    pairs = []
    for row in read_table(table, ("image", "mask")).to_dict("records"):
        image, mask = (root / row[kind] for kind in ("image", "mask"))
        for kind, path in (("image", image), ("mask", mask)):
            if not (has_ending(path.name) and path.is_file()):
                raise StudyError(f"{table} names the {kind} {row[kind]!r}, which is no NIfTI file under {root}.")
        scan_id = "_".join((*Path(row["image"]).parent.parts, stem(image)))
        pairs.append((row.get("patient_id") or None, image, mask, scan_id))
    return pairs


def _beside(root: Path, folder: Path) -> list[Pair]:
    """Pairs within one folder, the mask known by the word that ends its name."""
    found = files(folder)
    masks = [path for path in found if without_words(stem(path), MASK_WORDS) != stem(path)]
    pairs = matched([path for path in found if path not in masks], masks, (folder, folder))
    place = folder.relative_to(root).parts
    return [
        (None, image, mask, "_".join((*place, key) if key else place) or stem(image))
        for key, (image, mask) in pairs.items()
    ]


def _folders_with_scans(root: Path) -> Iterator[Path]:
    """`root` and the folders below it that hold NIfTI files; each once, whatever links lead where."""
    seen = set()

    def refuse(error: OSError):
        raise StudyError(
            f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it."
        ) from error

    for place, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if any(map(has_ending, names)):
            yield Path(place)


def _require_one_scan_each(root: Path, pairs: list[Pair]) -> None:
    """StudyError where a folder directly below `root` holds several scans: they may be one patient's, or not."""
    seen: dict[str, Path] = {}
    for _, image, _, _ in pairs:
        parts = image.relative_to(root).parts
        if len(parts) > 1 and parts[0] in seen:
            raise StudyError(
                f"{image} and {seen[parts[0]]} share the folder {parts[0]}, and nothing says whether they are one "
                f"patient's; give --patient-pattern, for example '^([^_]+)_', or {root}/pairs.csv with patient_id."
            )
        seen[parts[0]] = image
