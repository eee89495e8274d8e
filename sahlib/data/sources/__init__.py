"""Datasets: one file per source; each yields Scan records and nothing else.

A source is a frozen dataclass with `name`, `len()` (scans), `scan(index)`, iteration over all, and `fingerprint()`:
the JSON-able facts that decide every pixel, whatever the machine or the folder's place.

Slices of every source that knows its orientation lie as the phantom's do; `nifti_file` says how.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from sahlib.data.scan import CLASSES, SAH, Scan
from sahlib.data.sources import bhsd, ct_ich, instance2022, mbh_seg, nifti, rhuh_sah
from sahlib.data.sources.paired_folder import PairedFolder
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.study import Study, StudyError

__all__ = ["CLASSES", "SAH", "PairedFolder", "Phantom", "Scan", "open_source", "recognise"]

# What a folder can be, the more particular layouts first.
LAYOUTS = {
    "ct_ich": "ct_scans/, masks/ and hemorrhage_diagnosis_raw_ct.csv",
    "mbh_seg": "folders with image.nii.gz and label_annot_1.nii.gz",
    "bhsd": 'images/ and "ground truths/", or imagesTr/, labelsTr/ and dataset.json',
    "instance2022": "data/ and label/ with NIfTI files",
    "rhuh_sah": "a folder named like subarachnoid_hemorrhage_rhuh with NIfTI files",
    "dicom": "DICOM series",
    "nifti": "NIfTI scans in images/ and masks/, or X.nii.gz beside X_mask.nii.gz",
    "paired_folder": "images/ and masks/ with one picture per slice",
}
# Which fields of a Study a source has a use for, besides data_dir; any other is refused rather than ignored.
FIELDS = {
    "paired_folder": ("patient_pattern", "slices_are_patients", "label_map"),
    "nifti": ("patient_pattern", "label_map"),
    "rhuh_sah": ("patient_pattern", "label_map"),
    "ct_ich": (),
    "bhsd": ("patient_pattern", "label_map"),
    "mbh_seg": ("patient_pattern", "label_map", "raters"),
    "instance2022": ("patient_pattern", "label_map"),
    "dicom": ("patient_pattern", "slices_are_patients", "label_map"),
}


def open_source(study: Study):
    """The source a Study names; a folder is checked as a whole before anything is read from it.

    Raises StudyError for a folder that is not laid out as the source expects, and for a field it has no use for.
    """
    if study.dataset == "phantom":
        return Phantom(study.phantom_patients, study.phantom_seed)
    for field in ("patient_pattern", "slices_are_patients", "label_map", "raters"):
        if field not in FIELDS[study.dataset] and getattr(study, field) != getattr(Study, field):
            raise StudyError(f"{field} has no meaning for the dataset {study.dataset!r}; leave it out.")
    options = {field: getattr(study, field) for field in FIELDS[study.dataset]}
    if study.dataset == "ct_ich":
        options["any_hemorrhage"] = study.target == "any"
    opener = PairedFolder if study.dataset == "paired_folder" else _module(study.dataset)
    if study.dataset == "dicom":
        opener = opener.Dicom
    return opener.open(study.data_dir, **options)


def recognise(root: str | Path) -> str:
    """The name of the dataset that a folder holds; StudyError where it looks like none of them."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise StudyError(f"{root} is not a folder; give the folder that holds the scans as data_dir.")
    for name in LAYOUTS:
        if name == "paired_folder":
            found = (root / "images").is_dir() and any((root / masks).is_dir() for masks in ("masks", "masks_rgb"))
        else:
            found = _module(name).recognises(root)
        if found:
            return name
    known = "; ".join(f"{name}: {layout}" for name, layout in LAYOUTS.items())
    raise StudyError(f"{root} holds no scans in a layout known here ({known}); name the dataset, or arrange the files.")


def _module(name: str) -> ModuleType:
    if name == "dicom":
        from sahlib.data.sources import dicom

        return dicom
    return {"nifti": nifti, "rhuh_sah": rhuh_sah, "ct_ich": ct_ich, "bhsd": bhsd, "mbh_seg": mbh_seg}.get(
        name, instance2022
    )
