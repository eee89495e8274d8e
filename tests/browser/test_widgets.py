"""The browser as its controls drive it, without a screen: which slice, what is said of it, and what leaves it."""

import base64
import html
import re

import cv2
import ipywidgets
import numpy as np
import pytest
from helpers.fabricated import a_run, a_split, a_store, labels_of, nifti_study, results_of

from sahlib.browser import one_slice, widgets
from sahlib.browser.contents import EVERY, LESION, NO_LESION
from sahlib.browser.one_slice import AREA, ERRORS, GATES, OUTLINE, PROBABILITY
from sahlib.browser.pictures import SIDE
from sahlib.browser.widgets import BY_HAND, browse
from sahlib.data import slices
from sahlib.figures import drawing
from sahlib.scoring import metrics
from sahlib.study import StudyError

PATIENTS = ["A"] * 4 + ["B"] * 3 + ["C"] * 2  # C is on the training side
AREAS = [0, 4, 12, 12, 0, 40, 1, 90, 0]
HOSTILE = """<b>"a'/&$x\\"""


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
        probabilities[4] = 0.3
    models = ("unet", "attention_unet")
    return store, [a_run(workspace, store, split, m, {"SAH": p}) for m, p in zip(models, found, strict=True)]


@pytest.fixture
def shown(two_runs):
    return browse(*two_runs[1])


def note(shown, number):
    """The text under a panel, as a reader sees it."""
    text = re.search(r'<div class="sah-note">(.*)</div>$', shown.panels[number].value)[1]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def pixels(shown, number=0):
    """A panel's picture as the browser gets it, RGB [h,w,3]."""
    data = base64.b64decode(re.search(r"base64,([^\"]*)", shown.panels[number].value)[1])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def status(shown):
    return html.unescape(re.sub(r"<[^>]*>", "", shown.status.value))


def grey_pixels(shown):
    """The CT's panel without the outline; grey levels [h,w]."""
    shown.truth.value = False
    return pixels(shown)[..., 0]


def enlarged(grey):
    size = round(grey.shape[1] * SIDE / max(grey.shape)), round(grey.shape[0] * SIDE / max(grey.shape))
    return cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)


def records_of(widget):
    """Every value of a panel that would be sent, from now on."""
    sent = []
    widget.observe(lambda change: sent.append(change["new"]), "value")
    return sent


def controls_of(widget):
    found = []
    for child in getattr(widget, "children", ()):
        found += controls_of(child) or [child]
    return found


# What is shown at first


def test_everything_that_browse_takes_opens_at_its_largest_lesion(two_runs):
    store, runs = two_runs
    split = a_split(store, C="train")
    results = results_of(store, split, {run.model: [run] for run in runs})
    assert [browse(store).row, browse(runs[0]).row, browse(*runs).row, browse(results).row] == [7, 5, 5, 5]
    assert [len(browse(what).panels) for what in (store, runs[0], results)] == [1, 2, 3]
    assert "slice B_5 of patient B, test side" in status(browse(results))
    assert "side" not in status(browse(store)) and browse(store).jumps["worst"].disabled
    with pytest.raises(StudyError):
        browse()


def test_every_control_is_a_core_widget_with_a_name_that_a_key_can_reach(shown):
    named = (ipywidgets.HTML, ipywidgets.Label)
    controls = [control for control in controls_of(shown) if not isinstance(control, named)]
    assert len(controls) == 21
    for control in controls:
        assert control.description.strip() and control.tabbable is not False
        assert control._model_module == "@jupyter-widgets/controls"
    names = [control.description for control in controls]
    assert len(set(names)) == len(names)


def test_a_turn_of_the_wheel_is_one_slice(shown):
    shown.go_to(1)
    turns = [(100, 2), (3, 3), (1, 3), (0, 3), (-100, 2), (-0.5, 1), (-1, 0), (-1, 0)]  # the ends hold; sideways is 0
    for down, row in turns:
        shown._wheel._dom_handlers({"deltaY": down, "deltaX": 7})
        assert shown.row == row


# Scores


