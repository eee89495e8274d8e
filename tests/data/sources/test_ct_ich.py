"""CT-ICH in its three forms, written from the phantom, comes back as the phantom; its table decides."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.nifti_writer import phantom_scans, set_scale, study, write

from sahlib.data import slices
from sahlib.data.scan import CLASSES
from sahlib.data.sources import ct_ich, open_source, recognise
from sahlib.study import StudyError


@pytest.fixture(scope="session")
def scans():
    return phantom_scans()


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
