"""Which way up heads lie in pictures: each slice is compared with those of phantoms, turned in four ways.

A picture shows where the face is, and nothing in it tells left from right: a head seen from above is the mirror image
of one seen from below. So each turn has a mirror image that looks as right, and only who exported the pictures can say
which of the two it is; a search names the one without a mirror.

Grey levels are ranked within the head, so that the window they were exported in does not matter. Of 120 other
phantoms 118 are named rightly, and two are in doubt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import rankdata

from sahlib.data.regions import SMALLEST_TOLD, head_region
from sahlib.data.scan import Scan, ToLookAt
from sahlib.study import WINDOWS

SIDE = 32  # pixels of a head as it is compared
LONGEST = 128  # pixels of a side before that; more would not be seen
HEADS, SEED = 6, 20  # phantoms compared with, of a seed that no profile uses
TILTS = (-16, -8, 0, 8, 16)  # degrees that a head may lie askew
OUTSIDE = -0.3  # rank of what is not head, below the darkest of it
LEAST_LEAD = 0.04  # of the best turn's similarity over the next one's: with less it is not told
NAMED = 8  # patients that a remark lists
AUTO, AS_STORED = "auto", "as stored"


class Turn(NamedTuple):
    """What is done to pictures [...,H,W], in words and as a function."""

    words: str
    of: Callable[[np.ndarray], np.ndarray]


TURNS = {
    AS_STORED: Turn("as it is", lambda p: p),
    "mirrored": Turn("mirrored left to right", lambda p: p[..., ::-1]),
    "flipped": Turn("mirrored top to bottom", lambda p: p[..., ::-1, :]),
    "rot180": Turn("turned by 180 degrees", lambda p: p[..., ::-1, ::-1]),
    "rot90": Turn("turned by 90 degrees counterclockwise", lambda p: np.rot90(p, axes=(-2, -1))),
    "rot270": Turn("turned by 90 degrees clockwise", lambda p: np.rot90(p, -1, axes=(-2, -1))),
    "transposed": Turn("transposed", lambda p: p.swapaxes(-2, -1)),
    "antitransposed": Turn("transposed and turned by 180 degrees", lambda p: p.swapaxes(-2, -1)[..., ::-1, ::-1]),
}
# The turns that a search tells apart, with the mirror image of each, and where the face is that they bring to the top.
FACES = {AS_STORED: "mirrored", "rot90": "antitransposed", "rot180": "flipped", "rot270": "transposed"}
FACE_AT = dict(zip(FACES, ("at the top", "on the right", "at the bottom", "on the left"), strict=True))


def similarities(grey: np.ndarray) -> np.ndarray:
    """How much a slice [H,W] uint8 looks like a phantom's under each turn of FACES, float [4] up to 1.

    NaN where the slice shows too little of a head.
    """
    if (scale := LONGEST / max(grey.shape)) < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = grey.shape
    seen = []
    for tilt in TILTS:
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), tilt, 1)
        if (head := _ranked(cv2.warpAffine(grey, turn, (width, height)))) is not None:
            seen.append([(_phantoms() @ TURNS[name].of(head).ravel()).max() for name in FACES])
    return np.max(seen, axis=0) if seen else np.full(len(FACES), np.nan)


def found(similar: np.ndarray) -> tuple[str, float]:
    """(turn of FACES, its lead) of slices that lie alike, by their similarities [N,4]; the turn is "" in doubt."""
    similar = similar[~np.isnan(similar).any(axis=1)]
    if not len(similar):
        return "", 0.0
    mean = similar.mean(axis=0)
    second, first = np.sort(mean)[-2:]
    return (list(FACES)[mean.argmax()] if first - second >= LEAST_LEAD else ""), float(first - second)


def turn_of(orientation: str, images: Iterable[np.ndarray]) -> str:
    """The turn of TURNS that a Study's `orientation` asks for; for "auto" that of one patient's images, "" in doubt."""
    return found(np.array([similarities(image) for image in images]))[0] if orientation == AUTO else orientation


def turned(scan: Scan, turn: str) -> Scan:
    """A scan of pictures, turned; "" leaves it as it is."""
    of = TURNS[turn or AS_STORED].of
    return replace(scan, image=np.ascontiguousarray(of(scan.image)), labels=np.ascontiguousarray(of(scan.labels)))


def in_doubt(turns: dict[str, str]) -> tuple[str, ...]:
    """A remark on the patients whose turn is "", if any; to be looked at where others were turned."""
    if not (patients := [who for who, turn in turns.items() if not turn]):
        return ()
    more = f" and {len(patients) - NAMED} more" if len(patients) > NAMED else ""
    names = f"{', '.join(patients[:NAMED])}{more}"
    what = f"Which way up heads lie is in doubt, and left as stored, for {names}"
    if set(turns.values()) <= {"", AS_STORED}:
        return (f"{what}.",)
    return (ToLookAt(f"{what}, while others were turned: look which way up these lie, and name one orientation."),)


def _ranked(grey: np.ndarray) -> np.ndarray | None:
    """The head of a slice, [SIDE,SIDE] float, grey levels as ranks with mean 0 and length 1; None without a head."""
    head = head_region(grey, "grey")
    if head.mean() < SMALLEST_TOLD:
        return None
    left, top, width, height = cv2.boundingRect(head.astype(np.uint8))
    longer = max(width, height)
    square = np.zeros((2, longer, longer), np.float32)
    place = (longer - height) // 2, (longer - width) // 2
    for whole, out in zip((grey, head), square, strict=True):
        out[place[0] : place[0] + height, place[1] : place[1] + width] = whole[top : top + height, left : left + width]
    levels, share = (cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for part in square)
    inside = share > 0.5
    out = np.full((SIDE, SIDE), OUTSIDE, np.float32)
    out[inside] = rankdata(np.rint(levels[inside])) / inside.sum()
    out -= out.mean()
    return out / np.linalg.norm(out)


@functools.cache
def _phantoms() -> np.ndarray:
    """Slices of phantoms and their mirror images, as `_ranked` gives them, [N,SIDE*SIDE]."""
    from sahlib.data.slices import window_to_grey
    from sahlib.data.sources.phantom.phantom import Phantom

    scans = map(Phantom(HEADS, SEED).scan, range(HEADS))
    slices = [_ranked(grey) for scan in scans for grey in window_to_grey(scan.image, *WINDOWS["brain"])]
    kept = [head for head in slices if head is not None]
    return np.stack([turn for head in kept for turn in (head, head[:, ::-1])]).reshape(-1, SIDE * SIDE)
