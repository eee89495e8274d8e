"""Every NIfTI-based source: a tiny folder in its exact layout, written from the phantom, comes back as the phantom."""

import dataclasses
import importlib
import json
import shutil

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel import orientations

from sahlib.data import slices
from sahlib.data.scan import CLASSES, SAH, Scan
from sahlib.data.sources import ct_ich, open_source, recognise
from sahlib.data.sources.nifti_file import hounsfield, read_volume
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.data.sources.volume_folder import merge_raters
from sahlib.study import DATASETS, Study, StudyError

CODES = ("RAS", "LPS", "LAS", "PIR", "SPL", "ASR", "LPI")
BHSD_VALUES = {0: 0, CLASSES.index("EDH"): 1, CLASSES.index("IPH"): 2, CLASSES.index("IVH"): 3, SAH: 4, 4: 5}
RSNA_NAMES = ("ID_0237f3c9_ID_40015688b9", "ID_2db7ee14_ID_47aa2b3a95", "ID_2db7ee14_ID_f27e38fdfd")


def phantom_scans() -> tuple[Scan, ...]:
    """Two patients with different bleeds at 64x64 in 8 slices, and the mirror image of the second."""
    plans = Phantom(40, 0).plans()
    mixed = next(p.index for p in plans if p.pattern != "none" and "IVH" in p.other_bleeds)
    extra = next(p.index for p in plans if p.index != mixed and {"SDH", "EDH"} & set(p.other_bleeds))
    scans = []
    for index in (mixed, extra):
        scan = Phantom(40, 0).scan(index)
        small = dataclasses.replace(
            scan,
            image=scan.image[::4, ::4, ::4],
            labels=scan.labels[::4, ::4, ::4],
            slice_ids=scan.slice_ids[::4],
            spacing_mm=(4 * scan.spacing_mm[0], 4 * scan.spacing_mm[1] + 0.25),
            thickness_mm=4 * scan.thickness_mm,
        )
        scans.append(small)
    mirrored = dataclasses.replace(small, image=small.image[..., ::-1], labels=small.labels[..., ::-1])
    return (*scans, mirrored)


@pytest.fixture(scope="session")
def scans():
    return phantom_scans()


def write(path, array, scan, codes="RAS", dtype=np.int16, scale=None, affine=None):
    """[D,H,W] in the canonical view as a NIfTI file stored in the orientation `codes`."""
    rows, columns = scan.spacing_mm
    if affine is None:
        affine = np.diag([-columns, -rows, scan.thickness_mm, 1.0])
        affine[:3, 3] = [90.5, 120.25, -60.0]
    turn = orientations.ornt_transform(orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(codes))
    stored = array.transpose(2, 1, 0)
    affine = affine @ orientations.inv_ornt_aff(turn, stored.shape)
    stored = orientations.apply_orientation(stored, turn)
    if scale is not None:
        stored = np.rint((stored - scale[1]) / scale[0])
    image = nib.Nifti1Image(stored.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    if scale is not None:
        set_scale(path, *scale)
    return path


def set_scale(path, slope, intercept):
    """Writes scl_slope and scl_inter into the header of a .nii file, whose stored numbers stay as they are."""
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)


def study(dataset, root, **changes):
    return Study.of_profile("smoke", dataset=dataset, data_dir=str(root), precision="fp32", **changes)


def assert_same(found: Scan, scan: Scan, labels=None):
    np.testing.assert_array_equal(found.image, scan.image)
    np.testing.assert_array_equal(found.labels, scan.labels if labels is None else labels)
    np.testing.assert_allclose(found.spacing_mm, scan.spacing_mm, rtol=1e-6)
    assert found.thickness_mm == pytest.approx(scan.thickness_mm, rel=1e-6)
    assert found.image.dtype == np.int16 and found.labels.dtype == np.uint8 and found.unit == "HU"


def masks_of(scan, values=None):
    """The phantom's labels as a file's values: SAH alone as 1, or by a map from class to value."""
    if values is None:
        return (scan.labels == SAH).astype(np.uint8)
    return np.vectorize(values.get)(scan.labels).astype(np.uint8)


