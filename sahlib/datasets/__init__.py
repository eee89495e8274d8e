"""Datasets: one file per source; each yields Scan records and nothing else.

A source is a frozen dataclass with `name`, `len()` (scans), `scan(index)`, iteration over all, and `fingerprint()`:
the JSON-able facts that decide every pixel, whatever the machine or the folder's place.
"""

from __future__ import annotations

from ..study import Study
from .paired_folder import PairedFolder
from .phantom import Phantom
from .scan import CLASSES, SAH, Scan

__all__ = ["CLASSES", "SAH", "PairedFolder", "Phantom", "Scan", "open_source"]


def open_source(study: Study) -> PairedFolder | Phantom:
    """The source a Study names; a folder is checked as a whole before anything is read from it."""
    if study.dataset == "phantom":
        return Phantom(study.phantom_patients, study.phantom_seed)
    return PairedFolder.open(study.data_dir, study.patient_pattern, study.slices_are_patients)