@pytest.mark.parametrize("threshold", [0.01, 0.25, 0.5, 0.77, 0.99])
def test_scores_are_those_of_metrics_at_the_threshold(two_runs, threshold):
    store, runs = two_runs
    shown = browse(*runs)
    shown.threshold.value = threshold
    for row in range(7):
        shown.go_to(row)
        truth = store.masks(np.array([row]))
        for number, run in enumerate(runs, 1):
            predicted = run.probabilities[row : row + 1] > threshold
            counts = metrics.pixel_counts(predicted, truth)
            if not (predicted.any() or truth.any()):
                assert note(shown, number) == "nothing found and there is no SAH Dice 0/0"
                continue
            dice, iou = metrics.dice(counts)[0], metrics.iou(counts)[0]
            area = predicted.sum() * 0.5 * 0.8 / 100
            assert note(shown, number) == f"Dice {dice:.3f} IoU {iou:.3f} {area:.2f} cm² found"


def test_scores_worked_out_by_hand(tmp_path):
    """4 pixels of truth, 6 found, 3 of them right: Dice 6/10, IoU 3/7; 4 pixels of 5 x 2 mm are 0.40 cm²."""
    store = a_store(tmp_path, labels_of([4, 0]), ["A", "A"], spacing=(5.0, 2.0))
    probabilities = np.zeros((2, 16, 16))
    probabilities[0, 0, 1:7] = 0.6
    shown = browse(a_run(tmp_path, store, a_split(store), "unet", {"SAH": probabilities}))
    assert (note(shown, 0), note(shown, 1)) == ("0.40 cm² SAH", "Dice 0.600 IoU 0.429 0.60 cm² found")
    shown.threshold.value = 0.61
    assert note(shown, 1) == "Dice 0.000 IoU 0.000 0.00 cm² found"
    shown.go_to(1)
    assert (note(shown, 0), note(shown, 1)) == ("no SAH", "nothing found and there is no SAH Dice 0/0")


def test_without_a_spacing_areas_are_pixels(tmp_path):
    labels = labels_of([1234], size=48)
    store = a_store(tmp_path, labels, ["A"], spacing=(float("nan"),) * 2)
    shown = browse(a_run(tmp_path, store, a_split(store), "unet", {"SAH": labels * 1.0}))
    assert (note(shown, 0), note(shown, 1)) == ("1,234 px SAH", "Dice 1.000 IoU 1.000 1,234 px found")


def test_slices_of_another_side_have_no_score(shown):
    shown.go_to(7)
    assert note(shown, 0) == "0.36 cm² SAH"
    assert note(shown, 1) == note(shown, 2) == "no prediction this slice is on the train side"
    for overlay in (AREA, OUTLINE, PROBABILITY, ERRORS):
        shown.overlay.value = overlay
        np.testing.assert_array_equal(pixels(shown, 1), pixels(shown, 0))


# Jumps


def jumps(shown, name, times):
    rows = []
    for _ in range(times):
        shown.jumps[name].click()
        rows.append(shown.row)
    return rows


def test_largest_and_smallest_go_on_to_the_next_and_round(shown):
    assert jumps(shown, "largest", 6) == [5, 3, 2, 1, 6, 5]
    assert "Largest, 1 of 5" in status(shown)
    assert jumps(shown, "smallest", 3) == [6, 1, 2]
    assert jumps(shown, "largest", 2) == [5, 3]  # begins anew
    shown.side.value = ""
    assert jumps(shown, "largest", 2) == [7, 5]


def test_worst_and_best_are_those_of_the_network_in_question(two_runs, shown):
    for number, run in enumerate(two_runs[1]):
        shown.judge.value = number
        dice = metrics.dice(run.counts)
        order = [row for row in np.argsort(dice, kind="stable") if not np.isnan(dice[row])]
        assert jumps(shown, "worst", len(order) + 1) == [*order, order[0]]
        assert jumps(shown, "best", 2) == order[:-3:-1]
    assert 0 not in order and 4 not in order  # 0/0


def test_nowhere_to_jump_is_said_and_the_slice_stays(shown):
    shown.go_to(4)
    shown.kind.value = NO_LESION
    before = shown.row
    for name in shown.jumps:
        shown.jumps[name].click()
        assert "No slice of this choice has a lesion or a Dice" in status(shown) and shown.row == before


# Filters


