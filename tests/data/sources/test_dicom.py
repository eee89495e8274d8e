import base64
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers.dicom_writer import (
    LOSSLESS,
    START,
    affine_of,
    compress,
    file_dataset,
    put_frame,
    save,
    segmentation,
    series,
    store,
    write_nifti,
    write_series,
)
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame
from pydicom.uid import JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless, generate_uid

from sahlib.data.scan import CLASSES, SAH, ToLookAt
from sahlib.data.slices import prepare
from sahlib.data.sources import recognise
from sahlib.data.sources.dicom import Dicom, recognises
from sahlib.data.sources.dicom_series import hounsfield, read_header
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.study import Study, StudyError

TURNS = list(itertools.product([False, True], repeat=3))
IVH = CLASSES.index("IVH")
# The pixels [6,7] below as GDCM 3.2.6 compressed them, an encoder that shares nothing with the decoder under test.
GDCM_IMAGE = np.int16((500 * np.arange(6)[:, None] - 70 * np.arange(7) ** 2 + 1048) % 4096 - 2048)
GDCM_FRAMES = {
    JPEGLosslessSV1: "/9j/wwALEAAGAAcBAREA/8QAGQAAAwEBAQAAAAAAAAAAAAAABwkKCAwP/9oACAEBAAEAAPfBgc4tVD3C0xMfr9Bzi1UKFe2K"
    "j9foOcWqhQrMT2fz9Bzi1UKFZiY/X6DnFqoUKzEx+v0HOLVQoVmJj9//2QA=",
    JPEGLSLossless: "/9j/9wALEAAGAAcBAREA//gADQH//wASAEMBFABA/9oACAEBAAAAAD50jLRK4AAIxzoX+/PACAEAAAAgAIAYAflkZAEACAAI"
    "AAAB/39H47Sa8gBgBCAL8MAQA/T9KAGAB9+AIAgB+dOiAAD/2QA=",
}


@pytest.fixture(scope="session")
def scans():
    """Two phantoms with SAH, 8 slices of each, of 64 rows and 56 columns."""
    wanted = [k for k, plan in enumerate(Phantom(40).plans()) if plan.pattern == "aneurysmal"][:2]
    small = []
    for scan in (Phantom(40).scan(k) for k in wanted):
        kept = np.linspace(0, len(scan.image) - 1, 8).astype(int)
        image, labels = (a[kept, ::4, 16:240:4] for a in (scan.image, scan.labels))
        assert (labels == SAH).any((1, 2)).sum() > 1
        spacing = tuple(4 * step for step in scan.spacing_mm)
        small.append(replace(scan, image=image, labels=labels, slice_ids=tuple("abcdefgh"), spacing_mm=spacing))
    return small


def only_sah(scan):
    return (scan.labels == SAH) * np.uint8(SAH)


def write(root, scan, name="p1", **options):
    """A series folder with a binary NIfTI beside it; the folder's datasets."""
    datasets = series(scan, **options)
    write_series(root / name, datasets)
    write_nifti(root / f"{name}.nii.gz", only_sah(scan), affine_of(scan))
    return datasets


