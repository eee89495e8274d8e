import dataclasses
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sahlib import models, prediction, runs, training
from sahlib.paths import alone_in
from sahlib.study import StudyError


def train(small, root, model="unet", **changes):
    study, store, split = small
    return training.train(store, split, dataclasses.replace(study, **changes), model, 0, root)


def test_the_loss_is_the_textbook_s():
    """BCE + 1 - 2|PG|/(|P|+|G|) over the pixels of the whole batch, written out by hand."""
    logits = torch.randn(3, 1, 8, 8)
    truth = (torch.rand(3, 1, 8, 8) < 0.3).float()
    p = logits.sigmoid()
    cross_entropy = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    dice = 2 * (p * truth).sum() / (p.sum() + truth.sum())
    assert training.paper_loss()(logits, truth).item() == pytest.approx((cross_entropy + 1 - dice).item(), abs=1e-4)


def test_validation_scores_by_hand(small):
    """A 'network' that returns its input as logits: Dice and loss follow from the pixels alone."""
    study, store, split = small
    images, labels = training._on_device(store, split.rows(store, "validation"), torch.device("cpu"))

    class Bright(torch.nn.Module):
        def forward(self, x):
            return (x - 0.6) * 20

    loss, dice = training.evaluate(Bright(), images, labels, training.paper_loss(), study)
    predicted, truth = images.numpy() / 255 > 0.6, labels.numpy() > 0
    assert dice == pytest.approx(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()), abs=1e-6)
    assert np.isfinite(loss)


def test_a_finished_run_is_found_and_not_repeated(small, tmp_path, monkeypatch):
    first = train(small, tmp_path)
    monkeypatch.setattr(training, "initial_network", None)
    assert train(small, tmp_path) == first
    assert not (first.path / "state.safetensors").exists()
    assert first.history["best"].sum() == 1 and len(first.history) == 2


@pytest.mark.parametrize("model", ["unet", "attention_unet"])
def test_the_record_counts_what_is_learned_and_no_running_statistics(small, tmp_path, model):
    network = models.build(model, small[0].channels)
    assert train(small, tmp_path, model).record["parameters"] == sum(p.numel() for p in network.parameters())


