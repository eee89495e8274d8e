"""Broken NIfTI files and folders: one sentence that names the file, or the right answer; never anything else."""

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sahlib.data.scan import SAH, Scan
from sahlib.data.sources import open_source
from sahlib.data.sources.nifti_file import hounsfield, read_volume
from sahlib.study import Study, StudyError

SHAPE = (12, 10, 6)  # x, y, z
AFFINE = np.array([[-0.5, 0, 0, 3], [0, -0.6, 0, 4], [0, 0, 5, -20], [0, 0, 0, 1]])


def voxels():
    return np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)


def mask_voxels():
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 3:6, 2:4] = 1
    return mask


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def pair(root, image=None, mask=None, image_affine=AFFINE, mask_affine=AFFINE, ending=".nii.gz", name="a"):
    """A folder with one scan and its mask beside it; returns their paths."""
    image = voxels() if image is None else image
    mask = mask_voxels() if mask is None else mask
    return (
        save(root / f"{name}{ending}", image, image_affine),
        save(root / f"{name}_mask{ending}", mask, mask_affine),
    )


def source(root, **changes):
    return open_source(Study.of_profile("smoke", dataset="nifti", data_dir=str(root), precision="fp32", **changes))


def scan(root) -> Scan:
    (found,) = source(root)
    return found


def test_the_pair_itself_is_fine(tmp_path):
    pair(tmp_path)
    found = scan(tmp_path)
    np.testing.assert_array_equal(found.image, voxels().transpose(2, 1, 0))
    np.testing.assert_array_equal(found.labels, mask_voxels().transpose(2, 1, 0) * SAH)
    assert found.spacing_mm == pytest.approx((0.6, 0.5)) and found.thickness_mm == pytest.approx(5)


def with_nan(value):
    array = voxels().astype(np.float32)
    array[3, 3, 3] = value
    return array


