"""Notebook 09 and ./run_all.sh judge: every figure and table of masks from elsewhere, and what is better, in words.

judging.py measures them; here is also what the study's own masks look like from outside, to be judged where nobody gave
any.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from sahlib.chapters import diagnostics, evaluation, published, verdict
from sahlib.chapters.judging import MAJORITY, Masks
from sahlib.chapters.results import Results
from sahlib.data import mask_folders
from sahlib.data.mask_cases import MaskFolders
from sahlib.figures import drawing, ledger_page, tables
from sahlib.paper import ledger, printed
from sahlib.paper.rules import LEVEL, MARGIN, MIN_PATIENTS
from sahlib.scoring import baselines, intervals, measured, metrics, power
from sahlib.study import StudyError, name_of
from sahlib.workspace import absolute, writing

READING = {"images", "patients", "patient_pattern", "slices_are_patients", "label_map"}
SHOWN_PATIENTS = 16  # of the study, where nobody gave masks: enough to see how it is done


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
    """The ledger of a paper's claims, if it has any, held against the masks; and what its printed numbers prove alone,
    as figures."""
    evidence = ledger.Evidence(masks.counts, {}, "", "", "", masks.batch_size, paper=masks.paper)
    table = ledger.ledger(evidence)
    if len(table):
        ledger_page.write(table.drop(columns="where"), masks.folder, evidence)
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
    if found.estimate < 0:  # what is said is always the better one's lead
        pair, names = pair[::-1], names[::-1]
        found = intervals.difference(masks.counts[pair[0]], masks.counts[pair[1]], "dice", "sah_slices")
    measured_as = (
        f"{names[1]} minus {names[0]}, Dice over slices with a lesion: {intervals.in_words(found, signed=True)}, "
        f"p = {row['p, permutation']} ({row['p, Holm']} after Holm)"
    )
    # What another convention tells is said where this one tells nothing, or the contrary.
    told = row["Told apart"] == "yes"
    own = differences[(differences["Difference"] == row["Difference"]) & (differences["Told apart"] == "yes")]
    estimates = "Estimate (95 % interval)"
    contrary = own[own[estimates].str[0] != row[estimates][0]] if told else own
    apart = [f"{one['Score']}, {one['Convention']}, {one[estimates]}" for _, one in contrary.iterrows()]
    else_told = f" But told apart, {row['Difference']}: {'; '.join(apart)}." if apart else ""
    if told:
        return f"{names[1]} is better than {names[0]}. {measured_as}.{else_told}"
    needed = power.needed(found, LEVEL / len(differences), MARGIN, LEVEL)
    more = ledger.would_take(needed, found.patients, 1, MIN_PATIENTS)
    return (
        f"{names[0]} and {names[1]} are not told apart on slices with a lesion. {measured_as}; to tell it, with Holm's "
        f"correction for {len(differences)} differences, would take {more}, of those with a lesion.{else_told}"
    )


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
    """The folders that somebody named, paired; None where no truth was named.

    reading: further arguments of mask_folders.pair; StudyError for one that it does not take, and a single label map
    """
    if not truth:
        return None
    if strange := sorted(set(reading) - READING):
        raise StudyError(f"reading has an unknown entry {strange[0]!r}; known are {', '.join(sorted(READING))}.")
    if isinstance(reading.get("label_map", ()), str | dict):
        raise StudyError('label_map must be a list, as in {"label_map": ["1=SAH", "2=IVH"]}.')
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
