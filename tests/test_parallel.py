"""Two processes train the network that one process trains, on CPUs by gloo; whatever befalls one of them ends both."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sahlib import parallel, prediction, runs, training
from sahlib.__main__ import main
from sahlib.parallel import World
from sahlib.paths import PROJECT

# 24 training slices: three batches of 7, of which one process takes 3 and the other 4, and a ragged one of 3.
CHANGES = {"precision": "fp32", "batch_size": 7}


def start(*command):
    """Two processes of torchrun on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
        + ["--master-port", str(port), *map(str, command)],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(job):
    """(exit status, what it printed); a job that hangs is killed with its processes and fails the test."""
    try:
        said, _ = job.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        for process in psutil.Process(job.pid).children(recursive=True):
            process.kill()
        job.kill()
        raise
    return job.returncode, said


def command(small, output, model, epochs):
    study = small[0]
    words = ["-m", "sahlib", "train", "--profile", "smoke", "--dataset", study.dataset, "--data-dir", study.data_dir]
    words += ["--output", output, "--model", model]
    for name, value in (CHANGES | {"epochs": epochs}).items():
        words += ["--set", f"{name}={value}"]
    return words


def by_one_process(small, root, model, epochs):
    study, store, split = small
    return training.train(store, split, dataclasses.replace(study, **CHANGES, epochs=epochs), model, 0, root)


def only_run(output):
    (path,) = (output / "runs").glob("*/*/*")
    return runs.find(path)


@given(st.integers(1, 70), st.integers(1, 9))
def test_the_shares_of_all_ranks_are_the_batch_in_order_and_equal_to_within_one(count, size):
    batch = torch.arange(count)
    shares = [World(rank, size).part_of(batch) for rank in range(size)]
    if count < size:
        assert all(torch.equal(share, batch) for share in shares)
    else:
        assert torch.equal(torch.cat(shares), batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


GRADIENTS = """
import copy
import torch
from sahlib import models, parallel, step
torch.set_default_dtype(torch.float64)
with parallel.joined():
    own = parallel.world()
    for name in ("unet", "attention_unet"):
        for count in (5, 1):
            torch.manual_seed(0)
            images, truth = torch.rand(count, 1, 32, 32), (torch.rand(count, 1, 32, 32) < 0.1).double()
            alone = models.build(name, (4, 8, 8, 16, 16))
            together = copy.deepcopy(alone)
            expected = step.paper_loss()(alone(images), truth)
            expected.backward()
            loss_function = parallel.of_whole_batch(step.paper_loss())
            learner = parallel.shared(together)
            loss = loss_function(learner(own.part_of(images)), own.part_of(truth))
            loss.backward()
            pairs = [(loss.detach(), expected.detach())]
            pairs += [(a.grad, b.grad) for a, b in zip(together.parameters(), alone.parameters(), strict=True)]
            if count > 1:
                pairs += zip(together.buffers(), alone.buffers(), strict=True)
            scale = max(b.grad.abs().max() for b in alone.parameters())
            worst = max(float((a - b).abs().max() / scale) for a, b in pairs)
            for rank, error in enumerate(parallel.from_all(worst)):
                print(f"error {name} {count} {rank} {error:.3g}")
"""


def test_the_gradient_is_that_of_the_whole_batch(tmp_path):
    """Loss, all gradients and the running statistics of batch normalisation, in double precision, so that a wrong
    formula cannot hide behind rounding. A batch of one slice is taken twice, which the smoothing of the Dice term, 1e-5
    pixels, tells apart.
    """
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    status, said = ended(start(script))
    assert status == 0, said
    errors = re.findall(r"^error (\w+) (\d) (\d) (\S+)$", said, re.M)
    assert len(errors) == 8
    for name, count, rank, error in errors:
        assert float(error) < (1e-10 if count == "5" else 1e-5), (name, count, rank, error)


def test_one_killed_ends_both_and_the_next_two_end_with_the_curve_of_one_process(small, tmp_path):
    epochs = 8
    words = command(small, tmp_path, "unet", epochs)
    job = start(*words)
    while not (states := [*tmp_path.glob("runs/*/*/*/state.safetensors")]):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.02)
    (second,) = [p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGKILL)
    status, said = ended(job)
    assert status != 0 and runs.find(states[0].parent) is None, said

    status, said = ended(start(*words))
    assert status == 0, said
    (resumed_at,) = re.findall(r"from epoch (\d+)", said)
    assert 1 < int(resumed_at) <= epochs
    assert said.count(f"epoch {epochs}/{epochs}") == 1  # rank 0 alone prints

    run = only_run(tmp_path)
    names = {path.name for path in run.path.iterdir()} - {".lock"}
    assert names == {"run.json", "history.csv", "weights.safetensors"}
    assert run.record["processes"] == 2
    one = by_one_process(small, tmp_path / "one", "unet", epochs)
    assert one.record["processes"] == 1 and one.record["digest"] == run.record["digest"]
    assert run.history["epoch"].tolist() == list(range(1, epochs + 1))
    for column in ("train_loss", "validation_loss"):
        # Only rounding differs, which Adam spreads: 1.2e-5 was measured after 12 epochs.
        np.testing.assert_allclose(run.history[column], one.history[column], rtol=1e-4)
    # One process finds what two have trained.
    assert by_one_process(small, tmp_path / "runs", "unet", epochs) == run


def test_batches_are_normalised_as_a_whole(small, tmp_path):
    """The curve of the attention U-Net, as far as rounding lets it: 2.5e-5 was measured. One process can read its
    weights.
    """
    status, said = ended(start(*command(small, tmp_path, "attention_unet", 3)))
    assert status == 0, said
    run, one = only_run(tmp_path), by_one_process(small, tmp_path / "one", "attention_unet", 3)
    for column in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(run.history[column], one.history[column], rtol=3e-4)
    prediction.load_network(run)


FAILING = """
import json, sys
from pathlib import Path
from sahlib import parallel, slices, splits, step, training
from sahlib.study import Study, StudyError
study, root = Study(**json.loads(sys.argv[1])), Path(sys.argv[2])
def fail(*_):
    raise StudyError("The second process has had enough.")
with parallel.joined():
    if not parallel.world().is_first:
        training.train_epoch = fail
    with parallel.first_alone():
        store = slices.prepare(study, root / "processed")
        split = splits.prepare(store, study)
    training.train(store, split, study, "unet", 0, root / "runs")
"""


def test_an_exception_on_one_rank_ends_both_and_the_first_to_fail_says_why(small, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    status, said = ended(start(script, json.dumps(dataclasses.replace(small[0], **CHANGES).as_dict()), tmp_path))
    assert status != 0 and "has had enough" in said
    (failed,) = tmp_path.glob("runs/*/*/*/failed.txt")
    assert failed.read_text() == "The second process has had enough.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "--model", "unet"], "share `train` alone; call `score` without torchrun"),
        (["train", "--model", "unet", "--set", "batch_size=1"], "2 processes cannot share batches of 1 slices"),
    ],
)
def test_what_several_processes_cannot_share_is_refused(tmp_path, monkeypatch, capsys, arguments, message):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "joined", contextlib.nullcontext)
    assert main([*arguments, "--profile", "smoke", "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err and not [*tmp_path.iterdir()]
