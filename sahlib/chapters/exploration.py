"""What notebooks 01 and 02 show of scans, slices and the split before any network is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sahlib.data.slices import SliceStore, window_to_grey
from sahlib.data.sources import CLASSES, SAH, PairedFolder, Phantom, Scan
from sahlib.data.splits import SIDES, Split
from sahlib.figures.drawing import OTHER, TRUTH, WIDTH, described, outline, show, styled
from sahlib.study import Study

# Okabe & Ito; SAH as in every other figure.
CLASS_COLOURS = dict(zip(CLASSES[1:], (TRUTH, "#F0E442", "#56B4E9", "#009E73", "#CC79A7"), strict=True))
SIDE_COLOURS = dict(zip(SIDES, ("#0072B2", "#E69F00", "#D55E00"), strict=True))


@dataclass(frozen=True)
class FirstScans:
    """The first scans of a source, or all where it has fewer, as a source by itself."""

    source: object
    scans: tuple[Scan, ...]

    @classmethod
    def of(cls, source: object, count: int) -> FirstScans:
        """The first `count` scans of `source`."""
        return cls(source, tuple(source.scan(index) for index in range(min(count, len(source)))))

    @property
    def name(self) -> str:
        return f"the first {len(self)} scans of {self.source.name}"

    def __len__(self) -> int:
        return len(self.scans)

    def scan(self, index: int) -> Scan:
        """One of them."""
        return self.scans[index]


def describe(scans: Sequence[Scan]) -> pd.DataFrame:
    """One row per scan: patient, slices, spacing and thickness in mm, and for each class its slices and volume in mL.

    The volume is NaN where a spacing is not known.
    """
    rows = []
    for scan in scans:
        row = {"patient": scan.patient_id, "slices": len(scan.image), "unit": scan.unit}
        row |= {"pixel mm": scan.spacing_mm[0], "slice mm": scan.thickness_mm}
        millilitres = scan.spacing_mm[0] * scan.spacing_mm[1] * scan.thickness_mm / 1000
        for index, name in enumerate(CLASSES[1:], 1):
            marked = scan.labels == index
            row[f"{name} slices"] = int(marked.any((1, 2)).sum())
            row[f"{name} mL"] = round(float(marked.sum() * millilitres), 1)
        rows.append(row)
    table = pd.DataFrame(rows).round(2)
    empty = [name for name in CLASSES[1:] if (table[f"{name} slices"] == 0).all()]
    return table.drop(columns=[f"{name} {what}" for name in empty for what in ("slices", "mL")])


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
        show(ax, _grey(scan, level, width)[z])
        for index, name in enumerate(CLASSES[1:], 1):
            outline(ax, scan.labels[z] == index, width=0.9, halo="black", colour=CLASS_COLOURS[name])
        ax.set_title(scan.slice_ids[z])
    handles = [Line2D([], [], color=colour, label=name) for name, colour in CLASS_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return described(
        figure, "One slice of each scan, that with the most blood, each hemorrhage class outlined in its colour."
    )


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
            share, _ = np.histogram(chosen, edges, density=True)
            ax.stairs(
                share, edges, color=colour, linestyle=style, linewidth=1.4, label=f"{name}, {len(chosen):,} voxels"
            )
    ax.set(xlabel="Hounsfield units" if unit == "HU" else "grey level", ylabel="share per unit", xlim=(low, high))
    ax.legend(loc="upper left")
    return described(
        figure, f"Distributions of the values ({unit}) of SAH, of other hemorrhage and of everything else."
    )


@styled
def lesion_areas(store: SliceStore, split: Split) -> Figure:
    """Lesion area of every slice with SAH, by side of the split: the sides should look alike."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    ax = figure.subplots()
    pixels = store.images.shape[1] * store.images.shape[2]
    for height, side in enumerate(reversed(SIDES)):
        area = 100 * store.lesion_pixels.to_numpy()[split.rows(store, side)] / pixels
        area = area[area > 0]
        # A fixed spread, so that the same data gives the same picture.
        offset = np.random.default_rng(0).uniform(-0.3, 0.3, len(area))
        ax.plot(area, height + offset, ".", color=SIDE_COLOURS[side], markersize=3.5)
    ax.set_yticks(range(len(SIDES)), list(reversed(SIDES)))
    ax.set_xscale("log")
    ax.set_xlabel("lesion area, per cent of the image (each dot one slice with SAH)")
    return described(figure, "Lesion area of every slice with SAH as a dot, one row for each side of the split.")


@styled
def augmentations(store: SliceStore, split: Split, study: Study, count: int = 8) -> Figure:
    """The typical training slice and `count` of its augmented forms, the transformed mask outlined on each."""
    import torch

    from sahlib.data.samples import typical_training_slice
    from sahlib.training.augment import draw_transforms, transform

    row = typical_training_slice(store, split)
    image = torch.from_numpy(store.images[row].astype(np.float32)).expand(count, 1, -1, -1)
    mask = torch.from_numpy(store.masks([row])[0].astype(np.float32)).expand(count, 1, -1, -1)
    matrices = draw_transforms(count, study.flip_probability, study.rotation_degrees, torch.Generator().manual_seed(0))
    images, masks = transform(image, mask, matrices)
    panels = [(store.images[row], store.masks([row])[0], "as it is")]
    panels += [
        (i[0].numpy(), m[0].numpy() > 0.5, f"epoch {k}") for k, (i, m) in enumerate(zip(images, masks, strict=True), 1)
    ]
    figure = Figure(figsize=(WIDTH, WIDTH / 5 * 2 + 0.6), layout="constrained")
    axes = figure.subplots(2, -(-len(panels) // 2), squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (picture, lesion, title) in zip(axes, panels, strict=False):
        show(ax, picture)
        outline(ax, lesion)
        ax.set_title(title, fontsize=7)
    return described(figure, f"A training slice as it is and in {count} augmented forms, the lesion outlined on each.")


def scans_in_words(source: PairedFolder | Phantom, scans: Sequence[Scan]) -> str:
    """The summary of notebook 01."""
    bleeding = sum((scan.labels == SAH).any() for scan in scans)
    sah = np.concatenate([scan.image[scan.labels == SAH].ravel() for scan in scans])
    text = f"The source {source.name} has {len(source)} scans; {bleeding} of the {len(scans)} shown contain SAH."
    if len(sah):
        low, middle, high = np.percentile(sah, [5, 50, 95])
        text += (
            f" Their SAH voxels have a median of {middle:.0f} {scans[0].unit}, 90 % lie from {low:.0f} to {high:.0f}."
        )
    return text


def store_in_words(store: SliceStore, split: Split) -> str:
    """The summary of notebook 02."""
    table = split.summary(store)
    sides = "; ".join(
        f"{side} {int(row['slices'])} slices of {int(row['patients'])} patients, {row['share positive']:.0%} with SAH"
        for side, row in table.iterrows()
    )
    return (
        f"{len(store)} slices of {store.meta['size']}x{store.meta['size']} pixels in {store.path.name}, "
        f"{store.images.nbytes + store.labels.nbytes:,} bytes: {sides}."
    )


def _grey(scan: Scan, level: float, width: float) -> np.ndarray:
    return scan.image if scan.unit == "grey" else window_to_grey(scan.image, level, width)
