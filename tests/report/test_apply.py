"""A network on scans of one's own: masks as the study predicts them, in the scan's own place, and their volume."""

import re

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers.dicom_writer import affine_of, save, series, write_nifti, write_series

from sahlib.chapters import results
from sahlib.data import one_scan
from sahlib.data.slices import window_to_grey
from sahlib.data.sources.dicom import one_series
from sahlib.data.sources.dicom_seg import segmentation_labels
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.report import apply
from sahlib.scoring import prediction
from sahlib.study import Study, StudyError
from sahlib.training import loop
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learnt a little, and what the study predicts for the first phantom of its test side."""
    workspace = Workspace(str(tmp_path_factory.mktemp("study")))
    study = Study.of_profile("smoke", epochs=12, learning_rate=1e-2, prior_bias=True, precision="fp32")
    store, split = results.load_data(study, workspace)
    run = loop.train(store, split, study, "unet", 0, workspace.runs)
    prediction.test(run, store, split, study)
    rows = split.rows(store, "test")
    patients = store.slices["patient_id"].iloc[rows].to_numpy()
    found = run.probabilities > prediction.THRESHOLD
    patient = max(set(patients), key=lambda who: found[patients == who].sum())
    predicted = found[patients == patient]
    assert predicted.sum() > 50
    return workspace, run, Phantom(study.phantom_patients, study.phantom_seed).scan(int(patient[1:])), predicted


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    """The scan as NIfTI in another orientation, as DICOM in another view, and as pictures upside down."""
    scan, root = trained[2], tmp_path_factory.mktemp("scans")
    write_nifti(root / "head.nii.gz", scan.image, affine_of(scan), "RAS", np.int16)
    write_series(root / "series", series(scan, turn=(True, False, True)))
    (root / "pictures").mkdir()
    for z, grey in enumerate(window_to_grey(scan.image, 40, 80)):
        cv2.imwrite(str(root / "pictures" / f"{z}.png"), np.ascontiguousarray(grey[::-1, ::-1]))
    return root


@pytest.fixture(scope="module")
def enlarged(trained):
    """The study's own prediction in the scan's pixels, whose side is eight times as long: each becomes 64."""
    return (
        np.stack([cv2.resize(np.uint8(m), (256, 256), interpolation=cv2.INTER_NEAREST_EXACT) for m in trained[3]]) > 0
    )


def test_a_nifti_mask_lies_on_its_scan_and_is_the_studys_own(trained, stored, enlarged, tmp_path):
    _, run, scan, _ = trained
    told = apply.write([stored / "head.nii.gz"], run, tmp_path, {})
    mask, image = nibabel.load(tmp_path / "head_mask.nii.gz"), nibabel.load(stored / "head.nii.gz")
    assert mask.shape == image.shape and np.array_equal(mask.affine, image.affine)
    seen = nibabel.as_closest_canonical(mask)
    np.testing.assert_array_equal(np.asarray(seen.dataobj)[::-1, ::-1].transpose(2, 1, 0) > 0, enlarged)
    millilitres = enlarged.sum() * scan.spacing_mm[0] * scan.spacing_mm[1] * scan.thickness_mm / 1000
    table = pd.read_csv(tmp_path / "volumes.csv").iloc[0]
    assert table.amount == pytest.approx(millilitres, abs=1e-2) and table.unit == "mL" and table.lesion == "SAH"
    assert f"head: SAH {millilitres:.2f} mL in {enlarged.any((1, 2)).sum()} slices" in told


def test_a_dicom_segmentation_refers_to_its_series_and_is_the_studys_own(trained, stored, enlarged, tmp_path):
    apply.write([stored / "series"], trained[1], tmp_path, {})
    slices = one_series(stored / "series")
    np.testing.assert_array_equal(segmentation_labels(tmp_path / "series_mask.dcm", slices, {}) > 0, enlarged)


def test_pictures_get_masks_that_lie_as_they_do(trained, stored, enlarged, tmp_path):
    told = apply.write([stored / "pictures"], trained[1], tmp_path, {"orientation": "auto"})
    masks = [cv2.imread(str(tmp_path / "pictures_mask" / f"{z}.png"), cv2.IMREAD_UNCHANGED) for z in range(32)]
    np.testing.assert_array_equal(np.stack(masks)[:, ::-1, ::-1], enlarged * np.uint8(255))
    assert f"pictures: SAH {enlarged.sum():.2f} pixels" in told


def test_one_bad_scan_does_not_stop_the_others_and_the_page_says_what_is_known(trained, stored, tmp_path):
    workspace, run, *_ = trained
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    told = apply.write([tmp_path / "bad.nii", stored / "head.nii.gz"], run, tmp_path / "out", {})
    page = (tmp_path / "out" / "apply.html").read_text()
    for words in ("bad.nii cannot be read", "trained on phantom (profile smoke)", "On its test patients"):
        assert words in told and words in page
    assert "no medical device" in page and len(re.findall("<figure>", page)) > 0
    with pytest.raises(StudyError, match="No scan could be read:\n- .*bad.nii"):
        apply.write([tmp_path / "bad.nii"], run, tmp_path / "none", {})
    assert apply.best_run(workspace).path == run.path == apply.named_run(run.path).path


def test_a_nifti_mask_keeps_whatever_its_scan_says_of_space(trained, tmp_path):
    scan = trained[2]
    sheared = affine_of(scan) @ np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    image = nibabel.Nifti2Image(scan.image.transpose(2, 1, 0)[..., None], sheared)
    image.set_qform(affine_of(scan), 1)
    image.set_sform(sheared, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "two.nii")
    (tmp_path / "named.nii.gz").symlink_to(tmp_path / "two.nii")
    apply.write([tmp_path / "named.nii.gz"], trained[1], tmp_path / "out", {})
    mask, image = nibabel.load(tmp_path / "out" / "named_mask.nii.gz"), nibabel.load(tmp_path / "two.nii")
    assert mask.shape == image.shape and type(mask) is type(image) and mask.get_data_dtype() == np.uint8
    for form in ("get_sform", "get_qform", "get_xyzt_units", "get_zooms"):
        np.testing.assert_array_equal(getattr(mask.header, form)(), getattr(image.header, form)())


def save_anyway(dataset, path):
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format="SOPInstanceUID" in dataset, implicit_vr=False, little_endian=True)


def put(**changes):
    return lambda dataset, k: [setattr(dataset, name, value) for name, value in changes.items()]


@pytest.mark.parametrize(
    "change",
    [
        put(SliceThickness=None),
        put(StudyInstanceUID="", PatientSex="female", PatientName="A"),
        lambda dataset, k: setattr(dataset, "StudyInstanceUID", f"1.2.3.{k + 1}"),
        lambda dataset, k: delattr(dataset, "SOPInstanceUID"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_headers_of_anonymous_exports_do_not_stop_a_segmentation(trained, enlarged, tmp_path, change):
    datasets = series(trained[2])
    for k, dataset in enumerate(datasets):
        change(dataset, k)
        save_anyway(dataset, tmp_path / "s" / f"{k}.dcm")
    (tmp_path / "s" / "preview.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))[1].tobytes())
    apply.write([tmp_path / "s"], trained[1], tmp_path / "out", {})
    slices = one_series(tmp_path / "s")
    np.testing.assert_array_equal(segmentation_labels(tmp_path / "out" / "s_mask.dcm", slices, {}) > 0, enlarged)


def test_a_picture_whose_way_up_is_in_doubt_is_named(trained, tmp_path):
    cv2.imwrite(str(tmp_path / "blank.png"), np.zeros((64, 64), np.uint8))
    told = apply.write([tmp_path / "blank.png"], trained[1], tmp_path / "out", {"orientation": "auto"})
    assert "blank: which way up it lies is in doubt; left as stored." in told


def test_what_lies_in_a_folder_is_never_overwritten(trained, stored, tmp_path):
    truth = tmp_path / "head_mask.nii.gz"
    truth.write_bytes(b"drawn by hand")
    with pytest.raises(StudyError, match="is not empty, and nothing in it is overwritten; name a new folder with --to"):
        apply.write([stored / "head.nii.gz"], trained[1], tmp_path, {})
    assert truth.read_bytes() == b"drawn by hand" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "head.nii.gz").write_bytes((stored / "head.nii.gz").read_bytes())
    both = [stored / "head.nii.gz", tmp_path / "again" / "head.nii.gz"]
    for _ in range(2):  # of its own folder a second call makes another
        assert "again/head.nii.gz has the name of an earlier scan" in apply.write(
            both, trained[1], tmp_path / "out", {}
        )


def test_what_cannot_be_asked_is_named(trained, stored, tmp_path):
    with pytest.raises(StudyError, match="size was settled when the network was trained"):
        apply.study_of(trained[1], size=64)
    with pytest.raises(StudyError, match="knows which way up it is; leave orientation out"):
        one_scan.read(stored / "head.nii.gz", "rot180")
    with pytest.raises(StudyError, match="is not there; give a NIfTI file"):
        one_scan.read(tmp_path / "nothing")
    with pytest.raises(StudyError, match="holds no finished training; run"):
        apply.best_run(Workspace(str(tmp_path)))
    save(series(trained[2])[0], tmp_path / "two" / "1")
    save(series(trained[2])[0], tmp_path / "two" / "2")
    with pytest.raises(StudyError, match="holds the CT series .* and .*; give a folder with one series"):
        one_scan.read(tmp_path / "two")


def test_several_lesions_become_numbers(trained):
    probabilities = np.zeros((1, 2, 2, 2), np.float16)
    probabilities[0, :, 0, 0] = 0.6, 0.7
    probabilities[0, :, 0, 1] = 0.8, 0.1
    np.testing.assert_array_equal(apply.labelled(probabilities), [[[2, 1], [0, 0]]])
