import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sahlib.data.scan import CLASSES, SAH, ToLookAt
from sahlib.data.sources.paired_folder import open_folder
from sahlib.data.sources.pictures import read_grey
from sahlib.study import StudyError


def write(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_pairs_come_with_their_patient_grouped(paired_folder):
    source = open_folder(paired_folder)
    scans = list(source)
    assert len(source) == len(scans) == 36
    assert [scan.patient_id for scan in scans] == sorted(scan.patient_id for scan in scans)
    first = scans[1]
    assert first.slice_ids == ("00_1",) and first.patient_id == "p00" and first.unit == "grey"
    mask = cv2.imread(str(paired_folder / "masks" / "00_1.png"), 0)
    np.testing.assert_array_equal(first.labels[0] == SAH, mask == 255)
    np.testing.assert_array_equal(first.image[0], cv2.imread(str(paired_folder / "images" / "00_1.png"), 0))


def test_a_pattern_names_the_patient(paired_folder):
    (paired_folder / "slices.csv").unlink()
    source = open_folder(paired_folder, r"^(\d+)_")
    assert {case.patient_id for case in source.cases} == {f"{k:02d}" for k in range(12)}


@pytest.mark.parametrize(
    ("image", "mask", "pattern"),
    [
        ("case_{}_000{}", "case_{}_000{}_mask", "^(.+)_"),
        ("{}_{}_ct", "{}_{}_seg", r"^(.+)_\d+_ct$"),
        ("case_{}_000{}", "case_{}_000{}_mask", ""),
        ("{}_{}_img", "{}_{}_mask", ""),
    ],
)
def test_words_that_pairs_leave_aside_stay_in_the_name_of_the_slice(paired_folder, image, mask, pattern):
    for kind, form in (("images", image), ("masks", mask)):
        for path in list((paired_folder / kind).iterdir()):
            path.rename(path.with_name(form.format(*path.stem.split("_")) + ".png"))
    table = (paired_folder / "slices.csv").read_text().splitlines()
    rows = [f"{image.format(*row.split('.')[0].split('_'))}.png,{row.split(',')[1]}" for row in table[1:]]
    (paired_folder / "slices.csv").write_text("\n".join([table[0], *rows]))
    cases = open_folder(paired_folder, pattern).cases
    assert [case.scan_id for case in cases][:2] == [image.format("00", 0), image.format("00", 1)]
    assert len({case.patient_id for case in cases}) == 12 and len(cases) == 36


@pytest.mark.parametrize("name", ["images/x.bmp", "images/x.png/x.png", "images/x.nii (1).gz", "p12/x.nii.gz"])
def test_files_that_are_not_read_are_told(paired_folder, name):
    for beside in ("images/Thumbs.db", "images/._x.png", "images/@eaDir/x.jpg", "README", "notes.txt", name):
        (paired_folder / beside).parent.mkdir(exist_ok=True)
        (paired_folder / beside).touch()
    (remark,) = open_folder(paired_folder).remarks
    assert remark == f"Left aside in {paired_folder}: {name}; what they show is missing."
    assert isinstance(remark, ToLookAt)


def test_patients_by_a_pattern_that_look_alike_are_told(paired_folder):
    remarks = open_folder(paired_folder, r"^(?:0?)(\d+)_").remarks
    assert not remarks
    for kind in ("images", "masks"):
        (paired_folder / kind / "00_0.png").rename(paired_folder / kind / "000_0.png")
    (remark,) = open_folder(paired_folder, r"^(\d+)_").remarks
    assert remark.startswith("Patients 00 and 000 are taken for 2")


def test_without_patients_the_folder_is_refused_unless_that_is_accepted(paired_folder):
    (paired_folder / "slices.csv").unlink()
    with pytest.raises(StudyError, match="slices.csv.*patient_pattern.*slices_are_patients"):
        open_folder(paired_folder)
    assert len({case.patient_id for case in open_folder(paired_folder, slices_are_patients=True).cases}) == 36


def test_the_fingerprint_follows_content_and_patients_but_not_the_place(paired_folder, tmp_path):
    original = open_folder(paired_folder).fingerprint()
    moved = shutil.copytree(paired_folder, tmp_path / "moved")
    assert open_folder(moved).fingerprint() == original
    table = pd.read_csv(moved / "slices.csv")
    table.loc[0, "patient_id"] = "p01"
    table.to_csv(moved / "slices.csv", index=False)
    relabelled = open_folder(moved).fingerprint()
    assert relabelled != original
    pixels = read_grey(moved / "images" / "00_0.png").copy()
    pixels[0, 0] ^= 1
    write(moved / "images" / "00_0.png", pixels)
    assert open_folder(moved).fingerprint() not in (original, relabelled)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: (root / "masks" / "03_1.png").unlink(), ["03_1.png", "no mask"]),
        (lambda root: (root / "images" / "03_1.png").unlink(), ["03_1.png", "no image"]),
        (lambda root: shutil.rmtree(root / "masks"), ["masks", "cannot be read"]),
        (lambda root: [file.unlink() for file in (root / "images").iterdir()], ["00_0.png", "no image"]),
        (lambda root: [file.rename(file.with_suffix(".img")) for file in root.glob("*/*.png")], ["no scan or", ".nii"]),
        (lambda root: shutil.copy(root / "images" / "03_1.png", root / "images" / "03_1.jpg"), ["03_1", "same stem"]),
        (lambda root: (root / "slices.csv").write_text("name,patient\n"), ["slices.csv", "file", "patient_id"]),
        (lambda root: (root / "slices.csv").write_text("file,patient_id\n00_0.png,a\n"), ["00_1", "no patient"]),
        (
            lambda root: (root / "slices.csv").write_text("file,patient_id\n00_0.png,a\n00_0.png,b\n"),
            ["00_0.png", "two patients"],
        ),
        (lambda root: (root / "slices.csv").write_bytes(b"\xff\xfe\x00"), ["slices.csv"]),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name(paired_folder, break_it, words):
    break_it(paired_folder)
    with pytest.raises(StudyError) as error:
        open_folder(paired_folder)
    assert all(word in str(error.value) for word in words)


