"""What the pictures of notebooks 01 to 04 show, in sentences whose every number is taken from the data.

A function takes what a cell has at hand and returns Markdown for the cell to show below its picture. `score_findings`
and `evidence_findings` do the same for the notebooks that follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from sahlib.chapters import publish
from sahlib.data.slices import SliceStore
from sahlib.data.sources import CLASSES, SAH, Scan
from sahlib.data.splits import SIDES, Split
from sahlib.paper.rules import MIN_PATIENTS, MIN_SEEDS
from sahlib.scoring.statistics import FEW_PATIENTS
from sahlib.study import MODELS
from sahlib.training import curves
from sahlib.training.runs import Run

OVERFITTED = 0.1  # of its drop above its lowest: the limit of the claim "no significant overfitting" in rules
Runs = dict[str, list[Run]]


def shown(*sentences: str, items: Iterable[str] = ()) -> str:
    """The sentences that are not empty, under one heading, then the items as a list; a lone item needs no list."""
    sentences, items = [sentence for sentence in sentences if sentence], list(items)
    if len(items) == 1 and not sentences:
        sentences, items = items, []
    text = " ".join(["**What it shows.**", *sentences])
    return "\n".join([text, "", *(f"- {item}" for item in items)]) if items else text


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def counted(number: int, thing: str) -> str:
    """ "1 slice", "2 slices"."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def percent(share: float, digits: int = 0) -> str:
    """ "5 %", not to be broken before the sign."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def span(values: Sequence[float], form: str = ".3f", unit: str = "") -> str:
    """ "0.71", or "0.68 to 0.74" where the values differ."""
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return (low if low == high else f"{low} to {high}") + unit


def scans(found: Sequence[Scan]) -> str:
    """Which hemorrhages the scans show, and how much SAH."""
    per_class = {name: sum((s.labels == k).any() for s in found) for k, name in enumerate(CLASSES[1:], 1)}
    bleeding = sum((s.labels > 0).any() for s in found)
    kinds = [f"{name} in {number}" for name, number in per_class.items() if number]
    first = f"Of {counted(len(found), 'scan')}, {bleeding} show blood" + (f": {listed(kinds)}." if kinds else ".")
    volumes = [(s.labels == SAH).sum() * np.prod([*s.spacing_mm, s.thickness_mm]) / 1000 for s in found]
    volumes = [v for v in volumes if v > 0]  # NaN, where a spacing is not known, is left out too
    return shown(first, f"Where there is SAH, it measures {span(volumes, '.1f', ' mL')}." if volumes else "")


def threshold(found: Sequence[Scan]) -> str:
    """How many of the voxels with the values of SAH are SAH."""
    values = np.concatenate([s.image[s.labels == SAH].ravel() for s in found])
    if not len(values):
        return shown("No scan here shows SAH, so nothing can be said of its values.")
    low, high = np.percentile(values, [5, 95])
    everywhere = sum(((s.image >= low) & (s.image <= high)).sum() for s in found)
    sah = ((values >= low) & (values <= high)).sum()
    return shown(
        f"Nine in ten voxels of SAH have values from {low:.0f} to {high:.0f} {found[0].unit}. Of all voxels with such "
        f"values in these scans, {percent(sah / everywhere, 1)} are SAH: what tells it from the rest is where it lies."
        if sah / everywhere < 0.5
        else f"Nine in ten voxels of SAH have values from {low:.0f} to {high:.0f} {found[0].unit}, and of all voxels "
        f"with such values {percent(sah / everywhere)} are SAH: in these scans a threshold goes a long way."
    )


def slices(store: SliceStore) -> str:
    """How rare lesions are, among slices and among pixels."""
    area = store.lesion_pixels.to_numpy() / store.images[0].size
    what = lesion(store)
    if not area.any():
        return shown(f"None of the {counted(len(store), 'slice')} shows {what}.")
    return shown(
        f"{percent(np.mean(area > 0))} of the {counted(len(store), 'slice')} show {what}, and there it covers a median "
        f"of {percent(np.median(area[area > 0]), 1)} of the picture. Of all pixels {percent(np.mean(area), 2)} are "
        f"{what}: calling every pixel background is right for {percent(1 - np.mean(area), 2)} of them, and finds none."
    )


def split(store: SliceStore, sides: Split) -> str:
    """How alike the sides are, and how much the test side can tell."""
    table = sides.summary(store)
    share = listed([f"{percent(row['share positive'])} ({side})" for side, row in table.iterrows()])
    bleeding, patients = (int(table.loc["test", column]) for column in ("patients with SAH", "patients"))
    warning = ""
    if bleeding < MIN_PATIENTS:
        warning = "So few cannot tell two networks apart: no paired test over them can reach 5 %."
    elif bleeding < FEW_PATIENTS:
        warning = "Intervals over so few patients cover less than they say."
    return shown(
        f"{share} of the slices show {lesion(store)}. On the test side {bleeding} of {counted(patients, 'patient')} "
        f"{'has' if bleeding == 1 else 'have'} it.",
        warning,
    )


def areas(store: SliceStore, sides: Split) -> str:
    """How large lesions are on each side."""
    area = store.lesion_pixels.to_numpy() / store.images[0].size
    own = {side: area[sides.rows(store, side)] for side in SIDES}
    medians = listed([f"{percent(np.median(a[a > 0]), 2)} ({side})" for side, a in own.items()])
    test = own["test"][own["test"] > 0]
    return shown(
        f"Where there is {lesion(store)}, it covers a median of {medians} of the picture; on the test side from "
        f"{percent(test.min(), 2)} to {percent(test.max(), 2)}."
    )


def training(runs: Runs) -> str:
    """How each network's training went: the epoch kept, its Dice, and how the validation loss ended."""
    if not runs:
        return shown("This study trains none of the networks of this notebook.")
    return shown(items=[f"{MODELS[model]}: {_course([run.history for run in own])}" for model, own in runs.items()])


