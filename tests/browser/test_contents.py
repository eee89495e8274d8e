"""What the browser has to show: from where, on which side, in which windows, and what it refuses."""

import dataclasses

import numpy as np
import pytest
from helpers.fabricated import a_run, a_split, a_store, labels_of, nifti_study, results_of, write_predictions

from sahlib.browser import contents
from sahlib.data import slices
from sahlib.data.scan import SAH, Scan
from sahlib.data.sources.phantom import phantom
from sahlib.scoring import metrics
from sahlib.study import Study, StudyError
from sahlib.training.runs import Run
from sahlib.workspace import Workspace

PATIENTS = ["A"] * 4 + ["B"] * 3 + ["C"] * 2  # C is on the training side
AREAS = [0, 4, 12, 12, 0, 40, 1, 9, 0]


@pytest.fixture
def trial(tmp_path):
    """(workspace, store, split, the truth of its test slices [7,16,16])"""
    store = a_store(tmp_path, labels_of(AREAS), PATIENTS)
    split = a_split(store, C="train")
    return tmp_path, store, split, store.masks(split.rows(store, "test"))


# What can be given


def test_a_store_has_slices_and_no_sides(trial):
    content = contents.of(trial[1])
    assert content.networks == () and content.study is None and set(content.sides) == {""}
    assert content.position(0) is None
    np.testing.assert_array_equal(content.lesion_pixels, AREAS)


def test_a_run_brings_its_slices_and_split_along(trial):
    workspace, store, split, truth = trial
    run = a_run(workspace, store, split, "unet", {"SAH": truth * 0.75})
    content = contents.of(run)
    assert content.store.path == store.path and list(content.sides) == ["test"] * 7 + ["train"] * 2
    assert [content.position(row) for row in (0, 6, 7, 8)] == [0, 6, None, None]
    assert [network.label for network in content.networks] == ["U-Net"]
    assert content.study == Study(**run.record["study"])


def test_two_seeds_of_a_network_are_told_apart(trial):
    workspace, store, split, truth = trial
    pair = [a_run(workspace, store, split, "unet", {"SAH": truth}, seed, f"seed{seed}-hand") for seed in (0, 1)]
    assert [n.label for n in contents.of(*pair).networks] == ["U-Net, seed 0", "U-Net, seed 1"]


def test_results_show_the_first_seed_of_each_network(trial):
    workspace, store, split, truth = trial
    first, second = (a_run(workspace, store, split, "unet", {"SAH": truth}, s, f"seed{s}-hand") for s in (0, 1))
    attention = a_run(workspace, store, split, "attention_unet", {"SAH": truth})
    results = results_of(store, split, {"unet": [first, second], "attention_unet": [attention]})
    content = contents.of(results)
    assert [(n.label, n.run, n.weights) for n in content.networks] == [
        ("U-Net", first, first),
        ("Attention U-Net", attention, attention),
    ]
    assert content.study == results.study


def test_gates_on_slices_from_elsewhere_come_from_the_weights_of_the_training(trial, monkeypatch):
    workspace, store, split, truth = trial
    trained = a_run(workspace, store, split, "attention_unet", {"SAH": truth})
    abroad = Run(trained.path / "external-hand", trained.record)
    write_predictions(abroad, store, split, {"SAH": truth * 0.5})
    content = contents.of(results_of(store, split, {"attention_unet": [abroad]}, origin="From elsewhere."))
    (network,) = content.networks
    assert network.run.path == abroad.path and network.probabilities.max() == 0.5
    asked = []
    monkeypatch.setattr("sahlib.scoring.prediction.load_network", lambda run: asked.append(run.weights))
    monkeypatch.setattr(
        "sahlib.networks.gates.gate_maps", lambda network, inputs, precision: [inputs[:, 0] / 255, None]
    )
    for row in (0, 1):
        inputs = store.inputs(np.array([row]))
        np.testing.assert_array_equal(network.gate_map(inputs), store.images[row] / 255)
    assert asked == [trained.path / "weights.safetensors"]  # once for all slices
    with pytest.raises(StudyError, match="where the scans lie is not known"):
        content.hounsfield(0)  # the study says where those of the training lie


# What is refused


def refused(match, *shown):
    with pytest.raises(StudyError, match=match):
        contents.of(*shown)