def same(read, scan, labels=None):
    np.testing.assert_array_equal(read.image, scan.image)
    np.testing.assert_array_equal(read.labels, only_sah(scan) if labels is None else labels)
    np.testing.assert_allclose(read.spacing_mm, scan.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(read.thicknesses_mm, scan.thicknesses_mm, rtol=1e-6)
    assert read.image.dtype == np.int16 and read.labels.dtype == np.uint8 and read.unit == "HU"


def test_two_patients_come_back_as_the_phantom_drew_them(scans, tmp_path):
    for name, scan in zip(["site a/p2", "site b/p1"], scans, strict=True):
        write(tmp_path, scan, name, patient=name)
    source = Dicom.open(tmp_path)
    assert len(source) == 2 and source.ignored == ()
    for read, scan, name in zip(source, scans, ["site a/p2", "site b/p1"], strict=True):
        same(read, scan)
        assert read.patient_id == name
        assert read.slice_ids == tuple(f"{name}_z{k:02d}" for k in range(8))
        assert [str(path) for path in read.sources] == [name, f"{name}.nii.gz"]


def test_a_study_reaches_its_slices_through_the_name(scans, tmp_path):
    write(tmp_path / "in", scans[0])
    assert recognise(tmp_path / "in") == "dicom"
    study = Study.of_profile("smoke", dataset="dicom", data_dir=str(tmp_path / "in"), precision="fp32")
    store = prepare(study, tmp_path / "out")
    assert len(store) == 8 and set(store.slices.patient_id) == {"p1"}
    assert (store.labels == SAH).any()


@pytest.mark.parametrize("turn", TURNS)
def test_any_view_of_the_scanner_becomes_the_phantoms(scans, tmp_path, turn):
    datasets = write(tmp_path, scans[0], turn=turn)
    same(Dicom.open(tmp_path).scan(0), scans[0])
    (tmp_path / "p1.nii.gz").unlink()
    save(segmentation(scans[0].labels, datasets, {1: ("blood", SAH)}, turn=turn), tmp_path / "seg" / "1.dcm")
    same(Dicom.open(tmp_path).scan(0), scans[0])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PSL", "SRA", "IAR"])
def test_a_nifti_mask_may_have_its_axes_in_any_order(scans, tmp_path, axes):
    write(tmp_path, scans[0])
    write_nifti(tmp_path / "p1.nii.gz", only_sah(scans[0]), affine_of(scans[0]), axes)
    same(Dicom.open(tmp_path).scan(0), scans[0])


def test_a_nifti_mask_may_have_been_saved_through_a_scale_factor(scans, tmp_path):
    write(tmp_path, scans[0])
    (tmp_path / "p1.nii.gz").unlink()
    write_nifti(tmp_path / "p1.nii", 100 * only_sah(scans[0]), affine_of(scans[0]))
    content = bytearray((tmp_path / "p1.nii").read_bytes())
    content[112:120] = np.array([0.00999995, 0], "<f4").tobytes()
    (tmp_path / "p1.nii").write_bytes(content)
    same(Dicom.open(tmp_path).scan(0), scans[0])


@pytest.mark.parametrize("place", ["p1.nii", "p1/mask.nii.gz", "p1/mask.nii", "p1/seg.nii.gz", "p1/seg.nii"])
def test_every_place_of_a_nifti_mask_is_found(scans, tmp_path, place):
    write(tmp_path, scans[0])
    (tmp_path / "p1.nii.gz").unlink()
    write_nifti(tmp_path / place, 255 * only_sah(scans[0]), affine_of(scans[0]), dtype=np.float64)
    same(Dicom.open(tmp_path).scan(0), scans[0])


def test_every_slice_may_have_its_own_slope(scans, tmp_path):
    write(tmp_path, scans[0], slopes=(1.0, 0.5, 0.25))
    same(Dicom.open(tmp_path).scan(0), scans[0])


def test_signed_pixels_and_padding(scans, tmp_path):
    scan = replace(scans[0], image=np.maximum(scans[0].image, -1000))
    datasets = series(scan)
    for dataset in datasets:
        stored = scan.image[datasets.index(dataset)].copy()
        stored[:3] = -2000
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = stored.tobytes()
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)  # the same bits, as some writers give them
    write_series(tmp_path / "p1", datasets)
    write_nifti(tmp_path / "p1.nii.gz", only_sah(scan), affine_of(scan))
    image = Dicom.open(tmp_path).scan(0).image
    assert (image[:, :3] == -1024).all()
    np.testing.assert_array_equal(image[:, 3:], scan.image[:, 3:])


