"""Train, validation and test, by patient and stratified (section 2.1: stratified sampling), saved as a file."""

from __future__ import annotations

from collections.abc import Collection
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
    folds = (study.folds, study.fold)
    lesion_pixels = store.lesion_pixels.groupby(store.slices["patient_id"], sort=False).sum()
    # The phantom's patients stand in the store in the order of their numbers.
    cohort = lesion_pixels.index[study.phantom_patients :] if study.dataset == "phantom" and not study.folds else ()
    named_by = (*folds, *shares[1:]) if study.folds else (*shares, len(cohort))
    path = store.path / "splits" / f"{digest(named_by, store.lesion)}.csv"
    if not path.exists():
        split = by_patient(lesion_pixels, *shares, *folds, cohort)
        with writing(path) as file:
            pd.Series(split.sides, name="side").rename_axis("patient_id").to_csv(file)
    return read(path)


def read(path: Path) -> Split:
    """A split that `prepare` has saved."""
    return Split(read_csv(path).set_index("patient_id")["side"].to_dict())


def by_patient(
    lesion_pixels: pd.Series,
    train_share: float,
    validation_share: float,
    seed: int,
    folds: int = 0,
    fold: int = 0,
    cohort: Collection[str] = (),
) -> Split:
    """Splits patients, stratified by whether they bleed and, among those who do, by more or less than the median.

    lesion_pixels  lesion pixels of each patient, indexed by patient_id
    folds          where it is not 0, the test side is the given `fold` of a cross-validation, in which each patient is
                   tested once, and train_share what the others leave
    cohort         patients who are the test side, without folds; the others train and validate by the two shares

    Raises StudyError where a side would be left without a patient who bleeds: no score could be computed there.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split

    aside = list(cohort)
    everybody, lesion_pixels = lesion_pixels, lesion_pixels.drop(aside).sort_index()
    patients, bleeds = lesion_pixels.index, lesion_pixels > 0
    n_validation = max(1, round(len(patients) * validation_share / (train_share + validation_share if aside else 1)))
    if folds:
        n_test = len(patients) // folds
    else:
        n_test = len(aside) or max(1, round(len(patients) * (1 - train_share - validation_share)))
    # 0 no SAH, 1 up to the median of those who bleed, 2 more; 1 and 2 are one where three do not fit every side.
    strata = bleeds.astype(int) + (bleeds & (lesion_pixels > lesion_pixels[bleeds].median()))
    if min(n_validation, n_test) < strata.nunique() or strata.value_counts().min() < max(folds, len(SIDES)):
        strata = bleeds.astype(int)
    try:
        if strata.value_counts().min() < folds:
            raise ValueError("a stratum has fewer patients than there are folds")
        if folds:
            parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(patients, strata)
            rest, test = (patients[positions] for positions in list(parts)[fold])
        elif aside:
            rest, test = patients, aside
        else:
            rest, test = train_test_split(patients, test_size=n_test, stratify=strata, random_state=seed)
        train, validation = train_test_split(rest, test_size=n_validation, stratify=strata[rest], random_state=seed)
        if not all(everybody[side].any() for side in (train, validation, test)):
            raise ValueError("a side has no patient who bleeds")
    except ValueError as error:
        n_train = len(patients) - n_validation - (0 if aside else n_test)
        each, shares = (f" in each of {folds} folds", "folds") if folds else ("", "the shares")
        raise StudyError(
            f"{len(everybody)} patients, {(everybody > 0).sum()} of them with a lesion, cannot be split into {n_train} "
            f"for training, {n_validation} for validation and {n_test} for test{each}: each side needs patients with "
            f"and without one; add patients, or change {shares}."
        ) from error
    sides = zip(SIDES, (train, validation, test), strict=True)
    return Split({patient: side for side, on_side in sides for patient in sorted(on_side)})
