"""INSTANCE 2022, intracranial hemorrhage segmentation (MICCAI challenge; access after signing its agreement).

Documented: 100 training scans in NIfTI with a binary mask each, 1 for hemorrhage of whatever type. Assumed, since the
listing is not public: data/ and label/ (here or in train_2/), matched by stem; images/ with masks/ or labels/ and a
pairs.csv are read too (see `nifti`).

The masks do not tell types, and calling all of them SAH would be a silent mistake, so the label map has to say what 1
shall count as. "1=IPH" with the target "any" is the honest reading: any hemorrhage.
"""

from __future__ import annotations

from pathlib import Path

from sahlib.data.sources.files import nested, require_folder, within
from sahlib.data.sources.nifti import FOLDERS, find_cases
from sahlib.data.sources.volume_folder import VolumeFolder, value_classes
from sahlib.study import StudyError

OWN_FOLDERS = ("data", "label")


def recognises(root: Path) -> bool:
    """Whether a folder, or its train_2/, holds data/ and label/ with NIfTI files."""
    own = [nested(root, "train_2") / folder for folder in OWN_FOLDERS]
    return all(folder.is_dir() and within(folder) for folder in own)


def open_folder(root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = ()) -> VolumeFolder:
    """The source of the training folder; StudyError without a label_map, and what `nifti` raises."""
    place = nested(require_folder(root), "train_2")
    if not label_map:
        raise StudyError(
            f"The masks of INSTANCE 2022 in {root} do not tell types of hemorrhage; say what their 1 shall count as, "
            "for example label_map 1=IPH together with the target any."
        )
    cases, remarks = find_cases(place, patient_pattern, (OWN_FOLDERS, *FOLDERS))
    return VolumeFolder("instance2022", place, cases, value_classes(label_map, {}), remarks=remarks)
