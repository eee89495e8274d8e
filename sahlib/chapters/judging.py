"""Masks that were made elsewhere, measured: what results.py is for the networks of a study.

    found = judge(mask_folders.pair({"truth": truth}, {"nnU-Net": folder}), ("SAH",), Path("judged"))

Cases are read and measured one at a time, several beside each other, and of each only tables of its slices are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sahlib.chapters.judged import Judged
from sahlib.data.mask_cases import Case, MaskFolders, Read
from sahlib.data.scan import CLASSES
from sahlib.data.sources.files import in_order
from sahlib.figures.tables import counted
from sahlib.paper.claims import Paper
from sahlib.scoring import baselines, measured, metrics
from sahlib.scoring.measured import Measured
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import StudyError
from sahlib.workspace import cores

MAJORITY = "majority of the raters"


@dataclass(frozen=True, kw_only=True)
class Masks(Judged):
    """Competitors, by the names they were given, against the truth or the majority of its raters.

    folders  where the masks lie; depths: slices of each of their cases
    classes  lesion -> competitor -> counts, where the masks show several
    raters   (who, against which rater) -> counts, of competitors and of raters, where there are several
    """

    counts: dict[str, list[pd.DataFrame]]
    trivial: dict[str, pd.DataFrame]
    measured: dict[str, Measured]
    soft: dict[str, list[pd.DataFrame]]
    sides: pd.DataFrame
    notes: list[str]
    folder: Path
    folders: MaskFolders
    depths: tuple[int, ...]
    classes: dict[str, dict[str, pd.DataFrame]]
    raters: dict[tuple[str, str], pd.DataFrame]
    paper: Paper | None = None
    batch_size: int = 16  # the paper's

    ONCE = "Intervals hold the chance of other patients, not that of another training or another reading."

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.counts, 2))


@dataclass(frozen=True)
class _Part:
    """The tables of one case; counts by (lesion, competitor), further counts by (who, against whom)."""

    counts: dict[tuple[str, str], pd.DataFrame]
    raters: dict[tuple[str, str], pd.DataFrame]
    measured: dict[str, Measured]
    shares: frozenset[str]
    sides: pd.DataFrame
    grey_levels: tuple[np.ndarray, np.ndarray] | None


def judge(
    folders: MaskFolders,
    lesions: Sequence[str],
    folder: Path,
    progress: Callable[[Iterable[Case]], Iterable[Case]] = iter,
    paper: Paper | None = None,
) -> Masks:
    """All cases of the folders, measured.

    lesions   of scan.CLASSES, or "any"; figures and tables are about the first
    progress  wraps the iteration over cases
    paper     whose printed numbers and claims the masks are held against

    Raises StudyError for what the folders refuse, a truth that shows no such lesion, and probabilities of several.
    """
    # Reading and counting leave Python's lock, so threads do.
    pool = ThreadPoolExecutor(cores())
    tasks = ((folders.read, folders.raters, case, tuple(lesions)) for case in folders.cases)
    parts = list(progress(_Sized(in_order(pool, _measured, tasks, cores()), len(folders.cases))))
    counts = {key: _joined(part.counts[key] for part in parts) for key in parts[0].counts}
    classes = {
        lesion: {name: counts[lesion, name] for name in parts[0].measured if (lesion, name) in counts}
        for lesion in lesions
    }
    own = {name: [table] for name, table in classes[lesions[0]].items()}
    first = next(iter(own.values()))[0]
    if not first["lesion_pixels"].any():
        raise StudyError(
            f"The truth shows no {lesions[0]} anywhere, so nothing can be scored; check --target and --label-map."
        )
    trivial = {baselines.BACKGROUND: metrics.background_everywhere(first)}
    if parts[0].grey_levels is not None:
        everywhere, lesion = (np.concatenate([part.grey_levels[k] for part in parts]) for k in (0, 1))
        trivial |= _threshold(first, everywhere, lesion)
    joined = {name: measured.joined([part.measured[name] for part in parts]) for name in parts[0].measured}
    shares = frozenset().union(*(part.shares for part in parts))
    return Masks(
        counts=own,
        trivial=trivial,
        measured=joined,
        soft={name: [joined[name].soft] for name in own if name in shares},
        sides=_joined(part.sides for part in parts),
        notes=_notes(folders, lesions, first, shares, trivial),
        folder=folder,
        folders=folders,
        depths=tuple(len(part.sides) for part in parts),
        classes=classes,
        paper=paper,
        raters={key: _joined(part.raters[key] for part in parts) for key in parts[0].raters},
    )


@dataclass(frozen=True)
class _Sized:
    """An iterator whose length is known, for a bar."""

    items: Iterable
    length: int

    def __iter__(self):
        return iter(self.items)

    def __len__(self) -> int:
        return self.length


def _measured(reader: Callable[[Case], Read], raters: Sequence[str], case: Case, lesions: Sequence[str]) -> _Part:
    read = reader(case)
    identity = pd.DataFrame({"slice_id": read.slice_ids, "patient_id": case.patient_id})
    sides = pd.DataFrame(np.broadcast_to(read.sides_mm, (len(read.slice_ids), 3)), columns=list(measured.SIDES))

    def counted_against(predicted: np.ndarray, reference: np.ndarray) -> pd.DataFrame:
        table = metrics.pixel_counts(_mask(predicted), reference)
        return pd.concat([identity, table, (table.tp + table.fn).rename("lesion_pixels")], axis=1)

    shown = {lesion: agreed(read, lesion) for lesion in lesions}
    predicted = {(lesion, name): shown_by(own, lesion) for lesion in lesions for name, own in read.masks.items()}
    shares = frozenset(name for name, own in read.masks.items() if own.dtype.kind == "f")
    if shares and len(lesions) > 1:
        raise StudyError(
            f"{case.masks[min(shares)]} holds probabilities, which are of one lesion; name it by --target."
        )
    first = shown[lesions[0]]
    series = {name: predicted[lesions[0], name] for name in read.masks}
    series[baselines.BACKGROUND] = np.zeros(first.shape, bool)
    seen = {rater: shown_by(own, lesions[0]) for rater, own in zip(raters, read.truths, strict=True)}
    several = seen if len(seen) > 1 else {}
    others = {name: own for name, own in series.items() if name in read.masks} | several
    return _Part(
        {key: counted_against(own, shown[key[0]]) for key, own in predicted.items()},
        {
            (who, rater): counted_against(own, seen[rater])
            for rater in several
            for who, own in others.items()
            if who != rater
        }
        | {(rater, MAJORITY): counted_against(own, first) for rater, own in several.items()},
        {name: measured.measure(own, first, sides, read.image) for name, own in series.items()},
        shares,
        sides,
        None if read.image is None else baselines.grey_levels(read.image, first),
    )


def agreed(read: Read, lesion: str) -> np.ndarray:
    """Where the truth of a case shows a lesion, bool [D,H,W]: of several raters, where most of them marked it."""
    marked = [shown_by(truth, lesion) for truth in read.truths]
    return marked[0] if len(marked) == 1 else 2 * np.sum(marked, axis=0) > len(marked)


def shown_by(values: np.ndarray, lesion: str) -> np.ndarray:
    """Where class values show a lesion, of scan.CLASSES or "any", bool; probabilities as they are."""
    if values.dtype.kind == "f":
        return values
    return values > 0 if lesion == "any" else values == CLASSES.index(lesion)


def _mask(predicted: np.ndarray) -> np.ndarray:
    return predicted if predicted.dtype == bool else predicted > THRESHOLD


def _joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(tables), ignore_index=True)


def _threshold(first: pd.DataFrame, everywhere: np.ndarray, lesion: np.ndarray) -> dict[str, pd.DataFrame]:
    """The counts of the threshold predictor, of each patient with the band of all others; none where that cannot be."""
    try:
        found = baselines.cross_fitted(everywhere, lesion, first["patient_id"].to_numpy())
    except ValueError:  # the others of some patient show no lesion
        return {}
    return {baselines.THRESHOLD: first.assign(**{name: found[name] for name in metrics.COUNTS})}


def _notes(
    folders: MaskFolders, lesions: Sequence[str], first: pd.DataFrame, shares: frozenset[str], trivial: Iterable[str]
) -> list[str]:
    patients, bleeding = first["patient_id"].nunique(), int((first["lesion_pixels"] > 0).sum())
    notes = [
        f"Masks from elsewhere: {counted(len(first), 'slice')}, {bleeding} with {lesions[0]}, of "
        f"{counted(patients, 'patient')}, each on its own grid.",
    ]
    for name, lacking in folders.missing.items():
        more = f" and {len(lacking) - 2} more" if len(lacking) > 2 else ""
        notes.append(
            f"{name} has no mask of {counted(len(lacking), 'case')} ({', '.join(lacking[:2])}{more}): counted as if it "
            "had found nothing there."
        )
    notes += folders.remarks
    if baselines.THRESHOLD in trivial:
        notes.append(f"'{baselines.THRESHOLD}' takes each patient's grey levels from all other patients.")
    if shares:
        notes.append(f"Probabilities, taken as lesion above {THRESHOLD}: {', '.join(sorted(shares))}.")
    if len(folders.raters) > 1:
        notes.append(
            f"The truth is what most of {len(folders.raters)} raters marked, a tie being background: "
            f"{', '.join(folders.raters)}."
        )
    if lesions[0] != "SAH":
        what = "hemorrhage of any type" if lesions[0] == "any" else lesions[0]
        notes.append(f"Where it says SAH, read {what}.")
    if patients == len(first) > 1:
        notes.append("Every slice is taken for a patient of its own: where it is none, intervals are too narrow.")
    if patients < 10:
        notes.append(f"Fewer than 10 patients ({patients}): the numbers mean little.")
    return notes
