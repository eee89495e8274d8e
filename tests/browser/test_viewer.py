"""What the browser sends: the pixels, masks and Hounsfield units that the library has; and a picture for later."""

import base64
import json
import shutil
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import lab
from helpers.fabricated import a_run, a_split, a_store, labels_of, nifti_study, results_of
from helpers.pages import page_of

from sahlib.browser import embedded, packing
from sahlib.browser.viewer import browse
from sahlib.data import slices
from sahlib.scoring import metrics
from sahlib.study import StudyError

PATIENTS = ["A"] * 4 + ["B"] * 3 + ["C"] * 2  # C is on the training side
AREAS = [0, 4, 12, 12, 0, 40, 1, 90, 0]
HOSTILE = """</script><b>"a'/&$x\\"""


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """(store, [run of a U-Net, run of an Attention U-Net]) with probabilities of every height"""
    workspace = tmp_path_factory.mktemp("two")
    store = a_store(workspace, labels_of(AREAS), PATIENTS, spacing=(0.5, 0.8))
    split = a_split(store, C="train")
    truth, rng = store.masks(split.rows(store, "test")), np.random.default_rng(0)
    found = [np.where(truth, rng.random(truth.shape), rng.random(truth.shape) / 4) for _ in range(2)]
    for probabilities in found:
        probabilities[0] = 0  # neither a lesion nor anything found
        probabilities[1] = np.round(np.linspace(0, 1, 101), 2)[np.arange(256).reshape(16, 16) % 101]  # every threshold
        probabilities[4] = 0.3
    models = ("unet", "attention_unet")
    return store, [a_run(workspace, store, split, m, {"SAH": p}) for m, p in zip(models, found, strict=True)]


@pytest.fixture
def shown(two_runs):
    return browse(*two_runs[1])


def answered(shown, monkeypatch, **asked):
    """(header, bytes) of what a view gets; the header alone where it is an error."""
    sent = []
    monkeypatch.setattr(type(shown), "send", lambda self, content, buffers=(): sent.append((content, *buffers)))
    shown._answer({"id": "7", **asked})
    ((header, *data),) = sent
    assert header.pop("id") == "7"
    return (header, zlib.decompress(data[0])) if data else header


