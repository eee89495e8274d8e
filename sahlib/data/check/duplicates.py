"""Slices that are the same picture: to the byte, or as a copy that was compressed, brightened or shifted.

Two patients who share slices leak from training into the test set. Exact copies have one content hash. Near copies have
perceptual hashes (`imagehash.phash`: the signs of low frequencies of a cosine transform) that differ in few bits.

The usual 8x8 or 16x16 hash cannot tell heads apart. With 32x32, slices of different patients among 120 of the phantom,
who all have one atlas brain, differ in 138 of 1024 bits at least, and real slices of 25 scans in 280. Copies of the
phantom's 256x256 slices as JPEG of quality 50, at half the size or brighter differ in 26 bits at most; of copies
shifted by one pixel, which is more than in a 512x512 scan, 98 in 100 differ in 110 or fewer. Neighbouring slices of one
patient are nearer than those of two and are never compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

HASH_SIDE = 32
BITS = HASH_SIDE**2
NEAR_BITS = 110
SMALLEST_HEAD = 0.08  # of the picture: at the top of the skull all heads are the same oval
ROWS_AT_ONCE = 1024  # of the distance matrix: bounds memory for any number of slices


@dataclass(frozen=True)
class Copies:
    """Slices that two patients share: pairs of positions, of the first patient's slice and of the second's.

    bits is how many of BITS differ at most.
    """

    patients: tuple[int, int]
    pairs: tuple[tuple[int, int], ...]
    exact: bool
    bits: int


def content_hash(pixels: np.ndarray) -> bytes:
    """16 bytes that two arrays share only when they have one type, shape and content."""
    head = f"{pixels.dtype} {pixels.shape}".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def perceptual_hash(grey: np.ndarray, head: np.ndarray) -> bytes | None:
    """BITS bits of a slice [H,W] uint8, packed; None where the head [H,W] bool is too small to tell from another."""
    import imagehash
    from PIL import Image

    if head.mean() < SMALLEST_HEAD:
        return None
    return np.packbits(imagehash.phash(Image.fromarray(grey), hash_size=HASH_SIDE).hash).tobytes()


def differing_bits(one: bytes, other: bytes) -> int:
    """In how many bits two perceptual hashes differ."""
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def exact_copies(contents: list[bytes], patients: np.ndarray) -> list[Copies]:
    """Slices of one content in several patients; contents as content_hash gives them, patients int [N]."""
    first: dict[bytes, dict[int, int]] = {}
    for position, (content, patient) in enumerate(zip(contents, patients.tolist(), strict=True)):
        first.setdefault(content, {}).setdefault(patient, position)
    pairs = []
    for holders in first.values():
        original, *others = holders.values()
        pairs += [(original, other, 0) for other in others]
    return _by_patients(pairs, patients, exact=True)


def near_copies(hashes: list[bytes | None], patients: np.ndarray, limit: int = NEAR_BITS) -> list[Copies]:
    """For each slice the most similar one of another patient, where at most `limit` bits differ."""
    known = np.array([position for position, bits in enumerate(hashes) if bits is not None], int)
    if len(known) < 2:
        return []
    packed = np.stack([np.frombuffer(hashes[position], np.uint8) for position in known])
    signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    owner = patients[known]
    pairs = set()
    for start in range(0, len(known), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        distance = (BITS - signs[rows] @ signs.T) / 2
        distance[owner[rows, None] == owner[None]] = np.inf
        nearest = distance.argmin(1)
        for row, column in enumerate(nearest):
            if distance[row, column] <= limit:
                a, b = sorted((int(known[start + row]), int(known[column])))
                pairs.add((a, b, int(distance[row, column])))
    return _by_patients(sorted(pairs), patients, exact=False)


def _by_patients(pairs, patients: np.ndarray, exact: bool) -> list[Copies]:
    shared: dict[tuple[int, int], list] = {}
    for a, b, bits in pairs:
        if patients[a] > patients[b]:
            a, b = b, a
        shared.setdefault((int(patients[a]), int(patients[b])), []).append((a, b, bits))
    return [
        Copies(who, tuple((a, b) for a, b, _ in found), exact, max(bits for *_, bits in found))
        for who, found in shared.items()
    ]
