"""Test sets of the same patients, drawn or swapped, and all their scores at once: the engine of `statistics`.

A score is taken of thousands of test sets here, so nothing loops over them. Under every convention but "batches" it is
a function of sums over patients, and weights [sets, patients] @ sums [patients, columns] are those of all sets at once.
For "batches" a row of the sums is the part of a batch that belongs to one patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from sahlib.scoring import metrics
from sahlib.scoring.metrics import CONVENTIONS, COUNTS, Convention

METHODS = ("expanded", "percentile")
BLOCK = 2_000_000  # numbers of float64 held at once in a vectorised step, 16 MB


@dataclass(frozen=True)
class Sums:
    """What the scores of both models (of `interval`: the one) are made from, patient by patient.

    values: [models][seeds], float64 [patients, columns]; the columns are tp, fp, fn, tn where pixels are pooled, else
    the sum of a patient's defined scores and their number
    """

    patients: int
    values: list[list[np.ndarray]]
    metric: str
    convention: Convention

    @property
    def width(self) -> int:
        """Numbers that one test set takes in a vectorised step."""
        return max(len(v) for seeds in self.values for v in seeds)

    def totals(self, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums [columns, sets] of test sets in which patient p occurs weights[set, p] times."""
        return (weights @ values).T

    def scores(self, totals: np.ndarray) -> np.ndarray:
        """The score of each of those sets, [sets]; NaN where it is undefined."""
        if self.convention.unit == "all":
            return _pooled(totals, self.metric, self.convention)
        return _mean(totals[0], totals[1])

    def drawn(self, patients: np.ndarray) -> list[np.ndarray]:
        """Per model, the mean over seeds of the scores [sets] of test sets of `patients` [sets, n]."""
        flat = patients + self.patients * np.arange(len(patients))[:, None]
        weights = np.bincount(flat.ravel(), minlength=len(patients) * self.patients).reshape(-1, self.patients)
        weights = weights.astype(np.float64)
        return [np.mean([self.scores(self.totals(weights, v)) for v in seeds], axis=0) for seeds in self.values]