def only_sah(scan):
    return (scan.labels == SAH) * np.uint8(SAH)


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
    assert remark == f"Left aside in {tmp_path}: {name}; whom they show is missing."


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


BHSD_LABELS = {
    "nnU-Net 1": {"0": "background", "1": "epidural", "2": "intraparenchymal", "3": "intraventricular"}
    | {"4": "subarachnoid", "5": "subdural"},
    "nnU-Net 2": {"background": 0, "EDH": 1, "IPH": 2, "IVH": 3, "SAH": 4, "SDH": 5},
}


@pytest.mark.parametrize("form", ["folders", *BHSD_LABELS])
def test_bhsd(scans, tmp_path, form):
    folders = ("label_192/images", "label_192/ground truths") if form == "folders" else ("imagesTr", "labelsTr")
    for name, scan in zip(RSNA_NAMES, scans, strict=True):
        write(tmp_path / folders[0] / f"{name}.nii.gz", scan.image, scan)
        write(tmp_path / folders[1] / f"{name}.nii.gz", masks_of(scan, BHSD_VALUES), scan)
    if form != "folders":
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": BHSD_LABELS[form]}))
    assert recognise(tmp_path) == "bhsd"
    source = open_source(study("bhsd", tmp_path, label_map=("4=SAH",)))
    found = {scan.slice_ids[0].removesuffix("_z00"): scan for scan in source}
    for name, scan in zip(RSNA_NAMES, scans, strict=True):
        assert_same(found[name], scan)
    assert [found[name].patient_id for name in RSNA_NAMES] == ["ID_0237f3c9", "ID_2db7ee14", "ID_2db7ee14"]
    with pytest.raises(StudyError, match="label_map says 3=SAH.*3 is IVH"):
        open_source(study("bhsd", tmp_path, label_map=("3=SAH",)))


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "tumour"},
        {"SAH": 0},
        {"1": "SAH", "2": "SAH"},
        ["SAH"],
        {"SAH": [1, 2]},
        {"background": 0, "non-SAH hemorrhage": 1},
        {"background": 0, "SAH": 1, "other than SAH": 2},
    ],
)
def test_a_dataset_json_that_makes_no_sense_is_refused(scans, tmp_path, labels):
    write(tmp_path / "imagesTr" / "a.nii.gz", scans[0].image, scans[0])
    write(tmp_path / "labelsTr" / "a.nii.gz", masks_of(scans[0]), scans[0])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(StudyError, match="dataset.json"):
        open_source(study("bhsd", tmp_path))


@pytest.mark.parametrize("dataset", ["bhsd", "nifti"])
@pytest.mark.parametrize(
    ("labels", "label_map", "second"),
    [
        ({"SAH": 1, "ignore": 2}, "2=background", 0),
        ({"SAH": 1, "vessel": 2}, "2=IPH", CLASSES.index("IPH")),
        ({"traumatic SAH": 1, "aneurysmal SAH": 2}, "2=SAH", SAH),
    ],
)
def test_a_label_map_completes_a_dataset_json(scans, tmp_path, dataset, labels, label_map, second):
    mask = masks_of(scans[0], {index: min(index, 2) for index in range(6)})
    write(tmp_path / "imagesTr" / "a.nii.gz", scans[0].image, scans[0])
    write(tmp_path / "labelsTr" / "a.nii.gz", mask, scans[0])
    text = json.dumps({"labels": {"background": 0} | labels})
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8-sig")
    with pytest.raises(StudyError, match="dataset.json"):
        open_source(study(dataset, tmp_path))
    found = open_source(study(dataset, tmp_path, label_map=(label_map,))).scan(0)
    assert_same(found, scans[0], np.array([0, SAH, second], np.uint8)[mask])


def test_a_dataset_json_decides_over_the_documented_values(scans, tmp_path):
    write(tmp_path / "imagesTr" / "a.nii.gz", scans[0].image, scans[0])
    write(tmp_path / "labelsTr" / "a.nii.gz", masks_of(scans[0]), scans[0])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "SAH": 1}}))
    assert_same(open_source(study("bhsd", tmp_path)).scan(0), scans[0], only_sah(scans[0]))


