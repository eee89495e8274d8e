"""Runs of a sweep at every moment of their lives, that nobody trained: the files are written by hand.

They are as `training` and `prediction` leave them, in a workspace's folder `runs`.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
from filelock import FileLock
from safetensors.numpy import save_file

from sahlib.study import Study, digest

PIXELS = 100
FIELDS = ("target", "channels", "prior_bias", "epochs", "batch_size", "learning_rate", "augmentation", "precision")


def counts_of(patients, seed=0, slices=4):
    """Two slices of each patient hold a lesion of 20 pixels, found in part; the others may have false alarms."""
    rng = np.random.default_rng([seed, *map(ord, "".join(patients))])
    rows = len(patients) * slices
    lesion = np.where(np.arange(rows) % slices < 2, 20, 0)
    tp, fp = (lesion * rng.uniform(0.3, 0.9, rows)).astype(int), rng.integers(0, 6, rows)
    owner = [patients[row // slices] for row in range(rows)]
    ids = {"slice_id": [f"{patient}_z{row % slices}" for row, patient in enumerate(owner)], "patient_id": owner}
    counts = {"tp": tp, "fp": fp, "fn": lesion - tp, "tn": PIXELS - lesion - fp, "lesion_pixels": lesion}
    return pd.DataFrame(ids | counts)


def of_dice(*values):
    """A slice per value, each of another patient: of 50 pixels 50 * value are hit, and as many false as missed."""
    tp = np.array([round(50 * value) for value in values])
    ids = [f"P{row}" for row in range(len(tp))]
    counts = {"tp": tp, "fp": 50 - tp, "fn": 50 - tp, "tn": tp, "lesion_pixels": 50}
    return pd.DataFrame({"slice_id": ids, "patient_id": ids} | counts)


def put(path, text):
    """Writes a file that appears whole."""
    part = path.with_name(f".{path.name}.partial-{os.getpid()}")
    part.write_text(text)
    os.replace(part, path)


def begin(runs, model="unet", seed=0, epochs=0, held_by=None, **changes):
    """The folder of a training that has begun and saved its state after so many epochs."""
    study = Study.of_profile("smoke", **{"precision": "fp32", "learning_rate": 1e-4, **changes})
    split = digest(study.folds, study.fold, study.split_seed, study.train_share)
    recipe = {"version": 2, "store": f"store{study.size:07d}", "split": split, "model": model, "seed": seed}
    recipe |= {name: study.as_dict()[name] for name in FIELDS}
    record = {"model": model, "seed": seed, "digest": digest(recipe), "recipe": recipe, "provenance": {}}
    record["study"] = {name: value for name, value in study.as_dict().items() if name != "data_dir"}
    path = runs / study.dataset / model / f"seed{seed}-{digest(recipe)}"
    path.mkdir(parents=True)
    if held_by is not None:
        held_by.append(FileLock(path / ".lock"))
        held_by[-1].acquire()
    put(path / "begun.json", json.dumps(record))
    if epochs:
        history = json.dumps([{"epoch": epoch} for epoch in range(1, epochs + 1)])
        save_file({"network.w": np.zeros(3, np.float32)}, path / "state.safetensors", metadata={"history": history})
    return path


def finish(path, counts=None, **changes):
    """What `training` leaves of a training that is done, and `prediction` where there are counts."""
    record = json.loads((path / "begun.json").read_text()) | {"lesions": ["SAH"]} | changes
    put(path / "run.json", json.dumps(record))
    (path / "state.safetensors").unlink(missing_ok=True)
    (path / "begun.json").unlink()
    if counts is not None:
        put(path / "counts.csv", counts.to_csv(index=False))
    return path


def change(path, file="run.json", **changes):
    record = json.loads((path / file).read_text()) | changes
    (path / file).write_text(json.dumps({name: value for name, value in record.items() if value is not None}))


def begin_sweep(runs, seeds=(0, 1)):
    """Two networks with so many tested runs each, and two trainings that were interrupted."""
    for model in ("unet", "attention_unet"):
        for seed in seeds:
            finish(begin(runs, model, seed), counts_of(list("ABCDEF"), seed + len(model)))
    begin(runs, "unet", 2, epochs=1)
    begin(runs, "attention_unet", prior_bias=True)
