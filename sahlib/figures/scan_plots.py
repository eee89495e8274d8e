"""Scans, slices and the sides of the split before any network, and all classes of some slices."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sahlib.data.samples import typical_training_slice
from sahlib.data.scan import CLASSES, SAH, Scan
from sahlib.data.slices import SliceStore, wide, window_to_grey
from sahlib.data.splits import SIDES, Split
from sahlib.figures.drawing import AGREEMENT, CLASS_COLOURS, OTHER, TRUTH, WIDTH, described, outline, show, styled
from sahlib.study import Study
from sahlib.training.augment import augmentation, draw

SIDE_COLOURS = dict(zip(SIDES, ("#0072B2", "#E69F00", "#D55E00"), strict=True))  # Okabe & Ito


@styled
def gallery(scans: Sequence[Scan], level: float, width: float) -> Figure:
    """The slice of each scan with the most blood (the middle one where there is none), every class outlined."""
    columns = min(3, len(scans))
    rows = -(-len(scans) // columns)
    figure = Figure(figsize=(WIDTH, rows * (WIDTH / columns + 0.25) + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(scans) :]:
        ax.set_axis_off()
    for ax, scan in zip(axes, scans, strict=False):
        blood = (scan.labels > 0).sum((1, 2))
        z = int(blood.argmax()) if blood.any() else len(blood) // 2
        show(ax, scan.image[z] if scan.unit == "grey" else window_to_grey(scan.image, level, width)[z])
        for index, name in enumerate(CLASSES[1:], 1):
            outline(ax, scan.labels[z] == index, width=0.9, halo="black", colour=CLASS_COLOURS[name])
        ax.set_title(scan.slice_ids[z])
    handles = [Line2D([], [], color=colour, label=name) for name, colour in CLASS_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    alt = "One slice of each scan, that with the most blood, each hemorrhage class outlined in its colour."
    return described(figure, alt)


@styled
def four_counts(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> Figure:
    """A slice uint8 [H,W] beside itself with the pixels coloured that were found, invented and missed; bool [H,W]."""
    figure = Figure(figsize=(WIDTH * 0.75, 3.2), layout="constrained")
    plain, coloured = figure.subplots(1, 2)
    show(plain, image)
    outline(plain, truth)
    plain.set_title("CT, the true lesion outlined")
    counted = dict(zip(AGREEMENT, (predicted & truth, predicted & ~truth, ~predicted & truth), strict=True))
    show(coloured, image)
    for name, mask in counted.items():
        layer = np.zeros((*mask.shape, 4))
        layer[mask] = to_rgba(AGREEMENT[name])
        coloured.imshow(layer, interpolation="none")
    coloured.set_title("what the mask makes of it")
    words = {"found": "found, TP", "invented": "invented, FP", "missed": "missed, FN"}
    handles = [Patch(color=AGREEMENT[k], label=f"{words[k]}: {mask.sum():,}") for k, mask in counted.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    alt = "A slice, and the same with found, invented and missed pixels coloured."
    return described(figure, alt)


@styled
def heat(image: np.ndarray, truth: np.ndarray, values: np.ndarray, label: str) -> Figure:
    """A slice uint8 [H,W] with its lesion outlined, beside a map [H,W] in [0, 1] over it."""
    figure = Figure(figsize=(WIDTH * 0.75, 3.0), layout="constrained")
    plain, mapped = figure.subplots(1, 2)
    show(plain, image)
    show(mapped, image)
    drawn = mapped.imshow(values, vmin=0, vmax=1, cmap="inferno", alpha=0.75, interpolation="none")
    for ax in (plain, mapped):
        outline(ax, truth)
    figure.colorbar(drawn, ax=mapped, label=label)
    return described(figure, f"A slice with its lesion outlined, and the same under a map: {label}.")


@styled
def value_histogram(scans: Sequence[Scan], level: float, width: float) -> Figure:
    """How the values inside the window are distributed, for SAH, for other blood and for everything else."""
    unit = scans[0].unit
    low, high = (level - width / 2, level + width / 2) if unit == "HU" else (0, 255)
    values = np.concatenate([scan.image.ravel() for scan in scans])
    labels = np.concatenate([scan.labels.ravel() for scan in scans])
    inside = (values > low) & (values < high)
    groups = {
        "SAH": (labels == SAH, TRUTH, "solid"),
        "other hemorrhage": (labels > SAH, "#0072B2", "dashed"),
        "everything else": (labels == 0, OTHER, "dotted"),
    }
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    ax = figure.subplots()
    # Whole units, or a comb would show where some bins hold one integer and others two.
    edges = np.arange(low, high + 1, max(1, round((high - low) / 50)))
    for name, (group, colour, style) in groups.items():
        chosen = values[group & inside]
        if len(chosen):
            look = {"color": colour, "linestyle": style, "linewidth": 1.4, "label": f"{name}, {len(chosen):,} voxels"}
            ax.stairs(*np.histogram(chosen, edges, density=True), **look)
    ax.set(xlabel="Hounsfield units" if unit == "HU" else "grey level", ylabel="share per unit", xlim=(low, high))
    ax.legend(loc="upper left")
    alt = f"Distributions of the values ({unit}) of SAH, of other hemorrhage and of everything else."
    return described(figure, alt)


@styled
def lesion_areas(store: SliceStore, split: Split) -> Figure:
    """Area of the store's lesion in every slice that shows it, by side of the split: the sides should look alike."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    ax = figure.subplots()
    areas = 100 * store.lesion_pixels.to_numpy() / store.images[0].size
    for height, side in enumerate(reversed(SIDES)):
        area = areas[split.rows(store, side)]
        area = area[area > 0]
        # A fixed spread, so that the same data gives the same picture.
        offset = np.random.default_rng(0).uniform(-0.3, 0.3, len(area))
        ax.plot(area, height + offset, ".", color=SIDE_COLOURS[side], markersize=3.5)
    ax.set_yticks(range(len(SIDES)), list(reversed(SIDES)))
    ax.set(xscale="log", xlabel="lesion area, per cent of the image (each dot one slice with a lesion)")
    return described(figure, "Lesion area of every slice with a lesion as a dot, one row for each side of the split.")


