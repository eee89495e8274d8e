"""Where head, bone and brain lie on a slice: regions as bool [H,W], by thresholds and connected parts."""

from __future__ import annotations

import cv2
import numpy as np

AIR_HU, BONE_HU = -300, 150
DARK_GREY, WHITE_GREY = 15, 250  # of 255: JPEG rings up to the first in air; a window's bone is above the second
SMALLEST_CAVITY = 0.05  # of the picture: less is an air cell of the bone
SMALLEST_HEAD = 0.01  # of the picture: less is a speck of noise or the very top of the scalp
SMALLEST_TOLD = 0.08  # of the picture: with less, at the top of the skull, all heads are the same oval


def head_region(image: np.ndarray, unit: str) -> np.ndarray:
    """The largest bright component of a slice [H,W], filled; bool [H,W], all False where there is no head."""
    bright = image > (AIR_HU if unit == "HU" else int(image.min()) + DARK_GREY)
    return _filled(cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), SMALLEST_HEAD)


def skull_region(image: np.ndarray, unit: str) -> np.ndarray:
    """The largest component of bone [H,W] bool; blood that a window has made white is rarely part of it."""
    bone = (image > BONE_HU if unit == "HU" else image >= WHITE_GREY).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(bone, connectivity=8)
    if len(stats) < 2:
        return np.zeros(image.shape, bool)
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def cavity_region(skull: np.ndarray) -> np.ndarray:
    """What a skull [H,W] bool encloses; all False where it has an opening, as near its base, or encloses little."""
    cavity = widened(_filled(skull.astype(np.uint8), 0) & ~skull, -1)
    return cavity if cavity.mean() >= SMALLEST_CAVITY else np.zeros_like(cavity)


def _filled(mask: np.ndarray, least: float) -> np.ndarray:
    """The largest part of a mask [H,W] uint8 without its holes, bool; none where it is below `least` of the picture."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    largest = max(outlines, key=cv2.contourArea, default=None)
    if largest is not None and cv2.contourArea(largest) >= least * mask.size:
        cv2.drawContours(filled, [largest], -1, 1, cv2.FILLED)
    return filled.astype(bool)


def widened(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask [H,W] bool dilated by a disc of so many pixels, or eroded where they are negative."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
    return (cv2.dilate if pixels > 0 else cv2.erode)(mask.astype(np.uint8), disc).astype(bool)
