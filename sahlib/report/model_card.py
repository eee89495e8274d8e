"""Model cards: for each trained network a page on what it is, what for, from which data, its scores and its limits.

Sections as in Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993), and the files at the end.
Its sentences stand in templates/model_card.md.j2; what they tell is computed here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np
import pandas as pd

from sahlib.chapters import evaluation, train_unet, verdict
from sahlib.chapters.results import Results
from sahlib.data import catalogue
from sahlib.figures import drawing, tables
from sahlib.paper.rules import MIN_PATIENTS
from sahlib.report.rendering import ENVIRONMENT, millimetres
from sahlib.scoring import baselines, intervals, metrics
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import AUGMENTATIONS, name_of
from sahlib.training.runs import plain

TOO_FEW = "too few to tell"
SIDES = "Slices and patients on each side of the split."


def write(results: Results) -> dict[str, str]:
    """Writes model_card_<model>.md for each network into the results' folder; returns the Markdown by network."""
    cards = {model: card(only(results, model)) for model in results.runs}
    for model, text in cards.items():
        drawing.save_text(results.folder / f"model_card_{plain(model)}.md", text)
    return cards


def only(results: Results, model: str) -> Results:
    """The Results of one network."""
    own = {name: {model: getattr(results, name)[model]} for name in ("runs", "counts")}
    searches = {name: table for name, table in results.searches.items() if name == model}
    return dataclasses.replace(results, **own, searches=searches)


def card(results: Results) -> str:
    """The card of Results that hold one network, as Markdown."""
    ((model, runs),) = results.runs.items()
    study, store, split = results.study, results.store, results.split
    train = store.slices.iloc[split.rows(store, "train")]
    sides = split.summary(store).drop(columns="share positive").astype(int).astype(str)
    text = ENVIRONMENT.get_template("model_card.md.j2").render(
        results=results,
        study=study,
        name=name_of(model),
        title=tables.label(model, results.counts[model]),
        runs=runs,
        threshold=THRESHOLD,
        augmentations=AUGMENTATIONS,
        source=None if study.dataset == "phantom" else catalogue.find(study.dataset),
        own=catalogue.OWN,
        spacing=millimetres(train["row_mm"], 2),
        thickness=millimetres(train["thickness_mm"], 2),
        sides=tables.markdown(sides.rename_axis("Side").reset_index(), SIDES),
        trained=train_unet.in_words(results.runs),
        scores=scores(results),
        subgroups=subgroups_in_words(results),
        elsewhere=elsewhere(results),
        limits=[*results.notes, *verdict.seed_notes(results)],
        weights=[(run, hashlib.sha256(run.weights.read_bytes()).hexdigest()) for run in runs],
    )
    return f"{text}\n"


def scores(results: Results) -> str:
    """The scores of verdict.REPORTED with intervals, those of the predictors that know nothing beside them."""
    seeds = len(results.study.seeds)
    caption = f"Scores with 95 % intervals over patients{f', means over {seeds} seeds' * (seeds > 1)}."
    note = (
        f"'{metrics.CONVENTIONS['mean_empty_1'].label}' flatters: a slice without lesion counts as 1 where nothing is "
        f"predicted, so '{baselines.BACKGROUND}' scores high by it."
    )
    return tables.markdown(verdict.with_intervals(results), caption, [note])


