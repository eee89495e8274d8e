"""Masks of DICOM series: by whom, of which series, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import dicom_writer as writer

from sahlib.data import mask_folders
from sahlib.data.scan import SAH, Scan
from sahlib.study import StudyError

SEGMENTS = {1: ("SAH", SAH)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two series, a truth of each as DICOM-SEG, and a competitor's masks: one DICOM-SEG, one NIfTI of other axes."""
    root, rng, labels = tmp_path_factory.mktemp("study"), np.random.default_rng(0), {}
    for name in ("one", "two"):
        image = rng.integers(0, 80, (4, 20, 24)).astype(np.int16)
        own = np.zeros(image.shape, np.uint8)
        own[1, 4:9, 5:11] = own[2, 6:8, 3:9] = SAH
        ids = tuple(f"{name}{z}" for z in range(4))
        scan = Scan(name, image, own, ids, "HU", (0.5, 0.4), 5.0)
        series = writer.series(scan, patient=f"MRN {name}")
        writer.write_series(root / "scans" / name / "head", series)
        writer.save(writer.segmentation(own, series, SEGMENTS), root / "truth" / f"{name}.dcm")
        moved = labels[name] = np.roll(own, 1, 1)
        if name == "one":
            writer.save(writer.segmentation(moved, series, SEGMENTS), root / "net" / "any name.dcm")
        else:
            writer.write_nifti(root / "net" / "two" / "head.nii.gz", moved, writer.affine_of(scan), axes="RAS")
    return root, labels


def paired(root, **more):
    return mask_folders.pair({"truth": root / "truth"}, {"net": root / "net"}, root / "scans", **more)


def test_masks_lie_on_the_slices_of_their_series(study):
    root, labels = study
    folders = paired(root)
    assert [case.name for case in folders.cases] == ["one/head", "two/head"]
    for case in folders.cases:
        read = folders.read(case)
        expected = labels[case.name.split("/")[0]]
        np.testing.assert_array_equal(read.masks["net"], expected)
        np.testing.assert_array_equal(read.truths[0], np.roll(expected, -1, 1))
        np.testing.assert_allclose(read.sides_mm, [[0.5, 0.4, 5.0]] * 4)
        assert read.image.shape == expected.shape and read.slice_ids[0].endswith("head_z00")


def test_a_series_without_a_mask_by_a_competitor_is_a_miss(study, tmp_path):
    root, labels = study
    (tmp_path / "net" / "two").mkdir(parents=True)
    (tmp_path / "net" / "two" / "head.nii.gz").write_bytes((root / "net" / "two" / "head.nii.gz").read_bytes())
    folders = mask_folders.pair({"truth": root / "truth"}, {"net": tmp_path / "net"}, root / "scans")
    assert folders.missing == {"net": ["one/head"]} and not folders.read(folders.cases[0]).masks["net"].any()


@pytest.mark.parametrize(("truth", "masks", "images", "says"), [
    ("truth", "net", None, "holds no CT series in DICOM"),
    ("truth", "nothing", "scans", "holds no DICOM-SEG and no NIfTI masks"),
    ("half", "net", "scans", "two/head has no mask by truth"),
    ("truth", "twice", "scans", "are both masks of the series one/head"),
    ("truth", "strange", "scans", "is the mask of no series"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(study, tmp_path, truth, masks, images, says):
    root, _ = study
    (tmp_path / "nothing").mkdir()
    copies = {"half/one.dcm": "truth/one.dcm", "twice/a.dcm": "truth/one.dcm", "twice/b.dcm": "truth/one.dcm"}
    copies["strange/three/head.nii.gz"] = "net/two/head.nii.gz"
    for to, source in copies.items():
        (tmp_path / to).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / to).write_bytes((root / source).read_bytes())
    places = [next(place for place in (tmp_path / name, root / name) if place.exists()) for name in (truth, masks)]
    with pytest.raises(StudyError, match=says):
        mask_folders.pair({"truth": places[0]}, {"net": places[1]}, images and root / images)