def test_what_is_no_store_run_or_results_is_refused(trial):
    workspace, store, split, truth = trial
    run = a_run(workspace, store, split, "unet", {"SAH": truth})
    results = results_of(store, split, {"unet": [run]})
    for shown in ((), (None,), (store, store), (run, store), (results, run), (results, results), ("runs/phantom",)):
        refused("one SliceStore, one Results, or one or several Runs", *shown)


def test_runs_on_other_slices_another_split_or_other_lesions_are_refused_together(trial):
    workspace, store, split, truth = trial
    run = a_run(workspace, store, split, "unet", {"SAH": truth})
    for key in ("store", "split"):
        recipe = {**run.record["recipe"], key: "other"}
        refused("not tested on the same slices", run, Run(run.path, {**run.record, "recipe": recipe}))
    # Both begin with SAH, but one of them has nothing to say of IVH.
    both = a_run(workspace, store, split, "attention_unet", {"SAH": truth, "IVH": truth})
    refused("the same lesions", both, run)


def test_a_run_without_predictions_is_refused(trial):
    workspace, store, split, truth = trial
    run = a_run(workspace, store, split, "unet", {"SAH": truth})
    run.file("counts", "SAH", "csv").unlink()
    refused("no predictions yet; run notebook 05", run)


def test_a_run_whose_slices_or_split_moved_away_is_refused(trial):
    workspace, store, split, truth = trial
    run = a_run(workspace, store, split, "unet", {"SAH": truth})
    moved = workspace / "elsewhere" / "runs" / "a" / "b" / "c"
    moved.parent.mkdir(parents=True)
    run.path.rename(moved)
    refused(r"are not in .*elsewhere/data/processed; run notebook 02", Run(moved, run.record))
    moved.rename(run.path)
    next((store.path / "splits").iterdir()).unlink()
    refused("The split of .* is not in .*splits; run notebook 02", run)


def test_a_run_at_the_root_of_a_disk_is_refused_too(trial, monkeypatch):
    workspace, store, split, truth = trial
    record = a_run(workspace, store, split, "unet", {"SAH": truth}).record
    monkeypatch.setattr(Run, "file", lambda self, *_: workspace)
    refused("run notebook 02", Run(workspace.__class__("/no-such-run"), record))


# Which slices


def test_only_classes_that_occur_are_told(tmp_path):
    labels = np.concatenate([labels_of([5, 0, 0]), labels_of([7], value=2)])
    content = contents.of(a_store(tmp_path, labels, list("AABB")))
    assert {name: list(np.flatnonzero(has)) for name, has in content.classes().items()} == {"SAH": [0], "IVH": [3]}
    every = dataclasses.replace(content, store=content.store.of("any"))
    assert list(every.lesion_pixels) == [5, 0, 0, 7]


def test_the_first_slice_is_that_of_the_largest_lesion_of_the_test_side(trial):
    workspace, store, split, truth = trial
    labels = contents.of(store)
    assert labels.largest == 5
    aside = a_split(store, B="train")
    assert (
        contents.of(a_run(workspace, store, aside, "unet", {"SAH": store.masks(aside.rows(store, "test"))})).largest
        == 2
    )


def test_dice_is_that_of_each_slice_and_nan_where_there_is_none(trial):
    workspace, store, split, truth = trial
    probabilities = truth * 1.0
    probabilities[2, 0, :6] = 0  # 12 pixels, 6 of them found: 2*6/(6+12)
    probabilities[3] = 0  # missed
    probabilities[4, 0, 0] = 1  # invented where there is none
    content = contents.of(a_run(workspace, store, split, "unet", {"SAH": probabilities}))
    dice = content.dice(content.networks[0])
    np.testing.assert_allclose(dice, [np.nan, 1, 2 / 3, 0, 0, 1, 1, np.nan, np.nan])  # 0/0; 7 and 8 were not tested
    assert content.worst == 3


def test_another_lesion_has_its_own_truth_probabilities_and_counts(tmp_path):
    labels = labels_of([5, 9, 0])
    labels[2, 8] = 2  # IVH, 16 pixels
    store = a_store(tmp_path, labels, list("AAB"))
    split = a_split(store)
    run = a_run(tmp_path, store, split, "unet", {"SAH": (labels == SAH) * 0.9, "IVH": (labels == 2) * 0.7})
    content = contents.of(run)
    assert content.lesions == ("SAH", "IVH")
    other = content.for_lesion("IVH")
    assert list(content.lesion_pixels) == [5, 9, 0] and list(other.lesion_pixels) == [0, 0, 16]
    assert other.networks[0].probabilities.max() == np.float16(0.7)
    assert list(metrics.dice(other.networks[0].counts)[2:]) == [1.0]


