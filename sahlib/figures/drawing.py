"""What all figures share: one style, colours, how an image is shown and a mask outlined, and the one way to save.

A figure's function returns a matplotlib Figure; where the table of what it shows has to be made, `<name>_data` beside
it does that. `save` writes both with a caption, which is also the alternative text in a notebook.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sahlib.data.scan import CLASSES
from sahlib.scoring.baselines import BACKGROUND, THRESHOLD
from sahlib.study import MODELS
from sahlib.workspace import writing

WIDTH = 7.2  # inches: two columns of a journal page, so that a font size below is the size in print
DPI = 300
CLOSE = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0.01, "hspace": 0.01}  # how near slices stand to one another
SCREEN_DPI = 100  # at which a notebook shows a figure; it is drawn twice as fine
ALT_LENGTH = 200  # characters of an alternative text, beyond which a caption is better read than heard

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 9.5,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.7,
    "svg.hashsalt": "sahlib",  # otherwise the ids in an SVG are random and no two files are equal
    "text.usetex": False,
}


@dataclass(frozen=True)
class Look:
    """How a series is drawn: no figure depends on colour alone."""

    colour: str
    marker: str


OTHER = "#555555"
# Okabe & Ito, "Color Universal Design" (2008), and a lighter blue. One network, one look, in every figure.
_COLOURS = ("#0072B2", "#1A85FF", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
LOOKS = {
    **dict(zip(MODELS, map(Look, _COLOURS, "oPs^vp"), strict=True)),
    BACKGROUND: Look(OTHER, "X"),
    THRESHOLD: Look("#56B4E9", "D"),
}
# For series that are not known here: what networks lend that are not in the figure, far apart, and then Tol's "Colour
# Schemes".
_LENT = ("unet", "attention_unet", "unet_resnet34", "attention_unet_open_gates")
FURTHER = (Look("#882255", "<"), Look("#44AA99", ">"), Look("#332288", "h"), Look("#999933", "*"))
FINEST = 128  # pixels of a slice's side, of which one is as wide as half a line
TRUTH = "#FF4B3E"  # the paper's red contour; a halo keeps it visible where red is seen as dark
# What a mask makes of the truth, in figures and in the slice browser.
AGREEMENT = {"found": "#009E73", "invented": "#E69F00", "missed": "#56B4E9"}
# One hemorrhage class, one colour; SAH has that of the truth.
CLASS_COLOURS = dict(zip(CLASSES[1:], (TRUTH, "#F0E442", "#56B4E9", "#009E73", "#CC79A7"), strict=True))


def looks(series: Iterable[str]) -> dict[str, Look]:
    """The look of each series; those that are not known here take, in their order, what nobody among them has."""
    series = list(dict.fromkeys(series))
    free = [*(LOOKS[model] for model in _LENT if model not in series), *FURTHER]
    unknown = [name for name in series if name not in LOOKS]
    return {name: LOOKS[name] if name in LOOKS else free[unknown.index(name) % len(free)] for name in series}


def styled(draw: Callable) -> Callable:
    """Run `draw` under STYLE without touching the caller's matplotlib settings."""

    @functools.wraps(draw)
    def inner(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner


@styled
def save(figure: Figure, folder: str | Path, stem: str, data: pd.DataFrame, caption: str) -> dict[str, Path]:
    """Write stem.png (300 dpi), stem.svg, stem.csv and stem.txt (the caption); return the four paths by suffix.

    Each file appears whole or not at all. Equal input gives equal bytes under equal versions: no date or version is
    written into them. Makes `folder`; StudyError where the disk refuses. From then on the figure is `described`.
    """
    writers = {
        "png": lambda path: figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None}),
        "svg": lambda path: figure.savefig(path, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None}),
        "csv": lambda path: data.to_csv(path, index=False, lineterminator="\n"),
    }
    paths = {suffix: Path(folder) / f"{stem}.{suffix}" for suffix in writers}
    for suffix, write in writers.items():
        with writing(paths[suffix]) as part:
            write(part)
    paths["txt"] = save_text(Path(folder) / f"{stem}.txt", caption.strip() + "\n")
    described(figure, alternative_text(caption))
    return paths


