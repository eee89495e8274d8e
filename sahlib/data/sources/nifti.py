"""Any folder of NIfTI scans with masks, and the pairing rule that other NIfTI datasets share.

A scan finds its mask by the first of these that is there:

- `pairs.csv` in the folder, with the columns `image`, `mask` and, if wanted, `patient_id`; paths start at the folder.
- Two folders, images/ with masks/ or labels/, or nnU-Net's imagesTr/ with labelsTr/ (imagesTs/ with labelsTs/), matched
  by stem. Where the stems differ, endings such as `_0000` (nnU-Net's first channel) or `_mask` are left aside.
- Scan and mask beside each other, in the folder or in one folder per scan: `X.nii.gz` with `X_mask.nii.gz`, or
  `ct.nii.gz` with `mask.nii.gz`. IMAGE_WORDS and MASK_WORDS hold the words that may end a name.

A scan is its own patient unless pairs.csv or a patient pattern says more. Scans that share a folder below the dataset's
are refused without either, since that folder may be a patient or a hospital.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sahlib.data.scan import SAH
from sahlib.data.sources.names import natural, patient_by_pattern, plain, read_table
from sahlib.data.sources.volume_folder import (
    Case,
    VolumeFolder,
    agreed,
    is_nifti_name,
    nifti_files,
    read_values,
    require_folder,
    stem,
    value_classes,
)
from sahlib.study import StudyError

name = "nifti"
FIELDS = ("patient_pattern", "label_map")
FOLDERS = (("images", "masks"), ("images", "labels"), ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))
IMAGE_WORDS = ("0000", "ct", "ncct", "image", "img", "scan", "volume")
MASK_WORDS = ("mask", "masks", "seg", "segmentation", "label", "labels", "gt")

# (patient by itself or None, image, mask, scan id) of one pair, before patients are settled
Pair = tuple[str | None, Path, Path, str]


def recognises(root: Path) -> bool:
    """Whether a folder looks like scans with masks in NIfTI."""
    return (root / "pairs.csv").is_file() or any(True for _ in _folders_with_scans(root))


def open(
    root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = (), name: str = name
) -> VolumeFolder:
    """The source of a folder in any of the layouts above.

    Masks hold what nnU-Net's dataset.json says where there is one, else what `label_map` says, else 0 and 1 = SAH.
    """
    root = require_folder(root)
    cases = find_cases(root, patient_pattern)
    classes = value_classes(label_map, {1: SAH})
    if (table := root / "dataset.json").is_file():
        classes = agreed(label_map, read_values(table, label_map), table)
    return VolumeFolder(name, root, cases, tuple(sorted(classes.items())))


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
    beside = False
    if (root / "pairs.csv").is_file():
        pairs = _from_table(root)
    elif chosen := [(i, m) for i, m in folders if (root / i).is_dir() and (root / m).is_dir()]:
        if len({image for image, _ in chosen}) < len(chosen):
            raise StudyError(
                f"{root} has {' and '.join(mask for _, mask in chosen)} for one folder of images; keep one of them."
            )
        pairs = [pair for image, mask in chosen for pair in _by_stem(root / image, root / mask)]
    else:
        beside = True
        pairs = [pair for folder in _folders_with_scans(root) for pair in _beside(root, folder)]
    if not pairs:
        raise StudyError(
            f"{root} holds no NIfTI scans with masks; expected images/ and masks/, or X.nii.gz beside X_mask.nii.gz, "
            "or a table pairs.csv with the columns image and mask."
        )
    if beside and not patient_pattern:
        _require_one_scan_each(root, pairs)
    cases: dict[str, Case] = {}
    for patient, image, mask, scan_id in pairs:
        if scan_id in cases:
            raise StudyError(f"{image} and {cases[scan_id].image} have the same name {scan_id!r}; rename one of them.")
        if patient_pattern:
            patient = patient_by_pattern(scan_id, patient_pattern)
        cases[scan_id] = Case(scan_id, patient or own_patient(scan_id), image, (mask,))
    return tuple(sorted(cases.values(), key=lambda case: (natural(case.patient_id), natural(case.scan_id))))


def _from_table(root: Path) -> list[Pair]:
    table = root / "pairs.csv"
    pairs = []
    for row in read_table(table, ("image", "mask")):
        places = [row[kind].strip().replace("\\", "/") for kind in ("image", "mask")]
        image, mask = (root / place for place in places)
        for kind, path in (("image", image), ("mask", mask)):
            if not (is_nifti_name(path.name) and path.is_file()):
                raise StudyError(f"{table} names the {kind} {row[kind]!r}, which is no NIfTI file under {root}.")
        scan_id = "_".join((*Path(places[0]).parent.parts, stem(image)))
        pairs.append((plain(row.get("patient_id", "")) or None, image, mask, scan_id))
    return pairs


def _by_stem(images: Path, masks: Path) -> list[Pair]:
    """Pairs from two folders; the stems as they are where they agree, else without the words that end them."""
    files = nifti_files(images), nifti_files(masks)
    exact = [{stem(path): path for path in paths} for paths in files]
    if len(exact[0]) == len(files[0]) and exact[0].keys() == exact[1].keys():
        named, masked = exact
    else:
        named = _keyed(files[0], lambda path: _without(stem(path), IMAGE_WORDS))
        masked = _keyed(files[1], lambda path: _without(_without(stem(path), MASK_WORDS), IMAGE_WORDS))
    for key in sorted(named.keys() ^ masked.keys()):
        lonely, lack, where = (named[key], "mask", masks) if key in named else (masked[key], "scan", images)
        raise StudyError(f"{lonely} has no {lack} in {where}; add it, or remove {lonely.name}.")
    return [(None, named[key], masked[key], key) for key in sorted(named)]


def _beside(root: Path, folder: Path) -> list[Pair]:
    """Pairs within one folder, the mask known by the word that ends its name."""
    files = nifti_files(folder)
    masks = [path for path in files if _without(stem(path), MASK_WORDS) != stem(path)]
    named = _keyed([path for path in files if path not in masks], lambda path: _without(stem(path), IMAGE_WORDS))
    masked = _keyed(masks, lambda path: _without(_without(stem(path), MASK_WORDS), IMAGE_WORDS))
    for key in sorted(named.keys() ^ masked.keys()):
        lonely, lack = (named[key], "mask") if key in named else (masked[key], "scan")
        raise StudyError(
            f"{lonely} has no {lack} beside it; name masks like X_mask.nii.gz, or list the pairs in {root}/pairs.csv."
        )
    place = folder.relative_to(root).parts
    return [
        (None, named[key], masked[key], "_".join((*place, key) if key else place) or stem(named[key]))
        for key in sorted(named)
    ]


def _folders_with_scans(root: Path) -> Iterator[Path]:
    """`root` and the folders below it that hold NIfTI files; each once, whatever links lead where."""
    seen = set()

    def refuse(error: OSError):
        raise StudyError(
            f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it."
        ) from error

    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if any(is_nifti_name(file) for file in files):
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


def _keyed(files: list[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        if (other := found.setdefault(key(path), path)) is not path:
            raise StudyError(f"{path} and {other.name} have the same stem; keep one of them.")
    return found


def _without(text: str, words: tuple[str, ...]) -> str:
    """`text` without a word at its end and what joins it; "" where it is nothing but that word."""
    return re.sub(rf"(^|[ _.-])({'|'.join(words)})$", "", text, flags=re.IGNORECASE)
