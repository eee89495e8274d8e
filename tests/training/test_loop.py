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

from sahlib.networks import models
from sahlib.scoring import prediction
from sahlib.study import StudyError
from sahlib.training import feed, loop, runs, step
from sahlib.workspace import alone_in

# A GPU repeats a run to the bit only where it is told to.
REPEATABLE = {"deterministic": torch.cuda.is_available()}


def train(small, root, model="unet", **changes):
    study, store, split = small
    return loop.train(store, split, dataclasses.replace(study, **changes), model, 0, root)


def test_the_loss_is_the_textbook_s():
    """BCE + 1 - 2|PG|/(|P|+|G|) over the pixels of the whole batch, written out by hand."""
    logits = torch.randn(3, 1, 8, 8)
    truth = (torch.rand(3, 1, 8, 8) < 0.3).float()
    p = logits.sigmoid()
    cross_entropy = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    dice = 2 * (p * truth).sum() / (p.sum() + truth.sum())
    assert step.paper_loss()(logits, truth).item() == pytest.approx((cross_entropy + 1 - dice).item(), abs=1e-4)


def test_validation_scores_by_hand(small):
    """A 'network' that returns its input as logits: Dice and loss follow from the pixels alone."""
    study, store, split = small
    slices = feed.open_feed(store, split.rows(store, "validation"), torch.device("cpu"), ("SAH",))

    class Bright(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(20.0))

        def forward(self, x):
            return (x - 0.6) * self.scale

    loss, dice = loop.evaluate(step.validation_score(Bright(), study, len(slices)), slices, study)
    images, labels = slices.images.numpy() / 255, slices.labels.numpy() > 0
    predicted = images > 0.6
    assert dice == pytest.approx(2 * (predicted & labels).sum() / (predicted.sum() + labels.sum()), abs=1e-6)
    batches = [slice(i, i + study.batch_size) for i in range(0, len(images), study.batch_size)]
    by_hand = [
        len(images[b]) * float(step.paper_loss()(torch.tensor((images[b] - 0.6) * 20), torch.tensor(labels[b]).float()))
        for b in batches
    ]
    assert loss == pytest.approx(sum(by_hand) / len(images), rel=1e-4)


def test_a_finished_run_is_found_and_not_repeated(small, tmp_path, monkeypatch):
    first = train(small, tmp_path)
    monkeypatch.setattr(loop, "initial_network", None)
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
    monkeypatch.setattr(loop, "initial_network", None)
    assert train(small, tmp_path / "there").record == first.record


@pytest.mark.parametrize(
    "change",
    [
        *({"epochs": 3}, {"learning_rate": 1e-2}, {"prior_bias": True}, {"deterministic": True}),
        {"augmentation": "travels"},
    ],
)
def test_whatever_changes_the_result_makes_another_run(small, tmp_path, change):
    study, store, split = small
    other = dataclasses.replace(study, **change)
    paths = {runs.folder(tmp_path, s, runs.run_key(store, split, s, "unet", 0)) for s in (study, other)}
    assert len(paths) == 2


@pytest.mark.parametrize("model", ["unet", "unet_resnet34", "attention_unet"])
def test_the_same_study_gives_the_same_weights_and_counts_twice(small, tmp_path, model):
    study, store, split = small
    pair = [train(small, tmp_path / name, model, **REPEATABLE) for name in "ab"]
    weights = [load_file(run.weights) for run in pair]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    counts = [prediction.test(run, store, split, study) for run in pair]
    assert counts[0].equals(counts[1])


def test_another_seed_gives_other_weights(small, tmp_path):
    study, store, split = small
    pair = [loop.train(store, split, study, "unet", seed, tmp_path) for seed in (0, 1)]
    weights = [load_file(run.weights) for run in pair]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


