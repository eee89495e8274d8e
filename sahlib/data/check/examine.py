"""Looking at a source before training: what it holds, measured scan by scan.

    >>> examination = examine(source)
    >>> for finding in examination.findings: print(finding.gravity, finding.sentence)

One scan is in memory at a time; of each slice a small record stays. A scan that cannot be read becomes a finding, so
that all bad files of a folder are named at once. `check_measures` holds the record of a scan, `check_findings` what is
made of the records, `check_page` the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from sahlib.data.check.findings import Finding, findings
from sahlib.data.check.measures import ScanMeasures, SliceMeasures, measure
from sahlib.data.scan import CLASSES, SAH, Scan
from sahlib.data.slices import window_to_grey
from sahlib.study import StudyError

BRAIN_WINDOW = (40, 80)  # level and width in HU in which scans in Hounsfield units are shown and hashed
CONTACTS = 40  # patients on the contact sheet
THUMB = 256  # longest side of a picture on it, in pixels


@dataclass(frozen=True)
class Contact:
    """A slice on the contact sheet: grey and labels uint8 [h,w]."""

    patient_id: str
    slice_id: str
    grey: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class PatientSummary:
    """One row of the table: spacings in mm (NaN where unknown) and the amount of each lesion class.

    amounts are mL where every scan of the patient has its spacing and thickness, pixels otherwise (in_ml says which).
    """

    patient_id: str
    scans: int
    slices: int
    sah_slices: int
    row_mm: float
    column_mm: float
    thickness_mm: float
    amounts: tuple[float, ...]
    in_ml: bool


@dataclass(frozen=True)
class Examination:
    """All that a page shows of a source; findings come with the gravest first."""

    name: str
    scans: tuple[ScanMeasures, ...]
    unreadable: tuple[str, ...]
    patients: tuple[PatientSummary, ...]
    findings: tuple[Finding, ...]
    contacts: tuple[Contact, ...]

    @property
    def slices(self) -> list[SliceMeasures]:
        """The slices of all scans, in order."""
        return [own for scan in self.scans for own in scan.slices]


def examine(source, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Examination:
    """Measures every scan of a source (see `sahlib.datasets`) and draws the findings.

    `progress` wraps the iteration over scans, for example tqdm. A StudyError raised for one scan is kept as a finding.
    """
    scans, unreadable, sheet = [], [], _Sheet()
    for index in progress(range(len(source))):
        try:
            scan = source.scan(index)
        except StudyError as error:
            unreadable.append(str(error))
            continue
        grey = scan.image if scan.unit == "grey" else window_to_grey(scan.image, *BRAIN_WINDOW)
        scans.append(measure(scan, grey))
        sheet.add(scan, grey)
    by_patient: dict[str, list[ScanMeasures]] = {}
    for own in scans:
        by_patient.setdefault(own.patient_id, []).append(own)
    patients = tuple(summary(own) for own in by_patient.values())
    return Examination(
        source.name,
        tuple(scans),
        tuple(unreadable),
        patients,
        findings(by_patient, unreadable, getattr(source, "remarks", ())),
        sheet.contacts(),
    )


def summary(scans: list[ScanMeasures]) -> PatientSummary:
    """The table row of one patient."""
    spacing = np.array([[own.row_mm, own.column_mm, own.thickness_mm] for own in scans])
    in_ml = bool(np.isfinite(spacing).all())
    amounts = np.zeros(len(CLASSES) - 1)
    for own, voxel in zip(scans, spacing.prod(1) / 1000, strict=True):
        pixels = np.array([s.pixels[1:] for s in own.slices]).sum(0)
        amounts += pixels * voxel if in_ml else pixels
    return PatientSummary(
        patient_id=scans[0].patient_id,
        scans=len(scans),
        slices=sum(len(own.slices) for own in scans),
        sah_slices=sum(s.pixels[SAH] > 0 for own in scans for s in own.slices),
        row_mm=float(np.median(spacing[:, 0])),
        column_mm=float(np.median(spacing[:, 1])),
        thickness_mm=float(np.median(spacing[:, 2])),
        amounts=tuple(amounts.tolist()),
        in_ml=in_ml,
    )


class _Sheet:
    """Gathers a middle slice of every scan; holds no more than CONTACTS patients with lesions and as many without."""

    def __init__(self):
        self.with_lesion: dict[str, list[Contact]] = {}
        self.without: dict[str, list[Contact]] = {}

    def add(self, scan: Scan, grey: np.ndarray) -> None:
        marked = np.flatnonzero((scan.labels > 0).any((1, 2)))
        held = self.with_lesion if len(marked) else self.without
        if scan.patient_id in held or len(held) < CONTACTS:
            z = int(marked[len(marked) // 2]) if len(marked) else len(grey) // 2
            contact = Contact(scan.patient_id, scan.slice_ids[z], *_shrunk(grey[z], scan.labels[z]))
            held.setdefault(scan.patient_id, []).append(contact)

    def contacts(self) -> tuple[Contact, ...]:
        """One slice per patient: the middle one of those with a lesion, patients with lesions first."""
        held = {who: own for who, own in self.without.items() if who not in self.with_lesion}
        return tuple(own[len(own) // 2] for own in [*self.with_lesion.values(), *held.values()][:CONTACTS])


def _shrunk(grey: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    scale = THUMB / max(grey.shape)
    if scale >= 1:
        return grey.copy(), labels.copy()
    size = tuple(max(1, round(n * scale)) for n in grey.shape[::-1])
    return (
        cv2.resize(grey, size, interpolation=cv2.INTER_AREA),
        cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )
