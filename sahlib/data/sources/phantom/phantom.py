"""Phantom: the embedded default dataset, head CTs drawn from an atlas brain, with and without bleeding.

Every patient is the head of `anatomy` under a random pose, size, smooth deformation and width of the CSF spaces, cut
into slices and filled with Hounsfield units (values at 120 kV as in Kamalian et al., Handb. Clin. Neurol.
135:3-20, 2016, and common radiology teaching: CSF 0-15, white 20-30, grey 37-41, clotted blood 50-80, bone 500-1500).
A patient depends on (seed, index) alone: neither the number of patients nor the number of processes changes a byte.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from sahlib.data.scan import CLASSES, Scan
from sahlib.data.sources.files import in_order
from sahlib.data.sources.phantom import anatomy
from sahlib.data.sources.phantom.bleeding import PatientPlan, bleeds, dense_spots, plan, smooth_noise
from sahlib.data.sources.phantom.surgery import DRAIN_HU, METAL_HU, STREAKS, left_by_surgery, streaks
from sahlib.workspace import cores

GENERATOR = 2  # raise it with every change that alters a pixel
SIZE = 256
SUBSLICES = 3  # samples through the thickness of a slice: through-plane partial volume
HU = {"air": -1000.0, "csf": 8.0, "white": 29.0, "grey": 37.0, "table": 1050.0}  # soft tissue of the face: anatomy
DENSE_HU = 12.0  # more than brain: there is no room for fluid in the voxel
DIPLOE_DROP = 450.0  # HU by which the diploe is less dense than the tables of the skull
NOISE_PIXELS = (0.35, 0.65)  # Gaussian blur of white noise, sharpest and softest kernel
SHARPNESS_PIXELS = (0.4, 0.75)  # the same of the image
BRIGHTEST_BLOOD = 120.0  # HU; more is bone in the pixel, and white in any brain window


def _cut(volume, heights, z_origin, step, z_first=0):
    """Resample along z: volume [Y,Z,X,C], heights [K,Y,X] in MNI mm -> [K,Y,X,C] of the same dtype."""
    rows, _, columns, channels = volume.shape
    out = np.empty((rows, len(heights), columns, channels), volume.dtype)
    across = np.tile(np.arange(columns, dtype=np.float32), (len(heights), 1))
    index = (heights - np.float32(z_origin)) / np.float32(step) - np.float32(z_first)
    for row in range(rows):
        along = np.ascontiguousarray(index[:, row])
        cv2.remap(volume[row], across, along, cv2.INTER_LINEAR, out[row], cv2.BORDER_REPLICATE)
    return out.transpose(1, 0, 2, 3)


def _fill(cut, tissue, p: PatientPlan, traits):
    """Materials of one sub-slice: HU [254,198], blood fractions [254,198,4] in the order SAH, IPH, extra-axial, IVH,
    and the fraction of metal [254,198].

    cut is (shell, face, bleeds, what surgeons left), each [127,99,4]; tissue is [254,198,4] uint8. Both grids have the
    same corners.
    """
    shell, face, bleeds, left = (cv2.resize(a, tissue.shape[1::-1]) for a in cut)
    gap, drain, metal, pocket = np.moveaxis(np.clip(0.5 + left, 0, 1), -1, 0)
    cavity, skull, skin, added = cv2.split(shell)
    bone, air, soft, vault = cv2.split(face)
    grey, white, csf = (tissue[..., i] * np.float32(1 / 255) for i in range(3))
    depth = (tissue[..., 3].astype(np.float32) - 128) / np.float32(anatomy.VENTRICLE_STEPS_PER_MM)
    inner = cavity + traits["rim"]
    inside = np.clip(0.5 - inner, 0, 1)

    ventricle = np.clip(0.5 + (depth + traits["ventricle"]) / 1.6, 0, 1)
    sah = np.clip(bleeds[..., 0] / traits["fade"], 0, 1)
    space = np.clip((csf + traits["swelling"] * sah * (csf > 0.12) - traits["threshold"]) / 0.35, 0, 1)
    space *= np.clip(1.5 - 2 * ventricle, 0, 1)
    brain = HU["white"] + (HU["grey"] - HU["white"]) * grey / (grey + white + np.float32(1e-3)) + traits["brain_hu"]
    sah = sah * space
    ivh = ventricle * np.clip(0.5 + bleeds[..., 3] / 2, 0, 1)
    hu = brain + added * (1 - ventricle)
    hu += (HU["csf"] - hu) * np.maximum(space, ventricle)
    # Dura, sinuses and most calcifications lie in the clefts.
    hu += (brain + added - hu) * np.clip(added / DENSE_HU, 0, 1)
    hu += (p.sah_hu - hu) * sah
    hu += (traits["ivh_hu"] - hu) * ivh
    iph = np.clip(0.5 + bleeds[..., 1] / 2, 0, 1)
    hu -= 9 * np.clip(1 + bleeds[..., 1] / 6, 0, 1) * (1 - space)  # oedema around the bleed
    hu += (traits["iph_hu"] - hu) * iph
    extra = np.clip(0.5 + (bleeds[..., 2] + inner) / 2, 0, 1) * (bleeds[..., 2] > 0)
    hu += (traits["extra_hu"] - hu) * extra
    hu += (HU["air"] - hu) * pocket
    fractions = np.stack([sah * (1 - iph) * (1 - extra), iph * (1 - extra), extra, ivh * (1 - iph)], -1)

    # Outside the cavity soft tissue, then bone with diploe between its tables, then air.
    hu = soft + (hu - soft) * inside
    extra_bone = np.clip(0.5 - np.maximum(skull - traits["bone"], -inner), 0, 1) * vault
    bone = np.maximum(bone, np.maximum(extra_bone, np.clip(0.5 - np.maximum(-inner, cavity - 1.5), 0, 1)))
    bone *= 1 - gap
    within = np.minimum(inner, traits["bone"] - skull)
    density = HU["table"] - DIPLOE_DROP * np.clip(within - 1.3, 0, 1)
    hu += (density - hu) * bone
    hu += (HU["air"] - hu) * np.maximum(air, np.clip(0.5 + skin / 2, 0, 1))
    hu += (DRAIN_HU - hu) * drain
    hu += (METAL_HU - hu) * metal
    return hu, fractions * (inside * (1 - bone) * (1 - drain) * (1 - metal) * (1 - pocket))[..., None], metal


def _beam_hardening(hu):
    """HU lost between dense bones to the left and right (between the petrous bones), [H,W] with pixels of 1 mm."""
    dense = (hu > 250).astype(np.float32)
    left = np.cumsum(dense, 1)
    right = left[:, -1:] - left
    return cv2.GaussianBlur(np.clip(0.4 * (np.minimum(left, right) - 13), 0, 11), (0, 0), 5)


def _bed(hu, p: PatientPlan, back_mm, radius_mm):
    """Put a head holder, a flat table or rests (shell and foam) beside the head, into the air of hu [H,W]."""
    along = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) * np.float32(p.spacing_mm)
    v, u = along[:, None], along[None, :]
    if p.bed == "curved":
        depth = np.where(v > back_mm - 0.75 * radius_mm, np.hypot(u, v - (back_mm - radius_mm)) - radius_mm, -99)
    elif p.bed == "flat":
        depth = np.where(np.abs(u) < 1.6 * radius_mm, v - back_mm - 6, -99)
        depth = np.where(depth > 10, depth - 22, depth)  # a second shell
    else:
        depth = np.where(np.abs(v - back_mm + 0.8 * radius_mm) < 0.3 * radius_mm, np.abs(u) - 0.85 * radius_mm, -99)
    free = hu < -300
    hu += np.clip(2.5 - np.abs(depth), 0, 1) * free * (180 - hu)
    hu += ((depth < -2) & (depth > -9) & free) * np.float32(60)


def _clean(mask, pixel_mm2, smallest_mm2):
    """A mask [H,W] bool without components smaller than that."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] * pixel_mm2 >= smallest_mm2
    keep[0] = False
    return keep[parts]