def test_a_missing_folder_and_a_bad_pattern_are_named(paired_folder, tmp_path):
    with pytest.raises(StudyError, match="nowhere"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="not a regular expression"):
        open_folder(paired_folder, "(")
    with pytest.raises(StudyError, match="finds no patient in"):
        open_folder(paired_folder, "^x(.)")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_picture_is_named(tmp_path, ending, keep):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = write(tmp_path / f"cut.{ending}", pixels)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(StudyError, match="cut"):
        read_grey(path)


def test_16_bit_pictures_are_refused_since_their_window_is_unknown(tmp_path):
    path = write(tmp_path / "deep.png", np.full((8, 8), 3000, np.uint16))
    with pytest.raises(StudyError, match="uint16.*8-bit"):
        read_grey(path)


def test_colour_pictures_are_read_as_grey(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = write(tmp_path / "colour.png", np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(read_grey(path), grey)


def test_sizes_that_differ_name_both_files(paired_folder):
    write(paired_folder / "masks" / "00_0.png", np.zeros((8, 10), np.uint8))
    with pytest.raises(StudyError, match=r"masks/00_0.png is 10x8 but its image .*images/00_0.png is 48x48"):
        open_folder(paired_folder).scan(0)


REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "mbh_seg25_mini"


@pytest.mark.skipif(not REAL.is_dir(), reason="the 36 real slices are not beside this checkout")
def test_real_slices_keep_their_documented_lesion_pixels():
    documented = pd.read_csv(REAL / "slices.csv").set_index("file")["sah_pixels"]
    scans = {scan.slice_ids[0] + ".png": scan for scan in open_folder(REAL)}
    assert {file: int((scan.labels == SAH).sum()) for file, scan in scans.items()} == documented.to_dict()


COLOURS = ("#00ffff=SAH", "#ff0000=EDH", "#0000ff=IPH", "#ffff00=IVH", "#00ff00=SDH")


def in_colours(folder):
    """masks_rgb/ beside masks/: SAH in cyan, and a yellow corner (IVH) in every mask."""
    (folder / "masks_rgb").mkdir()
    for path in sorted((folder / "masks").iterdir()):
        mask = cv2.imread(str(path), 0) > 0
        picture = np.zeros((*mask.shape, 3), np.uint8)
        picture[mask] = (0, 255, 255)
        picture[:2, :3] = (255, 255, 0)
        write(folder / "masks_rgb" / path.name, picture)
    return folder


def test_colours_become_classes_and_sah_is_that_of_the_binary_masks(paired_folder):
    binary = open_folder(paired_folder)
    coloured = open_folder(in_colours(paired_folder), label_map=COLOURS)
    for one, other in zip(binary, coloured, strict=True):
        np.testing.assert_array_equal(one.labels == SAH, other.labels == SAH)
        assert (other.labels == CLASSES.index("IVH")).sum() == 6 and one.slice_ids == other.slice_ids
    assert binary.fingerprint() != coloured.fingerprint()


def test_only_colours_read_the_masks_in_colour_unless_there_are_no_others(paired_folder):
    white = open_folder(in_colours(paired_folder), label_map=("255=SAH",))
    assert sum(int((scan.labels == SAH).sum()) for scan in white) > 0 and not white.remarks
    shutil.rmtree(paired_folder / "masks")
    with pytest.raises(StudyError, match="#ffff00 .*nothing says which is SAH"):
        open_folder(paired_folder)


def test_grey_levels_become_classes(paired_folder):
    for path in (paired_folder / "masks").iterdir():
        write(path, np.where(cv2.imread(str(path), 0) > 0, 4, 2).astype(np.uint8))
    labels = open_folder(paired_folder, label_map=("4=SAH", "2=background")).scan(1).labels
    assert set(np.unique(labels)) == {0, SAH}


@pytest.mark.parametrize(
    ("label_map", "words"),
    [
        (("#00ffff=SAH",), "holds the value #ffff00, .*label_map.* #ffff00=SAH"),
        (("#00ffff=blood",), "#00ffff=blood.*must look like"),
        (("cyan=SAH",), "must look like 4=SAH"),
        (("#00ffff=SAH", "#00FFFF=IVH"), "names #00ffff twice"),
        (("1=SAH", "01=IVH"), "names 1 twice"),
        (("#00ffff=SAH", "255=IVH"), "colours and numbers"),
    ],
)
def test_a_colour_without_a_class_never_becomes_background(paired_folder, label_map, words):
    with pytest.raises(StudyError, match=words):
        list(open_folder(in_colours(paired_folder), label_map=label_map))


def test_colours_in_a_jpeg_are_refused(paired_folder):
    for path in list((paired_folder / "masks").iterdir()):
        Image.open(path).convert("RGB").point([255] * 256 + [0] * 512).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(StudyError, match="JPEG, whose colours are not exact"):
        list(open_folder(paired_folder, label_map=COLOURS))


@pytest.mark.skipif(not REAL.is_dir(), reason="the 36 real slices are not beside this checkout")
def test_real_slices_have_the_same_sah_by_colour_as_in_the_binary_masks():
    binary, coloured = open_folder(REAL), open_folder(REAL, label_map=COLOURS)
    others = 0
    for one, other in zip(binary, coloured, strict=True):
        np.testing.assert_array_equal(one.labels == SAH, other.labels == SAH)
        others += int((other.labels > SAH).sum())
    assert others > 0, "the colours name other types too"
