"""The pixels of a slice browser: a grey slice with outlines, areas or heat on it, from arrays to PNG.

Networks and errors have Okabe & Ito's colours, told apart by colour-blind readers too; an outline is the
outermost pixels of its mask.
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
# Found, invented and missed, as RGB.
ERRORS = {"found": (0, 158, 115), "invented": (230, 159, 0), "missed": (86, 180, 233)}
FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # three times as fast as the default, a tenth larger


def enlarged(grey: np.ndarray) -> np.ndarray:
    """A panel uint8 [H',W',3] of grey levels uint8 [H,W], the longer side SIDE pixels."""
    scale = SIDE / max(grey.shape)
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    return cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)


def with_outline(panel: np.ndarray, mask: np.ndarray, colour: str, width: int = 1) -> np.ndarray:
    """The panel with the outermost `width` pixels of a mask bool [H,W] in a colour "#rrggbb"."""
    large = _large(mask, panel)
    # Beyond the slice there is no mask, so that one cut by its edge is outlined there too.
    outside = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    inner = cv2.erode(large, np.ones((2 * width + 1, 2 * width + 1), np.uint8), **outside)
    return cv2.copyTo(np.full_like(panel, rgb(colour)), large - inner, panel.copy())


def with_area(panel: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], opacity: float) -> np.ndarray:
    """The panel with a mask bool [H,W] filled."""
    under_colour = cv2.addWeighted(panel, 1 - opacity, np.full_like(panel, colour), opacity, 0)
    return cv2.copyTo(under_colour, _large(mask, panel), panel.copy())


def with_errors(panel: np.ndarray, predicted: np.ndarray, truth: np.ndarray, opacity: float) -> np.ndarray:
    """The panel with what was found, invented and missed filled in their colours; both masks bool [H,W]."""
    for name, mask in (("found", predicted & truth), ("invented", predicted & ~truth), ("missed", truth & ~predicted)):
        if mask.any():
            panel = with_area(panel, mask, ERRORS[name], opacity)
    return panel


def with_heat(panel: np.ndarray, values: np.ndarray, opacity: float, everywhere: bool = False) -> np.ndarray:
    """The panel under a map of values [H,W] in [0,1]: the higher the brighter, and the more opaque unless it lies
    `everywhere`."""
    size = panel.shape[1], panel.shape[0]
    large = cv2.resize(np.asarray(values, np.float32), size, interpolation=cv2.INTER_LINEAR).clip(0, 1)
    heat = cv2.applyColorMap(np.rint(large * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = np.full_like(large, opacity) if everywhere else np.minimum(large * 2, 1) * np.float32(opacity)
    share = share[..., None]
    return np.rint(panel * (1 - share) + heat * share).astype(np.uint8)


def png(panel: np.ndarray) -> bytes:
    """A panel uint8 [H,W,3] as PNG."""
    return cv2.imencode(".png", panel[..., ::-1], FAST)[1].tobytes()


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
