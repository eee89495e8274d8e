"""Scan: what every dataset yields, and nothing else; the classes a label can hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.study import StudyError

# Index in this tuple = value in every label array of the project.
CLASSES = ("background", "SAH", "IVH", "IPH", "SDH", "EDH")
SAH = CLASSES.index("SAH")


def parse_label_map(entries: tuple[str, ...]) -> dict[str, int]:
    """{"4": 1} of ("4=SAH",), {"#00ffff": 1} of ("#00FFFF=SAH",): what masks hold, in one form, to class values.

    Raises StudyError for what cannot be read so, a value that is there twice, and colours among numbers.
    """
    parsed: dict[str, int] = {}
    for entry in entries:
        value, _, name = (part.strip() for part in entry.partition("="))
        value = value.lower().lstrip("0") or "0"
        if not re.fullmatch("[0-9]{1,10}|#[0-9a-f]{6}", value) or name not in CLASSES:
            raise StudyError(f"label_map entry {entry!r} must look like 4=SAH or #00ffff=SAH, of {', '.join(CLASSES)}.")
        if value in parsed:
            raise StudyError(f"label_map names {value} twice; keep one.")
        parsed[value] = CLASSES.index(name)
    if len({value.startswith("#") for value in parsed}) > 1:
        raise StudyError("label_map holds colours and numbers; write all as colours, where 255 is #ffffff.")
    return parsed


def to_classes(
    values: np.ndarray, meaning: Mapping[int, int], path: Path, written: Callable[[int], object] = int
) -> np.ndarray:
    """A mask's whole numbers as class values, uint8 of the same shape.

    meaning  number -> class value; 0 is background where it does not say otherwise
    written  how a number is written in a label map

    Raises StudyError for a number without a meaning, because its pixels would silently become background.
    """
    labels = np.full(values.shape, meaning.get(0, 0), np.uint8)
    for value in np.unique(values[values != 0]).tolist():
        if value not in meaning:
            known = ", ".join(f"{written(key)} ({CLASSES[index]})" for key, index in sorted(meaning.items()))
            whole = " ".join([*(f"{written(key)}={CLASSES[index]}" for key, index in sorted(meaning.items()) if key)])
            raise StudyError(
                f"{path} holds the value {written(value)}, which names no class here (known: {known or 'none'}); "
                "correct the mask, or say what every value means where a label_map is taken, as in "
                f"{' '.join(filter(None, (whole, f'{written(value)}=SAH')))}."
            )
        labels[values == value] = meaning[value]
    return labels


class ToLookAt(str):
    """A remark of a source on what may be missing or unlike the rest; its other remarks only inform."""


@dataclass(frozen=True)
class Scan:
    """One head-CT series of one patient, slices ordered from the neck to the vertex where the source knows the order.

    image        [D,H,W], int16 Hounsfield units (unit="HU") or uint8 grey levels (unit="grey")
    labels       [D,H,W] uint8, indices into CLASSES
    slice_ids    D names, unique in the dataset
    spacing_mm   (row, column) pixel spacing; NaN where the source does not say
    thickness_mm slice thickness, of all slices alike or of each [D]; NaN where the source does not say
    sources      the files it was read from; empty for a generated scan
    """

    patient_id: str
    image: np.ndarray
    labels: np.ndarray
    slice_ids: tuple[str, ...]
    unit: str
    spacing_mm: tuple[float, float] = (float("nan"), float("nan"))
    thickness_mm: float | np.ndarray = float("nan")
    sources: tuple[Path, ...] = ()

    def __post_init__(self):
        if self.unit not in ("HU", "grey"):
            raise ValueError(f"{self.patient_id}: unit must be 'HU' or 'grey', not {self.unit!r}")
        if self.image.ndim != 3 or self.image.shape != self.labels.shape:
            raise ValueError(
                f"{self.patient_id}: image {self.image.shape} and labels {self.labels.shape} must be the same [D,H,W]"
            )
        if len(self.slice_ids) != len(self.image):
            raise ValueError(f"{self.patient_id}: {len(self.slice_ids)} slice ids for {len(self.image)} slices")

    @property
    def thicknesses_mm(self) -> np.ndarray:
        """The thickness of each slice, float [D]."""
        return np.broadcast_to(np.asarray(self.thickness_mm, float), len(self.image))
