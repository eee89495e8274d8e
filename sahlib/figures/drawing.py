"""The data figures of the paper (2, 5 to 9), drawn from arrays and tables, and the one way they are saved.

Every figure has two functions: `name(...)` returns a matplotlib Figure, and `name_data(...)` the table of what it
shows. `save` writes both with a caption, which is also the alternative text under which a notebook shows the figure:

    >>> figure = training_curves(histories, "U-Net", model="unet")
    >>> save(figure, "paper_figures/phantom-quick", "figure_5_training_unet",
    ...      training_curves_data(histories), "Training of the U-Net ...")
"""

from __future__ import annotations

import base64
import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sahlib.scoring.baselines import THRESHOLD
from sahlib.workspace import writing

WIDTH = 7.2  # inches: two columns of a journal page, so that a font size below is the size in print
DPI = 300
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

# Okabe & Ito, "Color Universal Design" (2008). One network, one colour, in every figure.
COLOURS = {
    "unet": "#0072B2",
    "unet_resnet34": "#009E73",
    "attention_unet": "#D55E00",
    "attention_unet_open_gates": "#CC79A7",
    THRESHOLD: "#56B4E9",
}
OTHER = "#555555"  # any other series, such as "background everywhere"
TRUTH = "#FF4B3E"  # the paper's red contour; a halo keeps it visible where red is seen as dark


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
        "txt": lambda path: path.write_text(caption.strip() + "\n", encoding="utf-8", newline="\n"),
    }
    paths = {suffix: Path(folder) / f"{stem}.{suffix}" for suffix in writers}
    for suffix, write in writers.items():
        with writing(paths[suffix]) as part:
            write(part)
    described(figure, alternative_text(caption))
    return paths


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
        if re.fullmatch(r"(Figure \d+\.)?", text) or len(text) + len(sentence) < ALT_LENGTH:
            text = f"{text} {sentence}".strip()
        else:
            break
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


# Figure 2


