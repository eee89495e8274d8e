"""What a Study still has to train and how long that takes on this device, told before the first training begins."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.device import device
from sahlib.study import CHOOSING, Study, digest, name_of
from sahlib.training import rate_search
from sahlib.training.loop import initial_network, lesion_shares
from sahlib.training.numerics import numerics
from sahlib.training.runs import find, folder, run_key
from sahlib.training.step import blank_batch, make_optimizer, training_step, validation_score

TIMED = 3  # calls that are counted, after one that is not
_timed: dict[str, float] = {}


def untrained(study: Study, store: SliceStore, split: Split, model: str, runs: Path) -> int:
    """How many trainings of `model` the Study's recipes and seeds still ask for.

    Where a rate is not chosen yet, its trainings count in full, though one of another recipe may turn out to be it.
    """

    def path(own: Study, seed: int) -> Path:
        return folder(runs, own, run_key(store, split, own, model, seed))

    wanted, unknown = set(), 0
    for recipe in dict.fromkeys((study.recipe, *study.further_recipes)):
        own = study if recipe == study.recipe else study.under(recipe)
        if recipe in CHOOSING:
            tried = {path(study.under("fair", rate), study.seeds[0]) for rate in study.learning_rates}
            wanted |= tried
            if not all(map(find, tried)):
                # The first seed of the fair recipe is among those tried.
                unknown += len(study.seeds) - (recipe == "fair")
                continue
            rate = rate_search.chosen_rate(rate_search.search_learning_rate(store, split, study, model, runs))
            own = study.under(recipe, rate)
        wanted |= {path(own, seed) for seed in study.seeds}
    return sum(find(one) is None for one in wanted) + unknown


def seconds(study: Study, store: SliceStore, split: Split, model: str) -> float:
    """Of one training of `model`, by a few steps, which are not compiled. Timed once in a process."""
    key = digest(run_key(store, split, study, model, seed=0))
    if key in _timed:
        return _timed[key]
    study = dataclasses.replace(study, prior_bias=False)
    batches = [math.ceil(len(split.rows(store, side)) / study.batch_size) for side in ("train", "validation")]
    with numerics(study):
        network = initial_network(study, model, 0, lesion_shares(store, split, study).values())
        network.to(device(), memory_format=torch.channels_last)
        optimizer = make_optimizer(network, study)
        step = training_step(network, optimizer, study, slices=study.batch_size, steps=0)
        score = validation_score(network, study, slices=study.batch_size)
        batch = blank_batch(network, study)
        epoch = batches[0] * _mean_time(step, batch) + batches[1] * _mean_time(score, batch[:2])
    _timed[key] = study.epochs * epoch
    return _timed[key]


def _mean_time(function: Callable, arguments: tuple[torch.Tensor, ...]) -> float:
    float(function(*arguments).sum())  # its value, for which a GPU must have finished
    began = time.perf_counter()
    for _ in range(TIMED):
        result = function(*arguments)
    float(result.sum())
    return (time.perf_counter() - began) / TIMED


def in_words(study: Study, store: SliceStore, split: Split, runs: Path) -> str:
    """A line per network of the Study that is not trained yet, and one for all; "" where there is none.

    Nothing is foretold of a step that has no room in a GPU's memory: its training says what to do.
    """
    counts = {model: untrained(study, store, split, model, runs) for model in study.models}
    try:
        times = {model: seconds(study, store, split, model) for model, count in counts.items() if count}
    except torch.OutOfMemoryError:
        return ""
    lines = [f"- {name_of(model)}: {counts[model]} × about {spelt(time)}" for model, time in times.items()]
    total = sum(counts[model] * time for model, time in times.items())
    return "\n".join([f"To be trained for this study, in about {spelt(total)}:", *lines]) if lines else ""


def spelt(seconds: float) -> str:
    """A span of time to the accuracy that a forecast has."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