def _labels(fractions, hu, wobble, p: PatientPlan):
    """Blood fractions [256,256,4] and noise-free HU of a slice -> class indices [256,256] uint8.

    A pixel is labelled where blood fills p.least_fraction of it, over the slice and a blur of 0.7 pixels; outlines are
    drawn by hand, so the fraction wavers [256,256]. Blood that bone outshines is left out, as an outline drawn in a
    brain window would; SAH is where nothing else is.
    """
    labels = np.zeros(fractions.shape[:2], np.uint8)
    extra = "SDH" if "SDH" in p.other_bleeds else "EDH"
    least = p.least_fraction + wobble
    for channel, name in ((3, "IVH"), (1, "IPH"), (2, extra), (0, "SAH")):
        fraction = cv2.GaussianBlur(np.ascontiguousarray(fractions[..., channel]), (0, 0), 0.7)
        found = (fraction >= least) & (fraction > 0.1) & (hu < BRIGHTEST_BLOOD) & (labels == 0)
        if found.any():
            labels[_clean(found, p.spacing_mm**2, p.smallest_mm2)] = CLASSES.index(name)
    return labels


def _noise(rng, fine):
    """Noise of a scanner's kernel [256,256] float32 with the standard deviation 1; fine is its blur in pixels.

    White noise without its low frequencies, which the ramp of filtered back projection takes, and without the highest,
    which the kernel takes.
    """
    white = rng.standard_normal((SIZE, SIZE), np.float32)
    noise = cv2.GaussianBlur(white, (0, 0), fine) - np.float32(0.6) * cv2.GaussianBlur(white, (0, 0), 4 * fine)
    return noise / noise.std()