@pytest.mark.parametrize("places", [("reference",), ("position",), ("reference", "position")])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations_are_placed_by_reference_and_by_position(scans, tmp_path, kind, places):
    labels = only_sah(scans[0])
    labels[2, :5, :7] = IVH
    datasets = series(scans[0])
    write_series(tmp_path / "p1", datasets)
    segments = {3: ("Blood around the brain", SAH), 7: ("Ventricles", IVH)}
    save(segmentation(labels, datasets, segments, kind, places), tmp_path / "p1" / "labels.dcm")
    same(Dicom.open(tmp_path, label_map=("3=SAH", "7=IVH")).scan(0), scans[0], labels)
    with pytest.raises(StudyError, match=r"labels.dcm holds the segments 7 \(Ventricles\); say what they mean"):
        Dicom.open(tmp_path, label_map=("3=SAH",)).scan(0)
    with pytest.raises(StudyError, match="say what they mean"):
        Dicom.open(tmp_path).scan(0)


def test_segments_named_as_classes_need_no_map(scans, tmp_path):
    labels = only_sah(scans[0])
    labels[2, :5, :7] = IVH
    datasets = series(scans[0])
    write_series(tmp_path / "p1", datasets)
    save(segmentation(labels, datasets, {1: ("ivh", IVH), 2: ("SAH", SAH)}), tmp_path / "1.dcm")
    same(Dicom.open(tmp_path).scan(0), scans[0], labels)


@pytest.mark.parametrize(
    ("name", "lesion"),
    [("Subdural hematoma", "SDH"), ("intraventricular hemorrhage", "IVH"), ("Segment_1", "SAH"), ("", "SAH")],
)
def test_a_single_segment_is_what_its_name_says(scans, tmp_path, name, lesion):
    datasets = series(scans[0])
    write_series(tmp_path / "p1", datasets)
    save(segmentation(scans[0].labels, datasets, {1: (name, SAH)}), tmp_path / "1.dcm")
    labels = (scans[0].labels == SAH) * np.uint8(CLASSES.index(lesion))
    same(Dicom.open(tmp_path).scan(0), scans[0], labels)
    if lesion != "SAH":
        with pytest.raises(StudyError, match=f"label_map says 1=SAH, but .*1.dcm calls it '{name}'"):
            Dicom.open(tmp_path, label_map=("1=SAH",)).scan(0)


def test_a_single_segment_of_something_else_is_asked_for(scans, tmp_path):
    datasets = series(scans[0])
    write_series(tmp_path / "p1", datasets)
    save(segmentation(scans[0].labels, datasets, {1: ("Brain", SAH)}), tmp_path / "1.dcm")
    with pytest.raises(StudyError, match=r"holds the segments 1 \(Brain\); say what they mean"):
        Dicom.open(tmp_path).scan(0)


def test_a_label_map_says_what_the_values_of_a_nifti_mask_are(scans, tmp_path):
    write(tmp_path, scans[0])
    labels = only_sah(scans[0])
    labels[2, :5, :7] = IVH
    write_nifti(tmp_path / "p1.nii.gz", np.choose(labels, [0, 4, 9]), affine_of(scans[0]))
    same(Dicom.open(tmp_path, label_map=("4=SAH", "9=IVH")).scan(0), scans[0], labels)
    same(Dicom.open(tmp_path, label_map=("4=SAH", "9=background")).scan(0), scans[0], only_sah(scans[0]))


def test_under_a_gantry_tilt_slices_stay_as_acquired_on_every_readers_grid(scans, tmp_path):
    scan, step = scans[0], np.array([0, 1.5, 4.0])
    write(tmp_path, scan, corners=START + np.outer(np.arange(8), step))
    itk, sform, qform = [0, 0, np.hypot(1.5, 4.0)], step / np.hypot(1.5, 4.0) * 4.0, [0, 0, 4.0]
    for own in (step, itk, sform, qform):
        write_nifti(tmp_path / "p1.nii.gz", only_sah(scan), affine_of(scan, np.array(own)))
        same(Dicom.open(tmp_path).scan(0), replace(scan, thickness_mm=4.0))
    write_nifti(tmp_path / "p1.nii.gz", only_sah(scan), affine_of(scan, np.array([0, 0, 3.8])))
    with pytest.raises(StudyError, match="lies on another grid"):
        Dicom.open(tmp_path).scan(0)


