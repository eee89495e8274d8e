"""The same networks on slices from elsewhere."""

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.folders import write_paired_folder

from sahlib.chapters import external_validation, figures, results, verdict
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


def test_networks_are_compared_with_each_other_elsewhere_too(home, tmp_path):
    loaded, workspace = home
    abroad = external_validation.test(loaded, workspace, write_paired_folder(tmp_path / "theirs", patients=4, seed=5))
    table = verdict.contrasts(abroad)
    assert set(table["Difference"].str.split(" \\(collapsed").str[0]) == {"Attention U-Net minus U-Net"}
    assert set(table["Told apart"]) == {"too few patients"} and {"p, permutation", "p, Holm"} <= set(table)
    assert (abroad.folder / "table_differences.md").exists()
    words = external_validation.in_words(loaded, abroad)
    assert "- Elsewhere, Attention U-Net" in words and "not told apart from the threshold" in words


def test_how_the_own_scans_are_read_says_nothing_of_others(tmp_path):
    theirs = str(write_paired_folder(tmp_path / "theirs", patients=1))
    of_folder = {"raters": "union", "grey_window": "40/400", "label_map": ("4=SAH",), "patient_pattern": "(a)"}
    own = Study.of_profile("smoke", dataset="mbh_seg", data_dir="scans", **of_folder)
    there = external_validation.study_elsewhere(own, theirs)
    assert {name: getattr(there, name) for name in of_folder} == {name: getattr(Study, name) for name in of_folder}
    there = external_validation.study_elsewhere(own, theirs, grey_window="50/100")
    assert (there.dataset, there.data_dir, there.grey_window) == ("paired_folder", theirs, "50/100")


@pytest.mark.parametrize("names", [["x"], ["label-map"]])
def test_a_slip_in_a_name_is_no_field_that_was_settled(tmp_path, names):
    theirs = str(write_paired_folder(tmp_path / "theirs", patients=1))
    with pytest.raises(StudyError, match=f"no parameter is called {names[0]}"):
        external_validation.study_elsewhere(Study.of_profile("smoke"), theirs, **dict.fromkeys(names, "1=SAH"))


def test_scans_that_the_study_has_seen_are_refused_in_its_folder_and_as_copies(home, tmp_path):
    loaded, workspace = home
    own = Path(loaded.study.data_dir)
    with pytest.raises(StudyError, match="the study's own folder"):
        external_validation.test(loaded, workspace, str(own / ".." / own.name))
    theirs = write_paired_folder(tmp_path / "theirs", patients=4, seed=6)
    black = np.zeros((48, 48), np.uint8)
    for folder in ("images", "masks"):
        cv2.imwrite(str(theirs / folder / "00_0.png"), black)
    external_validation.test(loaded, workspace, str(theirs))
    shutil.copy(own / "images" / "07_1.png", theirs / "images" / "01_0.png")
    with pytest.raises(StudyError, match="1 of 12 slices from elsewhere are among .*first 01_0 = 07_1"):
        external_validation.test(loaded, workspace, str(theirs))


def test_scans_without_a_lesion_cannot_be_scored(home, tmp_path):
    loaded, workspace = home
    theirs = write_paired_folder(tmp_path / "theirs", patients=2, seed=7)
    for mask in (theirs / "masks").iterdir():
        cv2.imwrite(str(mask), np.zeros((48, 48), np.uint8))
    with pytest.raises(StudyError, match="No slice from elsewhere shows SAH"):
        external_validation.test(loaded, workspace, str(theirs))


def test_a_folder_that_is_no_dataset_is_named(home, tmp_path):
    loaded, workspace = home
    with pytest.raises(StudyError, match="nothing"):
        external_validation.test(loaded, workspace, str(tmp_path / "nothing"))
