"""The drawn figures of the paper: the workflow (1) from the Study, the networks (3, 4) from the modules themselves.

No number in them is typed by hand: `workflow_steps` reads the Study, `architecture.blocks` watches one forward pass.
"""

from __future__ import annotations

import itertools
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.path import Path

from sahlib.data.splits import SIDES
from sahlib.figures.drawing import WIDTH, styled
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import AUGMENTATIONS, Study, name_of

NETWORK = "Network: "  # how the title of a step begins that stands beside others of its kind
LINE = "#444444"


def workflow_steps(study: Study, slices: int, patients: int, split: dict[str, int], unit: str) -> list[tuple[str, str]]:
    """The steps of Figure 1 as (title, detail), in order. Titles that begin with NETWORK stand side by side.

    slices and patients count what the store holds, unit is of what; split maps train, validation and test to their
    number of slices
    """
    parts = " / ".join(str(split[side]) for side in SIDES)
    group = "By slice, each taken for a patient" if study.slices_are_patients else "By patient"
    patients_too = "" if study.slices_are_patients else f", {patients} patients"
    window = "" if unit == "grey" else f"{_windows(study)}; "
    widths = ", ".join(map(str, study.channels))
    networks = {
        "unet": f"Residual units; widths {widths}",
        "unet_free_output": f"The same without a norm on its output; widths {widths}",
        "unet_resnet34": f"ResNet34 encoder; decoder widths {', '.join(map(str, reversed(study.channels)))}",
        "attention_unet": f"A gate on every skip; widths {widths}",
        "attention_unet_open_gates": f"The control: every gate passes all; widths {widths}",
        "swin_unetr": "A shifted-window transformer as encoder, convolutions as decoder",
    }
    seeds = f"{len(study.seeds)} seed{'s' * (len(study.seeds) != 1)}"
    bias = "; the output bias starts at the log-odds of a lesion pixel" if study.prior_bias else ""
    turned = f"random flips (p = {study.flip_probability:g}) and rotations (±{study.rotation_degrees:g}°)"
    epochs = f"{study.epochs} epoch{'s' * (study.epochs != 1)}"
    return [
        ("Data", f"{study.dataset.replace('_', ' ').capitalize()}: {slices} CT slices with masks{patients_too}"),
        ("Split", f"{group}, stratified; training / validation / test: {parts} slices"),
        ("Preprocessing", f"{window}{study.size} × {study.size} pixels, grey levels to [0, 1], binary masks"),
        *((NETWORK + name_of(name), networks.get(name, f"From elsewhere: {name}")) for name in study.models),
        (
            "Training",
            f"BCE + Dice loss, Adam, learning rate {study.learning_rate:g}, batches of {study.batch_size}, {epochs}, "
            f"{seeds}; {turned if study.augmentation == 'paper' else AUGMENTATIONS[study.augmentation]}; "
            f"the best epoch on the validation set is kept{bias}",
        ),
        ("Evaluation", f"Test set, threshold {THRESHOLD:g}: Dice, IoU, precision, recall, F1"),
        ("Figures and tables", "From the pixel counts of every test slice"),
    ]


@styled
def workflow(steps: list[tuple[str, str]]) -> Figure:
    """Figure 1: boxes from top to bottom for (title, detail) steps, the networks side by side."""
    rows = []  # of each: width, titles and details as lines, height of the titles, height
    for _, row in itertools.groupby(steps, lambda step: step[0].startswith(NETWORK) or step[0]):
        names, details = zip(*row, strict=True)
        width = 5.6 if len(names) == 1 else min(2.6, (WIDTH + 0.05) / len(names) - 0.15)
        titles = [textwrap.wrap(name.removeprefix(NETWORK), int(width * 13)) for name in names]
        texts = [textwrap.wrap(detail, int(width * 16.5), break_long_words=False) for detail in details]
        tall = 0.23 + 0.14 * (max(map(len, titles)) - 1)
        rows.append((width, titles, texts, tall, tall + 0.07 + 0.13 * max(map(len, texts))))
    gap, margin = 0.22, 0.05  # inches
    total = sum(height for *_, height in rows) + gap * (len(rows) - 1) + 2 * margin
    figure = Figure(figsize=(WIDTH, total))
    ax = _canvas(figure, (0, WIDTH), (margin - total, margin))
    top, above = 0.0, []
    for width, titles, texts, tall, height in rows:
        centres = [WIDTH / 2 + (i - (len(titles) - 1) / 2) * (width + 0.15) for i in range(len(titles))]
        look = {"facecolor": "#E3EEF6" if len(titles) > 1 else "#F4F4F4", "edgecolor": LINE, "linewidth": 0.8}
        for x, name, lines in zip(centres, titles, texts, strict=True):
            corner = (x - width / 2, top - height)
            ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.06", **look))
            ax.text(x, top - 0.06, "\n".join(name), ha="center", va="top", fontsize=8.5, fontweight="bold")
            ax.text(x, top - tall, "\n".join(lines), ha="center", va="top", fontsize=7.5, linespacing=1.15)
            for from_x in above:
                _arrow(ax, [(from_x, top + gap), (from_x, top + gap / 2), (x, top + gap / 2), (x, top)], LINE)
        above = centres
        top -= height + gap
    return figure