@dataclass(frozen=True)
class Batches(Sums):
    """Here a row of values is a piece: a patient's part of a batch.

    patient_of: int [pieces]; starts: int [batches], the first piece of each batch
    running: [models][seeds], int64 [slices + 1, 4], counts of all slices before each, patients in order of their number
    first: int [patients + 1], the first slice of each patient
    """

    patient_of: np.ndarray
    starts: np.ndarray
    running: list[list[np.ndarray]]
    first: np.ndarray
    batch_size: int

    def totals(self, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums [columns, sets, batches]; the slices stay in the batches they are in."""
        pieces = weights[:, self.patient_of]
        return np.stack([np.add.reduceat(pieces * c, self.starts, axis=1) for c in values.T])

    def scores(self, totals: np.ndarray) -> np.ndarray:
        batches = _pooled(totals.reshape(len(totals), -1), self.metric, self.convention).reshape(totals.shape[1:])
        defined = ~np.isnan(batches)
        return _mean(np.where(defined, batches, 0).sum(axis=1), defined.sum(axis=1))

    def drawn(self, patients: np.ndarray) -> list[np.ndarray]:
        """As above, every set cut into batches anew.

        All sets are laid end to end in one long row of slices; a batch is the difference of two running totals there.
        """
        lengths = np.diff(self.first)
        ends = np.cumsum(lengths[patients].ravel())  # where each drawn patient's slices end in the long row
        set_ends = ends[patients.shape[1] - 1 :: patients.shape[1]]
        set_sizes = np.diff(set_ends, prepend=0)
        batches = -(-set_sizes // self.batch_size)
        first_batch = np.cumsum(batches) - batches
        within = np.arange(batches.sum()) - np.repeat(first_batch, batches)
        cuts = np.append(np.repeat(set_ends - set_sizes, batches) + within * self.batch_size, set_ends[-1])
        # Which drawn patient a cut falls into (or at whose end), and how many of that patient's slices lie before it.
        place = np.searchsorted(ends, cuts)
        patient = patients.ravel()[place]
        offset = cuts - (ends[place] - lengths[patient])
        result = []
        for seeds in self.running:
            scores = []
            for running in seeds:
                own = (running[self.first[1:]] - running[self.first[:-1]])[patients.ravel()]
                before = (np.cumsum(own, axis=0) - own)[place]
                at_cut = before + running[self.first[patient] + offset] - running[self.first[patient]]
                values = _pooled(np.diff(at_cut, axis=0).T, self.metric, self.convention)
                defined = ~np.isnan(values)
                total = np.add.reduceat(np.where(defined, values, 0), first_batch)
                scores.append(_mean(total, np.add.reduceat(defined.astype(np.int64), first_batch)))
            result.append(np.mean(scores, axis=0))
        return result


def sums_by_patient(
    models: list[list[pd.DataFrame]], metric: str, convention: str | Convention, batch_size: int
) -> Sums | Batches:
    convention = convention if isinstance(convention, Convention) else CONVENTIONS[convention]
    # The slices that the convention looks at. Patients are numbered by their sorted names, so that the same are drawn
    # in whatever order the slices come.
    rows = metrics.unit_counts(models[0][0], replace(convention, unit="slice")).index
    models = [[frame.loc[rows].reset_index(drop=True) for frame in frames] for frames in models]
    patient_of, names = pd.factorize(models[0][0]["patient_id"], sort=True)
    if convention.unit == "batch":
        return _batches(models, metric, convention, batch_size, patient_of)
    values = [[_patient_sums(frame, metric, convention, patient_of, names) for frame in own] for own in models]
    counted = np.zeros(len(names), dtype=bool)
    for v in (v for own in values for v in own):
        counted |= ~np.isnan(_pooled(v.T, metric)) if convention.unit == "all" else v[:, 1] > 0
    values = [[v[counted] for v in own] for own in values]
    return Sums(int(counted.sum()), values, metric, convention)


def _patient_sums(
    frame: pd.DataFrame, metric: str, convention: Convention, patient_of: np.ndarray, names: pd.Index
) -> np.ndarray:
    if convention.unit == "all":
        return grouped(frame[list(COUNTS)].to_numpy(np.float64), patient_of, len(names))
    if len(frame) == 0:
        return np.zeros((0, 2))
    scores = metrics.unit_scores(frame, metric, convention)
    patient = names.get_indexer(scores.index) if convention.unit == "patient" else patient_of[scores.index]
    columns = np.stack([scores.fillna(0).to_numpy(), scores.notna().to_numpy(np.float64)], axis=1)
    return grouped(columns, patient, len(names))


def _batches(
    models: list[list[pd.DataFrame]], metric: str, convention: Convention, batch_size: int, patient_of: np.ndarray
) -> Batches:
    change = np.diff(patient_of, prepend=-1) != 0
    if change.sum() != len(np.unique(patient_of)):
        raise ValueError("convention 'batches' draws patients, so the slices of each must stand together in the counts")
    values = [[frame[list(COUNTS)].to_numpy(np.int64) for frame in own] for own in models]
    batch_of = np.arange(len(patient_of)) // batch_size
    piece = np.flatnonzero(change | (np.diff(batch_of, prepend=-1) != 0))
    order = np.argsort(patient_of, kind="stable")
    return Batches(
        patients=int(change.sum()),
        values=[[np.add.reduceat(v, piece).astype(np.float64) for v in own] for own in values],
        metric=metric,
        convention=convention,
        patient_of=patient_of[piece],
        starts=np.flatnonzero(np.diff(batch_of[piece], prepend=-1)),
        running=[[np.cumsum(np.pad(v[order], ((1, 0), (0, 0))), axis=0) for v in own] for own in values],
        first=np.append(0, np.cumsum(np.bincount(patient_of))),
        batch_size=batch_size,
    )


def grouped(columns: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    return np.stack([np.bincount(group, weights=c, minlength=groups) for c in columns.T], axis=1)


def _pooled(counts: np.ndarray, metric: str, convention: Convention | None = None) -> np.ndarray:
    """Scores [k] of pooled counts [4, k]: tp, fp, fn, tn; 0/0 as the convention says, without one NaN."""
    scores = getattr(metrics, metric)(pd.DataFrame(dict(zip(COUNTS, counts, strict=True)), copy=False))
    return scores if convention is None else np.where(np.isnan(scores), convention.undefined, scores)


def _mean(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)


def _blocks(sets: int, width: int) -> Iterator[int]:
    """Sizes that add up to `sets`, so that no step holds many more than BLOCK numbers."""
    size = max(1, BLOCK // max(1, width))
    while sets > 0:
        yield min(size, sets)
        sets -= size


def drawn(sums: Sums, draws: int, seed: int) -> list[np.ndarray]:
    """Per model, scores [draws] of test sets of as many patients, drawn with replacement."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1; it is {draws}")
    if sums.patients == 0:
        return [np.full(draws, np.nan) for _ in sums.values]
    rng = np.random.default_rng(seed)
    sizes = _blocks(draws, sums.width)
    blocks = [sums.drawn(rng.integers(0, sums.patients, (size, sums.patients))) for size in sizes]
    return [np.concatenate(scores) for scores in zip(*blocks, strict=True)]


def ends(drawn: np.ndarray, patients: int, level: float, method: str) -> tuple[float, float, int]:
    """(low, high, how many draws were undefined)"""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; it is {level}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; it is {method!r}")
    defined = drawn[~np.isnan(drawn)]
    dropped = len(drawn) - len(defined)
    if patients < 2 or len(defined) == 0:
        return float("nan"), float("nan"), dropped
    tail = (1 - level) / 2
    if method == "expanded":
        tail = stats.norm.sf(np.sqrt(patients / (patients - 1)) * stats.t.isf(tail, patients - 1))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high), dropped


def swaps(sums: Sums, number: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Blocks [sets, patients] of 1.0 where a patient's masks change hands, else 0.0.

    exact: every set in which the last patient's stay; the others are their mirror images, with the sign changed
    """
    rng = np.random.default_rng([seed, 1])  # not the stream that the draws come from
    made = 0
    for size in _blocks(number, sums.width):
        if exact:
            yield (np.arange(made, made + size)[:, None] >> np.arange(sums.patients) & 1).astype(np.float64)
        else:
            yield rng.integers(0, 2, (size, sums.patients)).astype(np.float64)
        made += size


def swapped(sums: Sums, swaps: np.ndarray) -> np.ndarray:
    """Differences [sets] after the swaps, mean over all pairs of a seed of a and a seed of b."""
    everybody = np.ones((1, sums.patients))
    given = [[sums.totals(swaps, v) for v in own] for own in sums.values]
    kept = [
        [sums.totals(everybody, v) - g for v, g in zip(*both, strict=True)]
        for both in zip(sums.values, given, strict=True)
    ]
    differences = [
        sums.scores(kept[1][j] + given[0][i]) - sums.scores(kept[0][i] + given[1][j])
        for i in range(len(sums.values[0]))
        for j in range(len(sums.values[1]))
    ]
    return np.mean(differences, axis=0)
