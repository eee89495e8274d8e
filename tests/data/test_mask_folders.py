"""Folders of masks: what is paired with what, and twenty ways to get them wrong, each told in one sentence."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from sahlib.data import mask_folders
from sahlib.study import StudyError

AFFINE = np.diag([-0.5, -0.5, 5.0, 1.0])
SHAPE = (12, 10, 4)


def nifti(path, values=None, affine=AFFINE, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = lesion() if values is None else values
    nib.save(nib.Nifti1Image(np.asarray(values, dtype), affine), path)


def lesion(value=1):
    values = np.zeros(SHAPE, np.uint8)
    values[2:5, 3:6, 1] = value
    return values


def picture(path, value=255, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size, np.uint8)
    values[2:4, 2:5] = value
    Image.fromarray(values).save(path)


@pytest.fixture
def scans(tmp_path):
    """truth/ and masks/ of three scans in NIfTI."""
    for name in ("a", "b", "c"):
        nifti(tmp_path / "truth" / f"{name}.nii.gz")
        nifti(tmp_path / "masks" / f"{name}.nii.gz")
    return tmp_path


@pytest.fixture
def pictures(tmp_path):
    """truth/ and masks/ of four pictures of two patients."""
    for name in ("1_a", "1_b", "2_a", "2_b"):
        picture(tmp_path / "truth" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def read_all(root, **more):
    folders = mask_folders.pair({"truth": root / "truth"}, {"net": root / "masks"}, **more)
    return folders, [folders.read(case) for case in folders.cases]


def test_names_are_compared_without_the_words_that_end_them(tmp_path):
    for name, mask, image in (("P1", "P1_pred", "P1_0000"), ("P10", "P10", "P10_ct"), ("P2", "P2_seg", "P2")):
        nifti(tmp_path / "truth" / f"{name}_mask.nii.gz")
        nifti(tmp_path / "masks" / f"{mask}.nii")
        nifti(tmp_path / "ct" / f"{image}.nii.gz", np.arange(480).reshape(SHAPE), dtype=np.int16)
    folders, read = read_all(tmp_path, images=tmp_path / "ct")
    assert [case.name for case in folders.cases] == ["P1", "P2", "P10"]
    assert [case.patient_id for case in folders.cases] == ["P1", "P2", "P10"]
    assert read[0].slice_ids == tuple(f"P1_z{z:02d}" for z in range(4)) and read[0].sides_mm == (0.5, 0.5, 5.0)
    assert (read[0].masks["net"] == read[0].truths[0]).all() and read[0].image.dtype == np.uint8


def test_a_mask_in_another_orientation_lies_where_the_truth_lies(scans):
    flipped = nib.as_closest_canonical(nib.load(scans / "masks" / "b.nii.gz"))
    assert flipped.affine[0, 0] > 0
    nib.save(flipped, scans / "masks" / "b.nii.gz")
    for one in read_all(scans)[1]:
        assert (one.masks["net"] == one.truths[0]).all()


def test_an_array_lies_as_nibabel_reads_its_truth(scans):
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    for name in ("a", "b", "c"):
        (scans / "masks" / f"{name}.nii.gz").unlink()
        np.save(scans / "masks" / f"{name}.npy", values)
    nifti(scans / "truth" / "a.nii.gz", values > 0.5)
    one = read_all(scans)[1][0]
    assert ((one.masks["net"] > 0.5) == (one.truths[0] == 1)).all()


def test_a_missing_prediction_has_found_nothing_and_is_told(scans):
    (scans / "masks" / "b.nii.gz").unlink()
    folders, read = read_all(scans)
    assert folders.missing == {"net": ["b"]} and not read[1].masks["net"].any() and read[1].truths[0].any()


def test_raters_are_read_beside_each_other(scans):
    for name in ("a", "b", "c"):
        nifti(scans / "second" / f"{name}.nii.gz", np.roll(lesion(), 1, 0))
    folders = mask_folders.pair({"one": scans / "truth", "two": scans / "second"}, {"net": scans / "masks"})
    first, second = folders.read(folders.cases[0]).truths
    assert (first != second).any() and folders.raters == ("one", "two")


def test_a_table_tells_patients_and_the_sides_of_pixels(pictures):
    rows = ["file,patient_id,row_mm,column_mm,thickness_mm"]
    rows += [f"{name}.png,P{name[0]},0.4,0.5,{'5' if name[0] == '1' else ''}" for name in ("1_a", "1_b", "2_a", "2_b")]
    (pictures / "patients.csv").write_text("\n".join(rows))
    folders, read = read_all(pictures, patients=pictures / "patients.csv")
    assert [case.patient_id for case in folders.cases] == ["P1", "P1", "P2", "P2"]
    assert read[0].sides_mm == (0.4, 0.5, 5.0) and np.isnan(read[2].sides_mm[2])


def test_each_folder_of_pictures_may_use_a_value_of_its_own(pictures):
    for path in (pictures / "masks").iterdir():
        picture(path, value=1)
    for one in read_all(pictures, patient_pattern="^(.)")[1]:
        assert (one.masks["net"] == one.truths[0]).all() and one.truths[0].any()


# What is wrong with which fixture -> what is done to it, and what the sentence names.

SHIFTED = AFFINE + np.array([[0, 0, 0, 3.0]] + [[0] * 4] * 3)
WRONG_SCANS = {
    "a flipped affine": (
        lambda r: nifti(r / "masks/b.nii.gz", affine=AFFINE @ np.diag([-1, 1, 1, 1])),
        "b.nii.gz is not on the grid of .*truth/b.nii.gz .*4x10x12 voxels of 5 x 0.5 x 0.5 mm from .*against",
    ),
    "another spacing": (
        lambda r: nifti(r / "masks/b.nii.gz", affine=AFFINE @ np.diag([2, 1, 1, 1])),
        "voxels of 5 x 0.5 x 1 mm from .* against 4x10x12 voxels of 5 x 0.5 x 0.5 mm",
    ),
    "shifted": (lambda r: nifti(r / "masks/b.nii.gz", affine=SHIFTED), "up to 3 mm beside it"),
    "another size": (lambda r: nifti(r / "masks/b.nii.gz", np.zeros((12, 10, 5))), "5x10x12 voxels .* against 4x10x12"),
    "one too many": (lambda r: nifti(r / "masks/d.nii.gz"), "masks/d.nii.gz has no truth of that name .*a.nii.gz"),
    "no name fits": (
        lambda r: [p.rename(p.with_name(f"case{p.name}")) for p in (r / "masks").iterdir()],
        "casea.nii.gz has no truth of that name",
    ),
    "two of one name": (lambda r: nifti(r / "masks/b_pred.nii.gz"), "have one name .b.; keep one"),
    "two endings": (lambda r: nifti(r / "truth/b.nii"), "have one name .b.; keep one"),
    "255 for 1": (lambda r: nifti(r / "masks/b.nii.gz", lesion(255)), "b.nii.gz holds the value 255.*255=SAH"),
    "a class beyond the map": (
        lambda r: nifti(r / "masks/b.nii.gz", lesion(4)),
        "b.nii.gz holds the value 4.*known: 1 .SAH",
    ),
    "logits": (
        lambda r: nifti(r / "masks/b.nii.gz", lesion() * 3.7 - 1.2, dtype=np.float32),
        "b.nii.gz holds values from -1.2 to 2.5; probabilities lie between 0 and 1",
    ),
    "per cent": (
        lambda r: nifti(r / "masks/b.nii.gz", lesion() * 99.5, dtype=np.float32),
        "from 0 to 99.5; probabilities",
    ),
    "not a number": (
        lambda r: nifti(r / "masks/b.nii.gz", lesion() * np.nan, dtype=np.float32),
        "b.nii.gz holds voxels that are not numbers",
    ),
    "no masks": (lambda r: [p.unlink() for p in (r / "masks").iterdir()], "masks holds no .nii.gz or .nii"),
    "no truth": (lambda r: [p.unlink() for p in (r / "truth").iterdir()], "truth holds no masks; expected"),
    "no folder": (lambda r: (r / "masks").rename(r / "other"), "masks is not a folder"),
    "truncated": (
        lambda r: (r / "masks/b.nii.gz").write_bytes((r / "masks/b.nii.gz").read_bytes()[:60]),
        "b.nii.gz cannot be read as a NIfTI",
    ),
    "an array turned round": (
        lambda r: [(r / "masks/b.nii.gz").unlink(), np.save(r / "masks/b.npy", np.zeros(SHAPE[::-1]))],
        r"b.npy has the shape .4, 10, 12.; its truth .*has .12, 10, 4.",
    ),
    "an array of objects": (
        lambda r: [(r / "masks/b.nii.gz").unlink(), np.save(r / "masks/b.npy", np.array([None]), allow_pickle=True)],
        "b.npy cannot be read as an array",
    ),
    "patients in one folder": (
        lambda r: [nifti(r / "truth/P/x.nii.gz"), nifti(r / "truth/P/y.nii.gz")],
        "share the folder P.*--patient-pattern",
    ),
}
WRONG_PICTURES = {
    "whose they are": (lambda r: None, {}, "Nothing says whose slice .*1_a.png is.*--patients"),
    "another size": (
        lambda r: picture(r / "masks/2_a.png", size=(9, 10)),
        {"patient_pattern": "^(.)"},
        "2_a.png .* 9x10 and 8x10",
    ),
    "two values": (lambda r: picture(r / "masks/2_a.png", 128), {"patient_pattern": "^(.)"}, "128 .2_a.png.*255"),
    "no pattern fits": (lambda r: None, {"patient_pattern": "^x(.)"}, "finds no patient in '1_a'"),
    "scans for pictures": (
        lambda r: [p.unlink() for p in (r / "masks").iterdir()] and nifti(r / "masks/1_a.nii.gz"),
        {"patient_pattern": "^(.)"},
        "masks holds no .png",
    ),
}


@pytest.mark.parametrize("way", WRONG_SCANS)
def test_wrong_scans_are_refused_in_a_sentence(scans, way):
    spoil, says = WRONG_SCANS[way]
    spoil(scans)
    with pytest.raises(StudyError, match=says) as told:
        read_all(scans)
    assert "\n" not in str(told.value) and str(told.value).endswith(".")


@pytest.mark.parametrize("way", WRONG_PICTURES)
def test_wrong_pictures_are_refused_in_a_sentence(pictures, way):
    spoil, more, says = WRONG_PICTURES[way]
    spoil(pictures)
    with pytest.raises(StudyError, match=says):
        read_all(pictures, **more)


@pytest.mark.parametrize(("table", "says"), [
    ("file,patient_id\n1_a,P1\n", "names no patient for 1_b"),
    ("file,patient_id,row_mm\n1_a,P1,half\n1_b,P1,\n2_a,P2,\n2_b,P2,", "gives 1_a the row_mm 'half'"),
    ("file,patient\n1_a,P1\n", "names no patient for 1_b"),
    ("name,patient_id\n1_a,P1\n", "lacks the column file"),
])  # fmt: skip
def test_a_table_that_does_not_tell_is_refused(pictures, table, says):
    (pictures / "patients.csv").write_text(table)
    with pytest.raises(StudyError, match=says):
        read_all(pictures, patients=pictures / "patients.csv")


def test_a_rater_or_an_image_that_is_missing_is_no_miss(scans):
    for name in ("a", "b"):
        nifti(scans / "second" / f"{name}.nii.gz")
    with pytest.raises(StudyError, match=r"truth/c.nii.gz has no counterpart among the rater two"):
        mask_folders.pair({"one": scans / "truth", "two": scans / "second"}, {"net": scans / "masks"})
    with pytest.raises(StudyError, match=r"truth/c.nii.gz has no counterpart among the images"):
        mask_folders.pair({"one": scans / "truth"}, {"net": scans / "masks"}, scans / "second")


def test_a_file_that_is_no_mask_of_these_is_named(scans):
    np.save(scans / "truth" / "a.npy", lesion())
    (scans / "masks" / "plans.json").write_text("{}")
    folders, _ = read_all(scans)
    assert folders.remarks == (f"Left aside in {scans / 'truth'}: a.npy; what they show is missing.",)
