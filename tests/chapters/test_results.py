"""What is on disk of a study, and whether that is all."""

from __future__ import annotations

import dataclasses

from sahlib.chapters import results
from sahlib.training import loop
from sahlib.workspace import Workspace


def test_a_study_is_complete_once_everything_is_trained_and_tested(small, tmp_path, monkeypatch):
    study = dataclasses.replace(small[0], models=("unet", "attention_unet"), epochs=1, further_recipes=("fair",))
    workspace = Workspace(str(tmp_path))
    assert not results.is_complete(study, workspace) and list(tmp_path.iterdir()) == []
    store, split = results.load_data(study, workspace)
    results.train(study, store, split, ["unet"], workspace)
    assert not results.is_complete(study, workspace)
    trained = results.train(study, store, split, study.models, workspace)
    assert not results.is_complete(study, workspace)
    results.load_recipes(study, workspace)
    monkeypatch.setattr(loop, "initial_network", None)  # nothing is trained to find that out
    assert results.is_complete(study, workspace)
    assert not results.is_complete(dataclasses.replace(study, seeds=(0, 1)), workspace)
    (run,) = trained["fair"].runs["attention_unet"]
    run.file("counts", "SAH", "csv").unlink()
    assert not results.is_complete(study, workspace)
