"""The same networks on slices from elsewhere."""

import dataclasses

import numpy as np
import pytest
from helpers.folders import write_paired_folder

from sahlib.chapters import external_validation, figures, results
from sahlib.scoring import metrics, prediction
from sahlib.study import Study, StudyError
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def home(small, tmp_path_factory):
    workspace = Workspace(str(tmp_path_factory.mktemp("home")))
    study = dataclasses.replace(small[0], models=("unet", "attention_unet"), further_recipes=())
    return results.load(study, workspace), workspace


def test_every_slice_of_the_folder_is_tested_with_the_trained_weights(home, tmp_path):
    loaded, workspace = home
    abroad = external_validation.test(loaded, workspace, write_paired_folder(tmp_path / "theirs", patients=5, seed=9))
    assert len(abroad.store) == 15 and abroad.store.digest != loaded.store.digest
    for model, own in abroad.runs.items():
        network = prediction.load_network(loaded.runs[model][0])
        expected = prediction.predict(network, abroad.store.inputs(np.arange(15)), loaded.study)[:, 0]
        np.testing.assert_array_equal(own[0].probabilities, expected)
        counts = metrics.pixel_counts(expected > prediction.THRESHOLD, abroad.store.masks(np.arange(15)))
        assert abroad.counts[model][0]["fp"].tolist() == counts["fp"].tolist()
    table = external_validation.table(loaded, abroad)
    assert table["Predictor"].tolist()[2:] == list(loaded.trivial) and len(table) == 4
    assert abroad.folder.parent == loaded.folder and (abroad.folder / "table_external.md").exists()
    notes = (abroad.folder / "table_external.md").read_text()
    assert "on which no network was trained or chosen.\n" in notes, "of others' scans nothing more is known"
    figures.figure_7(abroad)


def test_the_results_at_home_are_not_touched(home, tmp_path):
    loaded, workspace = home
    before = {path: path.stat().st_mtime_ns for path in loaded.runs["unet"][0].path.iterdir() if path.is_file()}
    external_validation.test(loaded, workspace, write_paired_folder(tmp_path / "theirs", patients=4, seed=3))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert loaded.counts["unet"][0].equals(loaded.runs["unet"][0].counts)


def test_a_second_look_finds_the_predictions(home, tmp_path, monkeypatch):
    loaded, workspace = home
    theirs = write_paired_folder(tmp_path / "theirs", patients=4, seed=4)
    first = external_validation.test(loaded, workspace, theirs)
    monkeypatch.setattr(prediction, "load_network", None)
    again = external_validation.test(loaded, workspace, theirs)
    assert again.counts["unet"][0].equals(first.counts["unet"][0])


def test_the_bar_to_beat_is_fitted_at_home(home, tmp_path):
    loaded, workspace = home
    abroad = external_validation.test(loaded, workspace, write_paired_folder(tmp_path / "theirs", patients=4, seed=5))
    assert abroad.band == loaded.band
    assert "threshold predictor" in external_validation.in_words(loaded, abroad)


def test_how_the_own_scans_are_read_says_nothing_of_others(tmp_path):
    theirs = str(write_paired_folder(tmp_path / "theirs", patients=1))
    of_folder = {"raters": "union", "grey_window": "40/400", "label_map": ("4=SAH",), "patient_pattern": "(a)"}
    own = Study.of_profile("smoke", dataset="mbh_seg", data_dir="scans", **of_folder)
    there = external_validation.study_elsewhere(own, theirs)
    assert {name: getattr(there, name) for name in of_folder} == {name: getattr(Study, name) for name in of_folder}
    there = external_validation.study_elsewhere(own, theirs, grey_window="50/100")
    assert (there.dataset, there.data_dir, there.grey_window) == ("paired_folder", theirs, "50/100")


def test_a_folder_that_is_no_dataset_is_named(home, tmp_path):
    loaded, workspace = home
    with pytest.raises(StudyError, match="nothing"):
        external_validation.test(loaded, workspace, str(tmp_path / "nothing"))
