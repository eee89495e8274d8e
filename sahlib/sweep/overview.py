"""A sweep at a glance: one table and figure over all runs of a workspace, finished or not.

`write` can be called at any time, while the runs go on. Runs that differ in nothing but seed and fold are one row:
the patients of a seed's folds are pooled, each tested once, scores are means over seeds, and intervals over patients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sahlib.figures import drawing, tables
from sahlib.figures.overview_plot import decimals, dice_in_words, forest, rates
from sahlib.scoring import intervals, metrics
from sahlib.scoring.baselines import BACKGROUND
from sahlib.study import MODELS, OWN, RECIPES, StudyError
from sahlib.sweep.run_states import FAILED, INTERRUPTED, TESTED, TRAINED, TRAINING, Seen, gather
from sahlib.workspace import Workspace

STEM = "overview"
# How a run that is not tested is told in a row, the worst first.
UNTESTED = {state: state for state in (FAILED, INTERRUPTED, TRAINING)} | {TRAINED: "not tested"}
COLUMNS = (
    *("dataset", "recipe", "network", "model", "learning_rate", "runs", "finished", "states", "seeds", "seeds_tested"),
    *("folds", "folds_tested", "patients", "patients_with_lesion", "dice", "low", "high", "seed_scores"),
    *("dice_empty_1", "background_empty_1", "collapsed"),
)
# By which settings groups of one dataset and recipe are told apart, as far as these suffice.
TELLING = (
    *("profile", "target", "size", "windows", "phantom_patients", "phantom_test_patients", "folds", "split_seed"),
    *("epochs", "batch_size", "channels", "raters", "label_map", "phantom_seed", "flip_probability"),
    *("rotation_degrees", "precision", "augmentation", "prior_bias"),
)
# How a recipe is told that is none of RECIPES; what a run was a part of is not written into it.
NAMES = RECIPES | {OWN: "a rate of the study's own, or one that a search chose"}
CAUTIONS = (
    ("dataset", "phantom", "The phantom's scans are synthetic: no clinical evidence."),
    ("profile", "smoke", "The smoke profile only shows that the code runs; its numbers mean nothing."),
    ("slices_are_patients", True, "Where patients are not known, slices of one may be on both sides of the split."),
)


@dataclass(frozen=True)
class _Row:
    """Runs that differ in nothing but seed and fold.

    seeds     the counts of each seed of which every fold is tested, pooled over folds
    left_out  why another seed with a tested run has no part in the scores
    """

    runs: list[Seen]
    seeds: dict[int, pd.DataFrame]
    left_out: dict[int, str]

    @property
    def first(self) -> Seen:
        return self.runs[0]


def _rows(seen: Iterable[Seen]) -> list[_Row]:
    by_row: dict[str, list[Seen]] = {}
    for one in seen:
        if one.record:
            by_row.setdefault(one.row, []).append(one)
    return [_row(own) for own in by_row.values()]


def _row(own: list[Seen]) -> _Row:
    row = _Row(own, {}, {})
    for seed in sorted({one.seed for one in own if one.state == TESTED}):
        tested = [one for one in own if one.state == TESTED and one.seed == seed]
        tested.sort(key=lambda one: one.setting("fold"))
        pooled = pd.concat([one.counts for one in tested], ignore_index=True)
        if why := _unfit(tested, pooled, next(iter(row.seeds.values()), pooled)):
            row.left_out[seed] = why
        else:
            row.seeds[seed] = pooled
    return row


def _unfit(tested: list[Seen], pooled: pd.DataFrame, first: pd.DataFrame) -> str:
    """Why the tested runs of a seed do not give scores beside those of the first seed; empty where they do."""
    folds = max(tested[0].setting("folds"), 1)
    if missing := sorted(set(range(folds)) - {one.setting("fold") for one in tested}):
        return f"{folds - len(missing)} of {folds} folds are tested, and not {', '.join(map(str, missing))}"
    if len(tested) > 1 and sum(one.counts["patient_id"].nunique() for one in tested) > pooled["patient_id"].nunique():
        return "its runs test some patients more than once"
    same = len(pooled) == len(first) and pooled[["slice_id", "patient_id"]].equals(first[["slice_id", "patient_id"]])
    return "" if same and (pooled.tp + pooled.fn).equals(first.tp + first.fn) else "it was tested on other slices"


def table(seen: list[Seen]) -> pd.DataFrame:
    """One row per dataset, network and recipe: how far its runs are, and the scores of those tested.

    returns: dataset, recipe (with the settings that tell groups of one recipe apart), network, model, learning_rate;
        runs (seen), finished, states ("1 training, 1 failed" of those that are not tested, else empty); seeds and folds
        (seen; folds is 0 for a single split), seeds_tested (those with every fold tested), folds_tested (of the seed
        with most); patients (tested), patients_with_lesion, dice (over slices with lesion, mean over seeds), low, high
        (95 % interval over patients), seed_scores; dice_empty_1 and background_empty_1 (over all slices, empty against
        empty 1; of the networks, and of "background everywhere"); collapsed (runs)
        Scores are NaN and patients 0 where no seed is tested. Rows to be compared stand together.
    """
    names = _recipe_names(rows := _rows(seen))
    measured = [_measured(row, names[row.first.group]) for row in sorted(rows, key=_place)]
    return pd.DataFrame(measured, columns=list(COLUMNS))


def _place(row: _Row) -> tuple:
    """Sorts rows by dataset, recipe, group, network and learning rate."""
    first = row.first
    recipe, network = list(NAMES).index(first.recipe), [*MODELS, first.model].index(first.model)
    return first.dataset, recipe, first.setting("size"), first.group, network, first.model, _rate(first)


def _rate(one: Seen) -> float:
    return float(one.setting("learning_rate"))


def _measured(row: _Row, recipe: str) -> dict:
    """One row of `table`."""
    first, folds = row.first, row.first.setting("folds")
    states = [one.state for one in row.runs]
    tested = [one.seed for one in row.runs if one.state == TESTED]
    record = {
        **{name: getattr(first, name) for name in ("dataset", "network", "model")},
        "recipe": recipe,
        "learning_rate": _rate(first),
        "runs": len(states),
        "finished": states.count(TRAINED) + states.count(TESTED),
        "states": ", ".join(f"{states.count(s)} {word}" for s, word in UNTESTED.items() if s in states),
        "seeds": len({one.seed for one in row.runs}),
        "seeds_tested": len(row.seeds),
        "folds": folds,
        "folds_tested": max(map(tested.count, tested), default=0) if folds else 0,
        "patients": 0,
        "patients_with_lesion": 0,
        "seed_scores": (),
        "collapsed": sum(one.is_collapsed for one in row.runs),
    }
    if not row.seeds:
        return record
    counts = list(row.seeds.values())
    found = intervals.interval(counts, "dice", "sah_slices")
    trivial = metrics.background_everywhere(counts[0])
    return record | {
        "dice": found.estimate,
        **{name: getattr(found, name) for name in ("low", "high", "seed_scores")},
        "patients": counts[0]["patient_id"].nunique(),
        "patients_with_lesion": found.patients,
        "dice_empty_1": float(np.mean([metrics.score(own, "dice", "mean_empty_1") for own in counts])),
        "background_empty_1": metrics.score(trivial, "dice", "mean_empty_1"),
    }


def _recipe_names(rows: list[_Row]) -> dict[str, str]:
    """Group -> its recipe, and what tells it from other groups of the same dataset and recipe."""
    kinds: dict[tuple[str, str], dict[str, Seen]] = {}
    for row in rows:
        kinds.setdefault((row.first.dataset, row.first.recipe), {}).setdefault(row.first.group, row.first)
    names = {}
    for (_, recipe), groups in kinds.items():
        told = dict.fromkeys(groups, recipe)
        for setting in (*TELLING, "group"):
            further = {group: f"{told[group]}, {_shown(setting, one)}" for group, one in groups.items()}
            if len(set(further.values())) > len(set(told.values())):
                told = further
        names |= told
    return names


def _shown(setting: str, one: Seen) -> str:
    if setting == "group":  # the last resort
        return f"group {one.group[:6]}"
    value = one.setting(setting)
    if setting == "folds":
        return f"{value} folds" if value else "single split"
    return f"{setting.replace('_', ' ')} {'/'.join(map(str, value)) if isinstance(value, list) else value}"


def displayed(rows: pd.DataFrame) -> pd.DataFrame:
    """`table` as text for people; what is not there yet is blank."""
    cells = [
        {
            "Dataset": row.dataset,
            "Network": row.network,
            "Recipe": row.recipe + rate,
            "Runs": f"{row.finished} of {row.runs}" + f" ({row.states})" * bool(row.states),
            "Seeds": f"{row.seeds_tested} of {row.seeds}",
            "Folds": f"{row.folds_tested} of {row.folds}" if row.folds else "",
            "Patients": f"{row.patients} ({row.patients_with_lesion} with lesion)" if row.patients else "",
            "Dice, slices with lesion": dice_in_words(row),
            "Range over seeds": _range(row.seed_scores),
            "Dice, 0/0 = 1": decimals(row, row.dice_empty_1),
            f"{BACKGROUND}, 0/0 = 1": decimals(row, row.background_empty_1),
            "Collapsed": f"{row.collapsed}" if row.collapsed else "",
        }
        for row, rate in zip(rows.itertuples(), rates(rows), strict=True)
    ]
    return pd.DataFrame(cells)


def _range(scores: tuple[float, ...]) -> str:
    return f"{min(scores):.3f} to {max(scores):.3f}" if len(scores) > 1 and not np.isnan(scores).any() else ""


def named(seen: list[Seen]) -> list[str]:
    """What is not as it should be, or not yet: a sentence on each collapsed, left-out, failed or unfinished run."""
    rows = _rows(seen)
    recipe = _recipe_names(rows)
    sentences = [f"Collapsed: {one.name}. It calls every pixel background." for one in seen if one.is_collapsed]
    for row in rows:
        arm = f"{row.first.network}, {recipe[row.first.group]}"
        sentences += [f"Left out of the scores: {arm}, seed {seed}: {why}." for seed, why in row.left_out.items()]
    for state in (FAILED, INTERRUPTED, TRAINING):
        sentences += [f"{state.capitalize()}: {one.name}. {one.remark}" for one in seen if one.state == state]
    # A search for a learning rate leaves such trainings for good, and many alike.
    untested = dict.fromkeys(f"{one.network}, {one.recipe} at {_rate(one):g}" for one in seen if one.state == TRAINED)
    if untested:
        told = "Trained, and not tested yet or only trained to choose a learning rate: "
        sentences.append(f"{told}{'; '.join(untested)}.")
    return sentences


def write(workspace: Workspace) -> Path:
    """overview.* in the workspace's folder of runs; returns the Markdown's path. StudyError where there are no runs.

    overview.csv holds the numbers of `table` without rounding.
    """
    seen = gather(workspace.runs)
    if not seen:
        raise StudyError(f"There are no runs in {workspace.runs}; train first, or name the --output of the sweep.")
    rows = table(seen)
    caption = (
        "All runs of the workspace. Dice over slices with lesion, mean over seeds, with 95 % intervals over patients; "
        "the patients of several folds are pooled, each tested once."
    )
    tables.write(displayed(rows), workspace.runs, STEM, caption, _notes(seen, rows))
    drawn = f"{caption} Small dots are the seeds; grey text marks rows of which runs are still to come, or have failed."
    scores = rows["seed_scores"].map(lambda scores: " ".join(map(str, scores)))
    drawing.save(forest(rows), workspace.runs, STEM, rows.assign(seed_scores=scores), drawn)
    return workspace.runs / f"{STEM}.md"


def _notes(seen: list[Seen], rows: pd.DataFrame) -> list[str]:
    notes = named(seen) or ["Every run is trained and tested, and none has collapsed."]
    used = {one.recipe for one in seen if one.record}
    notes.append("Recipes: " + "; ".join(f"{name}, {NAMES[name]}" for name in NAMES if name in used) + ".")
    few = rows.loc[rows["patients"] > 0, "patients_with_lesion"].min()
    if few < intervals.FEW_PATIENTS:
        notes.append(
            f"Intervals over fewer than {intervals.FEW_PATIENTS} patients with a lesion ({few} at the fewest) cover "
            "less than they say."
        )
    notes += [text for name, value, text in CAUTIONS if any(one.record and one.setting(name) == value for one in seen)]
    return notes
