"""Where the head is on a slice, and whether a mask sits on it the way round it should.

Blood is brighter than what lies around it (Kamalian et al., Handb. Clin. Neurol. 135:3-20, 2016), so a mask of
hemorrhage has more contrast to its surroundings where it belongs than where a flip or a quarter turn puts it. The
contrast of a mask and of its seven mirrored and turned versions is summed over a patient's slices; a patient is called
misfit only where the mask as it is has next to none and another version has much.

The limits were set on the phantom. None of 120 patients is called misfit there, nor any of 191 single slices. With the
masks turned as listed in TURNS, 28 of 38 patients and more are found, 21 when mirrored left to right, since many bleeds
are symmetric; over all patients together each turn is found and named.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

AIR_HU, BONE_HU = -300, 150
DARK_GREY, WHITE_GREY = 15, 250  # of 255: JPEG rings up to the first in air; a window's bone is above the second
SMALLEST_CAVITY = 0.05  # of the picture: less is an air cell of the bone
SMALLEST_HEAD = 0.01  # of the picture: less is a speck of noise or the very top of the scalp

# What to do to the mask; the last four only where height equals width.
TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("as it is", lambda mask: mask),
    ("mirrored left to right", lambda mask: mask[:, ::-1]),
    ("mirrored top to bottom", lambda mask: mask[::-1]),
    ("turned by 180 degrees", lambda mask: mask[::-1, ::-1]),
    ("turned by 90 degrees counterclockwise", lambda mask: np.rot90(mask)),
    ("turned by 90 degrees clockwise", lambda mask: np.rot90(mask, -1)),
    ("transposed", lambda mask: mask.T),
    ("transposed and turned by 180 degrees", lambda mask: mask[::-1, ::-1].T),
)
LEAST_PIXELS = 500  # a smaller mask lies on something bright by chance too often
LEAST_CONTRAST = 0.8  # of the best version, in robust standard deviations of the tissue
MOST_OF_BEST = 0.3  # the mask as it is must have less than this share of it


def head_region(image: np.ndarray, unit: str) -> np.ndarray:
    """The largest bright component of a slice [H,W], filled; bool [H,W], all False where there is no head."""
    import cv2

    bright = image > (AIR_HU if unit == "HU" else int(image.min()) + DARK_GREY)
    bright = cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    head = np.zeros_like(bright)
    largest = max(outlines, key=cv2.contourArea, default=None)
    if largest is not None and cv2.contourArea(largest) >= SMALLEST_HEAD * image.size:
        cv2.drawContours(head, [largest], -1, 1, cv2.FILLED)
    return head.astype(bool)


def is_blank(image: np.ndarray, unit: str) -> bool:
    """Whether a slice [H,W] shows nothing: one value with little noise, or air alone."""
    low, high = int(image.min()), int(image.max())
    return high - low <= DARK_GREY or (unit == "HU" and high <= AIR_HU)


def skull_region(image: np.ndarray, unit: str) -> np.ndarray:
    """The largest component of bone [H,W] bool; blood that a window has made white is rarely part of it."""
    import cv2

    bone = (image > BONE_HU if unit == "HU" else image >= WHITE_GREY).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(bone, connectivity=8)
    if len(stats) < 2:
        return np.zeros(image.shape, bool)
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def cavity_region(skull: np.ndarray) -> np.ndarray:
    """What a skull [H,W] bool encloses; all False where it has an opening, as near its base, or encloses little."""
    import cv2

    outlines, _ = cv2.findContours(skull.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(skull.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    cavity = widened(~skull & filled.astype(bool), -1)
    return cavity if cavity.mean() >= SMALLEST_CAVITY else np.zeros_like(cavity)


def widened(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask [H,W] bool dilated by a disc of so many pixels, or eroded where they are negative."""
    import cv2

    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
    change = cv2.dilate if pixels > 0 else cv2.erode
    return change(mask.astype(np.uint8), disc).astype(bool)


def contrasts(grey: np.ndarray, tissue: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """For each of TURNS the contrast of the turned mask to a ring around it, times its pixels; float [8].

    grey [H,W] uint8; tissue [H,W] bool, where neither air nor bone is; mask [H,W] bool. Contrast is in robust standard
    deviations of the tissue's grey levels. Pixels beside the tissue count as 0, and so do turns that do not fit.
    """
    sums = np.zeros(len(TURNS))
    if not mask.any() or not tissue.any():
        return sums
    middle = np.median(grey[tissue])
    spread = 1.4826 * np.median(np.abs(grey[tissue] - middle))
    brightness = np.clip((grey - middle) / max(spread, 1.0), -4, 4)
    reach = max(2, min(mask.shape) // 40)
    for index, (_, turn) in enumerate(TURNS[: 8 if mask.shape[0] == mask.shape[1] else 4]):
        turned = np.ascontiguousarray(turn(mask))
        inside, ring = turned & tissue, widened(turned, reach) & ~turned & tissue
        if inside.any() and ring.any():
            sums[index] = (brightness[inside].mean() - brightness[ring].mean()) * inside.sum()
    return sums


def misfit(sums: np.ndarray, pixels: int) -> str:
    """The name in TURNS of what masks of `pixels` pixels, with contrasts of sum `sums` [8], need; "" where they fit."""
    best = int(sums.argmax())
    clear = pixels >= LEAST_PIXELS and sums[best] >= LEAST_CONTRAST * pixels and sums[0] < MOST_OF_BEST * sums[best]
    return TURNS[best][0] if clear else ""
