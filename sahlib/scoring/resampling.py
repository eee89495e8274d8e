"""Test sets of the same patients, drawn or swapped, and all their scores at once: the engine of `intervals`.

A score is taken of thousands of test sets here, so nothing loops over them. It is a function of sums over patients,
and weights [sets, patients] @ sums [patients, columns] are those of all sets at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse, stats

from sahlib.scoring import metrics
from sahlib.scoring.metrics import COUNTS, Convention

BLOCK = 2_000_000  # numbers of float64 held at once in a vectorised step, 16 MB


@dataclass(frozen=True)
class Sums:
    """What the scores of both models (of `interval`: the one) are made from, patient by patient.

    values  [models][seeds], float64 [patients, columns]: a patient's part of the pixels tp, then fp, fn and tn, of
            each batch (where all are pooled: of the one) as a sparse array; else the sum of a patient's defined scores
            and their number
    slices  for "batches", which are cut anew from the patients drawn: [models][seeds], int64 [slices,4] counts
    rows    for "batches": the slices of each patient
    """

    patients: int
    values: list[list[np.ndarray | sparse.csr_array]]
    metric: str
    convention: Convention
    slices: tuple = ()
    rows: tuple[np.ndarray, ...] = ()
    batch_size: int = 0

    @property
    def width(self) -> int:
        """Numbers that one test set takes in a vectorised step."""
        return max(self.patients, self.values[0][0].shape[1], sum(map(len, self.rows)))

    def scores(self, totals: np.ndarray) -> np.ndarray:
        """The score [sets] of each of the test sets whose sums are `totals` [sets, columns]; NaN where undefined."""
        if self.convention.unit not in ("all", "batch"):
            return _mean(totals[:, 0], totals[:, 1])
        counts = totals.reshape(len(totals), len(COUNTS), -1).swapaxes(0, 1)
        batches = self._pooled(counts.reshape(len(COUNTS), -1)).reshape(counts.shape[1:])
        defined = ~np.isnan(batches)
        return _mean(np.where(defined, batches, 0).sum(axis=1), defined.sum(axis=1))

    def drawn(self, patients: np.ndarray) -> list[np.ndarray]:
        """Per model, the mean over seeds of the scores [sets] of test sets of `patients` [sets, n]."""
        if self.convention.unit == "batch":
            return self._cut_anew(patients)
        flat = patients + self.patients * np.arange(len(patients))[:, None]
        times = np.bincount(flat.ravel(), minlength=len(patients) * self.patients)
        weights = times.reshape(-1, self.patients).astype(np.float64)
        return [np.mean([self.scores(weights @ v) for v in seeds], axis=0) for seeds in self.values]

    def _cut_anew(self, patients: np.ndarray) -> list[np.ndarray]:
        """`drawn` for batches: the slices of the patients drawn, one patient after the other, cut into batches."""
        rows = [np.concatenate([self.rows[p] for p in drawn]) for drawn in patients]
        cuts = [np.arange(0, len(r), self.batch_size) for r in rows]
        first = np.cumsum([0, *map(len, cuts[:-1])])

        def score(counts: np.ndarray) -> np.ndarray:
            batches = [np.add.reduceat(counts[r], cut) for r, cut in zip(rows, cuts, strict=True)]
            values = self._pooled(np.concatenate(batches).T)
            defined = ~np.isnan(values)
            total = np.add.reduceat(np.where(defined, values, 0), first)
            return _mean(total, np.add.reduceat(defined.astype(np.int64), first))

        return [np.mean([score(counts) for counts in seeds], axis=0) for seeds in self.slices]

    def _pooled(self, counts: np.ndarray) -> np.ndarray:
        """Scores [k] of pooled counts [4, k]; 0/0 as the convention says."""
        scores = pooled(counts, self.metric)
        return np.where(np.isnan(scores), self.convention.undefined, scores)


def sums_by_patient(
    models: list[list[pd.DataFrame]], metric: str, convention: str | Convention, batch_size: int
) -> Sums:
    convention = metrics.convention_of(convention)
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
        counted |= ~np.isnan(pooled(v.T, metric)) if convention.unit == "all" else v[:, 1] > 0
    return Sums(int(counted.sum()), [[v[counted] for v in own] for own in values], metric, convention)


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
) -> Sums:
    sizes = np.bincount(patient_of)
    if np.count_nonzero(np.diff(patient_of)) != max(len(sizes) - 1, 0):
        raise ValueError("convention 'batches' draws patients, so the slices of each must stand together in the counts")
    slices = [[frame[list(COUNTS)].to_numpy(np.int64) for frame in own] for own in models]
    batches = -(-len(patient_of) // batch_size)
    column = np.arange(len(patient_of)) // batch_size + batches * np.arange(len(COUNTS))[:, None]
    place, shape = (np.tile(patient_of, len(COUNTS)), column.ravel()), (len(sizes), batches * len(COUNTS))
    values = [[sparse.csr_array((v.T.ravel().astype(float), place), shape) for v in own] for own in slices]
    rows = np.split(np.argsort(patient_of, kind="stable"), np.cumsum(sizes)[:-1])
    return Sums(len(sizes), values, metric, convention, slices, rows, batch_size)


def grouped(columns: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums [groups,c] of the rows of `columns` [k,c] that belong to each group."""
    return np.stack([np.bincount(group, weights=c, minlength=groups) for c in columns.T], axis=1)