# Windows


def test_stored_windows_come_back_bit_for_bit(tmp_path):
    store = a_store(tmp_path, labels_of([1, 2]), ["A", "A"], windows=((40, 80), (75, 215)))
    content = contents.of(store)
    assert content.store.unit == "HU" and content.stored_windows == [(40, 80), (75, 215)]
    for row in (0, 1):
        np.testing.assert_array_equal(content.stored(row), [store.images[row], store.further_images[0][row]])
    assert (
        content.windows()[0] == ("brain 40/80, as stored", (40, 80))
        and ("bone 600/2800", (600, 2800)) in content.windows()
    )


def test_pictures_of_an_untold_window_are_grey_and_those_of_a_told_one_are_not(small, tmp_path):
    """The fixture's store is made from such pictures, as a user's would be."""
    study, store, _ = small
    content = contents.of(store)
    assert content.store.unit == "grey" and content.windows() == [("grey levels as stored", (127.5, 255.0))]
    np.testing.assert_array_equal(content.stored(3), [store.images[3]])
    told = slices.prepare(dataclasses.replace(study, grey_window="brain"), tmp_path)
    assert contents.of(told).store.unit == "HU"
    with pytest.raises(StudyError, match="8-bit grey levels only"):
        contents.of(told, study=dataclasses.replace(study, grey_window="brain")).hounsfield(0)


def phantom_study(monkeypatch, patients=3):
    """Phantom patients of noise: the atlas takes seconds, and which head it is does not matter here."""

    def render(plan, seed):
        image = np.random.default_rng([seed, plan.index]).integers(-1000, 1500, (4, 24, 24)).astype(np.int16)
        ids = tuple(f"P{plan.index:04d}_z{z:02d}" for z in range(4))
        return Scan(f"P{plan.index:04d}", image, (image > 1400).astype(np.uint8), ids, "HU", (0.9, 0.9), 5.0)

    monkeypatch.setattr(phantom, "render", render)
    return Study.of_profile("smoke", phantom_patients=patients, precision="fp32")


@pytest.fixture(params=["nifti", "phantom"])
def scanned(request, tmp_path, monkeypatch):
    """(study, store) of scans in Hounsfield units"""
    study = nifti_study(tmp_path / "scans") if request.param == "nifti" else phantom_study(monkeypatch)
    return study, slices.prepare(study, Workspace(str(tmp_path)).processed)


def test_hounsfield_units_are_those_of_the_slices_scan(scanned):
    from sahlib.data.sources import open_source

    study, store = scanned
    content = contents.of(store, study=study)
    images = np.concatenate([scan.image for scan in open_source(study)])
    for row in np.random.default_rng(0).permutation(len(store)):  # in any order, scans read again when they are gone
        np.testing.assert_array_equal(content.hounsfield(row), images[row])
    assert content.store.unit == "HU"


def test_other_scans_than_the_stores_are_refused_and_are_looked_at_once(scanned, tmp_path, monkeypatch):
    study, store = scanned
    if study.dataset == "nifti":
        other = nifti_study(tmp_path / "others", seed=1)
    else:
        other = dataclasses.replace(study, phantom_seed=5)
    content, opened = contents.of(store, study=other), []
    from sahlib.data import sources

    real = sources.open_source
    monkeypatch.setattr(sources, "open_source", lambda study: opened.append(study) or real(study))
    for row in (0, 1, 2):
        with pytest.raises(StudyError, match="others than these slices were made from"):
            content.hounsfield(row)
    assert opened == [other]  # every file is read for it, which no slice change should wait for


def test_scans_that_are_gone_are_refused_with_the_reason(tmp_path):
    study = nifti_study(tmp_path / "scans")
    store = slices.prepare(study, tmp_path / "processed")
    (tmp_path / "scans").rename(tmp_path / "unplugged")
    with pytest.raises(StudyError, match="is not a folder"):
        contents.of(store, study=study).hounsfield(0)
    with pytest.raises(StudyError, match="not known; give browse.. the Study"):
        contents.of(store).hounsfield(0)
