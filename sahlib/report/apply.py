"""A trained network on one's own scans: masks in the scans' geometry, volumes, and a page to look at.

    ./run_all.sh apply head.nii.gz series_folder/ --run runs/phantom/unet/seed0-0123456789ab --to out

Masks are the study's own: predicted at the size the network was trained at, and enlarged without smoothing. A scan that
cannot be read is named and the others go on.
"""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from sahlib.data import one_scan, slices
from sahlib.data.check.examine import THUMB, Contact, resized
from sahlib.data.grey_window import estimated
from sahlib.data.scan import CLASSES
from sahlib.figures.drawing import CLASS_COLOURS, save_text
from sahlib.figures.tables import counted
from sahlib.report.check_page import outlined
from sahlib.report.rendering import ENVIRONMENT
from sahlib.scoring import intervals, prediction
from sahlib.study import WINDOWS, Study, StudyError, name_of
from sahlib.training import runs
from sahlib.training.runs import Run
from sahlib.workspace import Workspace, absolute, writing

SHOWN = 12  # slices of a scan on the page, those with the largest masks
MOST_BYTES = 9000  # of each as JPEG, so that a scan's take less than 150 kB of the page
COMPARED = ("store", "split", "target")  # what trainings share whose validation Dice can be compared
PAGE, TABLE = "apply.html", "volumes.csv"


@dataclass(frozen=True)
class Applied:
    """What a network found in one scan.

    amounts  lesion -> mL, or pixels where a spacing is unknown
    slices   how many slices the masks show each lesion in, by lesion
    pictures slice -> JPEG in base64
    """

    name: str
    mask: Path
    unit: str
    amounts: dict[str, float]
    slices: dict[str, int]
    pictures: dict[str, str]


def write(
    scans: Sequence[Path],
    run: Run,
    folder: Path,
    reading: dict,
    progress: Callable[[Iterable[Path]], Iterable[Path]] = iter,
    why: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """Masks, volumes.csv and apply.html in `folder`, which is new, empty or of an earlier call.

    Returns what to print, and a sentence for each scan that failed. StudyError where it is another folder, whose files
    are not touched, and where every scan failed. When interrupted, the page shows what is done before it raises.

    reading   of a Study's grey_window and orientation, how pictures are to be read
    progress  wraps the iteration over scans, for example tqdm
    why       what is to be said of the choice of the run
    """
    study = study_of(run, **reading)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PAGE).exists():
        raise StudyError(f"{folder} is not empty, and nothing in it is overwritten; name a new folder with --to.")
    network, facts, done, failed, remarks = prediction.load_network(run), [*facts_of(run), *why], [], [], []
    stopped = ""
    save_text(folder / PAGE, "Not finished: run the same command again.\n")
    try:
        for path in progress(scans):
            try:
                opened = one_scan.read(path, study.orientation)
                if any(opened.name == earlier.name for earlier in done):
                    raise StudyError(f"{path} has the name of an earlier scan; rename it or give it another --to.")
                done.append(apply(opened, run, network, study, folder))
                remarks += [opened.remark] if opened.remark else []
            except StudyError as error:
                failed.append(str(error))
    except KeyboardInterrupt:
        stopped = f"{len(done)} of {counted(len(scans), 'scan')} done and kept; the same command does all again."
        facts.insert(0, f"Interrupted: {stopped}")
    if not done and not stopped:
        raise StudyError("No scan could be segmented:\n- " + "\n- ".join(failed))
    rows = [
        {"scan": a.name, "lesion": lesion, "amount": round(amount, 3), "unit": a.unit, "slices": a.slices[lesion]}
        | {"mask": a.mask.relative_to(folder)}
        for a in done
        for lesion, amount in a.amounts.items()
    ]
    with writing(folder / TABLE) as part:
        pd.DataFrame(rows).to_csv(part, index=False)
    for row in rows:  # after the table is written, which has numbers alone
        row["shown"] = counted(round(row["amount"]), "pixel") if row["unit"] == "pixels" else f"{row['amount']:.2f} mL"
    colours = {lesion: CLASS_COLOURS[lesion] for lesion in run.lesions if lesion in CLASS_COLOURS}
    page = ENVIRONMENT.get_template("apply.html.j2").render(
        applied=done, failed=failed, remarks=remarks, facts=facts, rows=rows, colours=colours
    )
    save_text(folder / PAGE, page)
    if stopped:
        raise KeyboardInterrupt(stopped)
    lines = [f"{row['scan']}: {row['lesion']} {row['shown']} in {counted(row['slices'], 'slice')}" for row in rows]
    end = f"For research alone, not for clinical use. The page: {folder / PAGE}"
    return "\n".join([*facts, *lines, *remarks, *failed, end]), failed


