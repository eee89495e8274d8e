"""Train, validation and test, by patient and stratified (section 2.1: stratified sampling), saved as a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sahlib.data.slices import SliceStore
from sahlib.study import Study, StudyError, digest
from sahlib.workspace import read_csv, writing

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Which side each patient is on; `sides` maps patient_id to one of SIDES."""

    sides: dict[str, str]

    @property
    def digest(self) -> str:
        return digest(self.sides)

    def rows(self, store: SliceStore, side: str) -> np.ndarray:
        """Positions in the store of the slices on `side`, int [k], in store order."""
        return np.flatnonzero((store.slices["patient_id"].map(self.sides) == side).to_numpy())

    def summary(self, store: SliceStore) -> pd.DataFrame:
        """One row per side: patients, patients with SAH, slices, slices with SAH, share of positive slices."""
        slices = store.slices.assign(side=store.slices["patient_id"].map(self.sides), sah=store.lesion_pixels > 0)
        by_side = slices.groupby("side")
        table = pd.DataFrame(
            {
                "patients": by_side["patient_id"].nunique(),
                "patients with SAH": slices[slices.sah].groupby("side")["patient_id"].nunique(),
                "slices": by_side.size(),
                "slices with SAH": by_side["sah"].sum(),
            }
        ).reindex(SIDES)
        return table.assign(**{"share positive": table["slices with SAH"] / table["slices"]})


def prepare(store: SliceStore, study: Study) -> Split:
    """The split of a Study, read from the store's `splits/` when it is there, made and saved when not."""
    shares = (study.train_share, study.validation_share, study.split_seed)
    folds = (study.folds, study.fold, study.validation_share, study.split_seed)
    path = store.path / "splits" / f"{digest(folds if study.folds else shares, store.lesion)}.csv"
    if not path.exists():
        lesion_pixels = store.lesion_pixels.groupby(store.slices["patient_id"]).sum()
        split = by_fold(lesion_pixels, *folds) if study.folds else by_patient(lesion_pixels, *shares)
        with writing(path) as file:
            pd.Series(split.sides, name="side").rename_axis("patient_id").to_csv(file)
    return read(path)


def read(path: Path) -> Split:
    """A split that `prepare` has saved."""
    return Split(read_csv(path).set_index("patient_id")["side"].to_dict())


def by_patient(lesion_pixels: pd.Series, train_share: float, validation_share: float, seed: int) -> Split:
    """Splits patients, stratified by whether they bleed and, among those who do, by more or less than the median.

    lesion_pixels  lesion pixels of each patient, indexed by patient_id
    Raises StudyError where a side would be left without a patient who bleeds: no score could be computed there.
    """
    from sklearn.model_selection import train_test_split

    lesion_pixels = lesion_pixels.sort_index()
    patients = len(lesion_pixels)
    n_validation = max(1, round(patients * validation_share))
    n_test = max(1, round(patients * (1 - train_share - validation_share)))
    strata = _strata(lesion_pixels, min(n_validation, n_test))
    try:
        rest, test = train_test_split(lesion_pixels.index, test_size=n_test, stratify=strata, random_state=seed)
        train, validation = train_test_split(rest, test_size=n_validation, stratify=strata[rest], random_state=seed)
    except ValueError as error:
        raise _too_few(lesion_pixels) from error
    return _checked(lesion_pixels, train, validation, test)


def by_fold(lesion_pixels: pd.Series, folds: int, fold: int, validation_share: float, seed: int) -> Split:
    """The split of one fold of a cross-validation by patient: over all folds each patient is tested once.

    Stratified as in by_patient; the validation side is drawn from those who are not tested. Raises StudyError likewise.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split

    lesion_pixels = lesion_pixels.sort_index()
    n_validation = max(1, round(len(lesion_pixels) * validation_share))
    strata = _strata(lesion_pixels, min(n_validation, len(lesion_pixels) // folds))
    if strata.value_counts().min() < folds:
        strata = (lesion_pixels > 0).astype(int)
    if strata.value_counts().min() < folds:
        raise _too_few(lesion_pixels, f"{folds} folds")
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(lesion_pixels.index, strata)
    rest, test = (lesion_pixels.index[positions] for positions in list(parts)[fold])
    try:
        train, validation = train_test_split(rest, test_size=n_validation, stratify=strata[rest], random_state=seed)
    except ValueError as error:
        raise _too_few(lesion_pixels, f"{folds} folds") from error
    return _checked(lesion_pixels, train, validation, test)


def _checked(lesion_pixels: pd.Series, *sides: Iterable[str]) -> Split:
    """The split of patients into train, validation and test, where each of them bleeds."""
    by_name = {side: sorted(ids) for side, ids in zip(SIDES, sides, strict=True)}
    if any((lesion_pixels[ids] > 0).sum() == 0 for ids in by_name.values()):
        raise _too_few(lesion_pixels)
    return Split({patient: side for side, ids in by_name.items() for patient in ids})


def _too_few(lesion_pixels: pd.Series, whereto: str = "training, validation and test") -> StudyError:
    return StudyError(
        f"{len(lesion_pixels)} patients, {(lesion_pixels > 0).sum()} of them with SAH, are too few for {whereto}: "
        "each needs patients with and without SAH; add patients."
    )


def _strata(lesion_pixels: pd.Series, smallest_side: int) -> pd.Series:
    """0 no SAH, 1 up to the median of those who bleed, 2 more; 1 and 2 are one where three do not fit every side."""
    bleeds = lesion_pixels > 0
    more = bleeds & (lesion_pixels > lesion_pixels[bleeds].median())
    strata = bleeds.astype(int) + more.astype(int)
    if smallest_side < strata.nunique() or (strata.value_counts() < len(SIDES)).any():
        return bleeds.astype(int)
    return strata