def test_filters_leave_their_slices_and_come_back_from_none(shown):
    assert "7 slices of 2 patients" in status(shown)
    shown.size.value = (12, 39)
    assert "2 slices of 1 patient to choose" in status(shown) and shown.patient.options == ("A",) and shown.row == 3
    shown.size.value = (13, 39)
    assert shown.row is None and status(shown) == "No slice fits this choice; widen it."
    assert all(panel.value == "" for panel in shown.panels)
    with pytest.raises(StudyError, match="No slice fits"):
        shown.view()
    shown.export.click()
    assert shown.link.value == ""
    assert shown._repr_mimebundle_() == {"text/plain": "No slice to show."}
    for name in shown.jumps:
        shown.jumps[name].click()
    shown._step(1)
    assert shown.row is None
    shown.size.value = (0, 90)
    assert shown.row is not None and all("<img" in panel.value for panel in shown.panels)
    shown.kind.value = LESION
    assert "5 slices of 2 patients" in status(shown)
    shown.side.value = "train"
    assert shown.row == 7 and shown.patient.options == ("C",)


def test_go_to_brings_back_what_the_choice_leaves_out(shown):
    shown.size.value = (40, 40)
    shown.go_to(5)
    assert shown.size.value == (40, 40) and shown.row == 5
    shown.go_to(8)
    assert (shown.row, shown.side.value, shown.kind.value, shown.size.value) == (8, "", EVERY, (0, 90))
    assert (shown.patient.value, shown.slice.value, shown.slice.max) == ("C", 1, 1)


def test_a_patient_and_a_slice_are_chosen_by_hand(shown):
    shown.patient.value = "A"
    for at in range(4):
        shown.slice.value = at
        assert shown.row == at
    shown.patient.value = "B"  # which has one slice less
    assert shown.row == 6


# Windows


def test_a_window_of_the_scan_is_that_of_its_hounsfield_units(tmp_path):
    study = nifti_study(tmp_path / "scans")
    shown = browse(slices.prepare(study, tmp_path / "processed"), study=study)
    from sahlib.data.sources import open_source

    images = np.concatenate([scan.image for scan in open_source(study)])
    assert shown.window.label == "brain 40/80, as stored" and "0 to 80 HU, as the networks see it" in status(shown)
    np.testing.assert_array_equal(grey_pixels(shown), enlarged(shown.content.store.images[shown.row]))
    shown.window.value = (75.0, 215.0)
    assert (shown.window.label, shown.level.value, shown.width.value) == ("subdural 75/215", 75, 215)
    assert "-32.5 to 182.5 HU, from the scan" in status(shown)
    expected = slices.window_to_grey(images[shown.row], 75, 215)
    np.testing.assert_array_equal(grey_pixels(shown), enlarged(expected))  # 20 rows and 28 columns
    shown.level.value = 500
    assert shown.window.label == BY_HAND
    expected = slices.window_to_grey(images[shown.row], 500, 215)
    np.testing.assert_array_equal(grey_pixels(shown), enlarged(expected))
    shown.window.label = "bone 600/2800"
    assert (shown.level.value, shown.width.value, shown.window.label) == (600, 2800, "bone 600/2800")
    shown.window.label = BY_HAND
    assert "-800 to 2000 HU" in status(shown) and shown.window.index == len(shown.window.options) - 1


def test_scans_other_than_the_stores_are_not_shown_and_the_status_says_why(tmp_path):
    study = nifti_study(tmp_path / "scans")
    other = nifti_study(tmp_path / "others", seed=1)
    shown = browse(slices.prepare(study, tmp_path / "processed"), study=other)
    shown.window.value = (75.0, 215.0)
    assert "within the stored 8 bits: the scans are others than these slices were made from." in status(shown)
    np.testing.assert_array_equal(grey_pixels(shown), enlarged(shown.content.stored(shown.row, 75, 215)))


def test_pictures_stay_within_their_8_bits(small):
    study, store, _ = small
    shown = browse(store, study=study)
    assert [label for label, _ in shown.window.options] == ["grey levels as stored", BY_HAND]
    assert "0 to 255 of 255, as the networks see it" in status(shown)
    np.testing.assert_array_equal(grey_pixels(shown), enlarged(store.images[shown.row]))
    shown.width.value, shown.level.value = 80, 100
    assert "60 to 140 of 255, within the stored 8 bits" in status(shown)
    shown.window.value = shown.window.options[0][1]
    np.testing.assert_array_equal(grey_pixels(shown), enlarged(store.images[shown.row]))