def test_a_small_tilt_leaves_its_mark_on_the_thickness(scans, tmp_path):
    tilt = np.deg2rad(11)
    step = 5 * np.array([0, np.sin(tilt), np.cos(tilt)])
    for dataset in (datasets := write(tmp_path, scans[0], corners=START + np.outer(np.arange(8), step))):
        dataset.SliceThickness = 5.0
    write_series(tmp_path / "p1", datasets)
    write_nifti(tmp_path / "p1.nii.gz", only_sah(scans[0]), affine_of(scans[0], step))
    np.testing.assert_allclose(Dicom.open(tmp_path).scan(0).thickness_mm, 5 * np.cos(tilt), rtol=1e-5)


def test_thin_slices_at_the_base_are_no_gap(scans, tmp_path):
    steps = np.array([0, 2.5, 2.5, 3.75, 5, 5, 5, 5])
    datasets = series(scans[0], corners=START + np.outer(np.cumsum(steps), [0, 0, 1]))
    for dataset, thickness in zip(datasets, [2.5] * 3 + [5.0] * 5, strict=True):
        dataset.SliceThickness = thickness
    write_series(tmp_path / "p1", datasets)
    save(segmentation(scans[0].labels, datasets, {1: ("", SAH)}), tmp_path / "p1" / "seg")
    read = Dicom.open(tmp_path).scan(0)
    same(read, replace(scans[0], thickness_mm=np.array([2.5] * 3 + [5.0] * 5)))


def test_a_thickness_that_does_not_fit_the_steps_gives_way_to_them(scans, tmp_path):
    datasets = write(tmp_path, scans[0])
    for dataset in datasets:
        dataset.SliceThickness = 1.0
    write_series(tmp_path / "p1", datasets)
    np.testing.assert_allclose(Dicom.open(tmp_path).scan(0).thickness_mm, scans[0].thickness_mm)


def test_a_thickness_that_nobody_told_is_a_guess_that_is_told(scans, tmp_path):
    datasets = write(tmp_path, scans[0])
    for dataset in datasets:
        del dataset.SliceThickness
    write_series(tmp_path / "p1", datasets)
    source = Dicom.open(tmp_path)
    same(source.scan(0), scans[0])
    assert len(source.remarks) == 1 and "p1 read, but without SliceThickness" in source.remarks[0]


def test_a_slice_that_is_there_twice_is_kept_once(scans, tmp_path):
    datasets = write(tmp_path, scans[0])
    save(datasets[3], tmp_path / "p1" / "copy of a slice")
    same(Dicom.open(tmp_path).scan(0), scans[0])