GREY = "#D9D9D9"
FILL = {"input": GREY, "encoder": "#9CC9E6", "bottom": "#6FA8CF", "up": "#BFE3D3", "decoder": "#7CC6A6", "output": GREY}
DOWN, UP, GATE = "#0072B2", "#00785A", "#D55E00"


def _wide(channels: int) -> float:
    return max(0.06, 0.024 * channels**0.5)


def _across(main: list, rows: dict, copies: dict, gates: dict, gap: float) -> tuple[dict, dict]:
    """Left end of each block on the main path, and right end of it with the copy that may follow it."""
    left, right = {}, {}
    for before, row in zip([None, *main], main, strict=False):
        w = _wide(row.channels)
        if before is None:
            x = 0.0
        elif row.size < before.size:
            x = (left[before.block] + right[before.block]) / 2 + gap
        elif row.size == before.size:
            x = right[before.block] + gap
        else:
            x = right[before.block] + gap - 0.08 - w / 2
            if source := copies.get(row.block):  # room for the copy on the left, and for a gate before it
                x = max(x, right[source] + _wide(rows[source].channels) + (0.8 if source in gates else 0.35))
        left[row.block], right[row.block] = x, x + w
        if row.block in copies and row.size <= before.size:
            right[row.block] += _wide(rows[copies[row.block]].channels)
    return left, right


@styled
def architecture(table: pd.DataFrame, title: str) -> Figure:
    """Figures 3 and 4: the network of a table that `architecture.blocks` returned, drawn as a U.

    title is the network's name for people. A block's width grows with its channels and its height with its
    resolution, both by the square root.
    """
    rows = {row.block: row for row in table.itertuples()}
    sizes = sorted(table["size"].unique(), reverse=True)
    main = [row for row in rows.values() if row.kind != "gate"]  # the path from input to output, gates aside
    # Whatever runs before a block that joins a skip holds the copied features beside its own.
    copies = {before.block: row.joins for before, row in zip(main, main[1:], strict=False) if row.joins}
    gates = {row.block.replace("Gate", "Encoder"): row for row in rows.values() if row.kind == "gate"}

    height, middle, y = {}, {}, 0.0
    for s in sizes:
        height[s] = 0.95 * (s / sizes[0]) ** 0.5
        middle[s] = y - height[s] / 2
        y -= height[s] + 0.36
    # A short network gets longer arrows, not larger blocks, to fill the width.
    left, right = _across(main, rows, copies, gates, gap=0.3)
    missing = 6.6 - max(right.values())
    if missing > 0:
        left, right = _across(main, rows, copies, gates, gap=min(0.3 + missing / (len(main) - 1), 0.6))

    start, end, bottom, top = -0.85, max(right.values()) + 0.15, y + 0.2, 0.38
    width = end - start
    figure = Figure(figsize=(WIDTH, WIDTH * (top - bottom) / width + 0.8), layout="constrained")
    ax = _canvas(figure, (start, end), (bottom, top))
    for s in sizes:
        ax.add_patch(Rectangle((start, middle[s] - height[s] / 2), width, height[s], color="#F5F5F5", zorder=0))
        ax.text(start + 0.05, middle[s], f"{s} × {s}", va="center", fontsize=7.5, color="0.25")

    for before, row in zip([None, *main], main, strict=False):
        x, w, h, y = left[row.block], _wide(row.channels), height[row.size], middle[row.size]
        label, centre = f"{row.channels}", x + w / 2
        if row.block in copies:
            source = rows[copies[row.block]]
            copy, tail = _wide(source.channels), right[source.block]
            if row.size <= before.size:  # fed from the left: the skip runs below the blocks of the row
                copy_x, label = x + w, f"{row.channels} + {source.channels}"
                a, b, low = tail - 0.05, copy_x + copy / 2, y - h / 2 - 0.1
                _arrow(ax, [(a, y - h / 2), (a, low), (b, low), (b, y - h / 2)], LINE, dashed=True)
            else:
                copy_x, label = x - copy, f"{source.channels} + {row.channels}"
                _arrow(ax, [(tail, y), (copy_x, y)], LINE, dashed=True)
                if gate := gates.get(source.block):
                    _gate(ax, copy_x - 0.32, y, gate.channels, signal_x=x + w * 0.2, signal_y=y - h / 2)
            centre = (min(x, copy_x) + max(x + w, copy_x + copy)) / 2
            _block(ax, copy_x, y, copy, h, FILL["encoder"], hatch="////")
        _block(ax, x, y, w, h, FILL[row.kind])
        if before is None or row is main[-1]:
            label = f"{'output' if before else 'input'}\n{label}"
        ax.text(centre, y + h / 2 + 0.03, label, ha="center", va="bottom", fontsize=7)
        if before is None:
            continue
        from_x, from_y = right[before.block], middle[before.size]
        if row.size == before.size:
            _arrow(ax, [(from_x, y), (x, y)], LINE)
        elif row.size < before.size:
            from_x = (left[before.block] + from_x) / 2
            _arrow(ax, [(from_x, from_y - height[before.size] / 2), (from_x, y), (x, y)], DOWN)
        else:
            _arrow(ax, [(from_x, from_y), (x + w / 2, from_y), (x + w / 2, y - h / 2)], UP)
    _legend(figure, table)
    convolutions = table["convolutions"].sum()
    figure.suptitle(f"{title}: {table['parameters'].sum():,} parameters, {convolutions} convolutions")
    return figure


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    change = table["size"].diff()
    how = table["resampling"].str.removesuffix(", stride 2")
    down, up = (", ".join(how[rows].unique()) for rows in (change < 0, change > 0))
    gated = (table["kind"] == "gate").any()
    copied = "the encoder's features after the gate" if gated else "the encoder's features"
    handles = [
        Line2D([], [], color=DOWN, label=f"halved: {down} (stride 2)"),
        Line2D([], [], color=UP, label=f"doubled: {up}"),
        Line2D([], [], color=LINE, label="same resolution"),
        Line2D([], [], color=LINE, linestyle=(0, (3, 1.5)), label="skip connection"),
        Patch(facecolor=FILL["encoder"], edgecolor=LINE, hatch="////", label=f"{copied}, concatenated"),
    ]
    if gated:
        text = "attention gate (AG), its channels and gating signal"
        handles.append(Line2D([], [], color=GATE, marker="o", markerfacecolor="white", markersize=7, label=text))
    title = "Rows: resolution in pixels. Numbers above the blocks: channels."
    figure.legend(handles=handles, loc="outside lower center", ncols=2, title=title, title_fontsize=7.5)