@styled
def augmentations(store: SliceStore, split: Split, study: Study) -> Figure:
    """The typical training slice and eight of its augmented forms, the transformed mask outlined on each."""
    row = typical_training_slice(store, split)
    image, mask = store.images[row], store.masks([row])[0]
    taught = wide(store, study).images[row] if study.augmentation == "travels" else image
    copies = (torch.from_numpy(one.astype(np.uint8)).expand(8, 1, -1, -1) for one in (taught, mask))
    draws = draw(study, 8, torch.Generator().manual_seed(0))
    images, masks = (one[:, 0].numpy() for one in augmentation(study, torch.device("cpu"))(*copies, draws))
    titles = ["as it is", *(f"epoch {k}" for k in range(1, 9))]
    figure = Figure(figsize=(WIDTH, WIDTH / 5 * 2 + 0.6), layout="constrained")
    *axes, last = figure.subplots(2, 5).ravel()
    last.set_axis_off()
    for ax, picture, lesion, title in zip(axes, [image, *255 * images], [mask, *(masks > 0.5)], titles, strict=True):
        show(ax, picture)
        outline(ax, lesion)
        ax.set_title(title, fontsize=7)
    return described(figure, "A training slice as it is and in 8 augmented forms, the lesion outlined on each.")


@styled
def classes(images: np.ndarray, columns: dict[str, dict[str, np.ndarray]], names: list[str]) -> Figure:
    """Slices uint8 [k,H,W] in rows; per column a heading and, per class, masks bool [k,H,W], outlined in its colour."""
    side = WIDTH / len(columns)
    figure = Figure(figsize=(WIDTH, len(images) * (side + 0.1) + 0.6), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        for ax, (heading, masks) in zip(axes[row], columns.items(), strict=True):
            show(ax, image)
            for lesion, mask in masks.items():
                outline(ax, mask[row], halo=None, colour=CLASS_COLOURS[lesion])
            if row == 0:
                ax.set_title(textwrap.fill(heading, 24), fontsize=8)
        axes[row][0].set_ylabel(name, fontsize=7)
    lesions = next(iter(columns.values()))
    handles = [Line2D([], [], color=CLASS_COLOURS[lesion], label=lesion) for lesion in lesions]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
