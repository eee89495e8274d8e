"""One slice of a browser as a picture: for executed notebooks, and for pages where no script runs."""

from __future__ import annotations

import numpy as np

from sahlib.browser import pictures
from sahlib.browser.contents import Content
from sahlib.scoring import metrics
from sahlib.scoring.prediction import THRESHOLD


def identity(content: Content, row: int) -> str:
    """ "slice P0011_z10 of patient P0011, test side" """
    facts, side = content.store.slices.iloc[row], content.sides[row]
    return f"slice {facts['slice_id']} of patient {facts['patient_id']}" + f", {side} side" * bool(side)


def still(content: Content, row: int) -> bytes:
    """A slice and its masks side by side as PNG, the truth outlined, with each network's scores below."""
    truth, at = content.store.masks(np.array([row]))[0], content.position(row)
    grey = pictures.enlarged(content.stored(row)[0])
    panels, titles, notes = [pictures.with_outline(grey, truth)], ["CT and ground truth"], [f"{truth.sum():,} px"]
    for network in content.networks:
        panel, note = grey, "no prediction"
        if at is not None:
            mask = np.asarray(network.probabilities[at]) > THRESHOLD
            counts = metrics.pixel_counts(mask[None], truth[None])
            panel = pictures.with_area(grey, mask, network.colour)
            note = f"Dice {metrics.dice(counts)[0]:.3f}, IoU {metrics.iou(counts)[0]:.3f}"
            note = note if mask.any() or truth.any() else "nothing found, Dice 0/0"
        panels.append(pictures.with_outline(panel, truth))
        titles.append(network.label)
        notes.append(note)
    return pictures.sheet(panels, titles, notes, f"S{identity(content, row)[1:]}")