def test_runs_copied_from_another_machine_s_folder_are_found(small, tmp_path, monkeypatch):
    first = train(small, tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    monkeypatch.setattr(training, "initial_network", None)
    assert train(small, tmp_path / "there").record == first.record


@pytest.mark.parametrize("change", [{"epochs": 3}, {"learning_rate": 1e-2}, {"prior_bias": True}, {"batch_size": 4}])
def test_whatever_changes_the_result_makes_another_run(small, tmp_path, change):
    study, store, split = small
    other = dataclasses.replace(study, **change)
    paths = {runs.folder(tmp_path, s, runs.recipe(store, split, s, "unet", 0)) for s in (study, other)}
    assert len(paths) == 2


@pytest.mark.parametrize("model", ["unet", "unet_resnet34", "attention_unet"])
def test_the_same_study_gives_the_same_weights_and_counts_twice(small, tmp_path, model):
    study, store, split = small
    pair = [train(small, tmp_path / name, model) for name in "ab"]
    weights = [load_file(run.weights) for run in pair]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    counts = [prediction.test(run, store, split, study) for run in pair]
    assert counts[0].equals(counts[1])


def test_another_seed_gives_other_weights(small, tmp_path):
    study, store, split = small
    pair = [training.train(store, split, study, "unet", seed, tmp_path) for seed in (0, 1)]
    weights = [load_file(run.weights) for run in pair]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


KILLED = """
import os, signal, sys, json
from pathlib import Path
from sahlib import slices, splits, training
from sahlib.study import Study
study = Study(**json.loads(sys.argv[1]))
root = Path(sys.argv[2])
store = slices.prepare(study, root / "processed")
save = training._save_state
def save_then_die(path, network, best, optimizer, history):
    if len(history) == int(sys.argv[3]) and sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if len(history) == int(sys.argv[3]) and sys.argv[4] == "during":
        import safetensors.torch
        def half(tensors, file, metadata):
            file.write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        safetensors.torch.save_file = half
    save(path, network, best, optimizer, history)
    if len(history) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
training._save_state = save_then_die
training.train(store, splits.prepare(store, study), study, "unet", 0, root / "runs")
"""


@pytest.mark.parametrize(("epoch", "moment"), [(1, "before"), (2, "during"), (2, "after")])
def test_killed_and_resumed_ends_with_the_weights_of_an_unbroken_run(small, tmp_path, epoch, moment):
    study = dataclasses.replace(small[0], epochs=3)
    arguments = [json.dumps(study.as_dict()), str(tmp_path), str(epoch), moment]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    resumed = train(small, tmp_path / "runs", epochs=3)
    unbroken = train(small, tmp_path / "unbroken", epochs=3)
    for key, weight in load_file(unbroken.weights).items():
        assert torch.equal(weight, load_file(resumed.weights)[key]), key
    assert resumed.history.drop(columns="seconds").equals(unbroken.history.drop(columns="seconds"))
    assert not [file for file in resumed.path.iterdir() if "partial" in file.name or "state" in file.name]


def test_a_second_process_waits_for_the_first_and_takes_its_run(small, tmp_path, capsys):
    study, store, split = small
    path = runs.folder(tmp_path, study, runs.recipe(store, split, study, "unet", 0))
    with ThreadPoolExecutor(1) as pool:
        with alone_in(path):
            second = pool.submit(train, small, tmp_path)
            while "waiting" not in capsys.readouterr().out:
                time.sleep(0.05)
            first = training._train(store, split, study, runs.recipe(store, split, study, "unet", 0), path)
            written = first.weights.stat().st_mtime_ns
        assert second.result(60) == first and first.weights.stat().st_mtime_ns == written


def test_out_of_gpu_memory_says_which_batch_size_to_try(small, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "forward", full)
    with pytest.raises(StudyError, match="U-Net does not fit.*batch_size 16.*set batch_size to 8"):
        train(small, tmp_path)


def test_weights_of_another_recipe_are_refused_and_the_difference_named(small, tmp_path):
    study, store, split = small
    ours, other = train(small, tmp_path), train(small, tmp_path, learning_rate=0.5)
    shutil.copy(other.weights, ours.weights)
    with pytest.raises(StudyError, match="trained with learning_rate 0.5 and not 0.0001"):
        prediction.test(ours, store, split, study)


def test_a_loss_that_is_not_finite_says_what_to_change(small, tmp_path):
    with pytest.raises(StudyError, match="loss of U-Net.*epoch 1.*learning_rate"):
        train(small, tmp_path, learning_rate=1e38)


def test_best_epoch_falls_back_on_the_loss_when_every_dice_is_0(small, tmp_path, monkeypatch):
    scores = iter([(1.0, 0.0), (0.5, 0.0), (0.7, 0.0)])
    monkeypatch.setattr(training, "evaluate", lambda *_: next(scores))
    assert train(small, tmp_path, epochs=3).record["best_epoch"] == 2


def test_best_epoch_is_the_highest_dice_even_at_a_higher_loss(small, tmp_path, monkeypatch):
    scores = iter([(0.1, 0.2), (0.9, 0.6), (0.1, 0.4)])
    monkeypatch.setattr(training, "evaluate", lambda *_: next(scores))
    assert train(small, tmp_path, epochs=3).record["best_epoch"] == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 a pickle in a zip", bytes(1000)])
def test_weights_that_are_not_whole_safetensors_are_refused(small, tmp_path, damage):
    study, store, split = small
    run = train(small, tmp_path)
    run.weights.write_bytes(damage)
    with pytest.raises(StudyError, match="weights.safetensors does not hold the weights"):
        prediction.test(run, store, split, study)


def test_counts_are_those_of_the_saved_probabilities(small, tmp_path):
    study, store, split = small
    run = train(small, tmp_path, "attention_unet")
    counts = prediction.test(run, store, split, study)
    rows = split.rows(store, "test")
    truth, predicted = store.masks(rows), np.asarray(run.probabilities) > 0.5
    assert counts["slice_id"].tolist() == store.slices.slice_id.iloc[rows].tolist()
    assert counts["tp"].tolist() == [int((p & t).sum()) for p, t in zip(predicted, truth, strict=True)]
    assert counts["fp"].tolist() == [int((p & ~t).sum()) for p, t in zip(predicted, truth, strict=True)]
    assert counts["lesion_pixels"].tolist() == truth.sum((1, 2)).tolist()
    assert (counts[["tp", "fp", "fn", "tn"]].sum(1) == 32 * 32).all()
    np.testing.assert_array_equal(prediction.masks(run, np.array([1, 0])), predicted[[1, 0]])