KILLED = """
import os, signal, sys, json
from pathlib import Path
from sahlib.data import slices, splits
from sahlib.training import checkpoint, loop
from sahlib.study import Study
study = Study(**json.loads(sys.argv[1]))
root = Path(sys.argv[2])
store = slices.prepare(study, root / "processed")
write = checkpoint.write
def write_then_die(path, tensors, history, stream):
    last = len(json.loads(history)) == int(sys.argv[3])
    if last and sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if last and sys.argv[4] == "during":
        def half(tensors, file, metadata):
            file.write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.save_file = half
    write(path, tensors, history, stream)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.write = write_then_die
loop.train(store, splits.prepare(store, study), study, "unet", 0, root / "runs")
"""


@pytest.mark.parametrize(
    ("kind", "epoch", "moment"),
    [("small", 1, "before"), ("small", 2, "during"), ("small", 2, "after"), ("travelling", 2, "after")],
)
def test_killed_and_resumed_ends_with_the_weights_of_an_unbroken_run(request, kind, tmp_path, epoch, moment):
    small = request.getfixturevalue(kind)
    study = dataclasses.replace(small[0], epochs=3, **REPEATABLE)
    arguments = [json.dumps(study.as_dict()), str(tmp_path), str(epoch), moment]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    resumed = train(small, tmp_path / "runs", epochs=3, **REPEATABLE)
    unbroken = train(small, tmp_path / "unbroken", epochs=3, **REPEATABLE)
    for key, weight in load_file(unbroken.weights).items():
        assert torch.equal(weight, load_file(resumed.weights)[key]), key
    assert resumed.history.drop(columns="seconds").equals(unbroken.history.drop(columns="seconds"))
    assert not [file for file in resumed.path.iterdir() if "partial" in file.name or "state" in file.name]


def test_validation_and_test_go_on_in_the_study_s_window_as_stored(travelling, tmp_path, monkeypatch):
    study, store, split = travelling
    opened = []
    monkeypatch.setattr(loop, "open_feed", lambda *asked: opened.append(asked) or feed.open_feed(*asked))
    run = train(travelling, tmp_path)
    (taught, *_), (checked, *_) = opened
    assert checked is store and (taught.images[:] != store.images[:]).any()
    assert taught.slices["slice_id"].equals(store.slices["slice_id"]) and (taught.labels == store.labels).all()
    assert len(prediction.test(run, store, split, study)) == len(split.rows(store, "test"))


def test_grey_levels_of_an_unknown_window_cannot_travel(small, tmp_path):
    with pytest.raises(StudyError, match="grey levels; say --set grey_window=LEVEL/WIDTH.*auto"):
        train(small, tmp_path, augmentation="travels")


def test_a_second_process_waits_for_the_first_and_takes_its_run(small, tmp_path, capsys):
    study, store, split = small
    path = runs.folder(tmp_path, study, runs.run_key(store, split, study, "unet", 0))
    with ThreadPoolExecutor(1) as pool:
        with alone_in(path):
            second = pool.submit(train, small, tmp_path)
            while "waiting" not in capsys.readouterr().out:
                time.sleep(0.05)
            first = loop._train(store, split, study, runs.run_key(store, split, study, "unet", 0), path)
            written = first.weights.stat().st_mtime_ns
        assert second.result(60) == first and first.weights.stat().st_mtime_ns == written


def full_above(masks, monkeypatch):
    """A GPU in whose memory a step with more masks than so many has no room."""
    forward = models.forward

    def full(network, images, precision):
        if len(images) * models.output_layer(network).out_channels > masks:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, images, precision)

    monkeypatch.setattr(models, "forward", full)


@pytest.mark.parametrize("room", [1, 5, 15])
def test_out_of_gpu_memory_names_the_batch_size_that_fits(small, tmp_path, monkeypatch, room):
    full_above(room, monkeypatch)
    fits = {1: 1, 5: 4, 15: 8}[room]
    with pytest.raises(StudyError, match=f"U-Net does not fit.*batch_size 16; set batch_size to {fits}, at which"):
        train(small, tmp_path)
    assert train(small, tmp_path, batch_size=fits).record["best_epoch"]


