"""What the browser shows of masks from elsewhere, read from their folders when a slice is asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sahlib.browser.contents import Content
from sahlib.chapters.judging import Masks, agreed, shown_by
from sahlib.data.mask_cases import Read
from sahlib.figures import drawing, tables

CASES_KEPT = 4


class Cases:
    """The cases of judged masks, the last few of them kept; a row is a slice, in the order of the counts."""

    def __init__(self, judged: Masks):
        first = np.concatenate([[0], np.cumsum(judged.depths)])
        read = functools.lru_cache(CASES_KEPT)(lambda number: judged.folders.read(judged.folders.cases[number]))

        def at(row: int) -> tuple[Read, int]:
            number = int(np.searchsorted(first, row, "right")) - 1
            return read(number), row - int(first[number])

        self.at = at


@dataclass(frozen=True)
class MaskSlices:
    """The slices, with what the browser asks of a SliceStore."""

    cases: Cases
    slices: pd.DataFrame
    lesion: str
    unit: str = "grey"
    further_images: tuple = ()

    @property
    def lesion_pixels(self) -> pd.Series:
        return self.slices["lesion_pixels"]

    @property
    def images(self) -> MaskSlices:
        return self

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, row: int) -> np.ndarray:
        """The picture uint8 [H,W], black where there are no images."""
        read, z = self.cases.at(row)
        return np.zeros_like(read.truths[0][z]) if read.image is None else read.image[z]

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """The truth bool [k,H,W], of slices of one size."""
        found = (self.cases.at(int(row)) for row in rows)
        return np.stack([agreed(read, self.lesion)[z] for read, z in found])


@dataclass(frozen=True)
class Competitor:
    """Somebody's masks, with what the browser asks of a Network."""

    label: str
    colour: str
    cases: Cases
    name: str
    lesion: str
    counts: pd.DataFrame
    has_gates: bool = False

    @property
    def probabilities(self) -> Competitor:
        return self

    def __getitem__(self, row: int) -> np.ndarray:
        """float [H,W] of a slice; a mask as 0 and 1."""
        read, z = self.cases.at(row)
        found = shown_by(read.masks[self.name][z], self.lesion)
        return found.astype(np.float16) if found.dtype == bool else found


@dataclass(frozen=True)
class MaskContent(Content):
    """The Content of judged masks; every slice is judged."""

    @property
    def tested(self) -> np.ndarray:
        return np.arange(len(self.store))

    @property
    def lesions(self) -> tuple[str, ...]:
        return (self.store.lesion,)

    def classes(self) -> dict[str, np.ndarray]:
        return {}


def of(judged: Masks) -> MaskContent:
    """The Content of judged masks, about the first of their lesions."""
    lesion, cases = next(iter(judged.classes)), Cases(judged)
    counts = next(iter(judged.counts.values()))[0]
    slices = pd.concat([counts[["slice_id", "patient_id", "lesion_pixels"]], judged.sides], axis=1)
    looks = drawing.looks(judged.every_series)
    competitors = tuple(
        Competitor(tables.label(name, own), looks[name].colour, cases, name, lesion, own[0])
        for name, own in judged.counts.items()
    )
    return MaskContent(MaskSlices(cases, slices, lesion), np.full(len(slices), ""), competitors)