@styled
def slice_and_mask(image: np.ndarray, mask: np.ndarray, title: str = "") -> Figure:
    """Figure 2: a CT slice, its binary mask, and the mask's outline on the slice.

    image [H,W] uint8 grey levels; mask [H,W] bool.
    """
    image, mask = np.asarray(image), np.asarray(mask, bool)
    figure = Figure(figsize=(WIDTH, WIDTH / 3 + (0.5 if title else 0.25)), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, heading in zip(axes, ("(a) CT slice", "(b) Binary mask", "(c) Mask outlined on the slice"), strict=True):
        ax.set_title(heading)
    show(axes[0], image)
    show(axes[1], mask * 255)
    show(axes[2], image)
    outline(axes[2], mask)
    if title:
        figure.suptitle(title)
    return figure


def slice_and_mask_data(image: np.ndarray, mask: np.ndarray, slice_id: str = "") -> pd.DataFrame:
    """One row: the slice, its size, and how much of it the mask covers."""
    return _areas(np.asarray(image)[None], np.asarray(mask, bool)[None], [slice_id])


# Figures 5 and 6


@styled
def training_curves(histories: dict[int, pd.DataFrame], title: str, model: str = "unet") -> Figure:
    """Figures 5 and 6: loss (left) and validation Dice (right) of one network against the epoch.

    histories maps a seed to its history.csv (epoch, train_loss, validation_loss, validation_dice, best); each seed is
    one line, and a ring marks the epoch whose weights were kept. Values that are not finite leave a gap.
    """
    colour = COLOURS.get(model, OTHER)
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    loss, dice = figure.subplots(1, 2)
    thin = 1.4 if len(histories) == 1 else 0.8
    curves = (
        (loss, "train_loss", OTHER, (0, (4, 2))),
        (loss, "validation_loss", colour, "solid"),
        (dice, "validation_dice", colour, "solid"),
    )
    for history in histories.values():
        for ax, column, line_colour, dash in curves:
            epoch, value = history["epoch"].to_numpy(), history[column].to_numpy(float)
            value = np.where(np.isfinite(value), value, np.nan)
            # A point that has no finite neighbour makes no line; a dot shows it.
            gap = np.isnan(np.concatenate([[np.nan], value, [np.nan]]))
            alone = gap[:-2] & gap[2:]
            ax.plot(epoch, value, color=line_colour, linestyle=dash, linewidth=thin)
            ax.plot(epoch[alone], value[alone], ".", color=line_colour, markersize=5)
            if column != "train_loss":
                best = history["best"].to_numpy(bool) & np.isfinite(value)
                ring = {"color": colour, "markerfacecolor": "white", "markersize": 5, "zorder": 5, "clip_on": False}
                if best.any():  # an empty unclipped line counts as one at the figure's corner in the layout
                    ax.plot(epoch[best], value[best], "o", **ring)
    for ax, label in ((loss, "Loss (BCE + Dice)"), (dice, "Validation Dice (pooled over pixels)")):
        ax.set(xlabel="Epoch", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        if not any(np.isfinite(line.get_ydata()).any() for line in ax.lines):
            ax.text(0.5, 0.5, "no finite value", ha="center", va="center", transform=ax.transAxes)
            ax.set_yticks([])
    epochs = [history["epoch"].max() for history in histories.values() if len(history)]
    for ax in (loss, dice):
        ax.set_xlim(0.5, max([1, *epochs]) + 0.5)
    loss.set_ylim(bottom=0)
    dice.set_ylim(0, 1)
    seeds = f"{len(histories)} seeds, one line each" if len(histories) > 1 else f"seed {next(iter(histories), '-')}"
    figure.suptitle(f"{title} ({seeds})")
    figure.legend(
        handles=[
            Line2D([], [], color=OTHER, linestyle=(0, (4, 2)), label="training"),
            Line2D([], [], color=colour, label="validation"),
            Line2D([], [], color=colour, marker="o", markerfacecolor="white", linestyle="none", label="epoch kept"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def training_curves_data(histories: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """The histories below one another, with the seed in the first column."""
    columns = ["epoch", "train_loss", "validation_loss", "validation_dice", "best"]
    parts = [history[columns].assign(seed=seed) for seed, history in histories.items()]
    return pd.concat(parts, ignore_index=True)[["seed", *columns]]


# Figure 7


@styled
def comparison(
    images: np.ndarray,
    truth: np.ndarray,
    predictions: dict[str, np.ndarray],
    dice: dict[str, Iterable[float]],
    iou: dict[str, Iterable[float]],
    row_labels: Iterable[str],
) -> Figure:
    """Figure 7: k samples as rows; CT with the truth outlined, each network's prediction, the truth's mask as columns.

    images [k,H,W] uint8; truth [k,H,W] bool; predictions label -> [k,H,W] bool; dice and iou label -> k numbers, of
    which NaN is written "undefined". ValueError where the shapes or the labels do not agree.
    """
    images, truth = np.asarray(images), np.asarray(truth, bool)
    row_labels = list(row_labels)
    for label, masks in predictions.items():
        if np.shape(masks) != images.shape or label not in dice or label not in iou:
            raise ValueError(f"prediction {label!r}: masks {np.shape(masks)} for images {images.shape}, or no score")
    if truth.shape != images.shape or len(row_labels) != len(images):
        raise ValueError(f"images {images.shape}, truth {truth.shape}, {len(row_labels)} row labels do not agree")
    columns = len(predictions) + 2
    side = WIDTH / columns
    titles = ["CT, truth outlined", *predictions, "Ground truth"]
    titles = [textwrap.fill(title, max(12, int(side * 13)), break_long_words=False) for title in titles]
    lines = 1 + max(title.count("\n") for title in titles)
    figure = Figure(figsize=(WIDTH, len(images) * (side + 0.13) + 0.15 * lines), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for k, row in enumerate(axes):
        show(row[0], images[k])
        outline(row[0], truth[k])
        row[0].set_ylabel(row_labels[k])
        for ax, (label, masks) in zip(row[1:-1], predictions.items(), strict=True):
            show(ax, np.asarray(masks[k], bool) * 255)
            outline(ax, truth[k], width=0.7, halo=None)  # thin: it must not hide a lesion of three pixels
            scores = (("Dice", list(dice[label])[k]), ("IoU", list(iou[label])[k]))
            text = "   ".join(f"{name} {'undefined' if np.isnan(v) else f'{v:.2f}'}" for name, v in scores)
            ax.set_xlabel(text, labelpad=2)
        show(row[-1], truth[k] * 255)
    return figure


def comparison_data(
    truth: np.ndarray,
    predictions: dict[str, np.ndarray],
    dice: dict[str, Iterable[float]],
    iou: dict[str, Iterable[float]],
    row_labels: Iterable[str],
) -> pd.DataFrame:
    """One row per sample and network: dice, iou, and the lesion's pixels in the truth and in the prediction."""
    truth = np.asarray(truth, bool)
    rows = [
        {
            "sample": sample,
            "series": label,
            "dice": float(list(dice[label])[k]),
            "iou": float(list(iou[label])[k]),
            "truth_pixels": int(truth[k].sum()),
            "predicted_pixels": int(np.asarray(masks[k], bool).sum()),
        }
        for k, sample in enumerate(row_labels)
        for label, masks in predictions.items()
    ]
    return pd.DataFrame(rows)


# Figure 8


@styled
def representative_slices(images: np.ndarray, truth: np.ndarray, labels: Iterable[str], columns: int = 4) -> Figure:
    """Figure 8: a grid of test slices with the true lesion outlined, `labels` above them.

    images [k,H,W] uint8; truth [k,H,W] bool, of which some may be empty.
    """
    images, truth, labels = np.asarray(images), np.asarray(truth, bool), list(labels)
    if truth.shape != images.shape or len(labels) != len(images):
        raise ValueError(f"images {images.shape}, truth {truth.shape}, {len(labels)} labels do not agree")
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    side = WIDTH / max(columns, 3)  # a single slice shall not fill the page
    figure = Figure(figsize=(side * columns, rows * (side + 0.2)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(images) :]:
        ax.set_axis_off()
    for ax, image, mask, label in zip(axes, images, truth, labels, strict=False):
        show(ax, image)
        outline(ax, mask)
        ax.set_title(label, fontsize=7.5)
    return figure


def representative_slices_data(images: np.ndarray, truth: np.ndarray, labels: Iterable[str]) -> pd.DataFrame:
    """One row per slice: its label, its size, and how much of it the lesion covers."""
    return _areas(np.asarray(images), np.asarray(truth, bool), labels)


# Figure 9


@styled
def metric_bars(table: pd.DataFrame) -> Figure:
    """Figure 9: one group of bars per metric; ours filled, what the paper printed hollow and hatched.

    table has one row per bar: metric, series (the legend's text), value, printed (bool), and model (a name in COLOURS;
    where the column is missing, series is looked up). Order of appearance is order in the figure, ours before printed.
    NaN is written "n/a".
    """
    table = metric_bars_data(table)
    metrics = list(dict.fromkeys(table["metric"]))
    bars = list(dict.fromkeys(zip(table["model"], table["series"], table["printed"], strict=True)))
    models = list(dict.fromkeys(model for model, _, _ in bars))
    bars.sort(key=lambda bar: (models.index(bar[0]), bar[2]))  # the printed bar beside ours of the same network
    values = table.set_index(["metric", "model", "series", "printed"])["value"]
    if not values.index.is_unique:
        raise ValueError("the table holds the same metric, series and printed more than once")
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    ax = figure.subplots()
    width = 0.84 / len(bars)
    narrow = WIDTH * 0.92 * width / len(metrics) < 0.36  # inches that "0.896" needs at this size
    for b, (model, series, printed) in enumerate(bars):
        colour = COLOURS.get(model, OTHER)
        look = {"facecolor": "white", "hatch": "////"} if printed else {"facecolor": colour}
        legend = series
        for m, metric in enumerate(metrics):
            value = values.get((metric, model, series, printed))
            if value is None:
                continue
            x = m + (b - (len(bars) - 1) / 2) * width
            height = 0.0 if np.isnan(value) else float(value)
            ax.bar(x, height, width * 0.88, edgecolor=colour, linewidth=0.9, label=legend, **look)
            legend = "_nolegend_"
            ax.annotate(
                "n/a" if np.isnan(value) else f"{value:.3f}",
                (x, height),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=6.5,
                rotation=90 if narrow else 0,
            )
    ax.set_xticks(range(len(metrics)), metrics)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.5, len(metrics) - 0.5)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_ylim(0, 1.14 if narrow else 1.07)  # room for the number above a bar of height 1
    ax.spines["left"].set_bounds(0, 1)
    ax.set_ylabel("Score")
    ax.set_axisbelow(True)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2 if len(bars) > 3 else max(1, len(bars)))
    return figure


def metric_bars_data(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the columns metric, model, series, printed, value in this order, and nothing else."""
    if "model" not in table:
        table = table.assign(model=table["series"])
    table = table[["metric", "model", "series", "printed", "value"]].reset_index(drop=True)
    return table.astype({"printed": bool, "value": float})


# What the figures share


def show(ax: Axes, image: np.ndarray) -> None:
    """Grey image, 0 black and 255 white, without ticks."""
    # "none" puts the pixels as they are into an SVG; anything else resamples them there to 300 dpi.
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="none")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set(color="0.6", linewidth=0.5)


def outline(ax: Axes, mask: np.ndarray, width: float = 1.0, halo: str | None = "white", colour: str = TRUTH) -> None:
    """Contour of `mask` [H,W] bool, red by default, with a halo where one is named; nothing for an empty mask."""
    if not mask.any():
        return
    padded = np.pad(mask.astype(float), 1)  # so that a lesion at the border is closed
    rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
    contour = ax.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=width)
    if halo:
        contour.set_path_effects([patheffects.withStroke(linewidth=width + 1.0, foreground=halo)])
    ax.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _areas(images: np.ndarray, truth: np.ndarray, labels: Iterable[str]) -> pd.DataFrame:
    height, width = images.shape[1:]
    pixels = truth.sum(axis=(1, 2)).astype(int)
    return pd.DataFrame(
        {
            "slice": list(labels),
            "height": height,
            "width": width,
            "lesion_pixels": pixels,
            "lesion_percent": 100.0 * pixels / (height * width),
        }
    )
