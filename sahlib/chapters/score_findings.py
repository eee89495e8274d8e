"""What the tables and figures of scores show (notebooks 05, 06 and 08), in sentences taken from the counts.

As in `findings`, each function returns Markdown. What several seeds scored is averaged, and a network that calls every
pixel background is called collapsed by its label.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from sahlib.chapters.findings import counted, lesion, listed, percent, shown, span
from sahlib.chapters.results import Results
from sahlib.chapters.verdict import CONTROL
from sahlib.data import samples
from sahlib.figures import tables
from sahlib.paper import transcript
from sahlib.scoring import baselines, metrics, statistics
from sahlib.study import MODELS


def detections(results: Results) -> str:
    """In how many slices with a lesion each network marks some of it, and in how many others it marks something."""
    with_lesion = _lesion_slices(results)
    items = []
    for model, own in results.counts.items():
        found = np.mean([(c.tp > 0)[with_lesion].mean() for c in own])
        parts = [
            f"some of the lesion in {percent(found)} of the {counted(int(with_lesion.sum()), 'slice')} that show one"
        ]
        if not with_lesion.all():
            alarms = np.mean([(c.fp > 0)[~with_lesion].mean() for c in own])
            parts.append(
                f"something in {percent(alarms)} of the {counted(int((~with_lesion).sum()), 'slice')} that do not"
            )
        items.append(f"{tables.label(model, own)} marks {' and '.join(parts)}.")
    return shown(_means_over_seeds(results), items=items)


def examples(results: Results, names: Iterable[str] = MODELS) -> str:
    """What the three sample slices stand for: how the Dice of those of `names` that were tested spreads over all."""
    rows = samples.three_test_slices(results.store, results.split)
    area = results.store.lesion_pixels.to_numpy()[rows]
    with_lesion = _lesion_slices(results)
    items = []
    for model in [name for name in names if name in results.counts]:
        own = results.counts[model]
        dice = np.concatenate([metrics.dice(c[with_lesion]) for c in own])
        low, middle, high = np.percentile(dice, [25, 50, 75])
        items.append(
            f"{tables.label(model, own)}: Dice with median {middle:.3f}, the middle half from {low:.3f} to {high:.3f}, "
            f"{percent(np.mean(dice == 0))} missed altogether (Dice 0)."
        )
    pixels = f"{listed([f'{a:,}' for a in area])} pixels"
    what = (
        f"slice shown, with a lesion of {pixels}, is an example"
        if len(rows) == 1
        else (f"slices shown, with lesions of {pixels}, are examples")
    )
    return shown(
        f"The {what}. Over all {int(with_lesion.sum())} test slices with {lesion(results.store)}:", items=items
    )


def averages(results: Results) -> str:
    """What the averaging of Table 3 makes of the networks."""
    trivial = _dice(results.trivial[baselines.BACKGROUND], "mean_empty_1")
    whole = {model: _dice(own, "mean_empty_1") for model, own in results.counts.items()}
    only = {model: _dice(own, "sah_slices") for model, own in results.counts.items()}
    threshold = _dice(results.trivial[baselines.THRESHOLD], "sah_slices")
    above = sum(value > trivial for value in whole.values())
    moved = [abs(whole[model] - only[model]) for model in whole]
    apart = max(np.ptp(list(whole.values())), np.ptp(list(only.values())))
    return shown(
        f"With empty against empty counted as 1, {_of(above, len(whole))} a higher Dice than calling every pixel "
        f"background, which gets {trivial:.3f}. Over slices with {lesion(results.store)} alone that predictor gets 0, "
        f"the threshold {threshold:.3f} and the networks {span(list(only.values()))}.",
        f"From one convention to the other the networks move by {span(moved)}; under one and the same they are at most "
        f"{apart:.3f} apart.",
    )


def classes(results: Results) -> str:
    """Which classes the networks find, and which of them best and worst."""
    lesions = next(iter(results.runs.values()))[0].lesions
    if len(lesions) == 1:
        return shown(f"These networks were trained to find one class alone: {lesion(results.store)}.")
    items = []
    for model, own in results.runs.items():
        pooled = {name: _dice_of_class([run.counts_of(name) for run in own]) for name in lesions}
        pooled = {name: value for name, value in pooled.items() if not np.isnan(value)}
        order = sorted(pooled, key=pooled.get)
        if order:
            best, worst = order[-1], order[0]
            items.append(
                f"{tables.label(model, results.counts[model])}: pooled Dice from {pooled[worst]:.3f} ({worst}) to "
                f"{pooled[best]:.3f} ({best})."
            )
    return shown(f"The networks look for {listed(lesions)}, each by an output of its own.", items=items)


def typical(results: Results) -> str:
    """How much of Figure 2 is lesion."""
    row = samples.typical_training_slice(results.store, results.split)
    mask = results.store.masks([row])[0]
    return shown(
        f"The lesion covers {percent(mask.mean(), 1)} of this picture: {mask.sum():,} of {mask.size:,} pixels."
    )


def sizes(results: Results) -> str:
    """How large the lesions of the test set are (Figure 8)."""
    area = results.store.lesion_pixels.to_numpy()[results.test_rows]
    area, pixels = area[area > 0], results.store.images[0].size
    return shown(
        f"The lesions of the test set cover {area.max():,} pixels at most ({percent(area.max() / pixels, 1)} of the "
        f"slice) and {area.min():,} at least; half of them {np.median(area):,.0f} or fewer."
    )


def architectures(results: Results) -> str:
    """How much larger than the U-Net the other networks are."""
    weights = {model: own[0].record["parameters"] for model, own in results.runs.items()}
    others = [
        f"{MODELS[model]} {number / weights['unet']:.2f} times as many"
        for model, number in weights.items()
        if model != "unet"
    ]
    gates = ""
    if CONTROL in weights and "attention_unet" in weights:
        share = 1 - weights[CONTROL] / weights["attention_unet"]
        gates = f"Of the weights of {MODELS['attention_unet']} its gates hold {percent(share, 1)}."
    return shown(f"{MODELS['unet']} has {weights['unet']:,} weights; {listed(others)}.", gates)


def bars(results: Results) -> str:
    """Figure 9: ours against the printed, and what finding nothing earns."""
    table = pd.read_csv(results.folder / "figure_9_scores.csv")
    known = table.dropna(subset="value")
    trivial = known[known["model"] == baselines.BACKGROUND]
    earned = listed([f"{m} {v:.3f}" for m, v in zip(trivial["metric"], trivial["value"], strict=True)])
    compared = []
    for printed, counterparts in transcript.COUNTERPARTS.items():
        theirs = known[known["printed"] & (known["model"] == printed)].set_index("metric")["value"]
        for model in [name for name in counterparts if name in results.counts]:
            ours = known[~known["printed"] & (known["model"] == model)].set_index("metric")["value"]
            both = theirs.index.intersection(ours.index)
            lower = int((ours[both] < theirs[both]).sum())
            compared.append(f"{tables.label(model, results.counts[model])} in {lower} of {len(both)}")
    return shown(
        f"Calling every pixel background earns {earned}: a bar counts by what it adds to that. Ours is lower than the "
        f"printed score for {listed(compared)}, on other slices, so that neither is evidence for or against the other."
    )


def elsewhere(home: Results, abroad: Results) -> str:
    """Whether the scores elsewhere are other than those at home, as far as home can tell."""
    inside = 0
    for model, own in abroad.counts.items():
        at_home = statistics.interval(home.counts[model], "dice", "sah_slices")
        inside += at_home.low <= _dice(own, "sah_slices") <= at_home.high
    who = f"{counted(at_home.patients, 'patient')} with {lesion(home.store)}"
    if np.isnan(at_home.low):
        return shown(f"At home there is {who}: too little for an interval to compare with.")
    return shown(
        f"For {inside} of {len(abroad.counts)} networks the Dice elsewhere lies inside the interval measured at home, "
        f"which rests on {who}.",
        "With so few that proves little." if at_home.few_patients else "",
    )


def _lesion_slices(results: Results) -> np.ndarray:
    first = next(iter(results.counts.values()))[0]
    return ((first.tp + first.fn) > 0).to_numpy()


def _dice(counts: pd.DataFrame | list[pd.DataFrame], convention: str) -> float:
    own = [counts] if isinstance(counts, pd.DataFrame) else counts
    return float(np.mean([metrics.score(c, "dice", convention) for c in own]))


def _dice_of_class(counts: list[pd.DataFrame]) -> float:
    """Pooled; NaN for a class that no test slice shows."""
    return _dice(counts, "pooled") if (counts[0]["lesion_pixels"] > 0).any() else float("nan")


def _of(number: int, total: int) -> str:
    return f"{number or 'none'} of {total} networks {'get' if number > 1 else 'gets'}"


def _means_over_seeds(results: Results) -> str:
    return f"Means over {len(results.study.seeds)} seeds." if len(results.study.seeds) > 1 else ""
