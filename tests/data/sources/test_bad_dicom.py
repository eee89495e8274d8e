"""DICOM folders that are wrong: each ends in one sentence that names the file or series, or in a right answer."""

import os
import random

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
    write_nifti,
    write_series,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from sahlib.data.scan import SAH, Scan
from sahlib.data.sources.dicom import Dicom
from sahlib.study import StudyError


@pytest.fixture(scope="session")
def scan():
    """Noise with a block of SAH, 5 slices of 16 rows and 12 columns."""
    image = np.random.default_rng(0).integers(-1000, 2000, (5, 16, 12)).astype(np.int16)
    labels = np.zeros(image.shape, np.uint8)
    labels[1:4, 4:9, 3:7] = SAH
    return Scan("p", image, labels, tuple("abcde"), "HU", (0.5, 0.75), 5.0)


@pytest.fixture
def datasets(scan):
    return series(scan)


def read(root, **options):
    """What a whole run reads: every header, every pixel."""
    source = Dicom.open(root, **options)
    source.fingerprint()
    return list(source)


def write(root, scan, datasets):
    for k, dataset in enumerate(datasets):
        save(dataset, root / "p 1" / f"{k}.dcm")
    write_nifti(root / "p 1.nii.gz", scan.labels, affine_of(scan))


def refused(root, match, **options):
    with pytest.raises(StudyError, match=match) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "..."))


def put(**attributes):
    def change(dataset):
        for name, value in attributes.items():
            setattr(dataset, name, value)

    return change


def without(name):
    return lambda dataset: delattr(dataset, name)


def text(name, value):
    """A number that pydicom would not write by itself."""

    def change(dataset):
        dataset[name] = pydicom.DataElement(name, "LO", value)

    return change


BAD_SLICES = {
    "no pixels": (without("PixelData"), "2.dcm cannot be read .*no 'Pixel Data'"),
    "too few pixels": (put(PixelData=bytes(100)), "2.dcm cannot be read"),
    "no slope": (without("RescaleSlope"), "2.dcm .*RescaleSlope is missing"),
    "NaN slope": (text("RescaleSlope", "NaN"), "2.dcm .*RescaleSlope is"),
    "no number as slope": (text("RescaleSlope", "one"), "2.dcm cannot be read"),
    "zero slope": (put(RescaleSlope=0), "2.dcm .*RescaleSlope is 0"),
    "overflow": (put(RescaleSlope=30), "2.dcm reaches from .* more than 16 bits"),
    "not HU": (put(RescaleType="MGML"), "2.dcm holds no Hounsfield units"),
    "MONOCHROME1": (put(PhotometricInterpretation="MONOCHROME1"), "2.dcm is MONOCHROME1"),
    "colour": (put(PhotometricInterpretation="RGB", SamplesPerPixel=3), "2.dcm is RGB"),
    "many frames": (put(NumberOfFrames=3), "2.dcm holds many CT slices .*; split it"),
    "enhanced": (put(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), "2.dcm holds many CT slices .*; split it"),
    "other size": (put(Rows=12, Columns=16), "2.dcm differs from 0.dcm in size"),
    "other spacing": (put(PixelSpacing=[0.5, 0.5]), "2.dcm differs from 0.dcm in .* pixel spacing"),
    "other orientation": (put(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "2.dcm differs from 0.dcm"),
    "no orientation": (put(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "2.dcm .*ImageOrientationPatient is"),
    "no position": (without("ImagePositionPatient"), "2.dcm .*ImagePositionPatient is missing"),
    "half a position": (put(ImagePositionPatient=[1, 2]), "2.dcm .*ImagePositionPatient is"),
    "infinite position": (text("ImagePositionPatient", ["1", "2", "inf"]), "2.dcm .*ImagePositionPatient is"),
    "no spacing": (put(PixelSpacing=[0, 0.5]), "2.dcm .*PixelSpacing is"),
    "metres": (put(PixelSpacing=[0.00045, 0.00045]), "2.dcm .*PixelSpacing is"),
    "no series": (without("SeriesInstanceUID"), "2.dcm .*SeriesInstanceUID is missing"),
    "no modality": (without("Modality"), "2.dcm cannot be read .*Modality"),
    "other modality": (put(Modality="PT"), "2.dcm belongs to a series of CT slices, but its Modality is PT"),
    "a localizer": (put(ImageType=["LOCALIZER"]), "2.dcm belongs to a series of CT slices, but it is a localizer"),
    "same position": (put(ImagePositionPatient=[*START[:2], START[2] + 5]), "2.dcm and 1.dcm lie at the same position"),
}


@pytest.mark.parametrize("name", BAD_SLICES)
def test_a_bad_slice_is_named(scan, datasets, tmp_path, name):
    change, match = BAD_SLICES[name]
    change(datasets[2])
    write(tmp_path, scan, datasets)
    refused(tmp_path, match)


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.9])
def test_truncated_files_are_named(scan, datasets, tmp_path, share):
    write(tmp_path, scan, datasets)
    path = tmp_path / "p 1" / "2.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(tmp_path, "2.dcm")


@pytest.mark.parametrize("name", ["4.dcm", "slice", "IM.0001", "größe 頭.dcm"])
def test_what_is_no_dicom_among_slices_is_named(scan, datasets, tmp_path, name):
    write(tmp_path, scan, datasets)
    (tmp_path / "p 1" / name).write_bytes(b"something else" * 100)
    refused(tmp_path, f"{name} is not a DICOM file")
    (tmp_path / "p 1" / name).write_bytes(b"")
    refused(tmp_path, f"{name} is empty")


@pytest.mark.parametrize(
    "syntax, name", [("1.2.840.10008.1.2.4.201", "High-Throughput"), ("1.2.840.10008.1.2.4.100", "MPEG2")]
)
def test_a_compression_that_nothing_decodes_is_named(scan, datasets, tmp_path, syntax, name):
    for dataset in datasets:
        put_frame(dataset, syntax, bytes(64))
    write(tmp_path, scan, datasets)
    refused(tmp_path, f"0.dcm is compressed as {name}.*; export the series uncompressed")


def test_a_transfer_syntax_that_does_not_exist_is_named(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    path = tmp_path / "p 1" / "2.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0"))
    refused(tmp_path, "2.dcm")


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_damage_in_compressed_pixels_is_named(scan, datasets, tmp_path, syntax):
    compress(datasets[2], syntax)
    write(tmp_path, scan, datasets)
    path = tmp_path / "p 1" / "2.dcm"
    content = path.read_bytes()
    half = (content.rindex(b"\xe0\x7f\x10\x00") + len(content)) // 2
    for damaged in (content[:half], content[:half] + bytes(len(content) - half)):
        path.write_bytes(damaged)
        refused(tmp_path, "2.dcm cannot be read")
    put_frame(datasets[2], syntax, bytes(range(1, 65)))
    save(datasets[2], path)
    refused(tmp_path, "2.dcm cannot be read")


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.filterwarnings("ignore")
def test_random_byte_flips_in_a_compressed_slice(scan, datasets, tmp_path, syntax):
    compress(datasets[2], syntax)
    write(tmp_path, scan, datasets)
    flip_bytes(tmp_path / "p 1" / "2.dcm", 60, lambda: damaged_or_right(tmp_path, scan.image.shape))


@pytest.mark.parametrize("lost", [[2], [1, 2]])
def test_missing_slices_are_told_with_the_place(scan, datasets, tmp_path, lost):
    write(tmp_path, scan, [d for k, d in enumerate(datasets) if k not in lost])
    refused(tmp_path, "p 1 lacks slices between .* at -?[0-9.]+ mm and .*, a step of 1[05] mm")


def test_a_missing_slice_is_found_among_overlapping_ones(scan, datasets, tmp_path):
    for dataset in datasets:
        dataset.SliceThickness = 10
    write(tmp_path, scan, datasets[:2] + datasets[3:])
    refused(tmp_path, "lacks slices")


def test_steps_far_longer_than_the_slices_are_thick_have_lost_slices(scan, tmp_path):
    datasets = series(scan, corners=START + np.outer(np.arange(5), [0, 0, 40]))
    write(tmp_path, scan, datasets[:2])
    refused(tmp_path, "p 1 lacks slices between .*, a step of 40 mm")


def test_series_of_a_folder_without_patient_ids_are_asked_for(scan, tmp_path):
    for place in ("patient 0/day 1", "patient 0/day 2", "patient 1/day 1"):
        write(tmp_path / place, scan, series(scan, patient=""))
    refused(tmp_path, "patient 0/day 1/p 1 .* carry no PatientID, .* --patient-pattern")
    patients = [found.patient_id for found in read(tmp_path, patient_pattern="^([^/]+)")]
    assert patients == ["patient 0", "patient 0", "patient 1"]


def test_a_missing_slice_at_an_end_is_found_by_the_mask(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets[1:])
    refused(tmp_path, "p 1.nii.gz is 12x16x5, not 12x16x4 as the series in .*p 1;")


def test_two_series_in_a_folder_are_named(scan, datasets, tmp_path):
    other = series(scan)
    write_series(tmp_path / "p 1", datasets)
    write_series(tmp_path / "p 1", other[:1], seed=5)
    for k, dataset in enumerate(other):
        save(dataset, tmp_path / "p 1" / f"other {k}")
    first, second = sorted([datasets[0].SeriesInstanceUID, other[0].SeriesInstanceUID])
    refused(tmp_path, f"{first} and {second}; give each a folder of its own")


def test_a_series_in_two_folders_is_named(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    write_series(tmp_path / "p 2", datasets)
    write_nifti(tmp_path / "p 2.nii.gz", scan.labels, affine_of(scan))
    refused(tmp_path, "p 2 and .*p 1 hold the same series")


def test_coronal_slices_are_refused(scan, datasets, tmp_path):
    for k, dataset in enumerate(datasets):
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [0, 5 * k, 0]
    write(tmp_path, scan, datasets)
    refused(tmp_path, r"p 1/0.dcm cannot be read as DICOM \(it is not axial\)")


def test_folders_without_series_are_refused_with_the_reason(scan, datasets, tmp_path):
    refused(tmp_path / "missing", "missing is not a folder")
    refused(tmp_path, "holds no CT series")
    datasets[0].Modality = "MR"
    save(datasets[0], tmp_path / "mr" / "1")
    refused(tmp_path, r"holds no CT series in DICOM \(.*mr/1: its Modality is MR, not CT\); add the original")
    write_series(tmp_path, datasets[1:])
    refused(tmp_path, "holds CT slices itself")


def test_patients_that_cannot_be_told_apart_are_refused(scan, tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, series(scan))
        write_nifti(tmp_path / f"{name}.nii.gz", scan.labels, affine_of(scan))
    refused(tmp_path, "All 2 series .* carry the same PatientID, .*--patient-pattern")
    write_series(tmp_path / "c", series(scan, patient=""))
    write_nifti(tmp_path / "c.nii.gz", scan.labels, affine_of(scan))
    refused(tmp_path, "All 2 series .* carry the same PatientID, .*--patient-pattern")
    refused(tmp_path, "finds no patient in 'a'", patient_pattern="^p(.*)")
    refused(tmp_path, "is not a regular expression", patient_pattern="(")
    refused(tmp_path, "'#00ffff=SAH' is a colour", label_map=("#00ffff=SAH",))
    assert len(read(tmp_path, slices_are_patients=True)) == 3


def test_series_without_one_mask_are_named(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    write_nifti(tmp_path / "p 1" / "seg.nii", scan.labels, affine_of(scan))
    refused(tmp_path, "p 1 has two masks, .*p 1.nii.gz and .*seg.nii")
    (tmp_path / "p 1" / "seg.nii").unlink()
    (tmp_path / "p 1.nii.gz").unlink()
    refused(tmp_path, "p 1 has no mask: add p 1.nii.gz")
    contours = file_dataset("1.2.840.10008.5.1.4.1.1.481.3")
    contours.Modality, contours.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    save(contours, tmp_path / "p 1" / "rt" / "1")
    refused(tmp_path, r"p 1 has no mask: .*rt/1: its contours \(RTSTRUCT\) are no voxels; export them as DICOM-SEG")
    save(segmentation(scan.labels, series(scan), {1: ("", SAH)}), tmp_path / "p 1" / "seg.dcm")
    refused(tmp_path, "seg.dcm was drawn on the series .* not on the one it lies with")


def shifted(scan):
    return scan.labels, affine_of(scan) + np.array([[0, 0, 0, 0.5]] + [[0] * 4] * 3)


def mirrored(scan):
    return scan.labels, affine_of(scan) @ np.diag([-1, 1, 1, 1])


def rotated(scan):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    return scan.labels, turn @ affine_of(scan)


BAD_NIFTI = {
    "shifted": (shifted, "lies on another grid than the series in .*p 1"),
    "mirrored": (mirrored, "lies on another grid"),
    "rotated": (rotated, "lies on another grid"),
    "no affine": (lambda scan: (scan.labels, None), "lies on another grid"),
    "other shape": (lambda scan: (scan.labels[:, :-1], affine_of(scan)), "p 1.nii.gz is 12x15x5, not 12x16x5 as"),
    "NaN": (lambda scan: (np.where(scan.labels, np.nan, 0), affine_of(scan)), "p 1.nii.gz holds voxels that are not"),
    "infinite": (
        lambda scan: (np.where(scan.labels, np.inf, 0), affine_of(scan)),
        "p 1.nii.gz holds voxels that are not",
    ),
    "fractions": (lambda scan: (scan.labels * 0.5, affine_of(scan)), "p 1.nii.gz holds fractions"),
    "negative": (lambda scan: (scan.labels * -1.0, affine_of(scan)), "p 1.nii.gz holds the values -1; say what"),
    "unexplained": (lambda scan: (scan.labels * 4.0, affine_of(scan)), "holds the values 4; say what"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BAD_NIFTI)
def test_a_bad_nifti_mask_is_named(scan, datasets, tmp_path, name):
    write(tmp_path, scan, datasets)
    labels, affine = BAD_NIFTI[name][0](scan)
    write_nifti(tmp_path / "p 1.nii.gz", labels, affine, dtype=labels.dtype)
    refused(tmp_path, BAD_NIFTI[name][1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("number", [0, np.nan, np.inf, 1e30])
def test_an_impossible_affine_is_named(scan, datasets, tmp_path, number):
    write(tmp_path, scan, datasets)
    (tmp_path / "p 1.nii.gz").unlink()
    path = tmp_path / "p 1" / "mask.nii"
    write_nifti(path, scan.labels, affine_of(scan))
    content = bytearray(path.read_bytes())
    content[254:256] = np.int16(1).tobytes()  # sform_code
    content[280:328] = np.full(12, number, np.float32).tobytes()  # the sform itself
    path.write_bytes(content)
    refused(tmp_path, "mask.nii (cannot be read as a NIfTI|lies on another grid)")


def test_values_outside_the_map_are_named(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    refused(tmp_path, "p 1.nii.gz holds the values 1; say what they mean with label_map", label_map=("4=SAH",))


@pytest.mark.parametrize("content", [b"", b"no gzip", None])
def test_damaged_nifti_files_are_named(scan, datasets, tmp_path, content):
    write(tmp_path, scan, datasets)
    path = tmp_path / "p 1.nii.gz"
    path.write_bytes(path.read_bytes()[:100] if content is None else content)
    refused(tmp_path, "p 1.nii.gz cannot be read as a NIfTI")


def frame(dataset, k=0):
    return dataset.PerFrameFunctionalGroupsSequence[k]


def of_no_slice(dataset):
    frame(dataset).PlanePositionSequence[0].ImagePositionPatient = [*START[:2], START[2] + 7]


def beside(dataset):
    frame(dataset).PlanePositionSequence[0].ImagePositionPatient = [START[0] + 0.5, START[1], START[2] + 5]


def contradicting(dataset):
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[0].PlanePositionSequence = groups[1].PlanePositionSequence


def nowhere(dataset):
    del frame(dataset).PlanePositionSequence, frame(dataset).DerivationImageSequence


def other_orientation(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def undescribed(dataset):
    frame(dataset).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def two_classes(dataset):
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = 2, "IVH"
    dataset.SegmentSequence[0].SegmentLabel = "SAH"
    dataset.SegmentSequence.append(item)
    contradicting(dataset)
    frame(dataset).DerivationImageSequence = frame(dataset, 1).DerivationImageSequence
    frame(dataset).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2


def fractional(dataset):
    shares = np.full((dataset.NumberOfFrames, dataset.Rows, dataset.Columns), 127, np.uint8)
    dataset.SegmentationType, dataset.MaximumFractionalValue, dataset.PixelData = "FRACTIONAL", 255, shares.tobytes()
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7


BAD_SEGMENTATIONS = {
    "of no slice": (of_no_slice, "seg.dcm has a frame that lies on no slice"),
    "beside": (beside, "seg.dcm has a frame that lies on no slice"),
    "contradicting": (contradicting, "seg.dcm has a frame at the position of 2.dcm that refers to 1.dcm"),
    "nowhere": (nowhere, "seg.dcm has a frame that belongs to no slice"),
    "mirrored": (other_orientation, "seg.dcm has a frame that lies on no slice"),
    "undescribed": (undescribed, "seg.dcm shows segment 9 without describing it"),
    "two classes": (two_classes, "seg.dcm gives a pixel of 2.dcm two classes"),
    "fractional": (fractional, r"seg.dcm shows shares of pixels \(FRACTIONAL\); set a threshold"),
    "other kind": (put(SegmentationType="SURFACE"), "seg.dcm is no segmentation of a kind that is read here"),
    "frames": (lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(), "seg.dcm .*3 frames and describes 2"),
    "no pixels": (without("PixelData"), "seg.dcm cannot be read"),
    "no groups": (without("PerFrameFunctionalGroupsSequence"), "seg.dcm cannot be read"),
}


@pytest.mark.parametrize("name", BAD_SEGMENTATIONS)
def test_a_bad_segmentation_is_named(scan, datasets, tmp_path, name):
    write(tmp_path, scan, datasets)
    (tmp_path / "p 1.nii.gz").unlink()
    dataset = segmentation(scan.labels, datasets, {1: ("", SAH)})
    BAD_SEGMENTATIONS[name][0](dataset)
    save(dataset, tmp_path / "p 1" / "seg.dcm")
    refused(tmp_path, BAD_SEGMENTATIONS[name][1])


def test_a_link_to_itself_and_one_to_nowhere_are_named(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    os.symlink(tmp_path, tmp_path / "p 1" / "up", target_is_directory=True)
    assert len(read(tmp_path)) == 1
    os.symlink(tmp_path / "self", tmp_path / "self")
    refused(tmp_path, "self is a link to nowhere")


@pytest.mark.skipif(os.name == "nt", reason="needs names that are no text")
def test_a_name_that_is_no_text_is_told(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    try:
        open(os.fsencode(tmp_path / "p 1") + b"/\xff.dcm", "wb").close()
    except OSError:
        pytest.skip("this file system takes no such names")
    refused(tmp_path, "a name that is not UTF-8")


def test_a_pipe_in_a_folder_does_not_hang(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    os.mkfifo(tmp_path / "p 1" / "pipe.dcm")
    assert len(read(tmp_path)) == 1


def test_ten_thousand_files_that_are_none_of_it(scan, datasets, tmp_path):
    write(tmp_path, scan, datasets)
    for k in range(10_000):
        (tmp_path / f"{k}.txt").touch()
    assert len(read(tmp_path)) == 1


def damaged_or_right(root, shape):
    """A damaged file is told in a StudyError or leaves scans of the right shape; nothing else may come."""
    try:
        read_scans = read(root)
    except StudyError as error:
        assert "\n" not in str(error)
        return
    assert [s.image.shape for s in read_scans] == [s.labels.shape for s in read_scans] == [shape]


def flip_bytes(path, times, look):
    """Calls look() with random bytes of a file changed, and mends it."""
    good, dice = path.read_bytes(), random.Random(0)
    for _ in range(times):
        content = bytearray(good)
        for _ in range(dice.choice([1, 1, 3, 20])):
            content[dice.randrange(128, len(content))] = dice.randrange(256)
        path.write_bytes(content)
        look()
    path.write_bytes(good)


@pytest.fixture(scope="session")
def valid(tmp_path_factory, scan):
    """A valid folder with a DICOM-SEG, and what its files hold: two slices and the segmentation."""
    root = tmp_path_factory.mktemp("valid")
    made = series(scan)
    for k, dataset in enumerate(made):
        save(dataset, root / "p" / f"{k}.dcm")
    save(segmentation(scan.labels, made, {1: ("", SAH)}), root / "p" / "seg.dcm")
    return root, {name: (root / "p" / name).read_bytes() for name in ("0.dcm", "2.dcm", "seg.dcm")}


@pytest.mark.parametrize("name", ["0.dcm", "2.dcm", "seg.dcm"])
@pytest.mark.filterwarnings("ignore")
def test_random_byte_flips(scan, valid, name):
    root, _ = valid
    flip_bytes(root / "p" / name, 150, lambda: damaged_or_right(root, scan.image.shape))
    assert len(read(root)) == 1


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_to_a_slice(scan, valid, data):
    root, contents = valid
    content = contents["2.dcm"]
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, 64))
    (root / "p" / "2.dcm").write_bytes(content[:start] + data.draw(st.binary(max_size=64)) + content[start + length :])
    try:
        damaged_or_right(root, scan.image.shape)
    finally:
        (root / "p" / "2.dcm").write_bytes(content)


def test_another_series_uid_in_one_file_is_not_dropped(scan, datasets, tmp_path):
    datasets[-1].SeriesInstanceUID = generate_uid()
    write(tmp_path, scan, datasets)
    refused(tmp_path, "give each a folder of its own")
