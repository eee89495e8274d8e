"""The pixels of a still: a grey slice with outlines and areas on it, from arrays to PNG.

Networks have Okabe & Ito's colours, told apart by colour-blind readers too.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from matplotlib.figure import Figure

from sahlib.figures import drawing

SIDE = 320  # pixels of a panel's longer side
# Not the figures' red: without cones for red or green it is that of a network, and of a map's heat, on which it lies.
TRUTH = "#00C8FF"


def enlarged(grey: np.ndarray) -> np.ndarray:
    """A panel uint8 [H',W',3] of grey levels uint8 [H,W], the longer side SIDE pixels."""
    scale = SIDE / max(grey.shape)
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    return cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)


def with_outline(panel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The panel with the pixels just outside a mask bool [H,W] in TRUTH: no pixel of a thin lesion is covered."""
    large = _large(mask, panel)
    around = cv2.dilate(large, np.ones((3, 3), np.uint8)) - large
    return cv2.copyTo(np.full_like(panel, rgb(TRUTH)), around, panel.copy())


def with_area(panel: np.ndarray, mask: np.ndarray, colour: str, opacity: float = 0.6) -> np.ndarray:
    """The panel with a mask bool [H,W] filled in a colour "#rrggbb"."""
    under_colour = cv2.addWeighted(panel, 1 - opacity, np.full_like(panel, rgb(colour)), opacity, 0)
    return cv2.copyTo(under_colour, _large(mask, panel), panel.copy())


@drawing.styled
def sheet(panels: list[np.ndarray], titles: list[str], notes: list[str], heading: str) -> bytes:
    """The whole view as one PNG: the panels side by side, a title over and a note under each."""
    figure = Figure(figsize=(max(3.0 * len(panels), 5.0), 3.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for ax, panel, title, note in zip(axes, panels, titles, notes, strict=True):
        ax.imshow(panel, interpolation="nearest")
        ax.set_title(title)
        ax.set_xlabel(note)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    figure.suptitle(heading, parse_math=False)  # an identifier may hold a $
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()


def rgb(colour: str) -> tuple[int, int, int]:
    """(0, 158, 115) of "#009E73"."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _large(mask: np.ndarray, panel: np.ndarray) -> np.ndarray:
    size = panel.shape[1], panel.shape[0]
    if max(mask.shape) > SIDE:  # a pixel must not get lost where the panel is smaller than the slice
        return (cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    return cv2.resize(np.ascontiguousarray(mask, np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
