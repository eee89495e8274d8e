"""A trained network on one's own scans: masks in the scans' geometry, volumes, and a page to look at.

    ./run_all.sh apply head.nii.gz series_folder/ --run runs/phantom/unet/seed0-0123456789ab --to out

Masks are the study's own: predicted at the size the network was trained at, and enlarged without smoothing. A scan that
cannot be read is named and the others go on.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from sahlib.data import one_scan, slices
from sahlib.data.check.examine import Contact
from sahlib.data.grey_window import estimated
from sahlib.data.scan import CLASSES
from sahlib.figures.drawing import save_text
from sahlib.report.check_page import outlined_png
from sahlib.report.rendering import ENVIRONMENT
from sahlib.scoring import intervals, prediction
from sahlib.study import MODELS, WINDOWS, Study, StudyError
from sahlib.training import runs
from sahlib.training.runs import Run
from sahlib.workspace import Workspace, absolute, writing

SHOWN = 12  # slices of a scan on the page, those with the largest masks
PAGE, TABLE = "apply.html", "volumes.csv"


@dataclass(frozen=True)
class Applied:
    """What a network found in one scan.

    amounts  lesion -> mL, or pixels where a spacing is unknown
    slices   how many slices the masks show each lesion in, by lesion
    """

    name: str
    mask: Path
    unit: str
    amounts: dict[str, float]
    slices: dict[str, int]
    pictures: tuple[Contact, ...]


def write(
    scans: Sequence[Path],
    run: Run,
    folder: Path,
    reading: dict,
    progress: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> str:
    """Masks, volumes.csv and apply.html in `folder`, which is new, empty or of an earlier call; returns what to print.

    StudyError where it is another folder, whose files are not touched, and where no scan could be read.

    reading   of a Study's grey_window and orientation, how pictures are to be read
    progress  wraps the iteration over scans, for example tqdm
    """
    study = study_of(run, **reading)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PAGE).exists():
        raise StudyError(f"{folder} is not empty, and nothing in it is overwritten; name a new folder with --to.")
    network, facts, done, failed, remarks = prediction.load_network(run), facts_of(run), [], [], []
    save_text(folder / PAGE, "Not finished: run the same command again.\n")
    for path in progress(scans):
        try:
            opened = one_scan.read(path, study.orientation)
            if any(opened.name == earlier.name for earlier in done):
                raise StudyError(f"{path} has the name of an earlier scan; rename it or give it another --to.")
            done.append(apply(opened, run, network, study, folder))
            remarks += [opened.remark] if opened.remark else []
        except StudyError as error:
            failed.append(str(error))
    if not done:
        raise StudyError("No scan could be read:\n- " + "\n- ".join(failed))
    rows = [
        {"scan": a.name, "lesion": lesion, "amount": round(amount, 3), "unit": a.unit, "slices": a.slices[lesion]}
        | {"mask": a.mask.relative_to(folder)}
        for a in done
        for lesion, amount in a.amounts.items()
    ]
    with writing(folder / TABLE) as part:
        pd.DataFrame(rows).to_csv(part, index=False)
    pictures = [[b64encode(outlined_png(contact)).decode() for contact in a.pictures] for a in done]
    page = ENVIRONMENT.get_template("apply.html.j2").render(
        applied=list(zip(done, pictures, strict=True)), failed=failed, remarks=remarks, facts=facts, rows=rows
    )
    save_text(folder / PAGE, page)
    lines = [
        f"{row['scan']}: {row['lesion']} {row['amount']:.2f} {row['unit']} in {row['slices']} slices" for row in rows
    ]
    return "\n".join(
        [*facts, *lines, *remarks, *failed, f"For research alone, not for clinical use. The page: {folder / PAGE}"]
    )


def apply(opened: one_scan.Opened, run: Run, network, study: Study, folder: Path) -> Applied:
    """One scan's mask, written, and what it shows."""
    scan = opened.scan
    window = study.grey_window_values
    if study.grey_window == "auto" and scan.unit == "grey":
        window = estimated([scan])
    images, _ = slices.preprocess(scan, study.size, study.window_values, window)
    labels = enlarged(labelled(prediction.predict(network, np.stack(images, 1), study)), scan.image.shape[1:])
    lesions = [lesion if lesion in CLASSES else "hemorrhage" for lesion in run.lesions]
    mask = opened.save(labels, lesions, folder)
    voxel = np.prod([*scan.spacing_mm]) * scan.thicknesses_mm / 1000
    unit = "pixels" if np.isnan(voxel).any() else "mL"
    pixels = {lesion: (labels == k).sum(axis=(1, 2)) for k, lesion in enumerate(lesions, 1)}
    amounts = {lesion: float((own * (1 if unit == "pixels" else voxel)).sum()) for lesion, own in pixels.items()}
    area = (labels > 0).sum(axis=(1, 2))
    largest = sorted(np.argsort(-area, kind="stable")[: min(SHOWN, (area > 0).sum())])
    grey = scan.image if scan.unit == "grey" else slices.window_to_grey(scan.image, *WINDOWS["brain"])
    # In the classes' own numbers, whose colours the outlines have; hemorrhage of any type has that of the first.
    numbers = np.array([0, *(CLASSES.index(lesion) if lesion in CLASSES else 1 for lesion in lesions)], np.uint8)
    pictures = tuple(Contact(opened.name, scan.slice_ids[z], grey[z], numbers[labels[z]]) for z in largest)
    shown = {lesion: int((own > 0).sum()) for lesion, own in pixels.items()}
    return Applied(opened.name, mask, unit, amounts, shown, pictures)


