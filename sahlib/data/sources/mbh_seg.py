"""MBH-Seg, multi-class brain hemorrhage segmentation with several raters per scan (MICCAI challenge, 2025 edition).

Documented by the challenge's evaluation code: one folder per scan (MBH_Train_2025_voxel-label/ID_..._ID_.../) with
image.nii.gz and one label_annot_<k>.nii.gz per rater; who rated differs from scan to scan. Other files in the folder,
such as a consensus someone has computed, are not read. The folder above is read too where it holds one such set. The
2024 edition is the folder label_192 of BHSD: use `bhsd`.

Inferred from code that trains on it: masks hold 1 EDH, 2 IPH, 3 IVH, 4 SAH, 5 SDH as in BHSD, and the first part of a
folder's name is the patient. A rater's name is what follows "label_" (annot_1); scans that rater has not seen are left
out and counted.
"""

from __future__ import annotations

from pathlib import Path

from sahlib.data.sources.bhsd import VALUES, rsna_patient
from sahlib.data.sources.files import Case, by_stem, hidden, require_folder, unread, with_patients, within
from sahlib.data.sources.names import natural, spellings
from sahlib.data.sources.volume_folder import VolumeFolder, value_classes
from sahlib.study import StudyError

PREFIX = "label_"
RATER_PREFIX = "label_annot_"


def recognises(root: Path) -> bool:
    """Whether folders directly below, or below the one folder in it that has such, hold label_annot_ files."""
    return _holds_rated(_place(root))


def _holds_rated(root: Path) -> bool:
    return any(True for _ in root.glob(f"*/{RATER_PREFIX}*.nii*"))


def _place(root: Path) -> Path:
    """The folder that holds the scans' folders: `root`, or, where it has none, the only folder in it that has."""
    below = [] if _holds_rated(root) else [path for path in root.iterdir() if path.is_dir() and _holds_rated(path)]
    return below[0] if len(below) == 1 else root


def open_folder(
    root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = (), raters: str = "majority"
) -> VolumeFolder:
    """The source of the training folder.

    raters  "majority" or "union" of all raters (`volume_folder.merge_raters`), or the name of one

    Raises StudyError for a scan without a rater, masks without an image, and a rater nobody has heard of.
    """
    root = require_folder(root)
    cases, heard, rated = [], set(), []
    folders = sorted(path for path in _place(root).iterdir() if path.is_dir() and not hidden(path.name))
    for folder in folders:
        named = by_stem(within(folder))
        masks = {key.removeprefix(PREFIX): path for key, path in named.items() if key.startswith(RATER_PREFIX)}
        if "image" not in named or not masks:
            lack = "image.nii.gz" if "image" not in named else "label_annot_<k>.nii.gz"
            raise StudyError(f"{folder} holds no {lack}; every folder of MBH-Seg holds one scan and its raters' masks.")
        heard |= masks.keys()
        rated += [named["image"], *masks.values()]
        if asked := sorted(masks, key=natural) if raters in ("majority", "union") else masks.keys() & {raters}:
            cases.append(Case("", folder.name, named["image"], tuple(masks[rater] for rater in asked)))
    if not heard:
        raise StudyError(f"{root} holds no folder with image.nii.gz and label_annot_<k>.nii.gz in it.")
    if not cases:
        raise StudyError(f"raters is {raters!r}, but {root} has only {', '.join(sorted(heard))}; or say majority.")
    left_out, named = len(folders) - len(cases), with_patients(cases, patient_pattern, rsna_patient)
    remarks = (f"{left_out} scans are left out: the rater asked for did not see them.",) if left_out else ()
    remarks += (*spellings(case.patient_id for case in named), *unread(root, rated))
    return VolumeFolder("mbh_seg", root, named, value_classes(label_map, VALUES), raters, left_out, remarks)
