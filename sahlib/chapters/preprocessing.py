"""Notebook 02: what the slices and the sides of the split say of every score that follows."""

from __future__ import annotations

import numpy as np

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.paper.rules import MIN_PATIENTS
from sahlib.scoring.intervals import FEW_PATIENTS


def rarity_in_words(store: SliceStore) -> str:
    """How rare lesions are, and what finding none is therefore worth."""
    area, what = store.lesion_pixels.to_numpy() / store.images[0].size, _lesion(store)
    if not area.any():
        return f"None of the {len(store):,} slices shows {what}."
    return (
        f"{100 * np.mean(area > 0):.0f} % of the {len(store):,} slices show {what}, and there it covers a median of "
        f"{100 * np.median(area[area > 0]):.1f} % of the picture. Calling every pixel background is right for "
        f"{100 - 100 * np.mean(area):.2f} % of all pixels, and finds none."
    )


def split_in_words(store: SliceStore, split: Split) -> str:
    """How many test patients bleed, and whether so few can tell networks apart."""
    table = split.summary(store).loc["test"]
    bleeding = int(table["patients with SAH"])
    words = f"{bleeding} of {int(table['patients'])} test patients have {_lesion(store)}."
    if bleeding < MIN_PATIENTS:
        return f"{words} So few cannot tell two networks apart: no paired test over them can reach 5 %."
    return f"{words} Intervals over so few cover less than they say." if bleeding < FEW_PATIENTS else words


def _lesion(store: SliceStore) -> str:
    return "hemorrhage" if store.lesion == "any" else store.lesion
