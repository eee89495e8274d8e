"""The forecast asks for what `results.train` then trains, and foretells its time within a factor."""

from __future__ import annotations

import dataclasses

import pytest

from sahlib.chapters import forecast, results
from sahlib.training import loop
from sahlib.workspace import Workspace


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_is_untrained_is_what_is_trained(small, tmp_path, monkeypatch, seeds, capsys):
    """Own recipe paper, then fair over two rates: own seeds, both rates once, the chosen one for further seeds."""
    study, store, split = small
    study = dataclasses.replace(
        study, models=("unet", "attention_unet"), seeds=seeds, epochs=1, further_recipes=("prior", "fair")
    )
    workspace, trained = Workspace(str(tmp_path)), []
    train = loop._train
    monkeypatch.setattr(loop, "_train", lambda *given: trained.append(given[3]["model"]) or train(*given))

    def left():
        return [forecast.untrained(study, store, split, model, workspace.runs) for model in study.models]

    each = 3 * len(seeds) + 1  # one of the rates is the first seed of the fair recipe
    assert left() == [each, each]
    results.train(study, store, split, ["unet"], workspace)
    assert left() == [0, each] and len(trained) == each
    said = capsys.readouterr().out
    assert f"- U-Net: {each} × about" in said and f"- Attention U-Net: {each} × about" in said
    results.train(study, store, split, study.models, workspace)
    assert left() == [0, 0] and len(trained) == 2 * each
    capsys.readouterr()
    results.train(study, store, split, study.models, workspace)
    assert capsys.readouterr().out == ""


def test_the_time_of_a_training_is_that_of_its_steps(small, monkeypatch):
    """24 slices are two steps an epoch, and 6 to validate are one score."""
    study = dataclasses.replace(small[0], epochs=6)
    monkeypatch.setattr(forecast, "_mean_time", lambda function, arguments: 10.0 if len(arguments) == 3 else 1.0)
    assert [len(small[2].rows(small[1], side)) for side in ("train", "validation")] == [24, 6]
    assert forecast.seconds(study, *small[1:], "unet") == 6 * (2 * 10 + 1)
    assert forecast.seconds(dataclasses.replace(study, batch_size=4), *small[1:], "unet") == 6 * (6 * 10 + 2 * 1)


def test_a_mean_time_leaves_the_first_call_out(monkeypatch):
    clock = iter([0.0, 6.0])
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(clock))
    calls = []
    assert forecast._mean_time(lambda x: calls.append(x) or forecast.torch.ones(3), (1,)) == 6.0 / forecast.TIMED
    assert len(calls) == forecast.TIMED + 1


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (9000, "2 h")])
def test_a_span_is_told_as_accurately_as_it_is_known(seconds, words):
    assert forecast.spelt(seconds) == words


def test_a_step_without_room_is_left_to_the_training(small, tmp_path, monkeypatch):
    def full(*_):
        raise forecast.torch.OutOfMemoryError

    monkeypatch.setattr(forecast, "_mean_time", full)
    monkeypatch.setattr(forecast, "_timed", {})
    assert forecast.in_words(*small, tmp_path) == ""