def _gate(ax: Axes, x: float, y: float, channels: int, signal_x: float, signal_y: float) -> None:
    """A gate on a skip at (x, y), and its signal, which leaves the bottom of the upsampled features."""
    radius, low = 0.115, signal_y - 0.09
    _arrow(ax, [(signal_x, signal_y), (signal_x, low), (x, low), (x, y - radius)], GATE)
    ax.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=GATE, linewidth=1, zorder=4))
    ax.text(x, y, "AG", ha="center", va="center", fontsize=5.5, color=GATE, zorder=5)
    ax.text(x, y + radius + 0.02, f"{channels}", ha="center", va="bottom", fontsize=7, color=GATE)


def _canvas(figure: Figure, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    """Axes without frame whose unit is the same in both directions."""
    ax = figure.add_axes((0, 0, 1, 1)) if figure.get_layout_engine() is None else figure.subplots()
    ax.set(xlim=x, ylim=y, aspect="equal")
    ax.set_axis_off()
    return ax


def _block(ax: Axes, x: float, y: float, width: float, height: float, fill: str, hatch: str = "") -> None:
    look = {"facecolor": fill, "edgecolor": LINE, "linewidth": 0.6, "hatch": hatch, "zorder": 3}
    ax.add_patch(Rectangle((x, y - height / 2), width, height, **look))


def _arrow(ax: Axes, points: list[tuple[float, float]], colour: str, dashed: bool = False) -> None:
    """A line through `points` with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    style = (0, (3, 1.5)) if dashed else "solid"
    ax.plot(*zip(*points, strict=True), color=colour, linewidth=1, linestyle=style, zorder=2)
    length = max(abs(x1 - x0), abs(y1 - y0))
    head = Path([(x1 - (x1 - x0) * 0.03 / length, y1 - (y1 - y0) * 0.03 / length), (x1, y1)])
    look = {"arrowstyle": "-|>", "mutation_scale": 6, "color": colour, "linewidth": 0.8}
    ax.add_patch(FancyArrowPatch(path=head, shrinkA=0, shrinkB=0, zorder=2, **look))


def _windows(study: Study) -> str:
    """ "Brain window, level 40, width 80 HU", and so for each of several."""
    text = "; ".join(
        ("window of" if "/" in name else f"{name.replace('_', '-')} window,") + f" level {level:g}, width {width:g} HU"
        for name, (level, width) in zip(study.windows, study.window_values, strict=True)
    )
    return text[0].upper() + text[1:]
