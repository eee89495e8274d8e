"""The data figures of the paper: 2 and 5 to 9, drawn from arrays and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sahlib.figures.drawing import CLOSE, OTHER, WIDTH, looks, outline, show, slice_rows, styled


@styled
def slice_and_mask(image: np.ndarray, mask: np.ndarray) -> Figure:
    """Figure 2: a CT slice, its binary mask, and the mask's outline on the slice.

    image [H,W] uint8 grey levels; mask [H,W] bool.
    """
    figure = Figure(figsize=(WIDTH, WIDTH / 3 + 0.25), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, heading in zip(axes, ("(a) CT slice", "(b) Binary mask", "(c) Mask outlined on the slice"), strict=True):
        ax.set_title(heading)
    show(axes[0], image)
    show(axes[1], mask * 255)
    show(axes[2], image)
    outline(axes[2], mask)
    return figure


@styled
def training_curves(histories: dict[int, pd.DataFrame], title: str, model: str = "unet") -> Figure:
    """Figures 5 and 6: loss (left) and validation Dice (right) of one network against the epoch.

    histories maps a seed to its history.csv (epoch, train_loss, validation_loss, validation_dice, best); each seed is
    one line, and a ring marks the epoch whose weights were kept. Values that are not finite leave a gap.
    """
    colour = looks([model])[model].colour
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
    last = max([1, *(history["epoch"].max() for history in histories.values() if len(history))])
    for ax, label in ((loss, "Loss (BCE + Dice)"), (dice, "Validation Dice (pooled over pixels)")):
        ax.set(xlabel="Epoch", ylabel=label, xlim=(0.5, last + 0.5))
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        if not any(np.isfinite(line.get_ydata()).any() for line in ax.lines):
            ax.text(0.5, 0.5, "no finite value", ha="center", va="center", transform=ax.transAxes)
            ax.set_yticks([])
    loss.set_ylim(bottom=0)
    dice.set_ylim(0, 1)
    seeds = f"{len(histories)} seeds, one line each" if len(histories) > 1 else f"seed {next(iter(histories), '-')}"
    figure.suptitle(f"{title} ({seeds})")
    handles = [
        Line2D([], [], color=OTHER, linestyle=(0, (4, 2)), label="training"),
        Line2D([], [], color=colour, label="validation"),
        Line2D([], [], color=colour, marker="o", markerfacecolor="white", linestyle="none", label="epoch kept"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def training_curves_data(histories: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """The histories below one another, with the seed in the first column."""
    columns = ["epoch", "train_loss", "validation_loss", "validation_dice", "best"]
    parts = [history[columns].assign(seed=seed) for seed, history in histories.items()]
    return pd.concat(parts, ignore_index=True)[["seed", *columns]]


@styled
def comparison(
    images: np.ndarray,
    truth: np.ndarray,
    predictions: dict[str, np.ndarray],
    dice: dict[str, Sequence[float]],
    iou: dict[str, Sequence[float]],
    row_labels: Sequence[str],
) -> Figure:
    """Figure 7: k samples as rows; CT with the truth outlined, each network's prediction, the truth's mask as columns.

    images [k,H,W] uint8; truth [k,H,W] bool; predictions label -> [k,H,W] bool; dice and iou label -> k numbers, of
    which NaN is written "undefined".
    """
    titles = (*predictions, "Ground truth")
    narrow = len(titles) > 5  # then Dice and IoU do not fit beside each other
    figure, axes = slice_rows(images, truth, titles, side=WIDTH / (len(titles) + 1), below=0.32 if narrow else 0.13)
    for k, row in enumerate(axes):
        row[0].set_ylabel(row_labels[k])
        for ax, (label, masks) in zip(row[1:-1], predictions.items(), strict=True):
            show(ax, np.asarray(masks[k], bool) * 255)
            outline(ax, truth[k], width=0.7, halo=None)  # thin: it must not hide a lesion of three pixels
            scores = (("Dice", dice[label][k]), ("IoU", iou[label][k]))
            text = ("\n" if narrow else "   ").join(
                f"{name} {'undefined' if np.isnan(v) else f'{v:.2f}'}" for name, v in scores
            )
            ax.set_xlabel(text, labelpad=2)
        show(row[-1], truth[k] * 255)
    return figure


def comparison_data(
    truth: np.ndarray,
    predictions: dict[str, np.ndarray],
    dice: dict[str, Sequence[float]],
    iou: dict[str, Sequence[float]],
    row_labels: Sequence[str],
) -> pd.DataFrame:
    """One row per sample and network: dice, iou, and the lesion's pixels in the truth and in the prediction."""
    rows = [
        (sample, label, dice[label][k], iou[label][k], np.count_nonzero(truth[k]), np.count_nonzero(masks[k]))
        for k, sample in enumerate(row_labels)
        for label, masks in predictions.items()
    ]
    return pd.DataFrame(rows, columns=["sample", "series", "dice", "iou", "truth_pixels", "predicted_pixels"])


