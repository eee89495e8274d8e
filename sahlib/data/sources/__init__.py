"""Datasets: one module per source; each yields Scan records and nothing else.

A source is a frozen dataclass with `name`, `len()` (scans), `scan(index)`, iteration over all, and `fingerprint()`:
the JSON-able facts that decide every pixel, whatever the machine or the folder's place. Where it left something out,
`remarks` says so, as a `ToLookAt` where patients may be missing for it. The module of a source that is a folder has the
dataset's name in `study.DATASETS` and offers `recognises(root)` and `open_folder(root, ...)`, whose other arguments are
the fields of a Study that it has a use for.

Slices of every source that knows its orientation lie as the phantom's do; `nifti_file` says how.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

from sahlib.data.sources.files import require_folder
from sahlib.study import DATASETS, Study, StudyError

READING = ("patient_pattern", "slices_are_patients", "label_map", "raters", "orientation")


def open_source(study: Study):
    """The source a Study names; a folder is checked as a whole before anything is read from it.

    Raises StudyError for a folder that is not laid out as the source expects, and for a field it has no use for.
    """
    if study.dataset == "phantom":
        from sahlib.data.sources.phantom.phantom import Phantom

        return Phantom(study.phantom_patients + study.phantom_test_patients, study.phantom_seed)
    opener = _module(study.dataset).open_folder
    used = inspect.signature(opener).parameters.keys() - {"root"}
    for field in READING:
        if field not in used and getattr(study, field) != getattr(Study, field):
            raise StudyError(f"{field} has no meaning for the dataset {study.dataset!r}; leave it out.")
    return opener(study.data_dir, **{field: getattr(study, field) for field in used})


def recognise(root: str | Path) -> str:
    """The name of the dataset that a folder holds; StudyError where it looks like none of them."""
    root = require_folder(root)
    layouts = {name: layout for name, layout in DATASETS.items() if layout}
    for name in layouts:
        if _module(name).recognises(root):
            return name
    known = "; ".join(f"{name}: {layout}" for name, layout in layouts.items())
    raise StudyError(f"{root} holds no scans in a layout known here ({known}); name the dataset, or arrange the files.")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"sahlib.data.sources.{name}")
