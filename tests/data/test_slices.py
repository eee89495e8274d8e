import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from sahlib.data import slices
from sahlib.data.scan import CLASSES, Scan
from sahlib.data.slices import open_store, preprocess, window_to_grey
from sahlib.data.sources.files import FolderSource
from sahlib.study import Study, StudyError
from sahlib.workspace import cores


def study(folder, **changes):
    return Study.of_profile("smoke", dataset="paired_folder", data_dir=str(folder), **changes)


def test_a_store_holds_section_2_2_to_the_letter(paired_folder, tmp_path):
    store = slices.prepare(study(paired_folder), tmp_path / "processed")
    assert store.images.shape == store.labels.shape == (36, 32, 32)
    assert store.images.dtype == store.labels.dtype == np.uint8
    row = int(np.flatnonzero(store.slices.slice_id == "04_2")[0])
    grey = cv2.imread(str(paired_folder / "images" / "04_2.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(store.images[row], cv2.resize(grey, (32, 32), interpolation=cv2.INTER_LINEAR))
    assert set(np.unique(store.labels)) == {0, 1}
    assert store.slices.pixels_SAH.to_list() == (store.labels == 1).sum((1, 2)).tolist()
    assert store.slices.iloc[row][["patient_id", "z", "source"]].to_list() == [
        "p04",
        2,
        "images/04_2.png; masks/04_2.png",
    ]


def test_a_finished_store_is_found_and_not_built_again(paired_folder, tmp_path):
    first = slices.prepare(study(paired_folder), tmp_path)
    before = (first.path / "images.npy").stat().st_mtime_ns

    def no_reading(scans):
        raise AssertionError("scans were read again")

    assert slices.prepare(study(paired_folder), tmp_path, no_reading).digest == first.digest
    assert (first.path / "images.npy").stat().st_mtime_ns == before
    assert slices.prepare(study(paired_folder, size=48), tmp_path).digest != first.digest


def test_a_build_that_fails_leaves_no_half_of_a_store(paired_folder, tmp_path):
    (paired_folder / "masks" / "07_1.png").write_bytes(b"not a picture")
    with pytest.raises(StudyError, match="07_1.png"):
        slices.prepare(study(paired_folder), tmp_path / "processed")
    assert [path.name for path in (tmp_path / "processed").rglob("*") if path.is_file()] == [".lock"]


def test_of_two_that_want_one_store_the_second_waits_and_builds_nothing(paired_folder, tmp_path, monkeypatch, capsys):
    built, write = [], slices._write

    def slow(folder, *rest):
        built.append(folder)
        time.sleep(0.3)
        write(folder, *rest)

    monkeypatch.setattr(slices, "_write", slow)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: slices.prepare(study(paired_folder), tmp_path / "processed"), range(2))
    assert len(built) == 1 and one.path == other.path and len(one) == len(other) == 36
    assert "waiting for it to end" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "processed").rglob("*.npy")} == {"images.npy", "labels.npy"}


def test_what_a_killed_build_left_on_any_machine_is_built_over(paired_folder, tmp_path):
    path = slices.prepare(study(paired_folder), tmp_path / "first").path
    left = tmp_path / "processed" / f".{path.name}.building" / "store"
    left.mkdir(parents=True)
    (left / "images.npy").write_text("half")
    store = slices.prepare(study(paired_folder), tmp_path / "processed")
    assert len(store) == 36 and not left.exists()


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "slices.csv", "meta.json"])
def test_a_damaged_store_is_named_and_not_used(paired_folder, tmp_path, name):
    path = slices.prepare(study(paired_folder), tmp_path).path
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(StudyError, match="damaged.*delete it"):
        open_store(path)
    (path / name).unlink()
    with pytest.raises(StudyError, match="damaged.*delete it"):
        open_store(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(paired_folder, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(StudyError, match="No permission.*locked"):
        slices.prepare(study(paired_folder), locked)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_said_in_one_sentence(paired_folder, tmp_path, monkeypatch):
    real_open = open
    monkeypatch.setattr(
        "builtins.open",
        lambda file, mode="r", *rest, **named: real_open(
            "/dev/full" if str(file).endswith("images.npy") and mode == "wb" else file, mode, *rest, **named
        ),
    )
    with pytest.raises(StudyError, match="disk is full"):
        slices.prepare(study(paired_folder), tmp_path / "processed")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "processed").rglob("*") if path.is_file()] == [".lock"]


def test_window_by_hand():
    hounsfield = np.array([[[-1000, 0, 20, 40, 80, 1000]]], np.int16)
    assert window_to_grey(hounsfield, 40, 80).ravel().tolist() == [0, 0, 64, 128, 255, 255]


def test_hounsfield_units_are_windowed_before_resizing_and_labels_keep_their_classes():
    labels = np.zeros((2, 64, 64), np.uint8)
    labels[0, :, 32:] = CLASSES.index("IVH")
    scan = Scan("p", np.full((2, 64, 64), 40, np.int16), labels, ("a", "b"), "HU", (0.5, 0.5), 5.0)
    (images,), small = preprocess(scan, 32, [(40, 80)])
    assert (images == 128).all() and images.shape == (2, 32, 32)
    assert (small[0, :, :16] == 0).all() and (small[0, :, 16:] == 2).all() and (small[1] == 0).all()