def save_text(path: Path, text: str) -> Path:
    """Write a text as UTF-8, whole or not at all, the same on every machine; StudyError where the disk refuses."""
    with writing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return path


def described(figure: Figure, alt: str) -> Figure:
    """The same figure, which a notebook now shows with `alt` for those who do not see it.

    It is shown as HTML, because JupyterLab has no place for such a text beside a PNG; the PNG is there for whatever
    does not read HTML. This is IPython's protocol for an object that knows how it is shown.
    """
    figure._repr_mimebundle_ = functools.partial(_shown, figure, alt)
    return figure


def alternative_text(caption: str) -> str:
    """The first sentences of a caption, as many as fit into ALT_LENGTH: what is shown comes before of which run."""
    text = ""
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", caption.strip()):
        # "Figure 7." alone says nothing.
        if not re.fullmatch(r"(Figure \d+\.)?", text) and len(text) + len(sentence) >= ALT_LENGTH:
            break
        text = f"{text} {sentence}".strip()
    return text


@styled
def _shown(figure: Figure, alt: str, include: object = None, exclude: object = None) -> tuple[dict, dict]:
    """(content by MIME type, metadata by MIME type), as IPython asks for them."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=2 * SCREEN_DPI)
    png = base64.b64encode(file.getvalue()).decode()
    width = round(figure.get_figwidth() * SCREEN_DPI)
    html = f'<img src="data:image/png;base64,{png}" alt="{escape(alt)}" width="{width}">'
    return {"text/html": html, "image/png": png}, {"image/png": {"alt": alt, "width": width}}


def show(ax: Axes, image: np.ndarray) -> None:
    """Grey image, 0 black and 255 white, without ticks."""
    # "none" puts the pixels as they are into an SVG; anything else resamples them there to 300 dpi.
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="none")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="0.6", linewidth=0.5)


def slice_rows(
    images: np.ndarray, truth: np.ndarray, titles: Sequence[str], side: float, below: float, foot: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """A figure with a slice per row, its CT with the truth outlined in the first column; `titles` head the others.

    images [k,H,W] uint8; truth [k,H,W] bool
    side, below, foot: width of a column, room under each row and under all, inches
    returns: the figure, and its axes [k, 1 + titles], of which the first column is drawn
    """
    headings = [
        textwrap.fill(title, max(12, int(side * 13)), break_long_words=False)
        for title in ("CT, truth outlined", *titles)
    ]
    height = side * images.shape[1] / images.shape[2] + below
    lines = 1 + max(heading.count("\n") for heading in headings)
    size = (side * len(headings), len(images) * height + 0.15 * lines + foot)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(**CLOSE)
    axes = figure.subplots(len(images), len(headings), squeeze=False)
    for ax, heading in zip(axes[0], headings, strict=True):
        ax.set_title(heading)
    for ax, image, mask in zip(axes[:, 0], images, truth, strict=True):
        show(ax, image)
        outline(ax, mask)
    return figure, axes


def outline(ax: Axes, mask: np.ndarray, width: float = 1.0, halo: str | None = "white", colour: str = TRUTH) -> None:
    """A line around `mask` [H,W] bool, red by default, with a halo where one is named; nothing for an empty mask.

    It runs just outside, so that it does not hide what it shows, however thin.
    """
    if not mask.any():
        return
    aside = -(-max(mask.shape) // FINEST)  # pixels that half a line takes in print
    padded = np.pad(mask.astype(np.uint8), aside + 1)  # so that a lesion at the border is closed
    wider = cv2.dilate(padded, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * aside + 1,) * 2)).astype(float)
    rows, columns = (np.arange(-aside - 1, n + aside + 1) for n in mask.shape)
    contour = ax.contour(columns, rows, wider, levels=[0.5], colors=[colour], linewidths=width)
    if halo:
        contour.set_path_effects([patheffects.withStroke(linewidth=width + 1.0, foreground=halo)])
    ax.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))
