"""A scan in three planes: what NiiVue is given, and what is refused."""

import sys

import nibabel as nib
import numpy as np
import pytest

from sahlib.browser import browse3d
from sahlib.study import StudyError


@pytest.fixture
def files(tmp_path):
    for name in ("head", "truth", "net"):
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path


def test_the_scan_is_in_the_brain_window_and_every_mask_has_its_colour(files):
    pytest.importorskip("ipyniivue", reason="ipyniivue is not installed: pip install -e '.[browse3d]'")
    shown = browse3d(files / "head.nii.gz", {"truth": files / "truth.nii.gz", "net": files / "net.nii.gz"})
    head, truth, net = shown.volumes
    assert (head.cal_min, head.cal_max) == (0, 80)
    assert [(v.name, v.colormap, v.opacity) for v in (truth, net)] == [
        ("truth.nii.gz", "red", 0.5), ("net.nii.gz", "green", 0.5)]  # fmt: skip


@pytest.mark.parametrize(("masks", "says"), [
    ({"net": "nowhere.nii.gz"}, "There is no file .*nowhere.nii.gz"),
    ({str(k): "net.nii.gz" for k in range(5)}, "5 masks are more than there are colours"),
])  # fmt: skip
def test_what_cannot_be_shown_is_refused(files, masks, says):
    pytest.importorskip("ipyniivue")
    with pytest.raises(StudyError, match=says):
        browse3d(files / "head.nii.gz", {name: files / place for name, place in masks.items()})


def test_without_ipyniivue_the_way_out_is_said(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(StudyError, match="ipyniivue is not installed; run pip install"):
        browse3d(files / "head.nii.gz")
