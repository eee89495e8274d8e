"""Notebook 09: masks that were made elsewhere, judged as the study's own are.

    found = judge(mask_folders.pair({"truth": truth}, {"nnU-Net": folder}), ("SAH",), Path("judged"))

Cases are read and measured one at a time, several beside each other, and of each only tables of its slices are kept.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from sahlib.chapters import diagnostics, evaluation, published, verdict
from sahlib.chapters.judged import Judged
from sahlib.chapters.results import Results
from sahlib.data import mask_folders
from sahlib.data.mask_cases import Case, MaskFolders, Read
from sahlib.data.scan import CLASSES
from sahlib.data.sources.files import in_order
from sahlib.figures import drawing, ledger_page, tables
from sahlib.figures.tables import counted
from sahlib.paper import ledger, printed
from sahlib.paper.claims import Paper
from sahlib.paper.rules import LEVEL, MARGIN, MIN_PATIENTS
from sahlib.scoring import baselines, intervals, measured, metrics, power
from sahlib.scoring.measured import Measured
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import StudyError, name_of
from sahlib.workspace import absolute, cores, writing

MAJORITY = "majority of the raters"
SHOWN_PATIENTS = 16  # of the study, where nobody gave masks: enough to see how it is done


@dataclass(frozen=True, kw_only=True)
class Masks(Judged):
    """Competitors, by the names they were given, against the truth or the majority of its raters.

    folders  where the masks lie; depths: slices of each of their cases
    classes  lesion -> competitor -> counts, where the masks show several
    raters   (who, against which rater) -> counts, of competitors and of raters, where there are several
    """

    counts: dict[str, list[pd.DataFrame]]
    trivial: dict[str, pd.DataFrame]
    measured: dict[str, Measured]
    soft: dict[str, list[pd.DataFrame]]
    sides: pd.DataFrame
    notes: list[str]
    folder: Path
    folders: MaskFolders
    depths: tuple[int, ...]
    classes: dict[str, dict[str, pd.DataFrame]]
    raters: dict[tuple[str, str], pd.DataFrame]
    paper: Paper | None = None
    batch_size: int = 16  # the paper's

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.counts, 2))


@dataclass(frozen=True)
class _Part:
    """The tables of one case; counts by (lesion, competitor), further counts by (who, against whom)."""

    counts: dict[tuple[str, str], pd.DataFrame]
    raters: dict[tuple[str, str], pd.DataFrame]
    measured: dict[str, Measured]
    shares: frozenset[str]
    sides: pd.DataFrame
    grey_levels: tuple[np.ndarray, np.ndarray] | None


def judge(
    folders: MaskFolders,
    lesions: Sequence[str],
    folder: Path,
    progress: Callable[[Iterable[Case]], Iterable[Case]] = iter,
    paper: Paper | None = None,
) -> Masks:
    """All cases of the folders, measured.

    lesions   of scan.CLASSES, or "any"; figures and tables are about the first
    progress  wraps the iteration over cases
    paper     whose printed numbers and claims the masks are held against

    Raises StudyError for what the folders refuse, a truth that shows no such lesion, and probabilities of several.
    """
    # Reading and counting leave Python's lock, so threads do.
    pool = ThreadPoolExecutor(cores())
    tasks = ((folders.read, folders.raters, case, tuple(lesions)) for case in folders.cases)
    parts = list(progress(_Sized(in_order(pool, _measured, tasks, cores()), len(folders.cases))))
    counts = {key: _joined(part.counts[key] for part in parts) for key in parts[0].counts}
    classes = {
        lesion: {name: counts[lesion, name] for name in parts[0].measured if (lesion, name) in counts}
        for lesion in lesions
    }
    own = {name: [table] for name, table in classes[lesions[0]].items()}
    first = next(iter(own.values()))[0]
    if not first["lesion_pixels"].any():
        raise StudyError(
            f"The truth shows no {lesions[0]} anywhere, so nothing can be scored; check --target and --label-map."
        )
    trivial = {baselines.BACKGROUND: metrics.background_everywhere(first)}
    if parts[0].grey_levels is not None:
        everywhere, lesion = (np.concatenate([part.grey_levels[k] for part in parts]) for k in (0, 1))
        trivial |= _threshold(first, everywhere, lesion)
    joined = {name: measured.joined([part.measured[name] for part in parts]) for name in parts[0].measured}
    shares = frozenset().union(*(part.shares for part in parts))
    return Masks(
        counts=own,
        trivial=trivial,
        measured=joined,
        soft={name: [joined[name].soft] for name in own if name in shares},
        sides=_joined(part.sides for part in parts),
        notes=_notes(folders, lesions, first, shares, trivial),
        folder=folder,
        folders=folders,
        depths=tuple(len(part.sides) for part in parts),
        classes=classes,
        paper=paper,
        raters={key: _joined(part.raters[key] for part in parts) for key in parts[0].raters},
    )


@dataclass(frozen=True)
class _Sized:
    """An iterator whose length is known, for a bar."""

    items: Iterable
    length: int

    def __iter__(self):
        return iter(self.items)

    def __len__(self) -> int:
        return self.length


def _measured(reader: Callable[[Case], Read], raters: Sequence[str], case: Case, lesions: Sequence[str]) -> _Part:
    read = reader(case)
    identity = pd.DataFrame({"slice_id": read.slice_ids, "patient_id": case.patient_id})
    sides = pd.DataFrame(np.broadcast_to(read.sides_mm, (len(read.slice_ids), 3)), columns=list(measured.SIDES))

    def counted_against(predicted: np.ndarray, reference: np.ndarray) -> pd.DataFrame:
        table = metrics.pixel_counts(_mask(predicted), reference)
        return pd.concat([identity, table, (table.tp + table.fn).rename("lesion_pixels")], axis=1)

    shown = {lesion: agreed(read, lesion) for lesion in lesions}
    predicted = {(lesion, name): shown_by(own, lesion) for lesion in lesions for name, own in read.masks.items()}
    shares = frozenset(name for name, own in read.masks.items() if own.dtype.kind == "f")
    if shares and len(lesions) > 1:
        raise StudyError(
            f"{case.masks[min(shares)]} holds probabilities, which are of one lesion; name it by --target."
        )
    first = shown[lesions[0]]
    series = {name: predicted[lesions[0], name] for name in read.masks}
    series[baselines.BACKGROUND] = np.zeros(first.shape, bool)
    seen = {rater: shown_by(own, lesions[0]) for rater, own in zip(raters, read.truths, strict=True)}
    several = seen if len(seen) > 1 else {}
    others = {name: own for name, own in series.items() if name in read.masks} | several
    return _Part(
        {key: counted_against(own, shown[key[0]]) for key, own in predicted.items()},
        {
            (who, rater): counted_against(own, seen[rater])
            for rater in several
            for who, own in others.items()
            if who != rater
        }
        | {(rater, MAJORITY): counted_against(own, first) for rater, own in several.items()},
        {name: measured.measure(own, first, sides, read.image) for name, own in series.items()},
        shares,
        sides,
        None if read.image is None else baselines.grey_levels(read.image, first),
    )


def agreed(read: Read, lesion: str) -> np.ndarray:
    """Where the truth of a case shows a lesion, bool [D,H,W]: of several raters, where most of them marked it."""
    return 2 * np.sum([shown_by(truth, lesion) for truth in read.truths], axis=0) > len(read.truths)


def shown_by(values: np.ndarray, lesion: str) -> np.ndarray:
    """Where class values show a lesion, of scan.CLASSES or "any", bool; probabilities as they are."""
    if values.dtype.kind == "f":
        return values
    return values > 0 if lesion == "any" else values == CLASSES.index(lesion)


def _mask(predicted: np.ndarray) -> np.ndarray:
    return predicted if predicted.dtype == bool else predicted > THRESHOLD


def _joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(tables), ignore_index=True)


def _threshold(first: pd.DataFrame, everywhere: np.ndarray, lesion: np.ndarray) -> dict[str, pd.DataFrame]:
    """The counts of the threshold predictor, of each patient with the band of all others; none where that cannot be."""
    try:
        found = baselines.cross_fitted(everywhere, lesion, first["patient_id"].to_numpy())
    except ValueError:  # the others of some patient show no lesion
        return {}
    return {baselines.THRESHOLD: first.assign(**{name: found[name] for name in metrics.COUNTS})}


def _notes(
    folders: MaskFolders, lesions: Sequence[str], first: pd.DataFrame, shares: frozenset[str], trivial: Iterable[str]
) -> list[str]:
    patients, bleeding = first["patient_id"].nunique(), int((first["lesion_pixels"] > 0).sum())
    notes = [
        f"Masks from elsewhere: {counted(len(first), 'slice')}, {bleeding} with {lesions[0]}, of "
        f"{counted(patients, 'patient')}, each on its own grid.",
    ]
    for name, lacking in folders.missing.items():
        more = f" and {len(lacking) - 2} more" if len(lacking) > 2 else ""
        notes.append(
            f"{name} has no mask of {counted(len(lacking), 'case')} ({', '.join(lacking[:2])}{more}): counted as if it "
            "had found nothing there."
        )
    if baselines.THRESHOLD in trivial:
        notes.append(f"'{baselines.THRESHOLD}' takes each patient's grey levels from all other patients.")
    if shares:
        notes.append(f"Probabilities, taken as lesion above {THRESHOLD}: {', '.join(sorted(shares))}.")
    if len(folders.raters) > 1:
        notes.append(
            f"The truth is what most of {len(folders.raters)} raters marked, a tie being background: "
            f"{', '.join(folders.raters)}."
        )
    if lesions[0] != "SAH":
        what = "hemorrhage of any type" if lesions[0] == "any" else lesions[0]
        notes.append(f"Where it says SAH, read {what}.")
    if patients == len(first) > 1:
        notes.append("Every slice is taken for a patient of its own: where it is none, intervals are too narrow.")
    if patients < 10:
        notes.append(f"Fewer than 10 patients ({patients}): the numbers mean little.")
    return notes


def write(masks: Masks) -> str:
    """Every figure and table of the masks, the counts behind them as counts_<competitor>.csv, and judged.md, which is
    returned: what is better, by how much and how sure, as Markdown."""
    for number, (lesion, own) in enumerate(masks.classes.items()):
        for name, counts in own.items():
            stem = f"counts_{file_name(name)}" + (f"_{lesion}" if number else "")
            drawing.save_text(masks.folder / f"{stem}.csv", counts.to_csv(index=False, lineterminator="\n"))
    verdict.conventions(masks)
    evaluation.table_3(masks)
    verdict.scores(masks)
    differences = verdict.contrasts(masks) if masks.pairs else None
    verdict.lesion_size(masks)
    diagnostics.clinical_scores(masks)
    diagnostics.bland_altman(masks)
    if masks.soft:
        diagnostics.reliability(masks)
    if len(masks.classes) > 1:
        classes(masks)
    if masks.raters:
        against_raters(masks)
    if masks.paper:
        claims(masks)
    return summary(masks, differences)


def against_raters(masks: Masks) -> pd.DataFrame:
    """Dice over slices with a lesion of every competitor and rater against every rater and the majority of them."""
    whom = [*dict.fromkeys(rater for _, rater in masks.raters if rater != MAJORITY), MAJORITY]
    pairs = masks.raters | {(name, MAJORITY): own[0] for name, own in masks.counts.items()}
    rows = []
    for who in dict.fromkeys(name for name, _ in pairs):
        row = {"Who": who}
        for rater in whom:
            counts = pairs.get((who, rater))
            row[f"against {rater}"] = "" if counts is None else _dice_in_words(counts)
        rows.append(row)
    caption = "Dice over slices with a lesion, against each rater and against what most of them marked."
    own = "A rater has a part in the majority, so that row flatters raters; between raters no one has."
    return published.table(masks, pd.DataFrame(rows), "table_raters", caption, own)


def claims(masks: Masks) -> pd.DataFrame:
    """The ledger of a paper's claims, held against the masks; and what its printed numbers prove alone, as figures."""
    evidence = ledger.Evidence(masks.counts, {}, "", "", "", masks.batch_size, paper=masks.paper)
    table = ledger.ledger(evidence)
    ledger_page.write(table, masks.folder, evidence)
    if both := printed.networks(masks.paper):
        verdict.printed_numbers(masks)
        if len(both) > 1 and masks.paper.slices:
            verdict.false_ranking(masks)
    return table


