"""The stages one by one: what they leave, what they find, and what they refuse."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from sahlib.__main__ import main
from sahlib.chapters import results
from sahlib.scoring import metrics
from sahlib.study import StudyError
from sahlib.sweep import stages
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def scored(small, tmp_path_factory):
    """(arm, workspace, path of scores.csv) of a one-epoch training."""
    study = dataclasses.replace(small[0], epochs=1, further_recipes=())
    workspace = Workspace(str(tmp_path_factory.mktemp("stages")))
    arm = stages.Arm(study, "unet", 0)
    return arm, workspace, stages.score(arm, workspace)


def test_a_stage_makes_what_is_missing_before_it(scored):
    _, workspace, path = scored
    names = {file.name for file in path.parent.iterdir()}
    assert {"run.json", "weights.safetensors", "history.csv", "counts.csv", "probabilities.npy", "scores.csv"} <= names
    assert not {"begun.json", "failed.txt", "state.safetensors"} & names
    assert path.is_relative_to(workspace.runs)


def test_scores_are_those_of_the_counts(scored):
    arm, _, path = scored
    run = stages.predict(*scored[:2])
    expected = metrics.all_scores(run.counts, arm.study.batch_size)
    pd.testing.assert_frame_equal(pd.read_csv(path), expected)


def test_what_is_finished_is_found_by_a_stage_and_by_the_notebooks(scored):
    arm, workspace, path = scored
    before = {file: file.stat().st_mtime_ns for file in path.parent.iterdir() if file.name != ".lock"}
    run = stages.predict(arm, workspace)
    store, split = results.load_data(arm.study, workspace)
    (found,) = results.train(arm.study, store, split, ["unet"], workspace)[arm.study.recipe].runs["unet"]
    assert found.path == run.path == path.parent
    assert {file: file.stat().st_mtime_ns for file in path.parent.iterdir() if file.name != ".lock"} == before


def test_the_fair_recipe_trains_at_the_rate_it_chose_on_validation_patients(scored):
    study = dataclasses.replace(scored[0].study, learning_rates=(1e-3, 1e-2))
    run = stages.train(stages.Arm(study, "unet", 0, "fair"), scored[1])
    tried = {}
    for path in (scored[1].runs / "paired_folder" / "unet").glob("seed0-*/history.csv"):
        history = pd.read_csv(path)
        tried[history["learning_rate"].iloc[0]] = history["validation_dice"].max(), -history["validation_loss"].min()
    assert {1e-3, 1e-2} <= set(tried)
    assert run.record["recipe"]["learning_rate"] == max((1e-3, 1e-2), key=tried.get)
    assert run.record["recipe"]["prior_bias"] is True


def test_a_network_that_travels_has_the_rate_of_the_fair_one(scored):
    fields = {"grey_window": "127.5/255", "learning_rates": (1e-3, 1e-2)}
    study = dataclasses.replace(scored[0].study, **fields)
    fair, travels = (
        stages.train(stages.Arm(study, "unet", 0, recipe), scored[1]).record["recipe"] for recipe in ("fair", "travels")
    )
    assert fair | {"augmentation": "travels"} == travels and fair["augmentation"] == "paper"


@pytest.mark.parametrize(("model", "seed", "named"), [("resnet", 0, "model 'resnet'"), ("unet", 7, "seed 7")])
def test_an_arm_that_the_study_has_not_is_refused(small, model, seed, named):
    with pytest.raises(StudyError, match=f"{named} is not among the Study's"):
        stages.Arm(small[0], model, seed)


def test_a_mistake_on_the_command_line_is_one_sentence(tmp_path, capsys):
    words = ["--profile", "smoke", "--output", str(tmp_path)]
    assert main(["train", *words, "--model", "resnet"]) == 2
    assert capsys.readouterr().err.startswith("error: model 'resnet' is not among the Study's models, unet, ")
    assert main(["overview", "--output", str(tmp_path)]) == 2
    assert "There are no runs in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_says_so_in_its_folder_until_it_is_tried_again(scored, monkeypatch):
    study = dataclasses.replace(scored[0].study, epochs=2)
    arm = stages.Arm(study, "unet", 0)

    def fails(*_):
        raise RuntimeError("first line\nthe disk fell out")

    with monkeypatch.context() as patched:
        patched.setattr("sahlib.training.loop.train_epoch", fails)
        with pytest.raises(RuntimeError):
            stages.train(arm, scored[1])
    (failed,) = scored[1].runs.rglob("failed.txt")
    assert failed.read_text() == "the disk fell out\n" and (failed.parent / "begun.json").exists()
    assert stages.train(arm, scored[1]).path == failed.parent
    assert not failed.exists() and not (failed.parent / "begun.json").exists()