def test_the_batch_size_that_fits_is_that_of_all_outputs(small, tmp_path, monkeypatch):
    full_above(16, monkeypatch)
    monkeypatch.setattr(loop, "lesion_shares", lambda *_: dict.fromkeys(("SAH", "IVH", "IPH"), 0.1))
    with pytest.raises(StudyError, match="set batch_size to 4, at which"):
        train(small, tmp_path)


def test_out_of_gpu_memory_at_every_batch_size_says_so(small, tmp_path, monkeypatch):
    full_above(0, monkeypatch)
    with pytest.raises(StudyError, match="no batch size does: set smaller channels"):
        train(small, tmp_path)


def test_memory_that_runs_out_in_a_later_epoch_loses_no_epoch(small, tmp_path, monkeypatch):
    changes = {"epochs": 3, **REPEATABLE}
    unbroken = train(small, tmp_path / "unbroken", **changes)
    train_epoch = loop.train_epoch

    def full(*arguments):
        if arguments[-1] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", full)
        with pytest.raises(StudyError, match="Finished epochs are kept"):
            train(small, tmp_path, **changes)
    resumed = train(small, tmp_path, **changes)
    assert resumed.history.drop(columns="seconds").equals(unbroken.history.drop(columns="seconds"))


def test_an_operation_that_cannot_be_deterministic_is_named(small, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("max_pool2d_backward does not have a deterministic implementation")

    monkeypatch.setattr(loop, "train_epoch", refuse)
    with pytest.raises(StudyError, match="U-Net cannot run with deterministic=True.*max_pool2d_backward"):
        train(small, tmp_path, deterministic=True)


@pytest.mark.parametrize("batch_size", [1, 13, 1000])
def test_last_batch_and_an_epoch_smaller_than_a_batch(small, tmp_path, batch_size):
    """24 training slices: batches of one slice, a last batch of 11, and one batch of all."""
    history = train(small, tmp_path, "attention_unet", batch_size=batch_size).history
    assert len(history) == 2 and np.isfinite(history["train_loss"]).all()


def test_a_batch_of_one_class_has_a_finite_loss_and_gradient(small):
    study = small[0]
    network = loop.initial_network(study, "attention_unet", 0, [0.02])
    learn = step.training_step(network, step.make_optimizer(network, study), study, slices=0, steps=1)
    images, nothing, matrices = step.blank_batch(network, study)
    for labels in (nothing, torch.ones_like(nothing)):
        assert torch.isfinite(learn(images, labels, matrices))
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_a_loss_is_the_mean_over_slices_and_not_over_batches(small):
    """A step that returns the batch's size as loss: 24 slices in batches of 16 and 8."""
    study, store, split = small
    slices = feed.open_feed(store, split.rows(store, "train"), torch.device("cpu"), ("SAH",))
    loss = loop.train_epoch(lambda images, *_: torch.tensor(float(len(images))), slices, study, 0, 1)
    assert len(slices) == 24 and loss == pytest.approx((16 * 16 + 8 * 8) / 24)


def test_a_loss_that_is_not_finite_says_what_to_change(small, tmp_path):
    with pytest.raises(StudyError, match="loss of U-Net.*epoch 1.*learning_rate"):
        train(small, tmp_path, learning_rate=1e38)


def test_best_epoch_falls_back_on_the_loss_when_every_dice_is_0(small, tmp_path, monkeypatch):
    scores = iter([(1.0, 0.0), (0.5, 0.0), (0.7, 0.0)])
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(scores))
    assert train(small, tmp_path, epochs=3).record["best_epoch"] == 2


def test_best_epoch_is_the_highest_dice_even_at_a_higher_loss(small, tmp_path, monkeypatch):
    scores = iter([(0.1, 0.2), (0.9, 0.6), (0.1, 0.4)])
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(scores))
    assert train(small, tmp_path, epochs=3).record["best_epoch"] == 2