def render(p: PatientPlan, seed: int) -> Scan:
    """Draw one patient: image [D,256,256] int16 HU, seen from below (row 0 is the front, column 0 the right side).

    Head, pose and noise depend on seed, p.index and p.age, whatever bleeds: a plan without its bleeds gives the same
    patient before the bleeding.
    """
    head = anatomy.load_anatomy()
    rng = np.random.default_rng([seed, p.index, 1])
    aged, young = np.clip([(p.age - 30) / 50, (18 - p.age) / 14], 0, 1).tolist()
    traits = {
        "rim": 1.2 - 1.1 * aged + rng.normal(0, 0.2),  # mm the inner table lies closer to the brain than in the atlas
        "bone": rng.normal(-0.3, 1.0) - 1.0 * young,  # mm of extra thickness of the vault
        "threshold": 0.48 - 0.3 * aged + rng.normal(0, 0.04),  # of atlas CSF fraction: lower is wider
        "ventricle": -0.5 + 2.2 * aged + rng.normal(0, 0.6),  # mm the ventricles are wider than in the atlas
        # how far blood widens the clefts it fills; sulci are narrow in the atlas, an average of many people
        "swelling": (0.9 if p.amount == "thick" else 0.6) + 0.25 * (p.pattern == "convexity"),
        # mm over which SAH thins out at its front
        "fade": rng.uniform(8, 16) * (0.2 if p.pattern == "scattered" else 1),
        "brain_hu": rng.normal(0, 1.2),
        "ivh_hu": rng.uniform(50, 70),
        "iph_hu": rng.uniform(55, 74),
        "extra_hu": rng.uniform(46, 70),
    }
    blood = bleeds(p, head, np.random.default_rng([seed, p.index, 2]))
    shell = head.shell.copy()
    shell[..., 3] = dense_spots(p, head, np.random.default_rng([seed, p.index, 3]))
    left = left_by_surgery(p, np.random.default_rng([seed, p.index, 4]))
    profile = np.random.default_rng([seed, p.index, 5]).normal(0, 1, STREAKS)  # of metal
    hand = np.random.default_rng([seed, p.index, 6])

    # Pose. Axial cuts under a pitch of the head (which moves the cuts in plane) and a gantry tilt (which does not).
    scale = rng.uniform(0.9, 1.0) * rng.uniform(0.97, 1.03, 3) * (1 - 0.08 * young)  # (x, y, z), of the large MNI head
    askew = np.clip(rng.standard_t(4, 2), -4, 4)  # most lie straight, some not at all
    pitch, roll, yaw = np.deg2rad([rng.uniform(-9, 12), 3 * askew[0], 6 * askew[1]])
    tilt = pitch + np.deg2rad(rng.uniform(0, 15))
    step = p.thickness_mm / scale[2]
    lowest, highest = rng.uniform(-75, -45), 84 + rng.uniform(-4, 6)
    slices = math.ceil((highest - lowest) / step) + 1
    y, _, x = anatomy.coordinates()
    sub = lowest + step * (np.arange(slices * SUBSLICES) / SUBSLICES - (SUBSLICES - 1) / (2 * SUBSLICES))
    heights = sub[:, None, None] + np.tan(tilt) * (y[None, :, 0] + 14) + np.tan(roll) * x[None, 0]
    shape = (slices,) + anatomy.COARSE_SHAPE[::2]
    heights = (heights + np.repeat(smooth_noise(rng, shape, 22) * np.float32(1.2), SUBSLICES, 0)).astype(np.float32)
    shift = smooth_noise(rng, (2 * slices, SIZE, SIZE), 64) * np.float32(1.1)
    offset = rng.uniform(-6, 6, 2)
    wobble = smooth_noise(hand, (slices, SIZE, SIZE), 10) * np.float32(0.06)

    along = (np.arange(SIZE) - (SIZE - 1) / 2) * p.spacing_mm
    u, v = along[None, :] - offset[0], -along[:, None] - 4 - offset[1]
    map_x = ((u * np.cos(yaw) - v * np.sin(yaw)) / -scale[0] + 98).astype(np.float32)
    map_y = ((u * np.sin(yaw) + v * np.cos(yaw)) / scale[1] - 14 + 134).astype(np.float32)
    back = 104 * scale[1] - 4 - offset[1] + rng.uniform(3, 9)
    curve = rng.uniform(100, 130)

    cuts = [_cut(a, heights, anatomy.COARSE_ORIGIN[1], 2.0) for a in (shell, head.face, blood, left)]
    fine = np.repeat(np.repeat(heights, 2, 1), 2, 2)
    tissue = _cut(head.tissue, fine, anatomy.FINE_ORIGIN[1], 1.0, anatomy.TISSUE_Z0)
    image = np.empty((slices, SIZE, SIZE), np.int16)
    labels = np.zeros((slices, SIZE, SIZE), np.uint8)
    sharpness, fine_noise = (low + (high - low) * p.softness for low, high in (SHARPNESS_PIXELS, NOISE_PIXELS))
    for k in range(slices):
        levels = range(k * SUBSLICES, (k + 1) * SUBSLICES)
        parts = [_fill([c[level] for c in cuts], tissue[level], p, traits) for level in levels]
        hu, fractions, metal = (sum(part) / SUBSLICES for part in zip(*parts, strict=True))
        bar = _beam_hardening(hu)
        packed = cv2.merge([hu - bar, bar, metal])
        pitched = np.float32(np.sin(pitch) * (sub[k * SUBSLICES + 1] - 8))
        where = (map_x + shift[k], map_y - pitched + shift[slices + k])
        hu, bar, metal = cv2.split(cv2.remap(packed, *where, cv2.INTER_LINEAR, borderValue=(HU["air"], 0, 0)))
        fractions = cv2.remap(fractions, *where, cv2.INTER_LINEAR)
        _bed(hu, p, back, curve)
        hu = cv2.GaussianBlur(hu, (0, 0), sharpness)
        labels[k] = _labels(fractions, hu, wobble[k], p)
        hu += streaks(metal, p.spacing_mm, profile) + _noise(rng, fine_noise) * p.noise_hu * (1 + bar / 20)
        image[k] = np.clip(np.rint(hu), -1024, 3071)
    ids = tuple(f"P{p.index:04d}_z{k:02d}" for k in range(slices))
    return Scan(f"P{p.index:04d}", image, labels, ids, "HU", (p.spacing_mm, p.spacing_mm), p.thickness_mm)


