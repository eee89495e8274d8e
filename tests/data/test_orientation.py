import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.folders import write_paired_folder

from sahlib.data import orientation, slices
from sahlib.data.check.examine import examine
from sahlib.data.check.findings import LOOK
from sahlib.data.orientation import AS_STORED, FACES, TURNS, in_doubt, similarities
from sahlib.data.sources.paired_folder import open_folder
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.study import ORIENTATIONS, Study, StudyError

# What a search names where pictures were turned so: left and right do not show.
UNDONE = {
    AS_STORED: AS_STORED, "mirrored": AS_STORED, "flipped": "rot180", "rot180": "rot180",
    "rot90": "rot270", "antitransposed": "rot90", "rot270": "rot90", "transposed": "rot270",
}  # fmt: skip


@pytest.fixture(scope="module")
def heads():
    """A third of the slices of some phantom patients as grey levels, each [D,H,W], in one window or another."""
    windows = [(40, 80), (127.5, 255), (75, 215)]
    return [slices.window_to_grey(Phantom(6, 0).scan(k).image[::3], *windows[k % 3]) for k in range(6)]


def test_the_turns_are_those_of_a_study():
    assert (*TURNS, orientation.AUTO) == ORIENTATIONS


@pytest.mark.parametrize("turn", TURNS)
def test_turns_are_the_eight_of_a_square_and_their_mirror_images_are_named(turn):
    square = np.arange(9).reshape(3, 3)
    assert len({TURNS[name].of(square).tobytes() for name in TURNS}) == 8
    if turn in FACES:
        np.testing.assert_array_equal(TURNS[FACES[turn]].of(square), TURNS[turn].of(square)[:, ::-1])
    np.testing.assert_array_equal(TURNS[turn].of(np.stack([square, square]))[1], TURNS[turn].of(square))


@pytest.mark.parametrize("turn", TURNS)
def test_the_way_up_is_found_however_patients_are_stored(heads, turn):
    """Or left in doubt, as 2 in 120 are; one of those is among these."""
    stored = [np.ascontiguousarray(TURNS[turn].of(head)) for head in heads]
    found = [orientation.found(np.array([similarities(grey) for grey in own])) for own in stored]
    names = [name for name, _ in found]
    assert set(names) <= {UNDONE[turn], ""} and names.count("") <= 1
    assert all((lead >= orientation.LEAST_LEAD) == (name != "") for name, lead in found)


def test_what_shows_no_head_is_in_doubt():
    assert np.isnan(similarities(np.zeros((64, 64), np.uint8))).all()
    assert orientation.found(np.full((3, 4), np.nan)) == ("", 0.0)
    assert orientation.found(np.array([[0.80, 0.79, 0.5, 0.5]]))[0] == ""


def write_heads(root, heads, turn):
    """A paired folder of grey heads [D,H,W] of two patients, stored turned; each mask is the brightest part."""
    rows = []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for patient, head in enumerate(heads):
        for z, grey in enumerate(TURNS[turn].of(head)):
            name = f"{patient}_{z:02d}.png"
            cv2.imwrite(str(root / "images" / name), np.ascontiguousarray(grey))
            cv2.imwrite(str(root / "masks" / name), (grey > 200) * np.uint8(255))
            rows.append({"file": name, "patient_id": f"p{patient}"})
    pd.DataFrame(rows).to_csv(root / "slices.csv", index=False)
    return root


@pytest.mark.parametrize("asked", ["rot180", "auto"])
def test_pictures_are_turned_with_their_masks(heads, tmp_path, asked):
    blank = np.zeros_like(heads[0][:2])
    root = write_heads(tmp_path / "in", [*heads[:2], blank], "rot180")
    study = Study.of_profile("smoke", dataset="paired_folder", data_dir=str(root), orientation=asked, size=256)
    store = slices.prepare(study, tmp_path / "out")
    upright = np.concatenate([*heads[:2], blank])
    np.testing.assert_array_equal(store.images, upright)
    np.testing.assert_array_equal(store.labels > 0, upright > 200)
    assert store.digest != slices.prepare(Study(**vars(study) | {"orientation": AS_STORED}), tmp_path / "out").digest
    told = [(f.gravity, f.sentence) for f in examine(open_folder(root, orientation=asked)).findings]
    doubt = "Which way up heads lie is in doubt, and left as stored, for p2"
    told = [(gravity, sentence) for gravity, sentence in told if sentence.startswith(doubt)]
    unlike = f"{doubt}, while others were turned: look which way up these lie, and name one orientation."
    assert told == [(LOOK, unlike)] * (asked == "auto")
    assert in_doubt({"p0": AS_STORED, "p2": ""}) == (f"{doubt}.",)


def test_a_picture_that_cannot_be_read_does_not_hide_which_way_up_the_others_lie(heads, tmp_path):
    root = write_heads(tmp_path / "in", heads[:1], "rot180")
    (root / "images" / "0_03.png").write_bytes(b"nothing")
    source = open_folder(root, orientation="auto")
    assert source.turns == {"p0": "rot180"}
    assert len(examine(source).unreadable) == 1


def test_an_orientation_that_is_none_and_one_for_scans_that_know_theirs_are_refused(tmp_path):
    folder = str(write_paired_folder(tmp_path / "in", patients=1))
    with pytest.raises(StudyError, match="unknown orientation: upside; choose from as stored, mirrored, flipped"):
        Study(dataset="paired_folder", data_dir=folder, orientation="upside")
    with pytest.raises(StudyError, match="orientation belong to a dataset read from disk"):
        Study(orientation="rot90")