def classes(masks: Masks) -> pd.DataFrame:
    """A row per class and competitor: slices and patients with it, Dice over those slices with its interval."""
    rows = []
    for lesion, own in masks.classes.items():
        for name, counts in own.items():
            shown = counts[counts["lesion_pixels"] > 0]
            row = {"Class": lesion, "Predictor": name, "Slices": str(len(shown))}
            row |= {"Patients": str(shown["patient_id"].nunique())}
            row["Dice, slices with it (95 % interval)"] = _dice_in_words(counts) if len(shown) else "–"
            rows.append(row)
    return published.table(masks, pd.DataFrame(rows), "table_classes", "Scores of every class.")


def summary(masks: Masks, differences: pd.DataFrame | None) -> str:
    """judged.md: which competitor is better, by how much, how sure, and what it would take to tell; every number is
    from the counts.

    differences  of verdict.contrasts; None where there is one competitor
    """
    lines = [] if differences is None else [_better(masks, pair, differences) for pair in masks.pairs]
    trivial = metrics.score(masks.trivial[baselines.BACKGROUND], "dice", "mean_empty_1")
    for name, own in masks.counts.items():
        flattering = metrics.score(own[0], "dice", "mean_empty_1")
        lines.append(
            f"{tables.label(name, own)}: Dice {_dice_in_words(own[0])} over slices with a lesion; over all slices, and "
            f"with empty against empty counted as 1, {flattering:.3f}, where finding nothing earns {trivial:.3f}."
        )
    if masks.paper:
        lines += [f"Printed: {said}" for said in printed.in_words(masks.paper)]
    lines += [verdict.conventions_in_words(masks), *masks.notes, *verdict.seed_notes(masks)]
    text = "\n".join(f"- {line}" for line in lines) + "\n"
    drawing.save_text(masks.folder / "judged.md", text)
    return text


