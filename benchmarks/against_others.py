"""The same folders of masks, judged here and by other programs: a table metric by metric, as Markdown.

    pip install nnunetv2 seg-metrics surface-distance
    python benchmarks/against_others.py

The folders are made up: 14 scans of 12 slices with a truth and a prediction each; two show nothing in either, one has a
false alarm alone, one is missed. What a program that is not installed says is left out. Where two numbers differ, the
convention that explains it stands beside them; where it can be, the other number is computed here too, by that one.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from sahlib.chapters import judging
from sahlib.data import mask_folders
from sahlib.scoring import distances, metrics

SCANS, SLICES = 14, 12
AFFINE = np.diag([-0.5, -0.5, 5.0, 1.0])
SIDES = (0.5, 0.5, 5.0)


def masks() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> truth and prediction, bool [x,y,z] each."""
    rng, found = np.random.default_rng(0), {}
    x, y, z = np.mgrid[:96, :96, :SLICES]
    for number in range(SCANS):
        centre, radius = rng.uniform(30, 60, 2), rng.uniform(4, 14)
        truth = ((x - centre[0]) ** 2 + 2 * (y - centre[1]) ** 2 < radius**2) & (abs(z - 5) < 4)
        off = ndimage.shift(truth.astype(float), (*rng.uniform(-4, 4, 2), 0), order=0) > 0.5
        predicted = off | (((x - 80) ** 2 + (y - 20) ** 2 < 9) & (z == 2) & (number % 3 == 0))
        truth, predicted = truth & (number not in (2, 7, 11)), predicted & (number not in (2, 4, 7))
        found[f"S{number:02d}"] = truth, predicted
    return found


def mean(score: Callable, cases: list, empty: float) -> float:
    """A score of each case, and `empty` where neither mask has a voxel."""
    values = [score(t, p) if (t | p).any() else empty for t, p in cases]
    return float(np.nanmean(values))


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    return 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())


def iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    return (truth & predicted).sum() / (truth | predicted).sum()


def rows() -> list[dict]:
    made = masks()
    cases = list(made.values())
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for what in (0, 1):
            folder = root / ("truth", "net")[what]
            folder.mkdir()
            for name, pair in made.items():
                nib.save(nib.Nifti1Image(pair[what].astype(np.uint8), AFFINE), folder / f"{name}.nii.gz")
        judged = judging.judge(
            mask_folders.pair({"truth": root / "truth"}, {"net": root / "net"}), ("SAH",), root / "judged"
        )
        counts, surface = judged.counts["net"][0], judged.measured["net"].surface
        here = {
            (metric, name): metrics.score(counts, metric, name)
            for metric in metrics.METRICS
            for name in metrics.CONVENTIONS
        }
        return [
            *of_nnunet(root, cases, here),
            *of_seg_metrics(root, cases, here),
            *of_monai(cases, here, surface),
            *of_surface_distance(cases, surface),
        ]


def row(
    program: str, what: str, theirs: float, ours: float, convention: str, why: str = "", by_it: float = np.nan
) -> dict:
    """A line of the table; `by_it` is their number, computed here by the convention that `why` tells.

    Ends the program where that does not explain theirs.
    """
    explained = ours if not why else by_it
    if not np.isclose(theirs, explained, rtol=0, atol=1e-6):
        raise SystemExit(f"{program}, {what}: {theirs} is not explained by {explained}")
    return {
        "Program": program,
        "Score": what,
        "Theirs": theirs,
        "Here": ours,
        "Convention here": convention,
        "Why they differ": why,
    }


def version(name: str) -> str:
    return f"{name} {importlib.metadata.version(name)}"


def of_nnunet(root: Path, cases: list, here: dict) -> list[dict]:
    try:
        from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    except ImportError:
        return []
    found = compute_metrics_on_folder(
        str(root / "truth"), str(root / "net"), None, SimpleITKIO(), ".nii.gz", [1], num_processes=1
    )["foreground_mean"]
    label = metrics.CONVENTIONS["per_patient"].label
    return [
        row(version("nnunetv2"), name, found[name], here[metric, "per_patient"], label)
        for name, metric in (("Dice", "dice"), ("IoU", "iou"))
    ]


