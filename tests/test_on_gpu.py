"""What is to run on a GPU within minutes, rehearsed on a processor."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import time
from io import BytesIO

import pytest

from sahlib.chapters import forecast, results
from sahlib.study import Study
from sahlib.workspace import PROJECT, Workspace

_spec = importlib.util.spec_from_file_location("study_within", PROJECT / "benchmarks" / "study_within.py")
study_within = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(study_within)


def test_everything_that_comes_out_of_a_rehearsal(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    names = {"OUT": str(out), "WORK": str(work), "BUDGET": "900", "STEPS": "study", "PROFILE": "smoke"}
    done = subprocess.run(
        [PROJECT / "benchmarks" / "on_gpu.sh"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **names, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + (work / "logs" / "study.log").read_text()[-2000:]
    assert "study: exit 0 after" in (summary := (out / "summary.txt").read_text()) and "Commit" in summary
    assert (out / "missing.md").read_text() == "Nothing was left out of this study."
    parts = sorted(out.glob("results.tar.gz.*"))
    assert parts and all(part.stat().st_size < 16 << 20 for part in [*parts, out / "report.html"])
    with tarfile.open(fileobj=BytesIO(b"".join(part.read_bytes() for part in parts))) as packed:
        names = packed.getnames()
    kept = {name.rsplit("/", 1)[1] for name in names}
    assert {"run.json", "history.csv", "counts.csv", "verdict.md", "ledger.png", "table_3.csv", "study.log"} <= kept
    assert not any(name.endswith((".safetensors", ".npy")) for name in names)


@pytest.mark.parametrize(
    ("seconds", "networks", "recipes", "missing"),
    [
        (15, ["unet", "attention_unet"], [], 4),
        (25, ["unet", "attention_unet"], [], 4),
        # Three trainings and a half; the other network no longer fits, nor does a recipe for three.
        (35, ["unet", "attention_unet", "unet_free_output"], [], 3),
        # The fourth, then prior (40); fair has two rates to try (80).
        (85, ["unet", "attention_unet", "unet_free_output", "attention_unet_open_gates"], ["prior"], 1),
        (165, ["unet", "attention_unet", "unet_free_output", "attention_unet_open_gates"], ["prior", "fair"], 0),
    ],
)
def test_what_is_begun_fits_into_the_time(tmp_path, monkeypatch, seconds, networks, recipes, missing):
    """Each training takes 10 seconds of a clock that stands still otherwise."""
    now, done = [0.0], set()

    def asked(part, models):
        recipes = (part.recipe, *part.further_recipes)
        return {(recipe, model, n) for recipe in recipes for model in models for n in range(1 + (recipe == "fair"))}

    def untrained(part, store, split, model, runs):
        return len(asked(part, [model]) - done)

    def train(part, store, split, models, workspace):
        now[0] += 10 * len(asked(part, models) - done)
        done.update(asked(part, models))

    monkeypatch.setattr(results, "load_data", lambda *_: (None, None))
    monkeypatch.setattr(results, "train", train)
    monkeypatch.setattr(forecast, "untrained", untrained)
    monkeypatch.setattr(forecast, "seconds", lambda *_: 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    found = study_within.trained_by(seconds, Study.of_profile("smoke"), Workspace(str(tmp_path)))
    assert found[:2] == (networks, recipes) and len(found[2]) == missing and now[0] <= max(seconds, 20)


@pytest.mark.parametrize(
    ("time_there", "took", "networks"),
    [
        # 20 are foretold for the two and take 60; of the 25 left none has room for 10 x 3.
        (85, 60, ["unet", "attention_unet"]),
        # They take 10; then 5 for each of the others, of which 9 are left.
        (19, 10, ["unet", "attention_unet", "unet_free_output"]),
    ],
)
def test_what_a_training_took_corrects_what_is_foretold(tmp_path, monkeypatch, time_there, took, networks):
    now = [0.0]

    def train(*_):
        now[0] += took

    monkeypatch.setattr(results, "load_data", lambda *_: (None, None))
    monkeypatch.setattr(results, "train", train)
    monkeypatch.setattr(forecast, "untrained", lambda *_: 1)
    monkeypatch.setattr(forecast, "seconds", lambda *_: 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    complete, _, missing = study_within.trained_by(time_there, Study.of_profile("smoke"), Workspace(str(tmp_path)))
    assert complete == networks and len(missing) == 6 - len(networks)