def test_every_stored_window_can_be_chosen_and_left_whatever_its_level(tmp_path):
    windows = ((40, 80), (1500, 4000), (-600, 1500), (40.5, 81))
    shown = browse(a_store(tmp_path, labels_of([3]), ["A"], windows=windows))
    images = shown.content.store.inputs(np.array([0]))[0]
    for index in (1, 2, 3, 0, 3, 2):
        shown.window.index = index
        assert shown.window.index == index and "as the networks see it" in status(shown)
        np.testing.assert_array_equal(grey_pixels(shown), enlarged(images[index]))
        assert (shown.level.value, shown.width.value) == tuple(map(round, windows[index]))


# Several lesions


def test_each_lesion_of_a_network_has_its_own_sizes_and_scores(tmp_path):
    labels = labels_of([5, 9, 0])
    labels[2, 8:12] = 2  # IVH, 64 pixels
    store = a_store(tmp_path, labels, list("AAB"))
    probabilities = {"SAH": (labels == 1) * 0.9, "IVH": (labels == 2) * 0.7}
    shown = browse(a_run(tmp_path, store, a_split(store), "unet", probabilities))
    assert shown.lesion.options == ("SAH", "IVH") and shown.lesion.layout.display is None
    assert (shown.row, shown.size.max) == (1, 9)
    shown.lesion.value = "IVH"
    assert shown.size.value == (0, 64) and "3 slices of 2 patients" in status(shown)
    assert jumps(shown, "largest", 1) == [2]
    assert (note(shown, 0), note(shown, 1)) == ("0.64 cm² IVH", "Dice 1.000 IoU 1.000 0.64 cm² found")
    shown.threshold.value = 0.8
    assert note(shown, 1).startswith("Dice 0.000")
    shown.lesion.value = "SAH"
    assert note(shown, 0) == "no SAH" and shown.size.value == (0, 9)


def test_any_hemorrhage_is_one_lesion(tmp_path):
    labels = labels_of([5, 0])
    labels[1, 8] = 3
    store = a_store(tmp_path, labels, ["A", "A"])
    shown = browse(a_run(tmp_path, store, a_split(store), "unet", {"any": (labels > 0) * 1.0}))
    assert shown.lesion.layout.display == "none"
    assert note(shown, 0) == "0.16 cm² lesion" and note(shown, 1).startswith("Dice 1.000")


# Overlays


