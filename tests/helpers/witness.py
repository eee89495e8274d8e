"""Proof by example that arithmetic does not forbid a pair of conventions: counts that score what was printed."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from helpers import pairs
from scipy import optimize

from sahlib.paper.printed import OVERLAP
from sahlib.paper.transcript import PAPER, SETTINGS
from sahlib.scoring import metrics
from sahlib.scoring.metrics import CONVENTIONS

TOLERANCE = 0.00049  # a little less than half of the last printed decimal


def witness(model: str, overlap: str, triple: str) -> pd.DataFrame:
    """Counts of 1361 to 1376 slices whose scores under the two conventions round to the five printed numbers.

    No claim that the paper's slices were such: a proof that arithmetic does not forbid the pair.
    returns: slice_id, patient_id, tp, fp, fn, tn, in store order, batches of 16
    raises: ValueError where `pairs.obstacle` names a rule, or where none is found
    """
    if rule := pairs.obstacle(model, overlap, triple):
        raise ValueError(f"{overlap} with {triple} cannot give the numbers of {model}: {rule}")
    group = 1 if {overlap, triple} <= set(pairs.OVER_SLICES) else 16
    batches = SETTINGS["test_batches"].value
    number = (16 * (batches - 1) + 1, 16 * batches) if group == 1 else (batches, batches)  # the last may be short
    blocks = _single_slices() if group == 1 else _batch_patterns()
    size = len(blocks) // group
    conditions, limits = [], []
    for metric in PAPER.printed:
        convention = CONVENTIONS[overlap if metric in OVERLAP else triple]
        scores = metrics.unit_scores(blocks, metric, convention).dropna()
        # Number of the batch, row of the slice, or of the patient (16 to a block) -> the block it is in.
        block = scores.index.to_numpy() // (1 if convention.unit == "batch" else group)
        total = np.bincount(block, scores, size)
        units = np.bincount(block, minlength=size).astype(float)
        value = PAPER.value(metric, model)
        conditions += [total - (value + TOLERANCE) * units, (value - TOLERANCE) * units - total, -units]
        limits += [0, 0, -1]
    found = optimize.milp(
        np.zeros(size),
        constraints=[
            optimize.LinearConstraint(np.array(conditions), -np.inf, limits),
            optimize.LinearConstraint(np.ones((1, size)), *number),
        ],
        integrality=np.ones(size),
        bounds=optimize.Bounds(0, number[1]),
        options={"time_limit": 60},
    )
    if found.x is None:
        raise ValueError(f"no counts were found for {overlap} with {triple} and {model}: {found.message}")
    chosen = np.repeat(np.arange(size), np.round(found.x).astype(int))
    rows = (chosen[:, None] * group + np.arange(group)).ravel()
    own = blocks["patient_id"].to_numpy()[rows] % 16 + 16 * np.repeat(np.arange(len(chosen)), group)
    counts = blocks.iloc[rows].assign(patient_id=own).reset_index(drop=True)
    counts.insert(0, "slice_id", [f"made-up-{i:04d}" for i in range(len(counts))])
    return counts


def _frame(rows: list, patients: list) -> pd.DataFrame:
    blocks = pd.DataFrame(rows, columns=["tp", "fp", "fn"], dtype=np.int64)
    return blocks.assign(tn=256 * 256 - blocks.sum(axis=1), patient_id=patients)[["patient_id", *metrics.COUNTS]]


def _slice(p: float, r: float, lesion: int) -> tuple[int, int, int]:
    tp = round(lesion * r)
    return tp, round(tp * (1 - p) / p), lesion - tp


def _single_slices() -> pd.DataFrame:
    """Building blocks of a witness: slices empty, missed, false alarms, and of many a precision and recall."""
    coarse, fine = [0.05, *np.arange(1, 11) / 10], np.arange(1, 50) / 50
    both = {*itertools.product(coarse, coarse), *((1.0, v) for v in fine), *((v, 1.0) for v in fine)}
    rows = [(0, 0, 0), (0, 0, 1000), (0, 1000, 0), *(_slice(p, r, 1000) for p, r in sorted(both))]
    return _frame(rows, [0] * len(rows))


def _batch_patterns(number: int = 400) -> pd.DataFrame:
    """Building blocks of a witness: batches of one large lesion, some small ones alike, and empty slices; the batch is
    one patient, or each slice is one."""
    rng = np.random.default_rng(1)
    shares = list(itertools.product((0.1, 0.25, 0.5, 0.75, 0.9, 1.0), repeat=2))

    def draw(lesion: int) -> tuple[int, int, int]:
        special = [(0, 0, 0), (0, 0, lesion), (0, lesion, 0), (lesion, 0, 0), (lesion, 0, 0)]
        k = rng.integers(len(special) + 2)
        return special[k] if k < len(special) else _slice(*shares[rng.integers(len(shares))], lesion)

    rows, patients = [], []
    for block in range(number):
        small = int(rng.choice([0, 0, 3, 8, 15]))
        rows += [draw(5000), *[draw(20)] * small, *[(0, 0, 0)] * (15 - small)]
        patients += [16 * block + (0 if block % 2 else j) for j in range(16)]
    return _frame(rows, patients)