BAD_IMAGES = {
    "NaN": (with_nan(np.nan), "not numbers"),
    "infinite": (with_nan(-np.inf), "not numbers"),
    "beyond int16": (with_nan(40000), "to 40000"),
    "far beyond int16": (with_nan(1e30), "to 1e\\+30"),
    "uint16 beyond int16": (voxels().astype(np.uint16), "to 65"),
    "constant": (np.full(SHAPE, 40, np.int16), "from 40 to 40"),
    "normalised": (np.random.default_rng(0).random(SHAPE, np.float32), "normalising"),
    "four axes": (np.stack([voxels()] * 2, -1), "12x10x6x2"),
    "two axes": (voxels()[..., 0], "12x10, not one volume"),
    "colours": (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours"),
    "complex": (voxels().astype(np.complex64), "complex"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_images_that_are_no_scan(tmp_path, name):
    array, message = BAD_IMAGES[name]
    pair(tmp_path, image=array)
    with pytest.raises(StudyError, match=f"a.nii.gz .*{message}"):
        scan(tmp_path)


def with_value(value, dtype=np.float32):
    array = mask_voxels().astype(dtype)
    array[0, 0, 0] = value
    return array


SHIFTED, ROTATED, SHEARED = AFFINE.copy(), AFFINE.copy(), AFFINE.copy()
SHIFTED[1, 3] += 0.6
ROTATED[:2, :2] = ROTATED[:2, :2] @ [[0.999, -0.0447], [0.0447, 0.999]]
SHEARED[1, 2] = 0.4
BAD_MASKS = {
    "fractions": ({"mask": with_value(0.5)}, "fractions"),
    "NaN": ({"mask": with_value(np.nan)}, "not numbers"),
    "another class": ({"mask": with_value(3, np.uint8)}, "value 3"),
    "negative": ({"mask": with_value(-1, np.int16)}, "value -1"),
    "huge": ({"mask": with_value(70000)}, "value 70000"),
    "other shape": ({"mask": mask_voxels()[:-1]}, "a.nii.gz .6x10x11 voxels .*against 6x10x12"),
    "one slice less": ({"mask": mask_voxels()[..., 1:]}, "5x10x12 voxels .*against 6x10x12"),
    "axes swapped": ({"mask": mask_voxels().transpose(1, 0, 2)}, "against"),
    "shifted": ({"mask_affine": SHIFTED}, "a.nii.gz .up to 0.6 mm beside it: .*4.6, -20. against"),
    "rotated": ({"mask_affine": ROTATED}, "mm beside"),
    "sheared": ({"mask_affine": SHEARED}, "mm beside"),
    "mirrored": ({"mask_affine": AFFINE @ np.diag([-1, 1, 1, 1])}, "mm beside"),
    "identity": ({"mask_affine": np.eye(4)}, "mm beside"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_masks_that_do_not_fit_are_never_resampled(tmp_path, name):
    changes, message = BAD_MASKS[name]
    pair(tmp_path, **changes)
    with pytest.raises(StudyError, match=f"a_mask.nii.gz .*{message}"):
        scan(tmp_path)


def test_float_masks_of_whole_numbers_and_rounded_affines_are_fine(tmp_path):
    pair(tmp_path, mask=mask_voxels().astype(np.float64), mask_affine=AFFINE + 1e-5)
    np.testing.assert_array_equal(scan(tmp_path).labels, mask_voxels().transpose(2, 1, 0) * SAH)


def patched(path, **fields):
    """Overwrites fields of a NIfTI-1 header, name -> value, in a .nii file."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


LIES = {
    "more slices": {"dim": [3, 12, 10, 7, 1, 1, 1, 1]},
    "fewer slices": {"dim": [3, 12, 10, 5, 1, 1, 1, 1]},
    "enormous": {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]},
    "negative": {"dim": [3, 12, -10, -6, 1, 1, 1, 1]},
    "nothing": {"dim": [3, 12, 0, 6, 1, 1, 1, 1]},
    "no dimensions": {"dim": [0, 12, 10, 6, 1, 1, 1, 1]},
    "nine dimensions": {"dim": [9, 12, 10, 6, 1, 1, 1, 1]},
    "a type of its own": {"datatype": 77},
    "another type": {"datatype": 8},
    "begins in the header": {"vox_offset": 4},
    "begins nowhere": {"vox_offset": np.nan},
    "begins beyond": {"vox_offset": 1e9},
    "infinite intercept": {"scl_slope": 1, "scl_inter": np.inf},
    "a unit that is none": {"xyzt_units": 7},
    "no spacing": {"srow_x": [0, 0, 0, 0]},
    "spacing of NaN": {"srow_y": [0, np.nan, 0, 0]},
    "spacing in metres": {"srow_x": [-5e-4, 0, 0, 0], "srow_y": [0, -6e-4, 0, 0], "srow_z": [0, 0, 5e-3, 0]},
    "two axes alike": {"srow_y": [0.5, 0.0, 0, 0]},
    "mirrored against its qform": {"qform_code": 1, "sform_code": 1, "srow_x": [0.5, 0, 0, 0]},
    "no rotation": {"sform_code": 0, "qform_code": 1, "quatern_b": 9.0},
}


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie(tmp_path, name):
    image, _ = pair(tmp_path, ending=".nii")
    patched(image, **LIES[name])
    with pytest.raises(StudyError, match="a.nii "):
        scan(tmp_path)


def test_a_slope_that_leaves_int16_is_named(tmp_path):
    image, _ = pair(tmp_path, ending=".nii")
    patched(image, scl_slope=100, scl_inter=0)
    with pytest.raises(StudyError, match="a.nii holds values from .* slope"):
        scan(tmp_path)


def test_a_scan_without_any_orientation_is_read_as_nibabel_does(tmp_path):
    for path in pair(tmp_path, ending=".nii"):
        patched(path, sform_code=0, qform_code=0)
    found = scan(tmp_path)
    np.testing.assert_array_equal(found.image, voxels().transpose(2, 1, 0)[:, ::-1])
    np.testing.assert_array_equal(found.labels > 0, mask_voxels().transpose(2, 1, 0)[:, ::-1] > 0)


CUTS = {
    "empty": lambda content: b"",
    "header cut": lambda content: content[:100],
    "half": lambda content: content[: len(content) // 2],
    "last byte": lambda content: content[:-1],
    "longer": lambda content: content + b"garbage",
    "text": lambda content: b"<html>not found</html>" * 50,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("cut", CUTS)
def test_files_that_arrived_broken(tmp_path, cut, ending):
    for path in pair(tmp_path, ending=ending):
        whole = path.read_bytes()
        path.write_bytes(CUTS[cut](whole))
        with pytest.raises(StudyError, match=f"{path.name} cannot be read"):
            scan(tmp_path)
        path.write_bytes(whole)


def test_gzip_data_inside_are_checked_too(tmp_path):
    image, _ = pair(tmp_path)
    content = gzip.decompress(image.read_bytes())
    image.write_bytes(gzip.compress(content[:-10]))
    with pytest.raises(StudyError, match="there are"):
        scan(tmp_path)
    image.write_bytes(gzip.compress(content + bytes(100_000_000)))  # unpacks to far more than its header tells
    with pytest.raises(StudyError, match="more than"):
        scan(tmp_path)
    image.write_bytes(content)  # a browser has unpacked it and kept its name
    assert len(scan(tmp_path).image)
    image.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(64))  # two members, padded
    np.testing.assert_array_equal(scan(tmp_path).image, voxels().transpose(2, 1, 0))


def test_many_small_gzip_members_are_read_in_good_time(tmp_path):
    rng = np.random.default_rng(1)
    path = save(tmp_path / "a.nii", rng.integers(-1000, 1000, (128, 128, 64)).astype(np.int16))
    content = path.read_bytes()
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(b"".join(gzip.compress(content[i : i + 4096], 1) for i in range(0, len(content), 4096)))
    np.testing.assert_array_equal(hounsfield(read_volume(packed)), hounsfield(read_volume(path)))


def test_folders_that_cannot_be_paired(tmp_path):
    def refused(root, message):
        with pytest.raises(StudyError, match=message):
            source(root)

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "nowhere", "nowhere is not a folder")
    refused(tmp_path / "empty", "empty holds no NIfTI scans")
    refused(pair(tmp_path / "file")[0], "a.nii.gz is not a folder")

    image, mask = pair(tmp_path / "lonely")
    mask.rename(mask.with_name("b_mask.nii.gz"))
    refused(tmp_path / "lonely", "a.nii.gz has no mask")
    image.unlink()
    refused(tmp_path / "lonely", "b_mask.nii.gz has no image")

    pair(tmp_path / "twice")
    pair(tmp_path / "twice", ending=".nii")
    refused(tmp_path / "twice", "a.nii.gz.* have the same stem")

    for path in ("images/a.nii", "masks/a.nii", "masks/a.nii.gz"):
        save(tmp_path / "two masks" / path, voxels())
    refused(tmp_path / "two masks", "masks/a.nii.gz and a.nii have the same stem")

    for kind in ("images", "masks", "labels"):
        save(tmp_path / "both" / kind / "a.nii", mask_voxels())
    refused(tmp_path / "both", "'a' is there twice: .*labels/a.nii, and .*masks/a.nii")
    (tmp_path / "both" / "labels" / "a.nii").unlink()
    (tmp_path / "both" / "labels").rmdir()
    save(tmp_path / "both" / "images" / "b.nii", voxels())
    refused(tmp_path / "both", "images/b.nii has no mask")


@pytest.mark.parametrize(
    "table, message",
    [
        ("image\na.nii.gz\n", "lacks the column mask"),
        ("image,mask\na.nii.gz,gone.nii.gz\n", "the mask 'gone.nii.gz'"),
        ("image,mask\n,a_mask.nii.gz\n", "the image ''"),
        ("image,mask\na.nii.gz,notes.txt\n", "the mask 'notes.txt'"),
        ("image,mask\na.nii.gz,a_mask.nii.gz\na.nii.gz,a_mask.nii.gz\n", "'a' is there twice"),
        ("image,mask\n", "holds no NIfTI scans"),
        ("image,mask,patient_id\na.nii.gz,a_mask.nii.gz,anna\na.nii.gz,a_mask.nii.gz,\n", "no patient for 'a.nii.gz'"),
        ("", "lacks the column image and mask; it has nothing"),
        (b"\xff\xfe\x00\x81", "cannot be read as CSV|lacks the column"),
    ],
)
def test_tables_of_pairs_that_make_no_sense(tmp_path, table, message):
    pair(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "pairs.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(StudyError, match=message):
        source(tmp_path)


def test_links_in_circles_and_to_nowhere(tmp_path):
    image, mask = pair(tmp_path / "p1")
    (tmp_path / "p1" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to("self")
    assert len(source(tmp_path)) == 1
    (tmp_path / "p2").symlink_to(tmp_path / "elsewhere")
    assert len(source(tmp_path)) == 1
    mask.unlink()
    mask.symlink_to(mask.name)
    with pytest.raises(StudyError, match="a_mask.nii.gz is a link that leads to no file"):
        source(tmp_path)


def test_links_to_files_and_folders_are_followed(tmp_path):
    pair(tmp_path / "store" / "deep")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "p1").symlink_to(tmp_path / "store" / "deep", target_is_directory=True)
    assert [case.scan_id for case in source(tmp_path / "study").cases] == ["p1_a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_may_not_be_read_are_named(tmp_path):
    pair(tmp_path / "p1")
    pair(tmp_path / "p2")
    (tmp_path / "p2").chmod(0)
    with pytest.raises(StudyError, match="p2 cannot be read"):
        source(tmp_path)
    (tmp_path / "p2").chmod(0o700)


def test_names_with_spaces_and_unicode_in_either_form(tmp_path):
    save(tmp_path / "images" / "José Ñandú 影像.nii.gz", voxels())
    save(tmp_path / "masks" / "Jose\u0301 N\u0303andu\u0301 影像.nii.gz", mask_voxels())
    assert scan(tmp_path).patient_id == "José Ñandú 影像"


def test_files_of_other_kinds_and_hidden_ones_are_left_alone(tmp_path):
    image, _ = pair(tmp_path)
    for name in ("._a.nii.gz", ".DS_Store", "readme.txt", "a.json"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "b.nii.gz").mkdir()
    assert len(source(tmp_path)) == 1
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.nii.gz")
        assert len(source(tmp_path)) == 1


def test_ten_thousand_files_are_paired_in_seconds(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        first = tmp_path / kind / "0.nii.gz"
        first.touch()
        for index in range(1, 5000):
            os.link(first, tmp_path / kind / f"{index}.nii.gz")
    assert len(source(tmp_path)) == 5000


def read_or_refuse(folder: Path, expected: Scan, same_voxels: bool) -> None:
    """A damaged pair is refused in one sentence or read as a scan of the right form, and rightly where it can be."""
    try:
        found = scan(folder)
    except StudyError as error:
        assert str(folder) in str(error)
        return
    assert found.image.shape == found.labels.shape == expected.image.shape
    np.testing.assert_allclose(found.spacing_mm, expected.spacing_mm, atol=0.01)
    assert found.thickness_mm == pytest.approx(expected.thickness_mm, abs=0.01)
    if same_voxels:
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """(folder, its pair's contents by name, what they read as), once per ending."""
    made = {}
    for ending in (".nii", ".nii.gz"):
        folder = tmp_path_factory.mktemp("damaged")
        paths = pair(folder, ending=ending)
        made[ending] = (folder, {path: path.read_bytes() for path in paths}, scan(folder))
    return made


FUZZ = settings(max_examples=200, deadline=5000, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("which", [0, 1])
@given(data=st.data())
@FUZZ
def test_flipped_bytes(damaged, ending, which, data):
    folder, contents, expected = damaged[ending]
    path, content = list(contents.items())[which]
    header_only = ending == ".nii" and data.draw(st.booleans(), label="header only")
    last = 351 if header_only else len(content) - 1
    places = data.draw(st.lists(st.integers(0, last), min_size=1, max_size=3, unique=True))
    damaged_content = bytearray(content)
    for place in places:
        damaged_content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged_content)
    try:
        # A flip of both scale factors gives other numbers that nothing can tell from right ones, as one in voxels does.
        told = all(place < 352 and not 112 <= place < 120 for place in places)
        read_or_refuse(folder, expected, same_voxels=told or ending == ".nii.gz")
    finally:
        path.write_bytes(content)


@given(
    content=st.one_of(st.binary(max_size=600), st.binary(max_size=300).map(lambda b: struct.pack("<i", 348) + b * 2))
)
@FUZZ
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_anything_may_lie_behind_the_name(damaged, ending, content):
    folder, contents, _ = damaged[ending]
    path, whole = next(iter(contents.items()))
    path.write_bytes(gzip.compress(content, 1) if ending == ".nii.gz" else content)
    try:
        with pytest.raises(StudyError, match=path.name):
            scan(folder)
    finally:
        path.write_bytes(whole)
