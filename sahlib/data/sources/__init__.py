"""Sources: one file per dataset; each yields Scan records and nothing else.

A source has `name`, `remarks`, `len()` (scans), `scan(index)`, iteration over all, and `fingerprint()`: the JSON-able
facts that decide every pixel, whatever the machine or the folder's place. The file of a dataset read from disk offers
`FIELDS` (the fields of a Study it has a use for besides data_dir), `recognises(root)` and `open(root, **fields)`.

Slices of every source that knows its orientation lie as the phantom's do; `nifti_file` says how.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from sahlib.study import DATASETS, Study, StudyError

READING = ("patient_pattern", "slices_are_patients", "label_map", "raters")


def open_source(study: Study):
    """The source a Study names; a folder is checked as a whole before anything is read from it.

    Raises StudyError for a folder that is not laid out as the source expects, and for a field it has no use for.
    """
    if study.dataset == "phantom":
        from sahlib.data.sources.phantom.phantom import Phantom

        return Phantom(study.phantom_patients, study.phantom_seed)
    module = _module(study.dataset)
    for field in READING:
        if field not in module.FIELDS and getattr(study, field) != getattr(Study, field):
            raise StudyError(f"{field} has no meaning for the dataset {study.dataset!r}; leave it out.")
    return module.open(study.data_dir, **{field: getattr(study, field) for field in module.FIELDS})


def recognise(root: str | Path) -> str:
    """The name of the dataset that a folder holds; StudyError where it looks like none of them."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise StudyError(f"{root} is not a folder; give the folder that holds the scans as data_dir.")
    layouts = {name: layout for name, layout in DATASETS.items() if layout}
    for name in layouts:
        if _module(name).recognises(root):
            return name
    known = "; ".join(f"{name}: {layout}" for name, layout in layouts.items())
    raise StudyError(f"{root} holds no scans in a layout known here ({known}); name the dataset, or arrange the files.")


def _module(name: str):
    return import_module(f"sahlib.data.sources.{name}")