def _better(masks: Masks, pair: tuple[str, str], differences: pd.DataFrame) -> str:
    """Which of two is better in Dice over slices with a lesion, as the table of differences has it."""
    label = metrics.CONVENTIONS["sah_slices"].label
    names = [tables.label(name, masks.counts[name]) for name in pair]
    asked = (differences["Difference"] == f"{names[1]} minus {names[0]}") & (differences["Convention"] == label)
    row = differences[asked].iloc[0]
    found = intervals.difference(masks.counts[pair[0]], masks.counts[pair[1]], "dice", "sah_slices")
    measured_as = (
        f"{row['Difference']}, Dice over slices with a lesion: {row['Estimate (95 % interval)']}, "
        f"p = {row['p, permutation']} ({row['p, Holm']} after Holm)"
    )
    if row["Told apart"] == "yes":
        better, worse = (names[1], names[0]) if found.estimate > 0 else names
        return f"{better} is better than {worse}. {measured_as}."
    needed = power.needed(found, LEVEL / len(differences), MARGIN, LEVEL)
    more = ledger.would_take(needed, found.patients, 1, MIN_PATIENTS)
    return f"{names[0]} and {names[1]} are not told apart. {measured_as}; to tell it would take {more}."


def _dice_in_words(counts: pd.DataFrame) -> str:
    return intervals.in_words(intervals.interval(counts, "dice", "sah_slices"))


