"""What `check` keeps of a scan once its pixels are gone: counts, extremes, hashes, and how its masks fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sahlib.data.check import duplicates, fit
from sahlib.data.scan import CLASSES, Scan


@dataclass(frozen=True)
class SliceMeasures:
    """What is kept of one slice. Counts are of pixels."""

    slice_id: str
    pixels: tuple[int, ...]  # of each class, background included
    head: int
    outside: int  # lesion pixels outside the head
    blank: bool  # shows nothing: check_fit.is_blank
    cavity: int  # what the skull encloses; 0 where it is open or not seen
    cavity_black: int
    cavity_white: int
    lesion_white: int
    content: bytes
    labels: bytes
    bits: bytes | None  # check_duplicates.perceptual_hash

    @property
    def lesion(self) -> int:
        """Pixels of any lesion class."""
        return sum(self.pixels[1:])


@dataclass(frozen=True)
class ScanMeasures:
    """What is kept of one scan; low, high and at_high (share of voxels at the highest value) are in its own unit."""

    patient_id: str
    files: str  # for a sentence that names them; empty where the scan was generated
    unit: str
    size: tuple[int, int]
    row_mm: float
    column_mm: float
    thickness_mm: float
    low: int
    high: int
    at_high: float
    contrasts: np.ndarray  # float [8]: check_fit.contrasts, summed over the slices
    slices: tuple[SliceMeasures, ...]


def measure(scan: Scan, grey: np.ndarray) -> ScanMeasures:
    """The record of a scan; grey uint8 [D,H,W] is its image in a window."""
    slices, sums = [], np.zeros(len(fit.TURNS))
    for image, shown, labels, slice_id in zip(scan.image, grey, scan.labels, scan.slice_ids, strict=True):
        head = fit.head_region(image, scan.unit)
        skull = fit.skull_region(image, scan.unit)
        cavity = fit.cavity_region(skull)
        lesion = labels > 0
        # A rim of bone is bright by partial volume and no blood.
        tissue = head & (shown > 0) & ~fit.widened(skull, max(1, min(image.shape) // 128))
        if lesion.any():
            sums += fit.contrasts(shown, tissue, lesion)
        slices.append(
            SliceMeasures(
                slice_id=slice_id,
                pixels=tuple(np.bincount(labels.ravel(), minlength=len(CLASSES)).tolist()),
                head=int(head.sum()),
                # Outlines drawn by hand may stray over the edge by a few pixels.
                outside=int((lesion & ~fit.widened(head, max(2, min(image.shape) // 64))).sum()),
                blank=fit.is_blank(image, scan.unit),
                cavity=int(cavity.sum()),
                cavity_black=int((shown[cavity] == 0).sum()),
                cavity_white=int((shown[cavity] == 255).sum()),
                lesion_white=int((shown[lesion] == 255).sum()),
                content=duplicates.content_hash(image),
                labels=duplicates.content_hash(labels),
                bits=duplicates.perceptual_hash(shown, head),
            )
        )
    high = scan.image.max()
    return ScanMeasures(
        patient_id=scan.patient_id,
        files=" and ".join(str(path) for path in scan.sources[:2]),
        unit=scan.unit,
        size=scan.image.shape[1:],
        row_mm=float(scan.spacing_mm[0]),
        column_mm=float(scan.spacing_mm[1]),
        thickness_mm=float(scan.thickness_mm),
        low=int(scan.image.min()),
        high=int(high),
        at_high=float((scan.image == high).mean()),
        contrasts=sums,
        slices=tuple(slices),
    )