def labelled(probabilities: np.ndarray) -> np.ndarray:
    """Labels uint8 [D,H,W] of probabilities [D,K,H,W]: the number, from 1 on, of the likeliest lesion above the
    threshold; 0 where none is.
    """
    return np.where((probabilities > prediction.THRESHOLD).any(1), probabilities.argmax(1) + 1, 0).astype(np.uint8)


def enlarged(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels [D,H,W] at another height and width, by nearest neighbour as masks are made small."""
    size = shape[::-1]
    return np.stack([cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT) for label in labels])


def study_of(run: Run, **reading: str) -> Study:
    """The Study a run was trained in, with how pictures are to be read."""
    if unknown := sorted(reading.keys() - {"grey_window", "orientation"}):
        raise StudyError(f"--set {unknown[0]} was settled when the network was trained; leave it out.")
    fields = run.record["study"] | {"dataset": "nifti", "data_dir": "."}  # of no matter here; pictures may be turned
    own = {name: getattr(Study, name) for name in ("grey_window", "orientation")}
    try:
        return Study(**fields | own | reading)
    except TypeError as error:
        raise StudyError(f"{run.path} was trained by another version ({error}); train it again.") from error


def best_run(workspace: Workspace) -> Run:
    """The finished run with the best validation Dice; StudyError where there is none."""
    found = [run for path in sorted(workspace.runs.glob("*/*/seed*/run.json")) if (run := runs.find(path.parent))]
    if not found:
        raise StudyError(
            f"{workspace.runs} holds no finished training; run ./run_all.sh first, or name one with --run."
        )
    return max(found, key=lambda run: run.history["validation_dice"].max())


def named_run(folder: Path) -> Run:
    """The run in a folder; StudyError where there is none."""
    if (run := runs.find(absolute(folder))) is None:
        raise StudyError(f"{folder} holds no finished training; give a folder with run.json and weights.safetensors.")
    return run


def facts_of(run: Run) -> list[str]:
    """What the network is, what it was trained on and how it scored there and elsewhere, a sentence each."""
    study = run.record["study"]
    best = run.history["validation_dice"].max()
    lines = [
        f"{MODELS[run.model]}, seed {run.seed}, trained on {study['dataset']} (profile {study['profile']}) to find "
        f"{', '.join(run.lesions)}; validation Dice {best:.3f}. Run {run.path}."
    ]
    places = {"on its test patients": run.path} | {
        f"on slices {path.name.removeprefix('external-')[:6]} from elsewhere": path
        for path in sorted(run.path.glob("external-*"))
    }
    for where, path in places.items():
        scored = Run(path, run.record)
        if scored.file("counts", run.lesions[0], "csv").exists():
            counts = scored.counts
            dice = intervals.in_words(intervals.interval([counts], "dice", "sah_slices"))
            lines.append(
                f"{where.capitalize()} ({counts['patient_id'].nunique()} patients, {len(counts)} slices) its Dice over "
                f"slices with a lesion was {dice}."
            )
    return lines