def test_mbh_seg_with_several_raters(scans, tmp_path):
    for name, scan in zip(RSNA_NAMES, scans, strict=True):
        write(tmp_path / name / "image.nii.gz", scan.image, scan)
        truth = masks_of(scan, BHSD_VALUES)
        for rater, mask in ((1, truth), (2, truth), (5, np.roll(truth, 3, axis=2))):
            if (name, rater) != (RSNA_NAMES[0], 5):
                write(tmp_path / name / f"label_annot_{rater}.nii.gz", mask, scan)
        write(tmp_path / name / "label_consensus_staple.nii.gz", truth, scan)
    assert recognise(tmp_path) == "mbh_seg"
    source = open_source(study("mbh_seg", tmp_path))
    for found, scan in zip(source, (scans[1], scans[2], scans[0]), strict=True):  # ID_2... comes before ID_0237...
        assert_same(found, scan)
    one = open_source(study("mbh_seg", tmp_path, raters="annot_5"))
    assert len(one) == 2 and one.left_out == 1 and one.fingerprint()["left_out"] == 1
    assert_same(one.scan(0), scans[1], np.roll(scans[1].labels, 3, axis=2))
    union = open_source(study("mbh_seg", tmp_path, raters="union"))
    expected = (scans[1].labels > 0) | (np.roll(scans[1].labels, 3, axis=2) > 0)
    np.testing.assert_array_equal(union.scan(0).labels > 0, expected)
    with pytest.raises(StudyError, match="annot_9.*annot_1, annot_2, annot_5"):
        open_source(study("mbh_seg", tmp_path, raters="annot_9"))
    assert source.fingerprint() != union.fingerprint() != one.fingerprint()


def test_mbh_seg_in_the_folder_above_and_beside_a_systems_own(scans, tmp_path):
    name, scan = RSNA_NAMES[0], scans[0]
    write(tmp_path / "MBH_Train" / name / "image.nii.gz", scan.image, scan)
    for kind in ("annot_1", "annot_2", "consensus"):
        write(tmp_path / "MBH_Train" / name / f"label_{kind}.nii.gz", masks_of(scan, BHSD_VALUES), scan)
    for junk in ("@eaDir", "__MACOSX"):
        (tmp_path / "MBH_Train" / junk).mkdir()
    for root in (tmp_path, tmp_path / "MBH_Train"):
        assert recognise(root) == "mbh_seg"
        source = open_source(study("mbh_seg", root, raters="annot_1"))
        assert_same(source.scan(0), scan)
        (remark,) = source.remarks
        assert "label_consensus.nii.gz; " in remark and "annot_2" not in remark


def test_raters_by_hand():
    votes = [[1, 1, 1, 1, 0, 3], [1, 0, 2, 1, 0, 3], [0, 0, 0, 2, 0, 2], [0, 0, 0, 2, 3, 1]]
    raters = [np.array(vote, np.uint8).reshape(1, 1, 6) for vote in votes]
    assert merge_raters(raters, "majority").ravel().tolist() == [0, 0, 0, 0, 0, 3]
    assert merge_raters(raters, "union").ravel().tolist() == [1, 1, 1, 1, 3, 3]


@pytest.mark.parametrize("nested", ["", "train_2"])
def test_instance2022_needs_to_be_told_what_its_masks_mean(scans, tmp_path, nested):
    for index, scan in enumerate(scans, 1):
        write(tmp_path / nested / "data" / f"{index:03d}.nii.gz", scan.image, scan)
        write(tmp_path / nested / "label" / f"{index:03d}.nii.gz", (scan.labels > 0).astype(np.uint8), scan)
    assert recognise(tmp_path) == "instance2022"
    with pytest.raises(StudyError, match="do not tell types"):
        open_source(study("instance2022", tmp_path))
    source = open_source(study("instance2022", tmp_path, label_map=("1=IPH",)))
    for found, scan in zip(source, scans, strict=True):
        assert_same(found, scan, (scan.labels > 0) * np.uint8(CLASSES.index("IPH")))


