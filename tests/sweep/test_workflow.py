"""The sweep by Snakemake: the same files as without it, on this machine and on a real Slurm where jobs are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from helpers import slurm_node

from sahlib.training import runs
from sahlib.workspace import PROJECT

MODELS = ["unet", "attention_unet"]
EPOCHS = 6  # of the sweep that is disturbed: enough to be caught in the middle
# Of a run, what does not tell when and where it was made.
RESULTS = ("weights.safetensors", "probabilities.npy", "counts.csv", "scores.csv")
# Of a figures folder, what tells just that; and what a sweep leaves out, as it trains nothing on the way.
TIMES = {"run.json", "times.csv", "ro-crate-metadata.json", "report.html"}
TIMED = ("model_card_", "table_networks")

pytestmark = pytest.mark.skipif(
    find_spec("snakemake") is None, reason="Snakemake is not installed: pip install -e .[cluster]"
)


def config(output, **changes):
    """The sweep's settings as --config takes them."""
    settings = {
        "output": str(output),
        "profile": "smoke",
        "precision": "fp32",
        "models": MODELS,
        "seeds": [0],
    } | changes
    settings["set"] = ["further_recipes=", "phantom_patients=12", *changes.get("set", [])]
    return ["--config", *(f"{name}={json.dumps(value)}" for name, value in settings.items())]


def options(output, seeds=(0,), also=()):
    """The same for `python -m sahlib`."""
    words = ["--profile", "smoke", "--output", str(output), "--models", *MODELS, "--seeds", *map(str, seeds)]
    for assignment in ("precision=fp32", "further_recipes=", "phantom_patients=12", *also):
        words += ["--set", assignment]
    return words


def snakemake(folder, *arguments, target="all", profile="local", environment=None):
    """Starts a sweep that keeps its own records in `folder`, whose log is there too."""
    folder.mkdir(parents=True, exist_ok=True)
    # The target comes first, because several options take any number of values.
    command = [
        *(sys.executable, "-m", "snakemake", target),
        "--snakefile",
        str(PROJECT / "workflow" / "Snakefile"),
        "--directory",
        str(folder),
        "--profile",
        str(PROJECT / "workflow" / "profiles" / profile),
    ]
    command += arguments
    known = {**(environment or os.environ), "PYTHONPATH": str(PROJECT)}
    with open(folder / "snakemake.log", "w") as log:
        return subprocess.Popen(command, env=known, stdout=log, stderr=log, cwd=folder)


def ended_well(sweep, folder):
    assert sweep.wait(1500) == 0, (folder / "snakemake.log").read_text()[-4000:]


def found(output):
    """model/seed -> run, of all finished runs."""
    every = [runs.find(path) for path in sorted((output / "runs").glob("*/*/seed*"))]
    return {f"{run.model}/{run.seed}": run for run in every}


def same_results(one, other):
    """Both workspaces hold the same finished runs, byte for byte but for times."""
    first, second = found(one), found(other)
    assert first.keys() == second.keys() and first
    for name, run in first.items():
        for file in RESULTS:
            if (run.path / file).exists() and (second[name].path / file).exists():
                assert (run.path / file).read_bytes() == (second[name].path / file).read_bytes(), f"{name} {file}"
        assert (run.path / "weights.safetensors").exists() and (run.path / "counts.csv").exists()
        pd.testing.assert_frame_equal(run.history.drop(columns="seconds"), second[name].history.drop(columns="seconds"))


