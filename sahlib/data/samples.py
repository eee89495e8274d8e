"""Which slices are shown, by rules over the ground truth that were fixed before any result existed."""

from __future__ import annotations

import numpy as np

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split

TYPICAL_RULE = "the training slice whose lesion area is the median of all training slices with SAH"
THREE_RULE = (
    "of each test patient with SAH the slice with the largest lesion area is taken; shown are the largest, the median "
    "and the smallest of these"
)
SPREAD_RULE = "test slices with SAH at evenly spaced ranks of lesion area, largest first"


def typical_training_slice(store: SliceStore, split: Split) -> int:
    """Row in the store by TYPICAL_RULE; of an even number of slices, the smaller of the two in the middle."""
    rows = _by_area(store, split.rows(store, "train"))
    return int(rows[len(rows) // 2])


def three_test_slices(store: SliceStore, split: Split) -> np.ndarray:
    """Rows in the store by THREE_RULE, int [k]; fewer than three where fewer test patients bleed."""
    rows = _by_area(store, split.rows(store, "test"))
    largest = rows[~store.slices["patient_id"].iloc[rows].duplicated().to_numpy()]  # a patient's first, as they fall
    return largest[sorted({0, len(largest) // 2, len(largest) - 1})]


def spread_of_test_slices(store: SliceStore, split: Split, count: int = 8) -> np.ndarray:
    """Rows in the store by SPREAD_RULE, int [k]; fewer than `count` where fewer test slices show SAH."""
    rows = _by_area(store, split.rows(store, "test"))
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def _by_area(store: SliceStore, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` that show SAH, largest lesion first; ties in store order."""
    area = store.lesion_pixels.to_numpy()[rows]
    order = np.argsort(-area, kind="stable")
    return rows[order][area[order] > 0]