def test_viewer_js_computes_what_was_worked_out_by_hand():
    """viewer.test.mjs, under Node.js."""
    node = shutil.which("node")
    if not node:
        pytest.skip("Node.js is not installed")
    tests = Path(__file__).with_name("viewer.test.mjs")
    done = subprocess.run([node, "--test", str(tests)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


# What a view knows at once


def test_the_index_holds_what_is_known_of_every_slice(two_runs, shown):
    index = json.loads(json.dumps(shown.index, allow_nan=False))
    assert index["patients"] == PATIENTS and index["sides"] == ["test"] * 7 + ["train"] * 2
    assert index["lesions"]["SAH"]["pixels"] == AREAS and index["square_mm"] == [pytest.approx(0.4)] * 9
    for run, dice in zip(two_runs[1], index["lesions"]["SAH"]["dice"], strict=True):
        expected = [*metrics.dice(run.counts), np.nan, np.nan]
        np.testing.assert_allclose(np.array(dice, float), expected)
    assert [network["gates"] for network in index["networks"]] == [False, True]
    assert index["windows"][0] == {"name": "brain 40/80, as stored", "level": 40, "width": 80, "stored": 0}


def test_everything_that_browse_takes_opens_at_its_largest_lesion(two_runs):
    store, runs = two_runs
    results = results_of(store, a_split(store, C="train"), {run.model: [run] for run in runs})
    assert [browse(store).row, browse(runs[0]).row, browse(*runs).row, browse(results).row] == [7, 5, 5, 5]
    assert [len(browse(what).index["networks"]) for what in (store, runs[0], results)] == [0, 1, 2]
    with pytest.raises(StudyError):
        browse()


# What a view asks for


@pytest.mark.parametrize("row", range(9))
def test_a_slice_is_sent_bit_for_bit_and_scores_alike_at_every_threshold(two_runs, shown, monkeypatch, row):
    store, runs = two_runs
    header, data = answered(shown, monkeypatch, kind="slice", row=row, lesion="SAH")
    tested = row < 7
    assert header == {"kind": "slice", "height": 16, "width": 16, "stored": 1, "networks": 2 * tested}
    picture, bits, *percent = np.split(np.frombuffer(data, np.uint8), [256, 288, *[544] * tested])
    np.testing.assert_array_equal(picture.reshape(16, 16), store.images[row])
    truth = np.unpackbits(bits).reshape(16, 16).astype(bool)
    np.testing.assert_array_equal(truth, store.masks(np.array([row]))[0])
    for sent, run in zip(percent[: 2 * tested], runs, strict=False):
        probabilities = np.asarray(run.probabilities[row], np.float64)
        for threshold in range(1, 100):
            np.testing.assert_array_equal(sent.reshape(16, 16) > threshold, probabilities > threshold / 100)


def test_hounsfield_units_are_the_scans_and_what_hinders_is_said(tmp_path, monkeypatch):
    from sahlib.data.sources import open_source

    study, other = nifti_study(tmp_path / "scans"), nifti_study(tmp_path / "others", seed=1)
    store = slices.prepare(study, tmp_path / "processed")
    images = np.concatenate([scan.image for scan in open_source(study)])
    header, data = answered(browse(store, study=study), monkeypatch, kind="hounsfield", row=4)
    assert header == {"kind": "hounsfield", "height": 20, "width": 28}
    np.testing.assert_array_equal(np.frombuffer(data, "<i2").reshape(20, 28), images[4])
    told = answered(browse(store, study=other), monkeypatch, kind="hounsfield", row=4)
    assert told == {"error": "the scans are others than these slices were made from."}


def test_a_gate_is_sent_of_any_side(shown, monkeypatch):
    monkeypatch.setattr("sahlib.scoring.prediction.load_network", lambda run: run)
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    monkeypatch.setattr("sahlib.networks.gates.gate_maps", lambda network, inputs, precision: [ramp])
    header, data = answered(shown, monkeypatch, kind="gate", row=8, network=1)
    assert header == {"kind": "gate", "height": 16, "width": 16} and data == bytes(range(256))


def test_each_lesion_of_a_network_has_its_own_truth_sizes_and_masks(tmp_path, monkeypatch):
    labels = labels_of([5, 9, 0])
    labels[2, 8:12] = 2  # IVH, 64 pixels
    store = a_store(tmp_path, labels, list("AAB"))
    probabilities = {"SAH": (labels == 1) * 0.9, "IVH": (labels == 2) * 0.75}
    shown = browse(a_run(tmp_path, store, a_split(store), "unet", probabilities))
    assert {name: own["pixels"] for name, own in shown.index["lesions"].items()} == {
        "SAH": [5, 9, 0],
        "IVH": [0, 0, 64],
    }
    _, data = answered(shown, monkeypatch, kind="slice", row=2, lesion="IVH")
    assert np.unpackbits(np.frombuffer(data[256:288], np.uint8)).sum() == 64 and max(data[288:]) == 75


# What stays when the kernel is gone


def decoded(data):
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_a_headless_run_keeps_a_picture_with_alternative_text(shown, monkeypatch):
    monkeypatch.setattr("sahlib.progress._in_a_kernel", lambda: True)
    monkeypatch.setenv("SAHLIB_HEADLESS", "1")
    data, metadata = shown._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png"}
    assert metadata["image/png"]["alt"] == "Slice browser at slice B_5 of patient B, test side"
    assert decoded(data["image/png"]).shape[1] == 3 * 3 * 144  # three panels of three inches
    monkeypatch.delenv("SAHLIB_HEADLESS")
    data, _ = shown._repr_mimebundle_()
    assert decoded(data["image/png"]) is not None
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.model_id


def test_a_page_holds_patients_then_extremes_as_far_as_its_room_goes(two_runs):
    content = packing.of_each_lesion(next(iter(browse(*two_runs[1]).content.values())))["SAH"]
    whole = embedded.embed(content, ["B"], "those of B", 10**6)
    held = json.loads(whole.data)
    # A_0 has neither a lesion nor anything found, and so no Dice; C was not tested.
    assert (whole.held, whole.of) == (6, 9) and held["index"]["slices"] == ["A_1", "A_2", "A_3", "B_4", "B_5", "B_6"]
    assert [header["networks"] for header, _ in held["slices"]] == [2] * 6
    less = embedded.embed(content, ["B"], "those of B", len(json.dumps(held["slices"])) // 2)
    assert 3 <= less.held < 6 and set(json.loads(less.data)["index"]["patients"][-3:]) == {"B"}
    assert (
        decoded(less.picture) is not None and less.alternative == "Slice browser at slice B_5 of patient B, test side"
    )


@pytest.mark.skipif(not lab.CHROMIUM, reason="no Chromium is installed: apt-get install chromium")
def test_hostile_names_stay_text_in_a_page(tmp_path):
    store = a_store(tmp_path, labels_of([4, 2]), [HOSTILE, HOSTILE], ids=[f"{HOSTILE}_1", "../../x"])
    run = a_run(tmp_path, store, a_split(store), "unet", {"SAH": labels_of([4, 2]) * 1.0})
    page_file = tmp_path / "page.html"
    page_file.write_text(page_of(embedded.embed(next(iter(browse(run).content.values())), [HOSTILE], "all", 10**6)))
    with lab.chromium() as page:
        page.goto(page_file.as_uri())
        page.wait_for_selector(".sah[data-row='0']")
        identity = f"slice {HOSTILE}_1 of patient {HOSTILE}, test side"
        assert page.locator(".sah-status b").inner_text() == identity
        labels = [page.locator("canvas").nth(k).get_attribute("aria-label") for k in (0, 1)]
        assert labels == [
            f"CT and ground truth: {identity}. 0.04 cm², SAH.",
            f"U-Net: {identity}. Dice 1.000, IoU 1.000, 0.04 cm² found.",
        ]
        page.locator(".sah-panels").press("End")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export PNG").click()
        assert download.value.suggested_filename.endswith("x.png")
        assert page.locator(".sah b").count() == 3 and page.problems == []