def test_the_sweep_leaves_the_files_that_the_plain_command_leaves(tmp_path):
    """Two tiny arms, notebooks included."""
    swept, plain = tmp_path / "swept", tmp_path / "plain"
    ended_well(snakemake(tmp_path / "records", *config(swept, set=["epochs=1"])), tmp_path / "records")
    done = subprocess.run(
        [sys.executable, "-m", "sahlib", "run", *options(plain, also=["epochs=1"])],
        cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    same_results(swept, plain)

    (one,), (other,) = ([*(output / "paper_figures").glob("*/")] for output in (swept, plain))
    assert one.name == other.name
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert names == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    compared = [name for name in names if name.name not in TIMES and not name.name.startswith(TIMED)]
    assert len(compared) > 60
    assert [str(name) for name in compared if (one / name).read_bytes() != (other / name).read_bytes()] == []
    for store in (swept / "data" / "processed").glob("[!.]*"):
        twin = plain / "data" / "processed" / store.name
        for file in ("images.npy", "labels.npy", "slices.csv"):
            assert (store / file).read_bytes() == (twin / file).read_bytes()


def test_cross_validation_tests_each_patient_once(tmp_path):
    output = tmp_path / "output"
    arguments = config(output, folds=2, set=["epochs=1"])  # of 12 patients and the cohort's 4
    ended_well(snakemake(tmp_path / "records", *arguments), tmp_path / "records")
    tested = [pd.read_csv(path, dtype=str) for path in (output / "runs").glob("phantom/unet/*/counts.csv")]
    patients = [set(counts["patient_id"]) for counts in tested]
    assert len(patients) == 2 and not patients[0] & patients[1] and len(patients[0] | patients[1]) == 16
    overview = pd.read_csv(output / "runs" / "overview.csv")
    assert set(overview["model"]) == set(MODELS)
    assert overview["patients"].tolist() == [16, 16] and overview["folds_tested"].tolist() == [2, 2]


@pytest.mark.skipif(slurm_node.why_not() is not None, reason=str(slurm_node.why_not()))
def test_a_sweep_on_slurm_survives_a_killed_and_a_cancelled_job(tmp_path):
    """Six trainings; one's process is killed, another's job cancelled: both go on, and all end as on one machine."""
    swept, local = tmp_path / "swept", tmp_path / "local"
    settings = {"seeds": [0, 1, 2], "set": [f"epochs={EPOCHS}"]}
    small = [
        "--set-resources",
        *(f"{rule}:{what}" for rule in ("train", "predict") for what in ("gpu=0", "mem_mb=700")),
    ]
    small += ["--set-threads", "train=1", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(slurm_node.slurm_node(cpus=2))
        except RuntimeError as error:
            pytest.skip(f"Slurm is installed and does not start here: {error}")
        environment = environment | {"OMP_NUM_THREADS": "1"}
        # `overview` as the target: all but the notebooks, which the test above compares.
        sweep = snakemake(
            tmp_path / "records", *config(swept, **settings), *small,
            target="overview", profile="slurm", environment=environment,
        )  # fmt: skip
        try:
            killed, process = _a_training(swept, sweep, besides="")
            os.kill(process, signal.SIGKILL)
            cancelled, process = _a_training(swept, sweep, besides=killed)
            subprocess.run(["scancel", _job_of(process)], env=environment, check=True)
            ended_well(sweep, tmp_path / "records")
        finally:
            if sweep.poll() is None:
                sweep.kill()
    log = (tmp_path / "records" / "snakemake.log").read_text()
    assert log.count("Trying to restart") >= 2, log[-3000:]
    for name in (killed, cancelled):  # went on, and did not begin anew
        assert found(swept)[name].history["epoch"].tolist() == list(range(1, EPOCHS + 1))

    done = subprocess.run(
        [sys.executable, "-c", LOCALLY, str(local), *map(str, settings["seeds"])],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    same_results(swept, local)
    overview = pd.read_csv(swept / "runs" / "overview.csv")
    assert len(overview) == len(MODELS)


# The same six trainings one after the other in one process.
LOCALLY = f"""
import sys
from sahlib.sweep import stages
from sahlib.workspace import Workspace
from sahlib.study import Study

seeds = [int(seed) for seed in sys.argv[2:]]
fields = dict(precision="fp32", further_recipes=[], phantom_patients=12, epochs={EPOCHS}, models={MODELS}, seeds=seeds)
study = Study.of_profile("smoke", **fields)
for model in study.models:
    for seed in seeds:
        stages.score(stages.Arm(study, model, seed), Workspace(sys.argv[1]))
"""


def _a_training(output, sweep, besides):
    """("model/seed", id of its process) of a training that has an epoch behind it and more to come."""
    end = time.monotonic() + 600
    while time.monotonic() < end and sweep.poll() is None:
        for process in Path("/proc").glob("[0-9]*"):
            words = _words(process)
            if words[1:4] == ["-m", "sahlib", "train"] and str(output) in words:
                model, seed = (words[words.index(option) + 1] for option in ("--model", "--seed"))
                state = (output / "runs").glob(f"*/{model}/seed{seed}-*/state.safetensors")
                if f"{model}/{seed}" != besides and any(state):
                    return f"{model}/{seed}", int(process.name)
        time.sleep(0.02)
    raise AssertionError("no training with an epoch behind it was seen")


def _words(process):
    try:
        return (process / "cmdline").read_text().split("\0")
    except OSError:
        return []


def _job_of(process):
    """The Slurm job that a process belongs to."""
    entries = Path(f"/proc/{process}/environ").read_text().split("\0")
    return next(entry.split("=", 1)[1] for entry in entries if entry.startswith("SLURM_JOB_ID="))
