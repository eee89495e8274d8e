"""What each phantom patient has: the plan, and where blood and calcium lie in the undeformed head of `anatomy`.

Subarachnoid blood spreads from its source along the cisterns, fissures and sulci; other bleeds are drawn where they
occur in people. Everything is a map on the coarse grid [y, z, x] of `anatomy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from sahlib.data.scan import CLASSES
from sahlib.data.sources.phantom.anatomy import COARSE_SHAPE, Anatomy, coordinates

# Of every ten patients four do not have SAH; the order within the ten is random. "scattered" SAH is that of BHSD's
# scans (DIDSR/framework-for-synthetic-ICH-to-assess-AI-generalizability, BHSD_hemorrhage_characteristics.csv): of 109
# scans the median holds 1.95 mL and the 90th percentile 21.9, in 6 components and 24, at 44 HU (34 to 53).
PATTERNS = ("none",) * 4 + ("aneurysmal",) * 2 + ("convexity",) + ("scattered",) * 3
SCATTERED_ML, SCATTERED_SPREAD, SCATTERED_RANGE_ML = 2.6, 1.7, (0.6, 50.0)  # lognormal: median, sigma; cut off
ML_PER_PLACE, PLACES_SPREAD, MOST_PLACES = 0.28, 0.6, 24  # lognormal too; larger bleeds lie in more places
# Chance of a further bleed, given the pattern; an extra-axial one is subdural or epidural, not both.
FURTHER = {
    "none": {"IVH": 0.2, "IPH": 0.35, "SDH": 0.28, "EDH": 0.14},
    "aneurysmal": {"IVH": 0.4, "IPH": 0.2, "SDH": 0.08, "EDH": 0.0},
    "convexity": {"IVH": 0.05, "IPH": 0.2, "SDH": 0.3, "EDH": 0.14},
    "scattered": {"IVH": 0.5, "IPH": 0.65, "SDH": 0.4, "EDH": 0.1},  # 0.56, 0.70, 0.41 and 0.07 in BHSD
}
# Chance of what surgeons leave (surgery.py): most scans with bleeding are of patients not yet treated.
TREATED = {"craniotomy": 0.05, "craniectomy": 0.02, "drain": 0.05}
COILED = 0.12  # of aneurysms
CALCIFIED = {"pineal": 0.7, "choroid": 0.55, "falx": 0.3}  # chance over the age of 25
# Where aneurysms rupture, MNI mm (x to the side, y, z): anterior communicating, middle cerebral, posterior
# communicating, basilar tip. Convexity bleeds start on the surface.
ANEURYSMS = ((1, 6, -16), (24, 2, -18), (10, -6, -20), (1, -14, -18))
# Bleeds into the brain: deep (putamen, thalamus), lobar or cerebellar, as in Qureshi et al., N Engl J Med 344:1450,
# 2001; after trauma under the frontal lobes, at the temporal poles and below the surface.
HEMATOMAS = ((27, 0, 4), (14, -18, 8), (38, 22, 26), (36, -52, 24), (46, -30, 2), (24, -62, -38))
CONTUSIONS = ((20, 50, -16), (38, 44, -8), (44, 8, -30), (54, -14, -22), (52, -46, 20), (40, 22, 38))


@dataclass(frozen=True)
class PatientPlan:
    """What was decided about a patient before anything was drawn; lengths in mm, ages in years."""

    index: int
    age: int
    pattern: str  # of PATTERNS
    amount: str  # "thick" or "thin", "" without SAH
    scattered_ml: float  # of SAH, where it is scattered
    places: int  # in which that lies
    aneurysm: tuple[float, float, float]  # that ruptured, where the pattern is aneurysmal; MNI mm (x, y, z)
    other_bleeds: tuple[str, ...]  # classes other than SAH
    calcified: tuple[str, ...]  # of "pineal", "choroid", "falx"
    dense_tentorium: bool
    infarct: bool  # or another dark region: oedema, a scar
    surgery: tuple[str, ...]  # of TREATED, and "coil"
    thickness_mm: float
    spacing_mm: float
    sah_hu: float
    noise_hu: float
    softness: float  # of the scanner's kernel: 0 is the sharpest, 1 the softest
    bed: str  # "curved", "flat" or "rests" at both sides of the head
    least_fraction: float  # of blood in a pixel that the rater outlines
    smallest_mm2: float  # specks below it the rater leaves out


def plan(seed: int, index: int) -> PatientPlan:
    """Draw the plan of one patient; depends on (seed, index) only."""
    block = np.random.default_rng([seed, index // len(PATTERNS), 7]).permutation(len(PATTERNS))
    pattern = PATTERNS[block[index % len(PATTERNS)]]
    rng = np.random.default_rng([seed, index, 0])
    amount = "" if pattern == "none" else str(rng.choice(["thick", "thin"], p=[0.75, 0.25]))
    millilitres = np.clip(SCATTERED_ML * rng.lognormal(0, SCATTERED_SPREAD), *SCATTERED_RANGE_ML)
    places = int(np.clip(round(millilitres / ML_PER_PLACE * rng.lognormal(0, PLACES_SPREAD)), 1, MOST_PLACES))
    scattered = pattern == "scattered"
    draw = {name: rng.random() < p for name, p in FURTHER[pattern].items()}
    draw["EDH"] &= not draw["SDH"]
    age = int(rng.integers(5, 18) if rng.random() < 0.08 else rng.integers(18, 92))
    side = rng.choice([-1, 1])
    aneurysm = ANEURYSMS[rng.integers(len(ANEURYSMS))]
    treated = [name for name, p in TREATED.items() if rng.random() < p]
    coiled = rng.random() < COILED and pattern == "aneurysmal"
    # Five millimetres are usual; thin slices are noisier. A narrow field of view cuts the head off.
    thickness_mm = rng.choice(
        [rng.uniform(2.5, 4.0), rng.uniform(4.5, 5.2), rng.uniform(5.5, 7.0)], p=[0.15, 0.6, 0.25]
    )
    field_mm = rng.uniform(170, 200) if rng.random() < 0.1 else rng.uniform(220, 250)
    return PatientPlan(
        index=index,
        age=age,
        pattern=pattern,
        amount="thin" if scattered else amount,
        scattered_ml=float(millilitres) * scattered,
        places=places * scattered,
        other_bleeds=tuple(name for name in CLASSES if draw.get(name)),
        calcified=tuple(name for name, p in CALCIFIED.items() if rng.random() < p * (age > 25)),
        dense_tentorium=bool(rng.random() < 0.4),
        infarct=bool(rng.random() < 0.15),
        aneurysm=(float(side * aneurysm[0]), *map(float, aneurysm[1:])),
        surgery=(*treated, *(["coil"] if coiled else [])),
        thickness_mm=round(float(thickness_mm), 2),
        spacing_mm=round(field_mm / 256, 4),
        sah_hu=float(rng.uniform(*((42, 60) if scattered else (66, 84) if amount == "thick" else (58, 74)))),
        noise_hu=float(rng.uniform(2.0, 5.0) * np.sqrt(5 / thickness_mm)),
        softness=float(rng.random()),
        bed=str(rng.choice(["curved", "flat", "rests"], p=[0.5, 0.25, 0.25])),
        least_fraction=float(rng.uniform(*((0.2, 0.4) if scattered else (0.3, 0.5)))),
        smallest_mm2=float(5 if scattered else rng.uniform(10, 60)),
    )


def smooth_noise(rng, shape, sigma):
    """Noise that varies smoothly over about sigma voxels, [a,b,c] float32, mean 0, standard deviation about 1."""
    knots = rng.standard_normal([int(n / sigma) + 3 for n in shape]).astype(np.float32)
    plane = cv2.resize(knots.transpose(1, 2, 0), shape[:0:-1], interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
    at = np.linspace(0, len(knots) - 1.001, shape[0])
    low = at.astype(int)
    share = at - low
    share = (share * share * (3 - 2 * share)).astype(np.float32)[:, None, None]
    return np.float32(1.4) * (plane[low] * (1 - share) + plane[low + 1] * share)


def _away(x, y, z):
    """Distance in mm of every coarse voxel to a point in MNI mm, [127,115,99]."""
    at_y, at_z, at_x = coordinates()
    return np.sqrt((at_x - x) ** 2 + (at_y - y) ** 2 + (at_z - z) ** 2)


def _run_along_cisterns(start, cisterns, reach_mm, levels=8):
    """Distance in mm from a coarse voxel along the subarachnoid space, [127,115,99] float32; beyond reach 2 x reach."""
    steps = max(1, round(reach_mm / 2 / levels))
    structure = ndimage.generate_binary_structure(3, 2)
    low = np.maximum(np.array(start) - steps * levels - 6, 0)
    box = tuple(slice(a, b + steps * levels + 7) for a, b in zip(low, start, strict=True))
    space = cisterns[box]
    reached = np.zeros_like(space)
    reached[tuple(np.array(start) - low)] = True
    reached = ndimage.binary_dilation(reached, structure, iterations=2) & space
    distance = np.full(space.shape, 2.0 * steps, np.float32)
    for _ in range(levels):
        distance += 2.0 * steps * ~reached
        reached = ndimage.binary_dilation(reached, structure, iterations=steps, mask=space)
    distance[~reached] += reach_mm
    # Carry the distances a little into the brain, so that interpolation at the banks of a sulcus finds blood.
    weight = ndimage.gaussian_filter(space.astype(np.float32), 1.0)
    carried = ndimage.gaussian_filter(distance * space, 1.0) / np.maximum(weight, 1e-3)
    out = np.full(cisterns.shape, 2.0 * reach_mm, np.float32)
    out[box] = np.where(weight > 0.05, carried, 2.0 * reach_mm)
    return out


def _subarachnoid(p: PatientPlan, head: Anatomy, rng):
    """SAH as a margin in mm, [127,115,99] float32: positive where blood has come, growing towards its source."""
    y, z, x = coordinates()
    side = rng.choice([-1, 1])
    thick = p.amount == "thick"
    if p.pattern == "aneurysmal":
        source = np.array(p.aneurysm)
        reach = rng.uniform(50, 80) if thick else rng.uniform(28, 52)
        # Blood stays in the basal cisterns and fissures; little climbs to the vertex or under the frontal lobes.
        uphill = 0.5 * np.clip(z - 5, 0, None) + np.clip(y - 24, 0, None) * (z < -12)
    else:
        direction = np.array([side * rng.uniform(0.35, 1.0), rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.75)])
        source = np.array([0, -14, 8]) + direction / np.linalg.norm(direction) * (62, 80, 62)
        reach = rng.uniform(40, 60) if thick else rng.uniform(28, 42)
        uphill = np.float32(0)
    space = head.cisterns > 0
    # The widest cleft nearby, 1/50 of CSF fraction given up per mm of distance; on the convexity, inside a sulcus.
    worth = np.where(space & ((p.pattern == "aneurysmal") | (head.shell[..., 0] < -6)), head.cisterns, -9)
    nearest = np.unravel_index(np.argmax(worth - _away(*source) / 50), space.shape)
    distance = _run_along_cisterns(nearest, space, reach)
    patchy = smooth_noise(rng, distance.shape, 7) * np.float32(0.12 * reach)
    # Blood collects in cisterns and sulci; it does not coat the brain where it lies against the skull.
    coated = 0.3 if p.pattern == "convexity" else 1.0
    against_skull = coated * np.clip((head.shell[..., 0] + 5) / 2, 0, 1) * (np.abs(x) > 18)
    return (reach * (1 - against_skull) - distance - uphill + patchy).astype(np.float32)


def _scattered(p: PatientPlan, head: Anatomy, others, rng):
    """SAH in many thin places, as after trauma: a margin in mm like that of `_subarachnoid`, [127,115,99] float32.

    The places lie in sulci and fissures, most of them near one another, and beside the patient's other bleeds where
    there are any (margins others [127,115,99]); together they hold p.scattered_ml.
    """
    y, z, x = coordinates()
    where = head.cisterns * (head.shell[..., 0] < -1)
    likely = where * np.exp(np.clip(others, -40, 0) / 8)
    focus = np.unravel_index(rng.choice(where.size, p=likely.ravel() / likely.sum()), where.shape)
    centre = x[0, 0, focus[2]], y[focus[0], 0, 0], z[0, focus[1], 0]
    near = where * np.exp(-_away(*centre) / rng.uniform(50, 200))
    reach = np.full(where.shape, np.inf, np.float32)
    for voxel in rng.choice(where.size, p.places, p=near.ravel() / near.sum()):
        row, level, column = np.unravel_index(voxel, where.shape)
        away = _away(x[0, 0, column], y[row, 0, 0], z[0, level, 0]).astype(np.float32)
        reach = np.minimum(reach, away / np.float32(rng.lognormal(0, 0.6)))
    order = np.argsort(reach[where > 0], kind="stable")
    held = np.cumsum(where[where > 0][order]) * 8e-3  # mL in the coarse voxels of 2 mm
    widest = reach[where > 0][order][min(np.searchsorted(held, p.scattered_ml), len(order) - 1)]
    return (widest - reach + smooth_noise(rng, where.shape, 4) * np.float32(0.25 * widest)).astype(np.float32)


def bleeds(p: PatientPlan, head: Anatomy, rng):
    """Margins in mm (positive inside) of SAH, IPH, extra-axial and intraventricular blood, [127,115,99,4] float32.

    The extra-axial channel is how deep under the inner table the blood lies; the ventricular one is how far below the
    level of blood settled in the horns, or inside a clot, a point is.
    """
    y, z, x = coordinates()
    out = np.full(COARSE_SHAPE + (4,), -99, np.float32)
    scattered = p.pattern == "scattered"
    if p.pattern != "none" and not scattered:
        out[..., 0] = _subarachnoid(p, head, rng)
    side = rng.choice([-1, 1])
    if "IPH" in p.other_bleeds:
        sites = CONTUSIONS if scattered else HEMATOMAS
        centre = np.array(sites[rng.integers(len(sites))]) * (side, 1, 1) + rng.normal(0, 4, 3)
        radii = rng.uniform(*((4, 11) if scattered else (6, 17))) * rng.uniform(0.7, 1.3, 3)
        r = np.sqrt(sum(((c - m) / s) ** 2 for c, m, s in zip((x, y, z), centre, radii, strict=True)))
        out[..., 1] = (1 - r) * radii.mean() + smooth_noise(rng, r.shape, 4) * np.float32(1.6)
    # How wide (radians), how deep (mm), how flat: a crescent over most of a hemisphere, or a lens held by the sutures.
    for name, wide, deep, flat in (("SDH", (0.7, 1.25), (4, 11), 4), ("EDH", (0.35, 0.55), (9, 20), 2)):
        if name not in p.other_bleeds:
            continue
        direction = np.array([side * 1.0, rng.uniform(-0.7, 0.7), rng.uniform(-0.1, 0.7)])
        direction /= np.linalg.norm(direction)
        cosine = x * direction[0] + (y + 14) * direction[1] + (z - 8) * direction[2]
        angle = np.arccos(np.clip(cosine / (_away(0, -14, 8) + 1e-3), -1, 1))
        profile = 1 - (angle / rng.uniform(*wide)) ** flat
        base = 3 * np.clip(-10 - z, 0, 8)  # does not follow the steps of the skull base
        cap = rng.uniform(*deep) * np.clip(profile, -1, 1) - base + smooth_noise(rng, angle.shape, 8) * np.float32(0.6)
        out[..., 2] = np.where((x * side > 3) & (profile > -0.9), cap, -99)
    if "IVH" in p.other_bleeds:
        # Blood settles at the back of a patient who lies on his back.
        out[..., 3] = rng.uniform(-52, -34) - y - rng.uniform(-0.3, 0.3) * x + 0 * z
        if rng.random() < 0.5:  # a clot in one lateral ventricle, the third or the fourth
            spots = ((side * 12, 12, 10), (side * 20, -20, 18), (0, -12, 0), (0, -44, -32))
            from_clot = _away(*spots[rng.integers(len(spots))])
            out[..., 3] = np.maximum(out[..., 3], rng.uniform(10, 22) - from_clot)
    if scattered:
        beside = np.maximum(out[..., 1], np.minimum(out[..., 2] + head.shell[..., 0], out[..., 2]))
        out[..., 0] = _scattered(p, head, np.where(beside.max() > 0, beside, 0), rng)
    return out


def dense_spots(p: PatientPlan, head: Anatomy, rng):
    """HU that calcification, dura and venous blood add to the brain, and an infarct takes, [127,115,99] float32."""
    y, z, x = coordinates()
    side, cavity, dura = np.abs(x), head.shell[..., 0], head.shell[..., 3]

    def spot(x, y, z, radius):
        return np.clip((radius + 1 - _away(x, y, z)) / 2, 0, 1)

    added = dura * np.float32(rng.uniform(22, 34) if p.dense_tentorium else rng.uniform(6, 14))
    # Blood in the sinuses: sagittal and transverse ones along the inner table, the straight one on the midline. It is
    # denser the more red cells it holds: 43 HU (25 to 54) in Lee et al., Yonsei Med J 54:28-33, 2013.
    along_table = np.clip((cavity + 8) / 3, 0, 1) * (cavity < 1)
    sagittal = along_table * np.clip(4 + cavity / 3 - side, 0, 1) * ((z > -10) & (y < 74))
    transverse = along_table * np.clip(4.5 - np.abs(z + 13 + 0.12 * side), 0, 1) * ((y < -45) & (side < 60))
    falling = np.clip(3 - np.hypot(x, z - 5 - 0.27 * (y + 40)), 0, 1) * ((y < -38) & (y > -94))
    added = np.maximum(added, np.maximum(np.maximum(sagittal, transverse), falling) * np.float32(rng.uniform(4, 26)))
    if p.infarct:
        centre = rng.choice([-1, 1]) * rng.uniform(30, 55), rng.uniform(-80, 45), rng.uniform(-25, 45)
        edge = rng.uniform(14, 32) + smooth_noise(rng, added.shape, 6) * np.float32(3) - _away(*centre)
        added = added - np.clip(edge / 4, 0, 1) * np.float32(rng.uniform(5, 20))
    if "pineal" in p.calcified:
        added = added + spot(rng.normal(0, 0.7), -28, 2, rng.uniform(1.5, 3.5)) * rng.uniform(60, 260)
    if "choroid" in p.calcified:
        for hemisphere in (-1, 1):
            reach = rng.uniform(1.5, 4.5)
            added = added + spot(hemisphere * 23, -42 + rng.normal(0, 2), 8, reach) * rng.uniform(50, 220)
    if "falx" in p.calcified:
        plaque = np.clip(smooth_noise(rng, added.shape, 6) - 1.0, 0, 1) * (side < 3) * (z > 0)
        added = added + plaque * dura * rng.uniform(100, 350)
    return added.astype(np.float32)