def write_table(path, scans, patients, numbers_of=lambda depth: range(1, depth + 1)):
    """CT-ICH's table from the phantom's labels; `numbers_of` gives the SliceNumber of each slice, neck first."""
    rows = []
    for patient, scan in zip(patients, scans, strict=True):
        for number, labels in sorted(
            zip(numbers_of(len(scan.labels)), scan.labels, strict=True), key=lambda pair: pair[0]
        ):
            types = {column: int((labels == CLASSES.index(name)).any()) for column, name in ct_ich.TYPES.items()}
            rows.append({"PatientNumber": patient, "SliceNumber": number, **types})
            rows[-1] |= {"No_Hemorrhage": int(not labels.any()), "Fracture_Yes_No": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False)
    return frame


def told(scan):
    """(slices of a phantom scan with at most one class, labels of them)."""
    kept = [level for level, labels in enumerate(scan.labels) if len(np.unique(labels[labels > 0])) < 2]
    return kept, scan.labels[kept]


@pytest.mark.parametrize("codes", ["RAS", "LPI"])
@pytest.mark.parametrize("top", [1, 255])
def test_ct_ich_as_nifti(scans, tmp_path, codes, top):
    turned = codes.endswith("I")
    write_table(
        tmp_path / ct_ich.TABLES[0],
        scans,
        (49, 50, 51),
        lambda depth: range(depth, 0, -1) if turned else range(1, depth + 1),
    )
    for patient, scan in zip((49, 50, 51), scans, strict=True):
        write(tmp_path / "ct_scans" / f"{patient:03d}.nii", scan.image, scan, codes)
        # the published masks come back as 0.99999 from their scale factor
        mask = write(tmp_path / "masks" / f"{patient:03d}.nii", (scan.labels > 0) * 100, scan, codes)
        set_scale(mask, 0.999995 * top / 100, 0)
    assert recognise(tmp_path) == "ct_ich"
    source = open_source(study("ct_ich", tmp_path))
    mixed = 0
    for found, scan in zip(source, scans, strict=True):
        kept, labels = told(scan)
        mixed += len(scan.labels) - len(kept)
        np.testing.assert_array_equal(found.image, scan.image[kept])
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.spacing_mm, scan.spacing_mm, rtol=1e-6)
        number = len(scan.image) - kept[0] if turned else kept[0] + 1
        assert found.slice_ids[0] == f"{found.patient_id}_{number:02d}"
    assert source.left_out == mixed > 0
    with pytest.raises(StudyError, match="which say how they lie; leave orientation out"):
        open_source(study("ct_ich", tmp_path, orientation="auto"))
    whole = open_source(study("ct_ich", tmp_path, target="any"))
    assert whole.left_out == 0
    for found, scan in zip(whole, scans, strict=True):
        np.testing.assert_array_equal(found.labels > 0, scan.labels > 0)
        np.testing.assert_array_equal(found.image, scan.image)


