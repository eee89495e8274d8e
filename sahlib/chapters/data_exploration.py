"""Notebook 01: the first scans of a source, counted and measured before anything is done to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sahlib.data.scan import CLASSES, SAH, Scan


class FirstScans:
    """The first `count` scans of a source, or all where it has fewer, as a source by itself."""

    def __init__(self, source: object, count: int):
        self.scans: tuple[Scan, ...] = tuple(source.scan(index) for index in range(min(count, len(source))))
        self.name = f"the first {len(self)} scans of {source.name}"

    def __len__(self) -> int:
        return len(self.scans)

    def scan(self, index: int) -> Scan:
        """One of them."""
        return self.scans[index]


def describe(scans: Sequence[Scan]) -> pd.DataFrame:
    """One row per scan: patient, slices, spacing and thickness in mm, and for each class its slices and volume in mL.

    The volume is NaN where a spacing is not known.
    """
    rows = []
    for scan in scans:
        row = {"patient": scan.patient_id, "slices": len(scan.image), "unit": scan.unit}
        row |= {"pixel mm": scan.spacing_mm[0], "slice mm": float(np.median(scan.thicknesses_mm))}
        millilitres = np.prod(scan.spacing_mm) * scan.thicknesses_mm / 1000  # of a pixel, in each slice
        for index, name in enumerate(CLASSES[1:], 1):
            marked = scan.labels == index
            row[f"{name} slices"] = int(marked.any((1, 2)).sum())
            row[f"{name} mL"] = round(float(marked.sum((1, 2)) @ millilitres), 1)
        rows.append(row)
    table = pd.DataFrame(rows).round(2)
    empty = [name for name in CLASSES[1:] if (table[f"{name} slices"] == 0).all()]
    return table.drop(columns=[f"{name} {what}" for name in empty for what in ("slices", "mL")])


def threshold_in_words(scans: Sequence[Scan]) -> str:
    """How many of the voxels with the values of SAH are SAH, which curves of shares do not show."""
    values = np.concatenate([scan.image[scan.labels == SAH].ravel() for scan in scans])
    if not len(values):
        return "No scan here shows SAH, so nothing can be said of its values."
    low, high = np.percentile(values, [5, 95])
    everywhere = sum(((scan.image >= low) & (scan.image <= high)).sum() for scan in scans)
    sah = ((values >= low) & (values <= high)).sum()
    return (
        f"Nine in ten voxels of SAH have values from {low:.0f} to {high:.0f} {scans[0].unit}. Of all voxels with such "
        f"values in these scans, {100 * sah / everywhere:.1f} % are SAH."
    )