def pooled(counts: np.ndarray, metric: str) -> np.ndarray:
    """Scores [k] of pooled counts [4, k]: tp, fp, fn, tn; 0/0 is NaN."""
    return metrics.SCORES[metric](pd.DataFrame(dict(zip(COUNTS, counts, strict=True)), copy=False))


def _mean(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)


def _blocks(sets: int, width: int) -> list[range]:
    """The numbers of `sets` test sets, cut so that no step holds many more than BLOCK numbers."""
    size = max(1, BLOCK // max(1, width))
    return [range(made, min(made + size, sets)) for made in range(0, sets, size)]


def drawn(sums: Sums, draws: int, seed: int) -> list[np.ndarray]:
    """Per model, scores [draws] of test sets of as many patients, drawn with replacement."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1; it is {draws}")
    if sums.patients == 0:
        return [np.full(draws, np.nan) for _ in sums.values]
    rng, n = np.random.default_rng(seed), sums.patients
    blocks = [sums.drawn(rng.integers(0, n, (len(block), n))) for block in _blocks(draws, sums.width)]
    return [np.concatenate(scores) for scores in zip(*blocks, strict=True)]


def ends(drawn: np.ndarray, patients: int, level: float) -> tuple[float, float]:
    """(low, high) of the interval that `intervals.interval` describes, of the draws that are defined."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; it is {level}")
    defined = drawn[~np.isnan(drawn)]
    if patients < 2 or len(defined) == 0:
        return float("nan"), float("nan")
    tail = stats.norm.sf(np.sqrt(patients / (patients - 1)) * stats.t.isf((1 - level) / 2, patients - 1))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def swaps(sums: Sums, number: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Blocks [sets, patients] of 1.0 where a patient's masks change hands, else 0.0.

    exact: every set in which the last patient's stay; the others are their mirror images, with the sign changed
    """
    rng = np.random.default_rng([seed, 1])  # not the stream that the draws come from
    for block in _blocks(number, sums.width):
        every = np.array(block)[:, None] >> np.arange(sums.patients) & 1
        yield (every if exact else rng.integers(0, 2, every.shape)).astype(np.float64)


def swapped(sums: Sums, swaps: np.ndarray) -> np.ndarray:
    """Differences [sets] after the swaps, mean over all pairs of a seed of a and a seed of b."""
    everybody = np.ones((1, sums.patients))
    given = [[swaps @ v for v in own] for own in sums.values]
    kept = [[everybody @ v - g for v, g in zip(*both, strict=True)] for both in zip(sums.values, given, strict=True)]
    differences = [
        sums.scores(kept[1][j] + given[0][i]) - sums.scores(kept[0][i] + given[1][j])
        for i, j in np.ndindex(len(given[0]), len(given[1]))
    ]
    return np.mean(differences, axis=0)
