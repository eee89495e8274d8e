"""Slices that two patients share, byte for byte or nearly so.

Slices of different patients among 120 of the phantom, who all have one atlas brain, differ in 138 of the 1024 bits of
their perceptual hashes at least, and real slices of 25 scans in 280. Copies of the phantom's 256x256 slices as JPEG of
quality 50, at half the size or brighter differ in 26 bits at most; of copies shifted by one pixel, which is more than
in a 512x512 scan, 98 in 100 differ in 110 or fewer. Neighbouring slices of one patient are nearer than those of two and
are never compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sahlib.data.check.measures import BITS

NEAR_BITS = 110  # of BITS: slices of two patients that differ in no more look the same
ROWS_AT_ONCE = 1024  # of the distances between slices: bounds memory for any number of them


def shared(slices: pd.DataFrame) -> dict[tuple[str, str, bool], list[tuple]]:
    """(patient, patient, whether byte for byte) -> (slice, slice, bits that differ) of each pair of measured slices."""
    firsts = slices.drop_duplicates(["content", "patient_id"])
    several = firsts["content"].duplicated(keep=False)
    found = defaultdict(list)
    for _, same in firsts[several].groupby("content", sort=False):
        original, *others = same.itertuples()
        for other in others:
            found[original.patient_id, other.patient_id, True].append((original, other, 0))
    alone = list(firsts[~several].dropna(subset="bits").itertuples())
    for i, j, bits in near_copies([own.bits for own in alone], [own.patient_id for own in alone]):
        found[alone[i].patient_id, alone[j].patient_id, False].append((alone[i], alone[j], bits))
    return found


def near_copies(hashes: list[bytes], patients: Sequence, limit: int = NEAR_BITS) -> list[tuple[int, int, int]]:
    """For each slice the most similar one of another patient, as (position, position, bits that differ, up to limit).

    hashes as perceptual_hash gives them; patients, whose the slices are
    """
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8)).reshape(-1, BITS)
    signs = bits.astype(np.float32) * 2 - 1
    owner = pd.factorize(np.asarray(patients))[0]
    pairs = set()
    for start in range(0, len(signs), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        distance = (BITS - signs[rows] @ signs.T) / 2
        distance[owner[rows, None] == owner] = np.inf
        for row in np.flatnonzero(distance.min(1) <= limit):
            nearest = int(distance[row].argmin())
            pairs.add((*sorted((start + int(row), nearest)), int(distance[row, nearest])))
    return sorted(pairs)