def file_name(name: str) -> str:
    """A competitor's name as part of a file's: letters, digits, hyphens and underscores."""
    return re.sub(r"[^\w-]+", "_", name).strip("_") or "masks"


def export(results: Results, folder: Path, patients: int | None = None) -> dict[str, Path]:
    """The test slices of Results, or of their first patients alone, as pictures in `folder`, for judging from outside:
    images/, truth/, the probabilities of each network's first run, and patients.csv, which knows the sides of a pixel.

    returns: network -> its folder
    """
    rows = results.test_rows
    whose = results.store.slices["patient_id"].to_numpy()[rows]
    kept = np.isin(whose, list(dict.fromkeys(whose))[:patients])
    rows = rows[kept]
    names = [name.replace("/", "_") for name in results.slice_ids(rows)]
    places = {model: folder / model for model in results.runs}
    write_pictures(folder / "images", names, results.store.images[rows])
    write_pictures(folder / "truth", names, results.store.masks(rows) * np.uint8(255))
    for model, place in places.items():
        emptied(place)
        for name, probabilities in zip(names, np.asarray(results.runs[model][0].probabilities)[kept], strict=True):
            np.save(place / f"{name}.npy", probabilities)
    known = results.store.slices.iloc[rows][["patient_id", *measured.SIDES]]
    with writing(folder / "patients.csv") as part:
        known.assign(file=names).to_csv(part, index=False)
    return places


def write_pictures(folder: Path, names: Sequence[str], pictures: np.ndarray) -> None:
    """Pictures uint8 [k,H,W] as PNG files, the only ones of their folder."""
    emptied(folder)
    for name, picture in zip(names, pictures, strict=True):
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def emptied(folder: Path) -> None:
    """A folder of masks that were written here, without those of an earlier study."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def given(truth: str, masks: dict[str, str], reading: dict) -> MaskFolders | None:
    """The folders that somebody named, paired; None where no truth was named."""
    if not truth:
        return None
    places = {name: absolute(place) for name, place in masks.items()}
    files = {name: absolute(reading[name]) for name in ("images", "patients") if reading.get(name)}
    return mask_folders.pair({"truth": absolute(truth)}, places, **(reading | files))


def of_the_study(results: Results, folder: Path) -> MaskFolders:
    """Masks to judge where nobody gave any: those of the study's first two networks on some of its test patients, and a
    truth that was eroded by a pixel, as pictures in `folder`."""
    places = {name_of(model): place for model, place in list(export(results, folder, SHOWN_PATIENTS).items())[:2]}
    truth = sorted((folder / "truth").glob("*.png"))
    smaller = [cv2.erode(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.ones((3, 3), np.uint8)) for path in truth]
    write_pictures(folder / "eroded", [path.stem for path in truth], np.stack(smaller))
    competitors = places | {"Eroded truth": folder / "eroded"}
    return mask_folders.pair({"truth": folder / "truth"}, competitors, folder / "images", folder / "patients.csv")
