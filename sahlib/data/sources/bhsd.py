"""BHSD, the Brain Hemorrhage Segmentation Dataset: five types in 192 scans (Wu et al., MLMI 2023, arXiv 2308.11298).

Documented: label_192/ with images/ and "ground truths/", matched by stem, and a dataset.json in the form of nnU-Net
whose images are in imagesTr/ and imagesTs/; both layouts are read. Masks hold 1 EDH, 2 IPH, 3 IVH, 4 SAH, 5 SDH; where
a dataset.json is there it decides, and a label_map that contradicts either is refused. The challenge MBH-Seg of 2024
used these files.

Inferred: names are `ID_<patient>_ID_<series>` as in the RSNA 2019 challenge that the scans come from; the published
list has scans that share the first part, and two scans of one patient must not be split between training and test.
"""

from __future__ import annotations

import re
from pathlib import Path

from sahlib.data.scan import CLASSES
from sahlib.data.sources.files import nested, require_folder
from sahlib.data.sources.nifti import find_cases
from sahlib.data.sources.volume_folder import VolumeFolder, agreed, read_values

FOLDERS = (("images", "ground truths"), ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))
VALUES = {value: CLASSES.index(name) for value, name in enumerate(("EDH", "IPH", "IVH", "SAH", "SDH"), 1)}


def recognises(root: Path) -> bool:
    """Whether a folder holds "ground truths/", or a dataset.json that tells of hemorrhage beside imagesTr/."""
    place = nested(root, "label_192")
    if (place / "images").is_dir() and (place / "ground truths").is_dir():
        return True
    if not (place / "imagesTr").is_dir() or not (table := _table(root)):
        return False
    text = table.read_text(errors="replace").lower()
    return "subarachnoid" in text or '"sah"' in text


def open_folder(root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = ()) -> VolumeFolder:
    """The source of the unpacked set, its folder or the one above label_192/.

    Raises StudyError for a dataset.json that names no class known here or contradicts label_map, and what `nifti`
    raises for scans and masks that do not pair.
    """
    root = require_folder(root)
    table = _table(root)
    told = read_values(table, label_map) if table else VALUES
    classes, place = agreed(label_map, told, table or "the documentation of BHSD"), nested(root, "label_192")
    cases, remarks = find_cases(place, patient_pattern, FOLDERS, rsna_patient)
    return VolumeFolder("bhsd", place, cases, classes, remarks=remarks)


def rsna_patient(scan_id: str) -> str:
    """The patient in a name like ID_2db7ee14_ID_f27e38fdfd; the whole name where it is none."""
    return re.sub(r"^(ID_[0-9a-f]+)_ID_[0-9a-f]+\Z", r"\1", scan_id)


def _table(root: Path) -> Path | None:
    """The dataset.json of the set, in its folder or in label_192/."""
    tables = (root / "label_192" / "dataset.json", root / "dataset.json")
    return next((table for table in tables if table.is_file()), None)