def _start_worker():
    """One thread per worker process, and the atlas ready before the first patient."""
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1)
    anatomy.load_anatomy()


@dataclass(frozen=True)
class Phantom:
    """Source of `patients` generated scans; iterating yields them in order, drawn by a pool of processes."""

    patients: int = 120
    seed: int = 0
    name = "phantom"

    def __len__(self) -> int:
        return self.patients

    def __iter__(self) -> Iterator[Scan]:
        return self.scans()

    def scan(self, index: int) -> Scan:
        """The scan of one patient."""
        if not 0 <= index < self.patients:
            raise IndexError(f"patient {index} of {self.patients}")
        return render(plan(self.seed, index), self.seed)

    def scans(self, workers: int | None = None) -> Iterator[Scan]:
        """All scans in order. workers: processes, by default one per core this process may use; 1 stays in-process."""
        if workers is None:
            # Starting a worker costs about as much as drawing four patients.
            workers = min(cores(), self.patients // 4)
            # A spawned worker imports the parent's main file; a program read from standard input has none.
            main = getattr(sys.modules["__main__"], "__file__", None)
            if main is not None and not os.path.isfile(main):
                workers = 1
        if workers <= 1:
            yield from (render(p, self.seed) for p in self.plans())
            return
        # Spawned, not forked: the parent may have threads (torch, a Jupyter kernel) that a fork would leave locked.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
        tasks = ((p, self.seed) for p in self.plans())
        yield from in_order(pool, render, tasks, 2 * workers)  # bounds what is held in memory: 6 MB a scan

    def plans(self) -> list[PatientPlan]:
        """What each patient has, without drawing anyone."""
        return [plan(self.seed, index) for index in range(self.patients)]

    def fingerprint(self) -> dict:
        """Everything that decides the pixels, JSON-able."""
        return {"name": self.name, "generator": GENERATOR, **asdict(self), "atlas_sha256": anatomy.atlas_digest()}