def trained(runs: Runs) -> str:
    """Each training in a line."""
    return "\n".join(f"- {line}" for line in publish.training_in_words(runs).splitlines())


def pace(runs: Runs) -> str:
    """Which network settles first, and what an epoch costs."""
    settled = {
        model: [curves.numbers(run.history)["settled_epoch"] for run in own if _measurable(run.history)]
        for model, own in runs.items()
    }
    settled = {model: epochs for model, epochs in settled.items() if epochs}
    if not settled:
        return shown("A single epoch is no curve: nothing can be said of how fast a network learns.")
    epochs = listed([f"{span(own, '.0f')} ({MODELS[model]})" for model, own in settled.items()])
    return shown(
        f"{percent(1 - curves.NEAR)} of the fall of the validation loss was done by epoch {epochs}.",
        _cost(runs),
        _slower(settled),
    )


def lesion(store: SliceStore) -> str:
    """What counts as lesion, in a word."""
    return "hemorrhage" if store.lesion == "any" else store.lesion


def _measurable(history: pd.DataFrame) -> bool:
    losses = history[["train_loss", "validation_loss"]].to_numpy(float)
    return len(history) > 1 and bool(np.isfinite(losses).all())


def _course(histories: list[pd.DataFrame]) -> str:
    """The trainings of one network, one per seed."""
    best = pd.concat([history[history["best"]] for history in histories])
    seeds = f" over {len(histories)} seeds" if len(histories) > 1 else ""
    text = (
        f"best validation Dice {span(best['validation_dice'])}{seeds}, in epoch {span(best['epoch'], '.0f')} of "
        f"{max(len(history) for history in histories)}"
    )
    measured = [history for history in histories if _measurable(history)]
    if measured:
        gain, rise = (max(curves.numbers(history)[name] for history in measured) for name in ("late_gain", "late_rise"))
        if gain > curves.NEAR:
            text += f"; in the last fifth of the epochs the validation loss still fell by {percent(gain)} of its drop"
        elif not np.isfinite(rise):
            text += "; the training loss did not fall"
        elif rise > OVERFITTED:
            text += f"; the validation loss ended above its lowest, by {percent(rise)} of its drop"
        else:
            text += "; the validation loss had settled"
    collapsed = sum(history["validation_dice"].max() == 0 for history in histories)
    if collapsed:
        where = "" if collapsed == len(histories) else f" in {collapsed} of {len(histories)} seeds"
        text += f". **Collapsed{where}**: it never found a lesion pixel on the validation side"
    return text + "."


def _cost(runs: Runs) -> str:
    """What an epoch took; empty where networks were trained on different machines."""
    devices = {run.record["provenance"]["device"] for own in runs.values() for run in own}
    if len(devices) > 1:
        return ""
    seconds = {m: np.median(np.concatenate([run.history["seconds"] for run in own])) for m, own in runs.items()}
    return f"An epoch took {listed([f'{value:.1f} s ({MODELS[m]})' for m, value in seconds.items()])}."


def _slower(settled: dict[str, list[float]]) -> str:
    """Whether attention learned more slowly, as far as the seeds can tell."""
    unet = next((model for model in ("unet_resnet34", "unet") if model in settled), None)
    if unet is None or "attention_unet" not in settled:
        return ""
    ours, theirs = settled["attention_unet"], settled[unet]
    if min(len(ours), len(theirs)) < MIN_SEEDS:
        return f"With fewer than {MIN_SEEDS} seeds that is chance as much as anything, and no statement on attention."
    if min(ours) > max(theirs):
        return f"In every seed {MODELS['attention_unet']} took more epochs than {MODELS[unet]} in any."
    if max(ours) < min(theirs):
        return f"In every seed {MODELS['attention_unet']} took fewer epochs than {MODELS[unet]} in any."
    return "The seeds of the two overlap, so neither is the slower one."