def test_ct_ich_as_jpeg_and_as_exported_png(scans, tmp_path):
    older, exported = tmp_path / "older", tmp_path / "exported"
    write_table(older / ct_ich.TABLES[1], scans, (49, 50, 51))
    write_table(exported / ct_ich.TABLES[0], scans, (49, 50, 51))
    for kind in ("image", "label"):
        (exported / kind).mkdir()
    row = 0
    for patient, scan in zip((49, 50, 51), scans, strict=True):
        folder = older / "Patients_CT" / f"{patient:03d}" / "brain"
        folder.mkdir(parents=True)
        grey = slices.window_to_grey(scan.image, 40, 120)
        for number, (image, labels) in enumerate(zip(grey, scan.labels, strict=True), 1):
            mask = (labels > 0) * np.uint8(255)
            cv2.imwrite(str(folder / f"{number}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
            if mask.any():
                cv2.imwrite(str(folder / f"{number}_HGE_Seg.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 100])
            cv2.imwrite(str(exported / "image" / f"{row}.png"), image)
            cv2.imwrite(str(exported / "label" / f"{row}.png"), mask)
            row += 1
    for root, most in ((older, 6), (exported, 0)):
        assert recognise(root) == "ct_ich"
        source = open_source(study("ct_ich", root))
        for found, scan in zip(source, scans, strict=True):
            kept, labels = told(scan)
            assert found.unit == "grey" and np.isnan(found.thickness_mm)
            grey = slices.window_to_grey(scan.image[kept], 40, 120)
            assert np.abs(found.image.astype(int) - grey).max() <= most
            np.testing.assert_array_equal(found.labels, labels)
        assert source.left_out == sum(len(scan.labels) - len(told(scan)[0]) for scan in scans)
        assert slices.prepare(study("ct_ich", root), tmp_path / "out").unit == "grey"
        assert ("--set grey_window=40/120" in " ".join(source.remarks)) == (root == exported)
        aside = open_source(study("ct_ich", root, orientation="rot90")).scan(0)
        np.testing.assert_array_equal(aside.image, np.rot90(source.scan(0).image, axes=(1, 2)))
        np.testing.assert_array_equal(aside.labels, np.rot90(source.scan(0).labels, axes=(1, 2)))
    assert slices.prepare(study("ct_ich", exported, grey_window="40/120"), tmp_path / "out").unit == "HU"
    folder = older / "Patients_CT" / "049" / "brain"
    for name in ("8.jpg", "8_HGE_Seg.jpg"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(StudyError, match="row for slice 8 of patient 49, whose scan has 7 slices"):
        open_source(study("ct_ich", older)).scan(0)
    shutil.rmtree(folder)
    remark = f"{ct_ich.TABLES[1]} has rows of patients without a scan: 49."
    assert remark in open_source(study("ct_ich", older)).remarks
    (exported / "label" / "3.png").unlink()
    with pytest.raises(StudyError, match="3.png"):
        open_source(study("ct_ich", exported))


def ct_ich_folder(root, scan, change=lambda table: table):
    table = write_table(root / ct_ich.TABLES[0], [scan], (49,))
    change(table).to_csv(root / ct_ich.TABLES[0], index=False)
    write(root / "ct_scans" / "049.nii", scan.image, scan)
    write(root / "masks" / "049.nii", (scan.labels > 0).astype(np.uint8), scan)
    return open_source(study("ct_ich", root))


def bleeding_row(table):
    return table.index[table.No_Hemorrhage == 0][0]


def test_ct_ich_contradictions_name_patient_and_slice(scans, tmp_path):
    def healthy(table):
        row = bleeding_row(table)
        table.loc[row, list(ct_ich.TYPES)] = 0
        table.loc[row, "No_Hemorrhage"] = 1
        return table

    source = ct_ich_folder(tmp_path / "a", scans[0], healthy)
    number = bleeding_row(write_table(tmp_path / "t.csv", [scans[0]], (49,))) + 1
    with pytest.raises(StudyError, match=f"slice {number} of patient 49 has no hemorrhage"):
        source.scan(0)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda table: pd.concat([table[:1], table]), "line 3 repeats slice 1 of patient 49"),
        (lambda table: table.assign(No_Hemorrhage=1), "names a type and says that there is no hemorrhage"),
        (lambda table: table.assign(Subdural=2), "line 2 must hold whole numbers"),
        (lambda table: table.drop(columns="Epidural"), "lacks the column Epidural"),
        (lambda table: table.assign(PatientNumber=50), "no row for patient 49"),
    ],
)
def test_ct_ich_tables_that_make_no_sense_are_named(scans, tmp_path, change, message):
    with pytest.raises(StudyError, match=f"{ct_ich.TABLES[0]}.*{message}"):
        ct_ich_folder(tmp_path, scans[0], change)


def test_ct_ich_leaves_out_what_the_table_cannot_tell(scans, tmp_path):
    kept, _ = told(scans[0])
    missing = ct_ich_folder(tmp_path / "a", scans[0], lambda table: table[1:])
    assert missing.left_out == 1 + len(scans[0].image) - len(kept)

    def typed_without_pixels(table):
        row = table.index[table.No_Hemorrhage == 1][0]
        return table.assign(No_Hemorrhage=table.No_Hemorrhage.where(table.index != row, 0)).assign(
            Subdural=table.Subdural.where(table.index != row, 1)
        )

    assert ct_ich_folder(tmp_path / "b", scans[0], typed_without_pixels).left_out == missing.left_out
    longer = ct_ich_folder(
        tmp_path / "c", scans[0], lambda table: pd.concat([table, table[-1:].assign(SliceNumber=len(table) + 1)])
    )
    with pytest.raises(StudyError, match="slice 9 of patient 49, whose scan has 8 slices"):
        longer.scan(0)


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
