"""Small phantoms, and what writes them as NIfTI files in any orientation, type and scale; for tests alone."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from sahlib.data.scan import CLASSES, SAH, Scan
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.study import Study

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
        kept = np.linspace(0, len(scan.image) - 1, 8).astype(int)
        small = dataclasses.replace(
            scan,
            image=scan.image[kept, ::4, ::4],
            labels=scan.labels[kept, ::4, ::4],
            slice_ids=tuple(scan.slice_ids[k] for k in kept),
            spacing_mm=(4 * scan.spacing_mm[0], 4 * scan.spacing_mm[1] + 0.25),
            thickness_mm=4 * scan.thickness_mm,
        )
        scans.append(small)
    mirrored = dataclasses.replace(small, image=small.image[..., ::-1], labels=small.labels[..., ::-1])
    return (*scans, mirrored)


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
