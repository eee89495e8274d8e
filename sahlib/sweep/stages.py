"""The study's stages one by one, as `python -m sahlib store | train | predict | score` runs them.

Notebooks do the same work in turn; here each stage of each arm is a command of its own, which a cluster can schedule.
Whatever a stage needs and does not find, it makes; whatever is finished is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sahlib.chapters import results
from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.scoring import metrics, prediction
from sahlib.study import CHOOSING, OWN, Study, StudyError
from sahlib.training import loop, rate_search
from sahlib.training.runs import Run
from sahlib.workspace import Workspace, writing


@dataclass(frozen=True)
class Arm:
    """One network of a Study, under one recipe, from one seed."""

    study: Study
    model: str
    seed: int
    recipe: str = OWN

    def __post_init__(self):
        for name in ("model", "seed"):
            if getattr(self, name) not in (known := getattr(self.study, f"{name}s")):
                raise StudyError(
                    f"{name} {getattr(self, name)!r} is not among the Study's {name}s, {', '.join(map(str, known))}; "
                    f"name it in --{name}s too."
                )


def train(arm: Arm, workspace: Workspace) -> Run:
    """The finished training of an arm. A recipe of CHOOSING trains at each rate of the budget first, to choose one."""
    return _train(arm, workspace, *results.load_data(arm.study, workspace))


def _train(arm: Arm, workspace: Workspace, slices: SliceStore, split: Split) -> Run:
    study = arm.study
    if arm.recipe in CHOOSING:
        search = rate_search.search_learning_rate(slices, split, study, arm.model, workspace.runs)
        study = study.under(arm.recipe, rate_search.chosen_rate(search))
    elif arm.recipe != OWN:
        study = study.under(arm.recipe)
    return loop.train(slices, split, study, arm.model, arm.seed, workspace.runs)


def predict(arm: Arm, workspace: Workspace) -> Run:
    """The training with its probabilities and pixel counts of the test side."""
    slices, split = results.load_data(arm.study, workspace)
    run = _train(arm, workspace, slices, split)
    prediction.test(run, slices, split, arm.study)
    return run


def score(arm: Arm, workspace: Workspace) -> Path:
    """scores.csv in the run's folder: every score under every convention."""
    run = predict(arm, workspace)
    path = run.path / "scores.csv"
    with writing(path) as file:
        metrics.all_scores(run.counts, arm.study.batch_size).to_csv(file, index=False)
    return path