def test_what_is_no_ct_slice_is_left_alone_with_the_reason(scans, tmp_path):
    write(tmp_path, scans[0])
    write_nifti(tmp_path / "lonely" / "ct.nii.gz", scans[0].labels, affine_of(scans[0]))
    scout, picture, mr = (file_dataset(uid) for uid in ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1"))
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    for dataset, modality in ((scout, "CT"), (picture, "CT"), (mr, "MR")):
        dataset.Modality, dataset.SeriesInstanceUID = modality, generate_uid()
    save(scout, tmp_path / "p1" / "scout")
    save(picture, tmp_path / "pictures" / "1")
    save(mr, tmp_path / "mr" / "1.dcm")
    save(mr, tmp_path / "mr" / "2.dcm")
    save(segmentation(scans[0].labels, series(scans[0]), {1: ("", SAH)}), tmp_path / "other" / "seg.dcm")
    (tmp_path / "p1" / "notes.txt").write_text("")
    (tmp_path / "DICOMDIR").write_bytes(b"")
    source = Dicom.open(tmp_path)
    same(source.scan(0), scans[0])
    assert set(source.ignored) == {
        "p1/scout ignored: it is a localizer.",
        "pictures/1 ignored: it is no CT slice but Secondary Capture Image Storage.",
        "mr/1.dcm and 1 more ignored: its Modality is MR, not CT.",
        "other/seg.dcm ignored: it refers to no series here.",
        "lonely/ct.nii.gz ignored: it is the mask of no series here.",
    }
    assert all(isinstance(said, ToLookAt) == ("no series" in said) for said in source.ignored)


def test_patients_are_folders_and_share_a_name_where_patient_id_is_the_same(scans, tmp_path):
    for name, patient in (("b/late", "MRN 7"), ("b/early", "MRN 7"), ("c", "MRN 8"), ("d", ""), ("e", "")):
        write(tmp_path, scans[0], name, patient=patient)
    ids = {s.name: s.patient_id for s in Dicom.open(tmp_path).cases}
    assert ids == {"b/late": "b/early", "b/early": "b/early", "c": "c", "d": "d", "e": "e"}
    ids = {s.name: s.patient_id for s in Dicom.open(tmp_path, patient_pattern="^([a-z])").cases}
    assert ids["b/late"] == "b"
    ids = {s.name: s.patient_id for s in Dicom.open(tmp_path, slices_are_patients=True).cases}
    assert ids["b/late"] == "b/late"


def test_the_fingerprint_is_of_the_content_and_names_nobody(scans, tmp_path):
    datasets = write(tmp_path / "here", scans[0])
    first = Dicom.open(tmp_path / "here").fingerprint()
    assert "MRN" not in repr(Dicom.open(tmp_path / "here"))
    assert "MRN" not in str(first) and "Doe" not in str(first) and (first["scans"], first["slices"]) == (1, 8)
    (tmp_path / "here").rename(tmp_path / "there")
    there = tmp_path / "there"
    assert Dicom.open(there).fingerprint() == first
    assert Dicom.open(there, label_map=("1=SAH",)).fingerprint() != first
    datasets[2].RescaleIntercept = -1023
    write_series(there / "p1", datasets)
    assert Dicom.open(there).fingerprint() != first


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian"])
def test_uncompressed_transfer_syntaxes(scans, tmp_path, syntax):
    for dataset in (datasets := write(tmp_path, scans[0])):
        dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    write_series(tmp_path / "p1", datasets)
    same(Dicom.open(tmp_path).scan(0), scans[0])


@pytest.mark.parametrize("bits, signed", [(16, False), (16, True), (12, False), (12, True)])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_a_compressed_series_reads_as_its_uncompressed_twin(scans, tmp_path, syntax, bits, signed):
    scan = replace(scans[0], image=np.clip(scans[0].image, -1024, 2047))
    for dataset, image in zip(datasets := write(tmp_path, scan), scan.image, strict=True):
        store(dataset, image, bits, signed)
    write_series(tmp_path / "p1", datasets)
    same(Dicom.open(tmp_path).scan(0), scan)
    for dataset in datasets:
        compress(dataset, syntax)
    write_series(tmp_path / "p1", datasets)
    source = Dicom.open(tmp_path)
    same(source.scan(0), scan)
    assert source.cases[0].slices[0].path.read_bytes().find(syntax.encode()) > 0 and source.remarks == ()


@pytest.mark.parametrize("syntax", GDCM_FRAMES, ids=lambda syntax: syntax.name)
def test_another_encoders_signed_12_of_16_bits(scans, tmp_path, syntax):
    dataset = series(scans[0])[0]
    dataset.Rows, dataset.Columns = GDCM_IMAGE.shape
    store(dataset, GDCM_IMAGE, bits=12, signed=True)
    put_frame(dataset, syntax, base64.b64decode(GDCM_FRAMES[syntax]))
    save(dataset, tmp_path / "1")
    np.testing.assert_array_equal(hounsfield(read_header(tmp_path / "1")), GDCM_IMAGE)


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"])
def test_pydicoms_own_samples_read_as_their_uncompressed_twin(scans, tmp_path, name):
    twin, sample = (pydicom.dcmread(get_testdata_file(file)) for file in ("MR_small.dcm", name))
    dataset = series(scans[0])[0]
    for element in ("Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(dataset, element, sample[element].value)
    dataset.RescaleIntercept = 0
    put_frame(dataset, sample.file_meta.TransferSyntaxUID, get_frame(sample.PixelData, 0, number_of_frames=1))
    save(dataset, tmp_path / "1")
    np.testing.assert_array_equal(hounsfield(read_header(tmp_path / "1")), twin.pixel_array)


def test_ct_compressed_with_loss_is_read_with_a_remark(scans, tmp_path):
    for dataset in (datasets := write(tmp_path, scans[0])):
        compress(dataset, JPEGLSNearLossless)
    write_series(tmp_path / "p1", datasets)
    source = Dicom.open(tmp_path)
    apart = np.abs(source.scan(0).image.astype(int) - scans[0].image)
    assert 0 < apart.max() <= 2
    assert source.remarks == ("p1 read, but compressed with loss: HU near those of the scanner, not the same.",)
    for dataset in (datasets := write(tmp_path, scans[0])):
        dataset.LossyImageCompression = "01"  # and decompressed since
    write_series(tmp_path / "p1", datasets)
    assert len(Dicom.open(tmp_path).remarks) == 1


def test_lossy_samples_of_scanners_are_read(scans, tmp_path):
    ct = read_header(Path(get_testdata_file("693_J2KI.dcm")))
    values = hounsfield(ct)
    assert ct.lossy and values.shape == (512, 512)
    # SimpleITK 2.5.7 reads -3995 to 1812 HU; what is -2000 - 1024 there is padding, and -1024 here.
    assert (values.min(), values.max(), values.sum(dtype=int)) == (-3995, 1812, -269629240)
    sample = pydicom.dcmread(get_testdata_file("JPGExtended.dcm"))  # 12 bits of JPEG Extended, of another modality
    dataset = series(scans[0])[0]
    dataset.Rows, dataset.Columns, dataset.RescaleIntercept = sample.Rows, sample.Columns, 0
    dataset.BitsStored, dataset.HighBit = 12, 11
    put_frame(dataset, JPEGExtended12Bit, get_frame(sample.PixelData, 0, number_of_frames=1))
    save(dataset, tmp_path / "1")
    values = hounsfield(read_header(tmp_path / "1"))
    assert (values.min(), values.max(), values.sum(dtype=int)) == (0, 264, 3767007)  # as SimpleITK 2.5.7 does


def test_old_files_without_a_preamble_are_read(scans, tmp_path):
    datasets = series(scans[0])
    write_nifti(tmp_path / "p1.nii.gz", only_sah(scans[0]), affine_of(scans[0]))
    (tmp_path / "p1").mkdir()
    for k, dataset in enumerate(datasets):
        del dataset.file_meta
        dataset.save_as(tmp_path / "p1" / f"{k}", implicit_vr=True, little_endian=True)
    same(Dicom.open(tmp_path).scan(0), scans[0])


def test_links_and_names_in_any_script_are_followed(scans, tmp_path):
    write(tmp_path / "elsewhere", scans[0], "größe 頭 №1")
    (tmp_path / "here").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "here" / "link", target_is_directory=True)
    os.symlink(tmp_path / "here", tmp_path / "elsewhere" / "loop", target_is_directory=True)
    source = Dicom.open(tmp_path / "here")
    assert [s.name for s in source.cases] == ["link/größe 頭 №1"]
    same(source.scan(0), scans[0])


def test_a_folder_is_recognised_by_what_its_files_are(scans, tmp_path):
    write(tmp_path / "dicom", scans[0])
    write_nifti(tmp_path / "nifti" / "a.nii.gz", scans[0].labels, affine_of(scans[0]))
    (tmp_path / "nifti" / "a.dcm").write_bytes(b"")
    assert recognises(tmp_path / "dicom")
    assert not recognises(tmp_path / "nifti")
    assert not recognises(tmp_path / "missing")