def subgroups(results: Results) -> pd.DataFrame:
    """One row per subgroup of the test set: lesion size, slice thickness where it varies, class where there are
    several, and slices with and without lesion.

    returns: columns Subgroup, Score, Slices, Patients, the value with its interval, and Remark: TOO_FEW below
    rules.MIN_PATIENTS
    """
    (counts,) = results.counts.values()
    first, rows = counts[0], []
    lesion = first["lesion_pixels"] > 0
    for name, inside in _with_lesion(results, first).items():
        found = intervals.interval([own[inside] for own in counts], "dice", "sah_slices")
        rows.append((name, "Dice", inside.sum(), found.patients, intervals.in_words(found)))
    if len(results.lesions) > 1:
        own = evaluation.class_scores(results)
        values = own["Dice, slices with it (95 % interval)"]
        rows += zip("class " + own["Class"], ["Dice"] * len(own), own["Slices"], own["Patients"], values, strict=True)
    # A slice is called positive where any pixel is predicted (detection.py); of several seeds, the mean.
    called = np.mean([(own.tp + own.fp) > 0 for own in counts], axis=0)
    for name, score, inside in (
        ("slices with a lesion", "share in which anything is predicted", lesion),
        ("slices without lesion", "share with a false alarm", ~lesion),
    ):
        if inside.any():
            found = intervals.mean_interval(called[inside], first.loc[inside, "patient_id"])
            rows.append((name, score, inside.sum(), found.patients, intervals.in_words(found)))
    table = pd.DataFrame(rows, columns=["Subgroup", "Score", "Slices", "Patients", "Value (95 % interval)"])
    return table.assign(Remark=np.where(table["Patients"] < MIN_PATIENTS, TOO_FEW, "")).astype(str)


def subgroups_in_words(results: Results) -> str:
    """The table of subgroups, and the range over patients."""
    (counts,) = results.counts.values()
    bleeding = counts[0].loc[counts[0]["lesion_pixels"] > 0, "patient_id"].unique()
    own = [metrics.unit_scores(c[c["patient_id"].isin(bleeding)], "dice", "per_patient") for c in counts]
    patients = np.mean(own, axis=0)
    notes = [
        f"'{TOO_FEW.capitalize()}': fewer than {MIN_PATIENTS} patients, with whom no paired test can reach 5 %.",
        f"Dice of single patients with a lesion, all their pixels pooled: lowest {patients.min():.3f}, median "
        f"{np.median(patients):.3f}, highest {patients.max():.3f}; {len(patients)} patients"
        f"{f', {TOO_FEW}' * (len(patients) < MIN_PATIENTS)}.",
        "Age, sex, scanner and hospital are not stored with the slices, so nothing can be said by them.",
    ]
    caption = f"Dice is the {metrics.CONVENTIONS['sah_slices'].label}; intervals are over patients."
    return tables.markdown(subgroups(results), caption, notes)


def elsewhere(results: Results) -> list[str]:
    """What notebook 08 wrote down of this very network on other scans, from the folders external-*."""
    ((model, runs),) = results.runs.items()
    line = re.compile(rf"- ({re.escape(name_of(model))}(?: \(collapsed.*?\))?: .*)")
    found = []
    for summary in sorted(results.folder.glob("external-*/summary.md")):
        origin, *lines = summary.read_text(encoding="utf-8").splitlines()
        if all(any(run.path.glob(f"{summary.parent.name}*/counts.csv")) for run in runs):
            found += [f"{origin} {match[1]}" for match in map(line.fullmatch, lines) if match]
    return found


def _with_lesion(results: Results, counts: pd.DataFrame) -> dict[str, pd.Series]:
    """Test slices with a lesion, bool [k], by thirds of its area and, where it varies, by thickness in whole mm."""
    area = counts["lesion_pixels"]
    thirds = intervals.size_terciles(counts)
    groups = {}
    for third in intervals.TERCILES:
        own = area[thirds == third]
        groups[f"{third} lesions, {own.min()} to {own.max()} pixels"] = thirds == third
    thickness = results.store.slices["thickness_mm"].iloc[results.test_rows].round().set_axis(counts.index)
    if thickness.nunique(dropna=False) > 1:
        for mm in sorted(thickness.dropna().unique()):
            groups[f"lesions, slices about {mm:.0f} mm thick"] = (area > 0) & (thickness == mm)
        groups["lesions, slices of unknown thickness"] = (area > 0) & thickness.isna()
    return {name: inside for name, inside in groups.items() if inside.any()}