def apply(opened: one_scan.Opened, run: Run, network, study: Study, folder: Path) -> Applied:
    """One scan's mask, written, and what it shows."""
    scan = opened.scan
    window = study.grey_window_values
    if study.grey_window == "auto" and scan.unit == "grey":
        window = estimated([scan], str(scan.sources[0]))
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
    contacts = [Contact(opened.name, scan.slice_ids[z], grey[z], numbers[labels[z]]) for z in largest]
    pictures = {contact.slice_id: picture(contact) for contact in contacts}
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


def picture(contact: Contact) -> str:
    """A contact as JPEG in base64, as good as MOST_BYTES allow."""
    drawn = outlined(resized(contact, THUMB))
    # Every pixel keeps its own colour, or thin outlines would pale.
    fine = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_QUALITY]
    for quality in range(90, 0, -10):
        content = cv2.imencode(".jpg", drawn, [*fine, quality])[1]
        if len(content) <= MOST_BYTES:
            break
    return b64encode(content).decode()


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


def best_run(workspace: Workspace) -> tuple[Run, list[str]]:
    """(The finished run with the best validation Dice, why it was taken and what was left out, a sentence each).

    Dice is compared among trainings on the same slices, split and target alone: of such groups the newest counts.
    Where some of them have augmentation "travels", those alone: they score lower at home, and higher on scans from
    elsewhere (docs/phantom.md), as the ones to be marked are. StudyError where there is no run.
    """
    groups, damaged = defaultdict(list), []
    for path in sorted(workspace.runs.glob("*/*/seed*/run.json")):
        try:
            run = named_run(path.parent)
            groups[tuple(run.record["recipe"][name] for name in COMPARED)].append(run)
        except StudyError as error:
            damaged.append(f"Left out: {error}")
    if not groups:
        none = f"{workspace.runs} holds no finished training; run ./run_all.sh first, or name one with --run."
        raise StudyError("\n- ".join([none, *damaged]))
    newest = max(groups.values(), key=lambda own: max(run.record["provenance"]["time"] for run in own))
    travelled = [run for run in newest if run.record["recipe"].get("augmentation") == "travels"]
    asked = travelled or newest
    best = max(asked, key=lambda run: np.nan_to_num(run.history["validation_dice"].max()))
    why = f"Taken for the best validation Dice on its slices and target, of {counted(len(asked), 'training')}"
    why += f' with augmentation "travels" ({len(newest)} in all)' * bool(travelled)
    if others := sum(map(len, groups.values())) - len(newest):
        why += f"; {counted(others, 'older one')} on other slices or targets cannot be compared (--run names one)"
    return best, [f"{why}.", *damaged]


def named_run(folder: Path) -> Run:
    """The run in a folder; StudyError where there is none, or a file that tells of it is damaged."""
    try:
        if (run := runs.find(absolute(folder))) is None:
            raise StudyError(f"{folder} holds no finished training; give one with run.json and weights.safetensors.")
        facts_of(run), study_of(run), run.record["provenance"]["time"]
        [run.record["recipe"][name] for name in (*COMPARED, "channels")]
    except StudyError:
        raise
    except Exception as error:  # of files that are damaged, which may raise almost anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StudyError(f"{folder} holds a damaged training ({why}); delete it and train it again.") from error
    return run


def facts_of(run: Run) -> list[str]:
    """What the network is, what it was trained on and how it scored there and elsewhere, a sentence each."""
    study = run.record["study"]
    best = run.history["validation_dice"].max()
    lines = [
        f"{name_of(run.model)}, seed {run.seed}, trained on {study['dataset']} (profile {study['profile']}) to find "
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
            size = f"{counted(counts['patient_id'].nunique(), 'patient')}, {counted(len(counts), 'slice')}"
            lines.append(f"{where.capitalize()} ({size}) its Dice over slices with a lesion was {dice}.")
    return lines if lines[1:] else [*lines, "It was tested nowhere yet, so nothing is known of how well it does."]
