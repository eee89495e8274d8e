"""Public sets in NIfTI: a tiny folder in the exact layout, written from the phantom, comes back as the phantom."""

import json

import numpy as np
import pytest
from helpers.nifti_writer import BHSD_VALUES, RSNA_NAMES, assert_same, masks_of, only_sah, phantom_scans, study, write

from sahlib.data.scan import CLASSES, SAH
from sahlib.data.sources import open_source, recognise
from sahlib.data.sources.volume_folder import merge_raters
from sahlib.study import StudyError


@pytest.fixture(scope="session")
def scans():
    return phantom_scans()


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