def test_overlays_are_drawn_in_each_networks_panel(two_runs, shown):
    store, runs = two_runs
    shown.truth.value, shown.opacity.value = False, 1.0
    shown.overlay.value = ERRORS
    row, (found, invented, missed) = shown.row, widgets.pictures.ERRORS.values()
    truth, cell = store.masks(np.array([row]))[0], SIDE // 16
    for number, run in enumerate(runs, 1):
        middles = pixels(shown, number)[cell // 2 :: cell, cell // 2 :: cell]
        predicted = run.probabilities[row] > 0.5
        assert (middles[truth & predicted] == found).all() and (middles[truth & ~predicted] == missed).all()
        assert (middles[predicted & ~truth] == invented).all()
    assert all(name in status(shown) for name in ("found", "invented", "missed"))
    plain = pixels(shown, 0)
    shown.overlay.value = AREA
    assert "invented" not in status(shown)
    colour = widgets.pictures.rgb(drawing.LOOKS["unet"].colour)
    filled = (pixels(shown, 1) == colour).all(-1)
    np.testing.assert_array_equal(filled, (runs[0].probabilities[row] > 0.5).repeat(cell, 0).repeat(cell, 1))
    np.testing.assert_array_equal(pixels(shown, 1)[~filled], plain[~filled])


def test_gates_are_shown_where_there_are_gates(shown, monkeypatch):
    assert GATES in shown.overlay.options and GATES not in browse(shown.content.store).overlay.options
    monkeypatch.setattr("sahlib.scoring.prediction.load_network", lambda run: run)
    monkeypatch.setattr("sahlib.networks.gates.gate_maps", lambda network, inputs, precision: [np.ones((1, 16, 16))])
    shown.overlay.value, shown.truth.value = GATES, False
    np.testing.assert_array_equal(pixels(shown, 1), pixels(shown, 0))
    assert not np.array_equal(pixels(shown, 2), pixels(shown, 0))
    shown.go_to(8)  # of the training side, where the weights have something to say all the same
    assert not np.array_equal(pixels(shown, 2), pixels(shown, 0))


# What is sent


def test_a_panel_that_stays_the_same_is_not_sent_again(shown):
    ct, unet, attention = map(records_of, shown.panels)
    shown.threshold.value = 0.8
    assert (len(ct), len(unet), len(attention)) == (0, 1, 1)
    shown.overlay.value = PROBABILITY
    assert (len(ct), len(unet), len(attention)) == (0, 2, 2)
    shown.shown[0].value = False
    shown.opacity.value = 0.3
    assert (len(ct), len(unet), len(attention)) == (0, 2, 3)
    assert shown.panels[1].layout.display == "none" and shown.panels[2].layout.display is None
    shown.truth.value = False
    shown.shown[0].value = True
    assert (len(ct), len(unet), len(attention)) == (1, 3, 4)
    shown.export.click()
    assert (len(ct), len(unet), len(attention)) == (1, 3, 4)


@pytest.mark.parametrize(
    "act",
    [
        lambda shown: shown.go_to(8),
        lambda shown: setattr(shown.kind, "value", LESION),
        lambda shown: setattr(shown.window, "value", (75.0, 215.0)),
        lambda shown: setattr(shown.level, "value", 60),
        lambda shown: setattr(shown.patient, "value", "A"),
    ],
)
def test_one_act_draws_once(shown, act, monkeypatch):
    drawn = []
    monkeypatch.setattr(widgets, "OneSlice", lambda *a: drawn.append(a) or one_slice.OneSlice(*a))
    act(shown)
    assert len(drawn) == 1


# What leaves it


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


def test_the_exported_view_is_what_is_ticked(shown):
    shown.shown[0].value = False
    shown.export.click()
    name, data = re.search(r'download="([^"]*)" href="data:image/png;base64,([^"]*)"', shown.link.value).groups()
    assert name == "B_5.png" and base64.b64decode(data) == shown.view()
    assert decoded(data).shape[1] == 2 * 3 * 144


def test_hostile_names_stay_text_everywhere(tmp_path):
    from html.parser import HTMLParser

    store = a_store(tmp_path, labels_of([4, 2]), [HOSTILE, HOSTILE], ids=[f"{HOSTILE}_1", "../../x"])
    shown = browse(a_run(tmp_path, store, a_split(store), "unet", {"SAH": labels_of([4, 2]) * 1.0}))
    shown.export.click()
    seen = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append((tag, dict(attributes)))

    for part in (*shown.panels, shown.status, shown.link):
        Tags().feed(part.value)
    # One bold word of ours in each note and one in the status.
    assert sorted({tag for tag, _ in seen}) == ["a", "b", "br", "div", "i", "img"]
    assert [tag for tag, _ in seen].count("b") == len(shown.panels) + 1
    identity = f"slice {HOSTILE}_1 of patient {HOSTILE}, test side"
    assert [attributes["alt"] for tag, attributes in seen if tag == "img"] == [
        f"CT and ground truth: {identity}. 0.04 cm², SAH.",
        f"U-Net: {identity}. Dice 1.000, IoU 1.000, 0.04 cm² found.",
    ]
    assert identity in status(shown)
    (link,) = (attributes for tag, attributes in seen if tag == "a")
    assert link["download"] == HOSTILE.replace("/", "_") + "_1.png" and set(link) == {"download", "href"}
    assert decoded(base64.b64encode(shown.view())) is not None
    shown.slice.value = 1
    shown.export.click()
    assert 'download=".._.._x.png"' in shown.link.value


def test_a_picture_in_a_panel_has_a_sentence_for_who_cannot_see_it(shown):
    shown.go_to(0)
    alts = [re.search(r'alt="([^"]*)"', panel.value)[1] for panel in shown.panels]
    assert alts == [
        "CT and ground truth: slice A_0 of patient A, test side. no SAH.",
        *(
            f"{name}: slice A_0 of patient A, test side. nothing found, and there is no SAH, Dice 0/0."
            for name in ("U-Net", "Attention U-Net")
        ),
    ]