def test_three_windows_are_three_channels_of_one_input(tmp_path):
    study = Study.of_profile("smoke", phantom_patients=2, windows=("brain", "subdural", "100/50"))
    store, one = (slices.prepare(s, tmp_path) for s in (study, dataclasses.replace(study, windows=("subdural",))))
    rows = np.array([3, 40])
    inputs = store.inputs(rows)
    assert inputs.shape == (2, 3, 32, 32) and len(store.further_images) == 2
    np.testing.assert_array_equal(inputs[:, 0], store.images[rows])
    np.testing.assert_array_equal(inputs[:, 1], one.images[rows])
    assert (inputs[:, 1] != inputs[:, 0]).any() and (inputs[:, 2] != inputs[:, 1]).any()


def test_hounsfield_units_lie_beside_the_store_slice_by_slice(paired_folder, tmp_path, monkeypatch):
    told = study(paired_folder, grey_window="127.5/255", windows=("127.5/255",))  # so that grey is HU
    store = slices.prepare(told, tmp_path)
    wide = slices.wide(store, told)
    level, width = slices.WIDE
    assert wide.path == slices.prepare(dataclasses.replace(told, windows=(f"{level}/{width}",)), tmp_path).path
    assert wide.slices.equals(store.slices) and (wide.labels == store.labels).all()
    hounsfield = level - width / 2 + wide.images[:] * (width / 255)
    assert np.abs(hounsfield - store.images).max() <= 2.5  # rounded to 2 HU before resizing, and once more after it
    monkeypatch.setattr(slices, "_build", None)
    assert slices.wide(store, told).path == wide.path


def test_grey_levels_have_one_window(paired_folder, tmp_path):
    study = Study.of_profile("smoke", data_dir=str(paired_folder), dataset="paired_folder", windows=("brain", "bone"))
    with pytest.raises(StudyError, match="00_0.png holds grey levels of one window"):
        slices.prepare(study, tmp_path)


def test_resizing_keeps_image_and_label_on_each_other():
    """The centroid of a disc moves with the scale alone, for the image and for the label alike."""
    y, x = np.mgrid[:200, :200]
    disc = ((y - 120) ** 2 + (x - 60) ** 2 <= 30**2).astype(np.uint8)
    scan = Scan("p", disc[None] * np.uint8(255), disc[None], ("a",), "grey")
    (images,), labels = preprocess(scan, 64, [(40, 80)])
    expected = (np.array([120, 60]) + 0.5) * 64 / 200 - 0.5
    for picture in (images[0] / 255, labels[0].astype(float)):
        weights = picture / picture.sum()
        centroid = [(weights * axis[:64, :64]).sum() for axis in (y, x)]
        np.testing.assert_allclose(centroid, expected, atol=0.15)


def test_spacing_grows_as_the_image_shrinks(tmp_path):
    scan = Scan(
        "p", np.zeros((3, 100, 200), np.int16), np.zeros((3, 100, 200), np.uint8), tuple("abc"), "HU", (0.4, 0.5), 5
    )
    rows = slices._slice_rows(scan, np.zeros((3, 50, 50), np.uint8), 50)
    assert (rows[0]["row_mm"], rows[0]["column_mm"], rows[0]["thickness_mm"]) == (0.8, 2.0, 5)


def test_scans_read_ahead_come_in_order_few_at_a_time_and_stop_when_nobody_asks(paired_folder):
    read = []

    class Source(FolderSource):
        cases = range(20)

        def scan(self, index):
            read.append(index)
            return index

    scans = iter(Source())
    assert next(scans) == 0 and len(read) <= 2 * cores() + 1
    assert list(scans) == list(range(1, 20)) and sorted(read) == list(range(20))
    read.clear()
    scans = iter(Source())
    next(scans)
    scans.close()
    assert len(read) < 20


def test_grey_levels_of_a_known_window_are_turned_back_and_windowed_anew():
    hounsfield = np.arange(0, 256, dtype=np.int16).reshape(1, 16, 16)
    labels = np.zeros(hounsfield.shape, np.uint8)
    grey = window_to_grey(hounsfield, 127.5, 255)
    (expected,), _ = preprocess(Scan("p", hounsfield, labels, ("a",), "HU"), 16, [(40, 80)])
    (again,), _ = preprocess(Scan("p", grey, labels, ("a",), "grey"), 16, [(40, 80)], (127.5, 255))
    np.testing.assert_array_equal(again, expected)
    (untouched,), _ = preprocess(Scan("p", grey, labels, ("a",), "grey"), 16, [(40, 80)])
    np.testing.assert_array_equal(untouched, grey)


def test_the_window_of_the_export_makes_another_store(paired_folder, tmp_path):
    plain, anew = (slices.prepare(study(paired_folder, grey_window=w), tmp_path) for w in ("", "127.5/255"))
    assert plain.digest != anew.digest and (plain.images[:] != anew.images[:]).any()
