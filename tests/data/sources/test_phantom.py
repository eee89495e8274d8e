"""The phantom: reproducible, plausible in Hounsfield units, and with blood where blood lies."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sahlib.data.scan import CLASSES, SAH
from sahlib.data.sources.phantom import anatomy, bleeding, phantom, surgery
from sahlib.data.sources.phantom.phantom import Phantom, plan, render

SEED = 0


@pytest.fixture(scope="module")
def scans():
    """Patients 0 to 9 of seed 0: a full block, so four without SAH, two aneurysmal, one convexity, three scattered."""
    return list(Phantom(patients=10, seed=SEED).scans(workers=1))


def test_scans_are_slices_of_256_in_plausible_units(scans):
    for index, scan in enumerate(scans):
        assert scan.patient_id == f"P{index:04d}"
        last = len(scan.image) - 1
        assert scan.slice_ids[0] == f"P{index:04d}_z00" and scan.slice_ids[-1] == f"P{index:04d}_z{last:02d}"
        assert scan.image.shape == scan.labels.shape == (last + 1, 256, 256)
        assert scan.image.dtype == np.int16 and scan.labels.dtype == np.uint8 and scan.unit == "HU"
        assert 170 <= scan.spacing_mm[0] * 256 <= 250 and 2.5 <= scan.thickness_mm <= 7
        assert 120 <= len(scan.image) * scan.thickness_mm <= 175  # from below the skull base over the vertex
        assert scan.labels.max() < len(CLASSES)


def test_tissues_have_their_hounsfield_units(scans):
    for scan in scans:
        corner = scan.image[:, :8, :8]
        assert abs(np.median(corner) + 1000) < 5
        assert 1.5 <= corner.std() <= 7.5  # noise, clipped at -1024
        bone = scan.image[(scan.image > 400) & (scan.labels == 0)]
        assert 600 < np.median(bone) < 1100
        middle = len(scan.image) * 2 // 3
        brain = scan.image[middle - 2 : middle + 2, 118:138, 88:168]
        assert 24 < np.median(brain) < 40


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_whatever_the_workers_and_the_number_of_patients(scans, workers):
    again = list(Phantom(patients=3, seed=SEED).scans(workers=workers))
    assert len(again) == 3
    for one, other in zip(scans, again, strict=False):
        assert one.image.tobytes() == other.image.tobytes()
        assert one.labels.tobytes() == other.labels.tobytes()
        assert one.slice_ids == other.slice_ids


def test_another_seed_is_another_patient(scans):
    assert not np.array_equal(Phantom(patients=1, seed=SEED + 1).scan(0).image, scans[0].image)


def test_a_scan_can_be_had_alone_but_not_beyond_the_last(scans):
    source = Phantom(patients=3, seed=SEED)
    assert np.array_equal(source.scan(2).image, scans[2].image)
    with pytest.raises(IndexError, match="patient 3 of 3"):
        source.scan(3)


def test_leaving_the_loop_early_ends_the_workers():
    source = Phantom(patients=50, seed=SEED).scans(workers=1)
    next(source)
    source.close()
    assert next(source, None) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("patients", [20, 33, 120])
def test_plans_hold_the_proportions(seed, patients):
    plans = Phantom(patients, seed).plans()
    assert len(plans) == patients
    patterns = Counter(p.pattern for p in plans)
    assert 0.3 <= patterns["none"] / patients <= 0.5
    assert patterns["aneurysmal"] and patterns["convexity"] and patterns["scattered"]
    assert all((p.amount == "") == (p.pattern == "none") for p in plans)
    assert plans == Phantom(patients + 7, seed).plans()[:patients]


def test_every_kind_of_bleed_and_mimic_occurs_with_and_without_sah():
    plans = Phantom(patients=120, seed=SEED).plans()
    for with_sah in (True, False):
        group = [p for p in plans if (p.pattern != "none") == with_sah]
        assert {name for p in group for name in p.other_bleeds} == {"IVH", "IPH", "SDH", "EDH"}
        assert {name for p in group for name in p.calcified} == {"pineal", "choroid", "falx"}
        assert {p.dense_tentorium for p in group} == {True, False}
    assert not any({"SDH", "EDH"} <= set(p.other_bleeds) for p in plans)


def test_labels_hold_what_the_plan_says_and_nothing_else(scans):
    for scan, p in zip(scans, Phantom(len(scans), SEED).plans(), strict=True):
        planned = set(p.other_bleeds) | ({"SAH"} if p.pattern != "none" else set())
        assert {CLASSES[c] for c in np.unique(scan.labels)} - {"background"} == planned


def test_share_of_positive_slices(scans):
    share = np.mean([(scan.labels == SAH).any((1, 2)).mean() for scan in scans])
    assert 0.12 < share < 0.35


def test_as_much_blood_as_people_survive(scans):
    def volume_ml(scan):
        return np.count_nonzero(scan.labels == SAH) * np.prod(scan.spacing_mm) * scan.thickness_mm / 1000

    for p, scan in zip(Phantom(10, SEED).plans(), scans, strict=True):
        most = {"none": 0, "scattered": 60}.get(p.pattern, 150)
        assert volume_ml(scan) <= most
    assert max(map(volume_ml, scans)) > 10


def test_blood_lies_where_the_same_patient_had_cerebrospinal_fluid():
    """Against the patient before the bleed: SAH fills CSF, the ventricles keep theirs, the rest does not change."""
    plans = Phantom(120, SEED).plans()
    alone = [p for p in plans if p.pattern == "aneurysmal" and not p.other_bleeds and not p.surgery]
    p = max(alone, key=lambda p: p.age)  # in the old, clefts are wide before blood widens them
    after, before = render(p, SEED), render(replace(p, pattern="none"), SEED)
    blood = after.labels == SAH
    assert 45 < np.median(after.image[blood]) < 85
    rise = after.image[blood].astype(int) - before.image[blood]
    assert np.median(rise) > 20
    assert np.median(before.image[blood]) < 25  # brain is 29 to 37; a pixel with blood in it may be half brain
    changed = (after.image != before.image).any((1, 2))
    assert changed.any() and not changed.all()
    assert not (before.labels == SAH).any()


def test_ventricles_and_cisterns_are_apart():
    head = anatomy.load_anatomy()
    inside = head.tissue[..., 3] > 128 + anatomy.VENTRICLE_STEPS_PER_MM / 2

    def ventricle_near(x, y, z, reach=2):
        row, level, column = y + 134, z + 112 - anatomy.TISSUE_Z0, x + 98
        span = [slice(i - reach, i + reach + 1) for i in (row, level, column)]
        return inside[tuple(span)].any()

    for point in ((6, 12, 12), (-6, 12, 12), (12, -20, 22), (0, -6, -6), (0, -46, -32), (24, -42, 8)):
        assert ventricle_near(*point), point
    # suprasellar, prepontine, interhemispheric, Sylvian (both), quadrigeminal, over the vertex
    for point in ((0, 0, -18), (0, -14, -32), (0, 45, 10), (38, 5, -4), (-38, 5, -4), (0, -40, -6), (0, -20, 62)):
        assert not ventricle_near(*point), point
    volume_ml = inside.sum() / 1000
    assert 8 < volume_ml < 40  # lateral, third and fourth ventricles of young adults hold about 20 mL
    coarse = inside.reshape(127, 2, -1, 2, 99, 2).mean((1, 3, 5)) > 0.5
    first = anatomy.TISSUE_Z0 // 2
    assert not (coarse & (head.cisterns[:, first : first + coarse.shape[1]] > 0)).any()


def test_masks_are_outlines_not_specks(scans):
    for p, scan in zip(Phantom(10, SEED).plans(), scans, strict=True):
        for labels in scan.labels:
            parts = phantom._clean(labels == SAH, scan.spacing_mm[0] ** 2, p.smallest_mm2)
            assert np.array_equal(parts, labels == SAH)


def test_scattered_bleeds_are_drawn_as_often_and_as_large_as_in_bhsd():
    """What is labelled of them, a little less, benchmarks/phantom_properties.py says."""
    scattered = [p for seed in range(6) for p in Phantom(500, seed).plans() if p.pattern == "scattered"]
    assert len(scattered) == 900
    median, most = np.percentile([p.scattered_ml for p in scattered], [50, 90])
    assert 2 < median < 4 and 18 < most < 30
    median, most = np.percentile([p.places for p in scattered], [50, 90])
    assert 5 < median < 15 and most == bleeding.MOST_PLACES
    beside = {name: np.mean([name in p.other_bleeds for p in scattered]) for name in ("IPH", "IVH", "SDH", "EDH")}
    assert beside == pytest.approx({"IPH": 0.70, "IVH": 0.56, "SDH": 0.41, "EDH": 0.07}, abs=0.1)


@pytest.mark.parametrize("softness, lag, peak", [(0, 0.0, 0.32), (0.5, 0.2, 0.18), (1, 0.47, 0.15)])
def test_a_softer_kernel_makes_coarser_noise(softness, lag, peak):
    """Correlation of neighbours, and the peak of the spectrum in cycles per pixel."""
    sharp, soft = phantom.NOISE_PIXELS
    rng = np.random.default_rng(0)
    noise = np.stack([phantom._noise(rng, sharp + softness * (soft - sharp)) for _ in range(20)])
    assert noise.std() == pytest.approx(1, abs=0.01) and abs(noise.mean()) < 0.01
    assert np.mean(noise[..., 1:] * noise[..., :-1]) == pytest.approx(lag, abs=0.06)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(phantom.SIZE)] * 2))
    ring = (frequency / 0.02).astype(int)
    rings = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    assert 0.02 * (rings[:25].argmax() + 0.5) == pytest.approx(peak, abs=0.05)
    assert rings[0] < 0.4 * rings[:25].max()


@pytest.fixture(scope="module")
def untreated():
    """A patient whom nobody has operated on, and the plan."""
    p = next(p for p in Phantom(40, SEED).plans() if p.pattern == "aneurysmal" and not p.surgery)
    return p, render(p, SEED).image.astype(int)


@pytest.mark.parametrize("treatment", ["craniotomy", "craniectomy", "drain", "coil"])
def test_surgery_leaves_its_mark_and_no_other(untreated, treatment):
    p, before = untreated
    after = render(replace(p, surgery=(treatment,)), SEED).image.astype(int)
    changed, ml = after != before, (p.spacing_mm**2) * p.thickness_mm / 1000
    gone = ((before > 400) & (after < 200)).sum() * ml  # bone
    assert changed.any((1, 2)).sum() > 1
    if treatment == "coil":
        assert after.max() == 3071 and before.max() < 2500 and gone < 1
        metal = (after > 2500).sum() * ml
        assert 0.03 < metal < 1
    elif treatment == "drain":
        added = (after - before > 80).sum() * ml
        assert 0.1 < added < 3 and gone < 2  # a tube of 3 mm, and a burr hole
    else:
        assert (5 < gone < 120) if treatment == "craniectomy" else (0.2 < gone < 6)


def test_streaks_run_along_rays_and_fade():
    metal = np.zeros((129, 129), np.float32)
    assert not surgery.streaks(metal, 1.0, np.ones(4)).any()
    metal[62:67, 62:67] = 1
    even = surgery.streaks(metal, 1.0, np.ones(4))
    assert even[64, 64] > even[64, 74] > even[64, 124] > 0
    assert np.allclose(even, even[::-1]) and np.allclose(even, even.T, atol=1e-4)
    ray = surgery.streaks(metal, 1.0, np.array([1.0, 0, 0, 0]))
    assert ray[64, 100] > 0 and ray[64, 28] > 0 and ray[100, 64] == 0  # both ways, and not across


def test_children_have_smaller_heads_and_no_calcification():
    child = next(p for p in Phantom(400, SEED).plans() if p.age < 9 and not p.surgery and p.spacing_mm > 0.8)
    assert not child.calcified
    sizes = [(render(replace(child, age=age), SEED).image > -300).sum((1, 2)).max() for age in (child.age, 30)]
    assert 0.8 < sizes[0] / sizes[1] < 0.95


def test_blood_runs_along_the_space_and_not_across_a_wall():
    space = np.zeros(anatomy.COARSE_SHAPE, bool)
    space[20:60, 50, 40:60] = True
    space[22:60, 50, 50] = False  # a wall with a gap at row 20 and 21
    start = (50, 50, 44)
    distance = bleeding._run_along_cisterns(start, space, 80.0)
    across = distance[50, 50, 56]
    along = distance[50 - 12, 50, 44]
    assert along < across - 20  # both are 12 voxels away in a straight line


def test_fingerprint_is_json_and_tells_sources_apart():
    one = Phantom(10, 0).fingerprint()
    assert json.loads(json.dumps(one)) == one
    assert len({json.dumps(Phantom(n, s).fingerprint()) for n in (10, 11) for s in (0, 1)}) == 4
    assert len(one["atlas_sha256"]) == 64 and one["name"] == "phantom"


def test_plan_needs_no_drawing_and_matches_the_source():
    assert Phantom(12, 3).plans()[11] == plan(3, 11)
