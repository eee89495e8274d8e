"""Looking at a source before training: what it holds, measured scan by scan.

One scan is in memory at a time: `measures.py` says what is kept of it, `findings.py` what that means, and
`report/check_page.py` shows it. A scan that cannot be read becomes a finding, so that all bad files of a folder are
named at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pandas as pd

from sahlib.data.check.findings import Finding, findings
from sahlib.data.check.measures import VOXEL_MM, measure
from sahlib.data.scan import CLASSES, Scan
from sahlib.data.slices import window_to_grey
from sahlib.study import WINDOWS, Study, StudyError

CONTACTS = 40  # patients on the contact sheet
THUMB = 256  # pixels of the longer side of a picture on it
DEFAULT = Study()


@dataclass(frozen=True)
class Contact:
    """A slice on the contact sheet: grey and labels uint8 [h,w]."""

    patient_id: str
    slice_id: str
    grey: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Examination:
    """All that a page shows of a source; findings come with the gravest first.

    scans, slices  a row each, with the columns that `measure` fills
    patients       by patient_id: row_mm, column_mm, thickness_mm (medians; NaN where one is unknown), scans, slices,
                   sah_slices, and how much of each lesion class: mL where in_ml, pixels otherwise
    """

    name: str
    scans: pd.DataFrame
    slices: pd.DataFrame
    patients: pd.DataFrame
    unreadable: tuple[str, ...]
    findings: tuple[Finding, ...]
    contacts: tuple[Contact, ...]


def examine(source, progress: Callable[[Iterable[int]], Iterable[int]] = iter, study: Study = DEFAULT) -> Examination:
    """Measures every scan of a source (see `sahlib.data.sources`) and draws the findings.

    progress  wraps the iteration over scans, for example tqdm
    study     tells what is to be segmented, and in which window 8-bit slices were exported

    A StudyError raised for one scan is kept as a finding.
    """
    scans, slices, unreadable = [], [], []
    # A middle slice of every scan, of no more than CONTACTS patients with lesions and as many without.
    sheet: dict[bool, dict[str, list[Contact]]] = {True: {}, False: {}}
    for index in progress(range(len(source))):
        try:
            scan = source.scan(index)
        except StudyError as error:
            unreadable.append(str(error))
            continue
        grey = scan.image if scan.unit == "grey" else window_to_grey(scan.image, *WINDOWS["brain"])
        kept, kept_slices = measure(scan, grey)
        scans.append(kept)
        slices += kept_slices
        held = sheet[bool(scan.labels.any())]
        if scan.patient_id in held or len(held) < CONTACTS:
            held.setdefault(scan.patient_id, []).append(contact(scan, grey))
    shown = sheet[True] | {who: own for who, own in sheet[False].items() if who not in sheet[True]}
    scans, slices = pd.DataFrame(scans), pd.DataFrame(slices)
    return Examination(
        source.name,
        scans,
        slices,
        patients_of(scans, slices),
        tuple(unreadable),
        findings(scans, slices, unreadable, getattr(source, "remarks", ()), study),
        tuple(own[len(own) // 2] for own in list(shown.values())[:CONTACTS]),
    )


def patients_of(scans: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """The table `patients` of an Examination."""
    if scans.empty:
        return pd.DataFrame()
    own, whose = scans.groupby("patient_id", sort=False), slices["patient_id"]
    patients = own[VOXEL_MM].agg(lambda mm: mm.median(skipna=False))
    patients["scans"], patients["slices"] = own.size(), whose.value_counts()
    patients["sah_slices"] = (slices["SAH"] > 0).groupby(whose).sum()
    patients["in_ml"] = patients[VOXEL_MM].notna().all(axis=1)
    voxel = slices["voxel_ml"].where(whose.map(patients["in_ml"]), 1)
    return patients.join(slices[list(CLASSES[1:])].mul(voxel, axis=0).groupby(whose).sum())


def contact(scan: Scan, grey: np.ndarray) -> Contact:
    """The middle slice with a lesion, or the middle one where there is none; grey uint8 [D,H,W] is the scan's image."""
    marked = np.flatnonzero(scan.labels.any((1, 2)))
    z = int(marked[len(marked) // 2]) if len(marked) else len(grey) // 2
    return resized(Contact(scan.patient_id, scan.slice_ids[z], grey[z], scan.labels[z]), THUMB)


def resized(shown: Contact, longest: int) -> Contact:
    """A contact whose longer side has so many pixels."""
    scale = longest / max(shown.grey.shape)  # small pictures grow, since even a thin outline would hide them
    size = tuple(max(1, round(n * scale)) for n in shown.grey.shape[::-1])
    return replace(
        shown,
        grey=cv2.resize(shown.grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR),
        labels=cv2.resize(shown.labels, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )
