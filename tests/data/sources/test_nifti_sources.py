"""Folders of NIfTI: a tiny one in its exact layout, written from the phantom, comes back as the phantom."""

import dataclasses
import importlib
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers.nifti_writer import (
    CODES,
    assert_same,
    masks_of,
    only_sah,
    phantom_scans,
    study,
    write,
)

from sahlib.data import slices
from sahlib.data.scan import CLASSES
from sahlib.data.sources import open_source, recognise
from sahlib.data.sources.nifti_file import hounsfield, read_volume
from sahlib.study import DATASETS, StudyError


@pytest.fixture(scope="session")
def scans():
    return phantom_scans()


@pytest.mark.parametrize("codes", CODES)
def test_every_stored_orientation_becomes_the_phantoms_view(scans, tmp_path, codes):
    scan = scans[0]
    write(tmp_path / "a.nii.gz", scan.image, scan, codes)
    write(tmp_path / "a_mask.nii.gz", masks_of(scan), scan, CODES[(CODES.index(codes) + 2) % len(CODES)])
    (found,) = open_source(study("nifti", tmp_path))
    assert_same(found, scan, only_sah(scan))
    assert found.patient_id == "a" and found.slice_ids[0] == "a_z00"
    # nibabel's own way to the same view
    image = nib.as_closest_canonical(nib.load(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(found.image, np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0))


def test_a_tilted_scan_of_dcm2niix_has_the_thickness_of_its_qform(scans, tmp_path):
    """As dcm2niix 1.0.20260724 writes 5 mm of table travel under 20 degrees: both forms step by 4.698 mm."""
    scan, tilt = scans[0], np.deg2rad(20)
    for name, array in (("a.nii", scan.image), ("a_mask.nii", masks_of(scan))):
        qform = np.diag([-0.45, 1, 1, 1.0])
        qform[1:3, 1:3] = [[0.45 * np.cos(tilt), 4.698 * np.sin(tilt)], [-0.45 * np.sin(tilt), 4.698 * np.cos(tilt)]]
        sform = qform.copy()
        sform[:3, 2] = [0, 0, 4.698]
        image = nib.Nifti1Image(array.transpose(2, 1, 0), sform)
        image.set_qform(qform, 1)
        image.set_sform(sform, 1)
        nib.save(image, tmp_path / name)
    (found,) = open_source(study("nifti", tmp_path))
    np.testing.assert_allclose([*found.spacing_mm, found.thickness_mm], [0.45, 0.45, 4.698], rtol=1e-4)


@pytest.mark.parametrize(
    "dtype, scale",
    [
        (np.int16, None),
        (">i2", None),
        (np.int32, None),
        (np.float32, None),
        (np.float64, None),
        (np.uint16, (1.0, -1024.0)),
        (np.int16, (0.5, 3.0)),
    ],
)
def test_number_types_and_scale_factors_give_the_same_hounsfield_units(scans, tmp_path, dtype, scale):
    scan = scans[0]
    write(tmp_path / "a.nii", scan.image, scan, dtype=dtype, scale=scale)
    write(tmp_path / "a_seg.nii", masks_of(scan), scan, dtype=np.float32)
    assert_same(open_source(study("nifti", tmp_path)).scan(0), scan, only_sah(scan))


def test_nifti_2_and_a_fourth_axis_of_one_are_read(scans, tmp_path):
    scan = scans[0]
    affine = np.diag([-scan.spacing_mm[1], -scan.spacing_mm[0], scan.thickness_mm, 1])
    nib.save(nib.Nifti2Image(scan.image.transpose(2, 1, 0)[..., None], affine), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(hounsfield(read_volume(tmp_path / "a.nii.gz")), scan.image)


def test_a_tilted_scan_keeps_its_voxels_and_the_lengths_of_its_axes(scans, tmp_path):
    scan = scans[0]
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    affine = tilt @ np.diag([-scan.spacing_mm[1], -scan.spacing_mm[0], scan.thickness_mm, 1])
    write(tmp_path / "a.nii.gz", scan.image, scan, affine=affine)
    write(tmp_path / "a_mask.nii.gz", masks_of(scan), scan, codes="PIR", affine=affine)
    assert_same(open_source(study("nifti", tmp_path)).scan(0), scan, only_sah(scan))


@pytest.mark.parametrize(
    "image, mask",
    [
        ("images/{}.nii.gz", "masks/{}.nii.gz"),
        ("images/{}.nii", "labels/{}_mask.nii.gz"),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
        ("{}.nii.gz", "{}_mask.nii.gz"),
        ("{}_ct.nii.gz", "{}-label.nii"),
        ("{}/ct.nii.gz", "{}/Segmentation.nii.gz"),
    ],
)
@pytest.mark.parametrize("dataset", ["nifti", "rhuh_sah"])
def test_generic_layouts(scans, tmp_path, image, mask, dataset):
    root = tmp_path / "subarachnoid_hemorrhage_rhuh" if dataset == "rhuh_sah" else tmp_path / "d"
    names = ("Pérez 1", "b.2", "scan 03")
    for name, scan in zip(names, scans, strict=True):
        write(root / image.format(name), scan.image, scan)
        write(root / mask.format(name), masks_of(scan), scan, "LPS")
    assert recognise(root) == dataset
    source = open_source(study(dataset, root))
    assert source.name == dataset and len(source) == 3
    found = {scan.patient_id: scan for scan in source}
    for name, scan in zip(names, scans, strict=True):
        assert_same(found[name], scan, only_sah(scan))
        assert found[name].sources == tuple(type(tmp_path)(path.format(name)) for path in (image, mask))


def test_patients_by_pattern_and_by_table(scans, tmp_path):
    for day, scan in enumerate(scans):
        write(tmp_path / "anna" / f"day{day}.nii.gz", scan.image, scan)
        write(tmp_path / "anna" / f"day{day}_mask.nii.gz", masks_of(scan), scan)
    with pytest.raises(StudyError, match="anna.*patient-pattern"):
        open_source(study("nifti", tmp_path))
    source = open_source(study("nifti", tmp_path, patient_pattern="^([a-z]+)_"))
    assert {scan.patient_id for scan in source} == {"anna"} and len(source) == 3
    rows = [
        {"image": f"anna/day{day}.nii.gz", "mask": f"anna/day{day}_mask.nii.gz", "patient_id": f"p{day}"}
        for day in (0, 2)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "pairs.csv", index=False)
    source = open_source(study("nifti", tmp_path))
    assert [scan.patient_id for scan in source] == ["p0", "p2"]
    assert_same(source.scan(1), scans[2], only_sah(scans[2]))


def pairs(root, scans, *rows, heading="image,mask,patient_id"):
    """images/ and masks/ of the scans a, b, c and a pairs.csv that pairs them, with what `rows` say of each."""
    lines = [heading]
    for name, scan, row in zip("abc", scans, rows, strict=True):
        write(root / "images" / f"{name}.nii.gz", scan.image, scan)
        write(root / "masks" / f"{name}.nii.gz", masks_of(scan), scan)
        lines.append(row if "/" in row else f"images/{name}.nii.gz,masks/{name}.nii.gz,{row}")
    (root / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return study("nifti", root)


@pytest.mark.parametrize("heading", ["patient", "PatientID", "patient id", "Subject", "patient_id"])
def test_pairs_name_patients_under_any_usual_heading_and_spelling(scans, tmp_path, heading):
    source = open_source(pairs(tmp_path, scans, "p1", "p1\u200b", "P2", heading=f"image,mask,{heading}"))
    assert [case.patient_id for case in source.cases] == ["P2", "p1", "p1"]
    assert source.remarks == ("Patient p1 is written in 2 ways ('p1', 'p1\\u200b'), taken for one.",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("p1", "p1", " "), "names no patient for 'images/c.nii.gz'"),
        (("p1", "images/b.nii.gz,masks/a.nii.gz,p2", "p3"), "masks/a.nii.gz' is there twice"),
        (("p1", "p2", "masks/../images/a.nii.gz,masks/c.nii.gz,p3"), "images/a.nii.gz' is there twice"),
    ],
)
def test_pairs_that_leave_a_patient_open_or_use_a_file_twice_are_refused(scans, tmp_path, rows, message):
    with pytest.raises(StudyError, match=message):
        open_source(pairs(tmp_path, scans, *rows))


@pytest.mark.parametrize("name", ["images/P1.nii/P1.nii", "images/b.nrrd", "images/b.png", "b/ct.nii.gz"])
def test_files_that_are_not_read_are_told(scans, tmp_path, name):
    for kind, array in (("images", scans[0].image), ("masks", masks_of(scans[0]))):
        write(tmp_path / kind / "a.nii.gz", array, scans[0])
    assert not open_source(study("nifti", tmp_path)).remarks
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    (remark,) = open_source(study("nifti", tmp_path)).remarks
    assert remark == f"Left aside in {tmp_path}: {name}; what they show is missing."


def test_a_label_map_tells_several_classes(scans, tmp_path):
    scan = scans[0]
    write(tmp_path / "images" / "a.nii.gz", scan.image, scan)
    write(tmp_path / "masks" / "a.nii.gz", masks_of(scan, {index: 10 * index for index in range(6)}), scan)
    told = tuple(f"{10 * index}={name}" for index, name in enumerate(CLASSES) if index)
    assert_same(open_source(study("nifti", tmp_path, label_map=told)).scan(0), scan)
    merged = ("10=SAH", *(f"{10 * index}=background" for index in range(2, 6)))
    assert_same(open_source(study("nifti", tmp_path, label_map=merged)).scan(0), scan, only_sah(scan))
    with pytest.raises(StudyError, match="a.nii.gz holds the value .*label_map"):
        open_source(study("nifti", tmp_path, label_map=("10=SAH",))).scan(0)
    with pytest.raises(StudyError, match="colour"):
        open_source(study("nifti", tmp_path, label_map=("#ffffff=SAH",)))


def test_a_fingerprint_follows_pixels_names_and_reading_but_not_the_place(scans, tmp_path):
    def folder(name, stem="a", mask=None):
        write(tmp_path / name / f"{stem}.nii.gz", scans[0].image, scans[0])
        write(tmp_path / name / f"{stem}_mask.nii.gz", masks_of(scans[0]) if mask is None else mask, scans[0])
        return study("nifti", tmp_path / name)

    first, second = folder("one"), folder("two")
    for path in (tmp_path / "one").iterdir():  # gzip writes the time
        (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
    fingerprint = open_source(first).fingerprint()
    assert fingerprint == open_source(second).fingerprint() == json.loads(json.dumps(fingerprint))
    others = [folder("three", "b"), folder("four", mask=0 * masks_of(scans[0]))]
    others.append(dataclasses.replace(first, label_map=("1=IPH",)))
    for other in others:
        assert open_source(other).fingerprint() != fingerprint


def test_a_store_is_built_from_nifti(scans, tmp_path):
    for index, scan in enumerate(scans):
        write(tmp_path / "images" / f"{index}.nii.gz", scan.image, scan)
        write(tmp_path / "masks" / f"{index}.nii.gz", masks_of(scan), scan)
    store = slices.prepare(study("nifti", tmp_path), tmp_path / "processed")
    assert len(store) == 24 and store.slices.patient_id.unique().tolist() == ["0", "1", "2"]
    (images,), labels = slices.preprocess(dataclasses.replace(scans[1], labels=only_sah(scans[1])), 32, [(40, 80)])
    np.testing.assert_array_equal(store.images[8:16], images)
    np.testing.assert_array_equal(store.labels[8:16], labels)


@pytest.mark.parametrize(
    "dataset, field",
    [
        ("nifti", {"slices_are_patients": True}),
        ("nifti", {"raters": "union"}),
        ("ct_ich", {"label_map": ("1=SAH",)}),
        ("paired_folder", {"raters": "annot_1"}),
    ],
)
def test_a_field_that_a_source_cannot_use_is_refused(tmp_path, dataset, field):
    with pytest.raises(StudyError, match=f"{next(iter(field))} has no meaning"):
        open_source(study(dataset, tmp_path, **field))


def test_paired_folders_are_recognised_and_strangers_named(paired_folder, tmp_path):
    assert recognise(paired_folder) == "paired_folder"
    (paired_folder / "atlas").mkdir()
    (paired_folder / "atlas" / "mni.nii.gz").touch()
    assert recognise(paired_folder) == "paired_folder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="empty.*ct_ich.*bhsd.*nifti.*paired_folder"):
        recognise(tmp_path / "empty")
    with pytest.raises(StudyError, match="nowhere"):
        recognise(tmp_path / "nowhere")


@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "phantom"])
def test_every_dataset_has_a_module_that_recognises_and_opens_folders(dataset, tmp_path):
    assert DATASETS[dataset], "recognise() tells what a folder should hold"
    with pytest.raises(StudyError, match="nowhere"):
        open_source(study(dataset, tmp_path / "nowhere"))
    assert not importlib.import_module(f"sahlib.data.sources.{dataset}").recognises(tmp_path)