def of_seg_metrics(root: Path, cases: list, here: dict) -> list[dict]:
    try:
        from seg_metrics import seg_metrics
    except ImportError:
        return []
    asked = ["dice", "jaccard", "precision", "recall"]
    found = pd.DataFrame(
        seg_metrics.write_metrics([1], gdth_path=str(root / "truth"), pred_path=str(root / "net"), metrics=asked)
    )
    label = metrics.CONVENTIONS["per_patient"].label
    why = "a scan empty in both counts as 1, here it is left out"
    zero = why + "; where one of the masks is empty it is 0, here 0/0 and left out"
    scores = {
        "dice": ("dice", why, dice),
        "jaccard": ("iou", why, iou),
        "precision": ("precision", zero, lambda t, p: (t & p).sum() / p.sum() if p.any() else 0.0),
        "recall": ("recall", zero, lambda t, p: (t & p).sum() / t.sum() if t.any() else 0.0),
    }
    return [
        row(
            version("seg-metrics"),
            name,
            float(np.mean([np.ravel(value)[0] for value in found[name]])),
            here[metric, "per_patient"],
            label,
            why,
            mean(score, cases, 1.0),
        )
        for name, (metric, why, score) in scores.items()
    ]


def of_monai(cases: list, here: dict, surface: pd.DataFrame) -> list[dict]:
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, MeanIoU, SurfaceDiceMetric

    stacks = [
        torch.from_numpy(np.concatenate([np.moveaxis(pair[k], 2, 0) for pair in cases])[:, None]).float()
        for k in (1, 0)
    ]
    found = []
    for name, kind, metric in (("DiceMetric", DiceMetric, "dice"), ("MeanIoU", MeanIoU, "iou")):
        for ignore, convention in ((True, "sah_slices"), (False, "mean_empty_1")):
            score = kind(ignore_empty=ignore)
            score(*stacks)
            what = f"{name}(ignore_empty={ignore}), slices"
            found.append(
                row(
                    version("monai"),
                    what,
                    float(score.aggregate()),
                    here[metric, convention],
                    metrics.CONVENTIONS[convention].label,
                )
            )
    hd95 = HausdorffDistanceMetric(percentile=95)
    hd95(*stacks, spacing=list(SIDES[:2]))
    theirs = hd95.get_buffer().numpy().ravel()
    both = surface["case"] == "scored"
    own = pd.DataFrame({"theirs": theirs, "ours": surface["hd95_mm"]})[both.to_numpy()]
    found.append({
        "Program": version("monai"), "Score": "HausdorffDistanceMetric(percentile=95), slices with both masks, mm",
        "Theirs": own["theirs"].mean(), "Here": own["ours"].mean(), "Convention here": "HD95, slices",
        "Why they differ": "distances between pixels at the edge, weighted alike; here between outlines, by length",
    })  # fmt: skip
    dropped = np.isfinite(theirs) & (surface["case"] != "empty").to_numpy()
    found.append({
        "Program": version("monai"), "Score": "the same, all slices, its mean",
        "Theirs": theirs[dropped].mean(), "Here": distances.mean_with_lesion(surface)["hd95_mm"],
        "Convention here": "HD95, slices with a lesion",
        "Why they differ": "a missed lesion is infinite or NaN and dropped; here it is the diagonal of the slice",
    })  # fmt: skip
    nsd = SurfaceDiceMetric(class_thresholds=[1.0], use_subvoxels=True)
    nsd(*stacks, spacing=list(SIDES[:2]))
    theirs = nsd.get_buffer().numpy().ravel()[both.to_numpy()].mean()
    found.append(
        row(
            version("monai"),
            "SurfaceDiceMetric(use_subvoxels=True) at 1 mm, slices with both masks",
            theirs,
            surface["nsd_1mm"][both].mean(),
            "NSD at 1 mm, slices",
        )
    )
    return found


def of_surface_distance(cases: list, surface: pd.DataFrame) -> list[dict]:
    try:
        from surface_distance import metrics as sd
    except ImportError:
        return []
    slices = [(t[..., z], p[..., z]) for t, p in cases for z in range(SLICES)]
    both = (surface["case"] == "scored").to_numpy()
    found = [sd.compute_surface_distances(t, p, SIDES[:2]) for (t, p), own in zip(slices, both, strict=True) if own]
    asked = {
        "surface Dice at 1 mm": (lambda one: sd.compute_surface_dice_at_tolerance(one, 1.0), "nsd_1mm", "NSD at 1 mm"),
        "robust Hausdorff 95 %": (lambda one: sd.compute_robust_hausdorff(one, 95), "hd95_mm", "HD95"),
    }
    return [
        row(
            version("surface-distance"),
            f"{what}, slices with both masks",
            float(np.mean([score(one) for one in found])),
            surface[column][both].mean(),
            f"{here}, slices",
        )
        for what, (score, column, here) in asked.items()
    ]


if __name__ == "__main__":
    from sahlib.figures import tables

    table = pd.DataFrame(rows())
    for column in ("Theirs", "Here"):
        table[column] = [f"{value:.6f}" for value in table[column]]
    print(tables.markdown(table, "The same masks, judged here and by other programs."))