@styled
def representative_slices(images: np.ndarray, truth: np.ndarray, labels: Iterable[str]) -> Figure:
    """Figure 8: a grid of test slices with the true lesion outlined, `labels` above them.

    images [k,H,W] uint8; truth [k,H,W] bool, of which some may be empty.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    side = WIDTH / max(columns, 3)  # a single slice shall not fill the page
    figure = Figure(figsize=(side * columns, rows * (side + 0.2)), layout="constrained")
    figure.get_layout_engine().set(**CLOSE)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(images) :]:
        ax.set_axis_off()
    for ax, image, mask, label in zip(axes, images, truth, labels, strict=False):
        show(ax, image)
        outline(ax, mask)
        ax.set_title(label, fontsize=7.5)
    return figure


@styled
def metric_bars(table: pd.DataFrame) -> Figure:
    """Figure 9: one group of bars per metric; ours filled, what the paper printed hollow and hatched.

    table has one row per bar: metric, model (by which drawing.looks tells it), series (the legend's text), printed
    (bool) and value, as from `tables.bars_data`. Order of appearance is order in the figure, ours before printed. NaN
    is written "n/a".
    """
    metrics = list(dict.fromkeys(table["metric"]))
    bars = list(dict.fromkeys(zip(table["model"], table["series"], table["printed"], strict=True)))
    models = list(dict.fromkeys(model for model, _, _ in bars))
    bars.sort(key=lambda bar: (models.index(bar[0]), bar[2]))  # the printed bar beside ours of the same network
    values = table.set_index(["metric", "model", "series", "printed"], verify_integrity=True)["value"]
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    ax = figure.subplots()
    width = 0.84 / len(bars)
    narrow = WIDTH * 0.92 * width / len(metrics) < 0.36  # inches that "0.896" needs at this size
    above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 6.5}
    above["rotation"] = 90 if narrow else 0
    own_look = looks(models)
    for b, (model, series, printed) in enumerate(bars):
        colour = own_look[model].colour
        look = {"facecolor": "white", "hatch": "////"} if printed else {"facecolor": colour}
        own = values.xs((model, series, printed), level=("model", "series", "printed"))
        x = [metrics.index(metric) + (b - (len(bars) - 1) / 2) * width for metric in own.index]
        ax.bar(x, own.fillna(0), width * 0.88, edgecolor=colour, linewidth=0.9, label=series, **look)
        for at, value in zip(x, own, strict=True):
            ax.annotate("n/a" if np.isnan(value) else f"{value:.3f}", (at, np.nan_to_num(value)), **above)
    ax.set_xticks(range(len(metrics)), metrics)
    ax.tick_params(axis="x", length=0)
    ax.set(xlim=(-0.5, len(metrics) - 0.5), yticks=np.linspace(0, 1, 6), ylabel="Score")
    ax.set_ylim(0, 1.14 if narrow else 1.07)  # room for the number above a bar of height 1
    ax.spines["left"].set_bounds(0, 1)
    ax.set_axisbelow(True)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2 if len(bars) > 3 else max(1, len(bars)))
    return figure


def areas(truth: np.ndarray, labels: Iterable[str]) -> pd.DataFrame:
    """The table behind Figures 2 and 8: each slice's label, its size, and how much the mask bool [k,H,W] covers."""
    height, width = truth.shape[1:]
    pixels = truth.sum(axis=(1, 2)).astype(int)
    table = pd.DataFrame({"slice": list(labels), "height": height, "width": width, "lesion_pixels": pixels})
    return table.assign(lesion_percent=100.0 * pixels / (height * width))
