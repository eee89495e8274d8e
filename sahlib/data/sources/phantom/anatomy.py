"""Anatomy: the head that every phantom patient is a deformed copy of.

The brain is the ICBM 152 2009a nonlinear symmetric template (Fonov et al., NeuroImage 54:313-327, 2011; NeuroImage
47:S102, 2009), whose grey- and white-matter maps nilearn carries in its package: brain that is neither grey nor white
is cerebrospinal fluid (CSF). The template has no skull; vault, skull base, face and scalp are drawn around the brain
from distances to it and from ellipsoids at the usual MNI coordinates of the structures.

Arrays are ordered [y, z, x] (a coronal stack, so that the renderer can resample along z with one cv2.remap per row);
x grows to the patient's right, y to the front, z to the vertex, in MNI mm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

FINE_SHAPE = (254, 230, 198)  # [y, z, x] voxels of 1 mm
FINE_ORIGIN = (-134.0, -112.0, -98.0)  # MNI mm of fine voxel (0, 0, 0)
COARSE_SHAPE = (127, 115, 99)  # 2 x 2 x 2 fine voxels each
COARSE_ORIGIN = (-133.5, -111.5, -97.5)
TISSUE_Z0 = 36  # first fine z index with brain in it
VENTRICLE_STEPS_PER_MM = 12.0  # how ventricle depth is stored in 8 bits: 128 + 12 * mm, positive inside


@dataclass(frozen=True)
class Anatomy:
    """Maps of the undeformed head; see the module docstring for the axes.

    tissue   [254,Z,198,4] uint8, 1 mm, from z index TISSUE_Z0: grey, white, CSF (fractions x 255), ventricle depth
    shell    [127,115,99,4] float32, 2 mm: distance in mm to inner skull table, outer skull table, skin (all negative
             inside), and dura (falx and tentorium, 0 to 1)
    face     [127,115,99,4] float32, 2 mm: bone and air fraction outside the cranial cavity, HU of soft tissue
             there, and 1 over the vault falling to 0 at the skull base
    cisterns [127,115,99] float32: CSF fraction of the subarachnoid space blood can run along, 0 elsewhere
    """

    tissue: np.ndarray
    shell: np.ndarray
    face: np.ndarray
    cisterns: np.ndarray


def coordinates(shape=COARSE_SHAPE, origin=COARSE_ORIGIN, step=2.0):
    """MNI coordinates in mm as three broadcastable float32 arrays, in the order y, z, x."""
    return np.ix_(*((o + step * np.arange(n)).astype(np.float32) for o, n in zip(origin, shape, strict=True)))


def atlas_files() -> list[Path]:
    """The grey-matter, white-matter and T1 maps in the installed nilearn, found without importing it (1 to 2 s)."""
    found = find_spec("nilearn")
    folder = Path(found.origin).parent / "datasets" / "data" if found else Path()
    files = [folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz" for kind in ("gm", "wm", "t1")]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"the phantom needs {path.name} of nilearn 0.11 to 0.14 (pip install nilearn)")
    return files


def atlas_digest() -> str:
    """SHA-256 of the atlas files, hexadecimal."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in atlas_files())).hexdigest()


def _read(path):
    """An 8-bit template map [x,y,z] of 1 mm -> fractions [y,z,x] on the fine grid, float32."""
    volume = np.asarray(nibabel.load(path).dataobj).transpose(1, 2, 0)
    out = np.zeros(FINE_SHAPE, np.float32)
    out[: volume.shape[0], 40 : 40 + volume.shape[1], : volume.shape[2]] = volume
    return out / np.float32(255)


def _coarse(fine):
    """Mean over 2 x 2 x 2 voxels."""
    y, z, x = COARSE_SHAPE
    return fine.reshape(y, 2, z, 2, x, 2).mean((1, 3, 5), dtype=np.float32)


def _distance(mask, step=2.0):
    """Signed Euclidean distance in mm to the surface of a mask, negative inside."""
    outside, inside = (ndimage.distance_transform_edt(m).astype(np.float32) for m in (~mask, mask))
    return step * (outside - inside + np.where(mask, 0.5, -0.5).astype(np.float32))


def _closing(mask, radius_mm):
    """Fill what a ball of that radius cannot enter; padded, so that the border of the grid doesn't act as tissue."""
    pad = int(radius_mm / 2) + 2
    grown = ndimage.distance_transform_edt(~np.pad(mask, pad)) * 2.0 < radius_mm
    return (ndimage.distance_transform_edt(grown) * 2.0 > radius_mm)[pad:-pad, pad:-pad, pad:-pad]


def _ball(grid, centre, radii):
    """Signed, roughly metric distance to ellipsoids at +x and -x (mirror images); centre and radii as (x, y, z)."""
    y, z, x = grid
    parts = zip((np.abs(x), y, z), centre, radii, strict=True)
    r = np.sqrt(sum(((at - middle) / radius) ** 2 for at, middle, radius in parts))
    return (r - 1) * np.float32(min(radii))


def _tube(grid, start, end, radius):
    """Signed distance to capsules at +x and -x between two points (x, y, z)."""
    y, z, x = grid
    a, b = np.float32(start), np.float32(end)
    axis = b - a
    p = (np.abs(x) - a[0], y - a[1], z - a[2])
    t = np.clip(sum(p[i] * axis[i] for i in range(3)) / (axis @ axis), 0, 1)
    return np.sqrt(sum((p[i] - t * axis[i]) ** 2 for i in range(3))) - np.float32(radius)


def _solid(distance, edge=1.0):
    """Distance in mm (negative inside) -> fraction of the voxel that is inside."""
    return np.clip(0.5 - distance / (2 * edge), 0, 1).astype(np.float32)


def _ventricles(csf, grid):
    """Lateral, third and fourth ventricles [254,230,198] bool: deep CSF inside boxes, without the cisterns beside them.

    Boxes and exclusions in MNI mm; the cisterns they keep out are the interhemispheric fissure in front of the third
    ventricle and above the corpus callosum, the quadrigeminal and ambient cisterns, and the Sylvian fissure.
    """
    y, z, x = grid
    side = np.abs(x)
    lateral = (side < 44) & (y > -80) & (y < 40) & (z > -22) & (z < 34)
    lateral &= ~((side < 4) & ((y > 26) | ((y > 2) & (z < 0))))  # interhemispheric fissure
    lateral &= ~((side > 20) & (y > -14)) & ~((side > 29) & (y > -30) & (z > -8))  # Sylvian fissure
    lateral &= ~((side < 24) & (y < -28) & (z < 6)) & ~((side < 14) & (y < -40))  # quadrigeminal cistern
    lateral &= ~((side < 20) & (z < -4)) & ~((side < 16) & (z < 4) & (y < -20))  # ambient cisterns
    lateral &= ~((side > 24) & (y < -58) & (z < -4))
    third = (side < 6) & (y > -31) & (y < 2) & (z > -13) & (z < 12)
    fourth = (side < 13) & (y > -58) & (y < -34) & (z > -52) & (z < -20) & (z < -20 - 0.55 * (y + 34) - 8)
    found, _ = ndimage.label((lateral | third | fourth) & (csf > 0.45))
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    return (sizes > 150)[found]


def _dura(csf, grid):
    """Falx and tentorium as a fraction 0 to 1: the clefts of CSF around the sheets, thinned to the sheet."""
    y, z, x = grid
    beyond_edge = ((y + 8) / 48) ** 2 + ((z - 6) / 32) ** 2 > 1
    falx = np.clip(1.6 - np.abs(x), 0, 1) * (beyond_edge & (z > -2 - 0.1 * y))
    tent = np.abs(z - (3 - 0.5 * np.abs(x) + 0.18 * np.clip(y + 50, -60, 0)))
    behind_notch = (np.abs(x) > 18 + 0.3 * (-55 - y)) | (y < -55)
    tent = np.clip(1.5 - tent / 4, 0, 1) * np.clip(csf * 3, 0, 1) * (behind_notch & (y > -95) & (y < -22))
    return np.maximum(falx * np.clip(csf * 4, 0.3, 1), tent).astype(np.float32)


def _face(grid, cavity, skull, skin, rng):
    """Bone, air and soft-tissue HU outside the cavity, and the vault (see Anatomy), [127,115,99,4] float32.

    Solid bone between cavity and outer table gives petrous ridges, clivus and sphenoid; sinuses, mastoid cells and
    orbits are carved out of it, and maxilla, zygoma, mandible and atlas (C1) are added below.
    """
    y, z, x = grid
    cells = ndimage.gaussian_filter(rng.standard_normal(COARSE_SHAPE).astype(np.float32), 1.1)
    cells /= cells.std()
    orbit = _ball(grid, (31, 56, -30), (18, 30, 17))
    globe = _ball(grid, (33, 68, -30), (12, 12, 12))
    ends = (((22, 68, -30), (17, 34, -28)), ((43, 66, -30), (19, 34, -28)), ((33, 57, -30), (17, 32, -27)))
    eye_muscles = np.minimum.reduce([_tube(grid, *both, 2) for both in ends])
    antrum = _ball(grid, (28, 58, -60), (15, 17, 15))
    nose = np.maximum(_ball(grid, (7, 62, -55), (7, 26, 22)), 1.5 - np.abs(x))
    ethmoid = _ball(grid, (7, 54, -28), (8, 24, 13))
    sphenoid = np.maximum(_ball(grid, (8, 20, -38), (11, 13, 10)), 1.2 - np.abs(x))
    frontal = _ball(grid, (12, 79, -9), (13, 2.5, 10))
    mastoid = _ball(grid, (57, -34, -45), (11, 15, 18))
    canal = _tube(grid, (52, -20, -44), (82, -22, -44), 3.5)
    pharynx = _ball(grid, (0, 12, -84), (13, 8, 34))

    bone = np.maximum(_solid(np.maximum(skull, -cavity)), _solid(np.abs(antrum) - 0.9))
    for solid in (
        np.abs(_ball(grid, (31, 54, -30), (20, 31, 19))) - 1.5,  # orbital walls
        _ball(grid, (50, 60, -44), (9, 8, 9)),  # zygoma
        _tube(grid, (55, 54, -43), (69, -8, -42), 2.5),  # zygomatic arch
        _tube(grid, (52, 2, -48), (50, 0, -100), 3.5),  # mandibular ramus
        _tube(grid, (14, 82, -82), (30, 40, -82), 6.0),  # upper jaw
        _tube(grid, (3, 88, -28), (3, 94, -40), 2.0),  # nasal bone
        np.maximum(_ball(grid, (20, -38, -86), (12, 10, 9)), 12 - np.abs(x)),  # lateral masses of C1
        np.maximum(np.abs(_ball(grid, (0, -44, -86), (20, 20, 8))) - 2.5, np.abs(z + 86) - 5),  # arch of C1
        _ball(grid, (0, -26, -88), (6, 6, 16)),  # dens
    ):
        bone = np.maximum(bone, _solid(solid) * (cavity > 1))
    hollow = np.minimum.reduce([orbit, antrum, nose, ethmoid, sphenoid, frontal, pharynx, canal])
    bone *= 1 - _solid(hollow)
    walls = _solid(np.abs(cells) * 2.0 - 0.9) * _solid(np.minimum(ethmoid, sphenoid + 4))
    bone = np.maximum(bone, 0.45 * walls)
    air = _solid(np.minimum.reduce([antrum + 1, nose, ethmoid, sphenoid, frontal + 0.5, pharynx, canal])) * (1 - walls)
    spongy = _solid(mastoid) * np.clip(0.15 + 0.9 * cells, 0, 1)
    air = np.maximum(air, spongy)
    bone *= 1 - 0.85 * spongy
    planes = ndimage.gaussian_filter(cells, 2.0)  # fat planes between the muscles of face and neck
    muscles = np.clip(25 + 60 * np.tanh(planes / planes.std() + 0.5), -70, 55)
    temporalis = np.clip((8 - z) / 20, 0, 1) * np.clip(2 - np.abs(y - 8) / 30, 0, 1) * (np.abs(x) > 35)
    scalp = -60 + 100 * np.maximum(temporalis, np.clip(1.3 - skull / 2, 0, 0.8))
    vault = np.clip((z + 18 + 0.3 * np.abs(y + 20)) / 15, 0, 1)
    soft = vault * scalp + (1 - vault) * np.where(skull < 5, 0.5 * (scalp + muscles), muscles)
    lens = np.abs(_ball(grid, (33, 75, -30), (5, 3, 5))) < 1.2
    filled = (skin > -2, 25), (orbit < 0, -85), ((eye_muscles < 0) & (orbit < 0), 40), (globe < 0, 12), (lens, 75)
    for where, hu in filled:
        soft = np.where(where, hu, soft)
    outside = cavity > 0
    return np.stack([bone * outside, air * outside, soft, np.broadcast_to(vault, soft.shape)], -1).astype(np.float32)


@lru_cache(maxsize=1)
def load_anatomy() -> Anatomy:
    """Build the maps (a few seconds), once per process."""
    grey, white, t1 = (_read(path) for path in atlas_files())
    brain = t1 > 0.2  # the template is stripped to the brain; nilearn masks it with the same threshold
    fine = coordinates(FINE_SHAPE, FINE_ORIGIN, 1.0)
    csf = np.clip(1 - grey - white, 0, 1)
    # Averaging over people leaves the cistern of the great cerebral vein wider than it is in anyone.
    csf *= 1 - 0.3 * np.clip(2 - np.maximum(_ball(fine, (0, -38, 5), (9, 13, 11)) / 2, 0), 0, 1)
    ventricles = _ventricles(csf * brain, fine)
    box = np.s_[:, TISSUE_Z0 : TISSUE_Z0 + 164]
    depth = np.full(ventricles[box].shape, -9, np.float32)
    around = tuple(slice(s.start - 10, s.stop + 10) for s in ndimage.find_objects(ventricles[box].astype(np.uint8))[0])
    depth[around] = np.clip(-_distance(ventricles[box][around], 1.0), -9, 9)
    stored = [grey[box] * 255, white[box] * 255, csf[box] * 255, 128 + VENTRICLE_STEPS_PER_MM * depth]
    tissue = np.stack([np.rint(np.clip(a, 0, 255)).astype(np.uint8) for a in stored], -1)

    grid = coordinates()
    y, z, x = grid
    brain = _coarse(brain.astype(np.float32)) > 0.5
    brain |= (np.hypot(x, y + 46) < 7) & (z < -66)  # the cord goes on below the template
    # The template's brain mask leaves out the wide cisterns (prepontine, suprasellar) and the clefts at the vertex.
    midline = (np.abs(x) < 22) & (y > -34) & (y < 16) & (z > np.where(y < -12, -38, -26))
    gap = _closing(brain, 12) & (midline | (z > 20))
    gap |= _ball(grid, (0, 1, -16), (16, 20, 12)) < 0
    cavity = ndimage.gaussian_filter(_distance(brain | _closing(brain, 5) | gap), 1.0) - 2.2
    vault = _closing(cavity < 0, 34)
    vault &= z > -62 + 0.25 * np.abs(y + 40) - 0.2 * np.clip(y, 0, 80)
    skull = ndimage.gaussian_filter(_distance(vault), 1.5) - 6.5
    head = np.minimum(skull - 5.5, _ball(grid, (0, 40, -58), (66, 62, 64)) + 0 * x)
    head = np.minimum(head, np.maximum(_ball(grid, (0, -22, -90), (62, 70, 400)), z + 40))
    head = np.minimum(head, _tube(grid, (0, 92, -30), (0, 104, -52), 11))
    skin = ndimage.gaussian_filter(head.astype(np.float32), 2.5)
    csf = _coarse(csf)
    shell = np.stack([cavity, skull, skin, _dura(csf, grid) * (cavity < -1)], -1).astype(np.float32)
    near_ventricle = ndimage.binary_dilation(_coarse(ventricles.astype(np.float32)) > 0.25)
    cisterns = csf * ((csf > 0.22) & (cavity < 0) & ~near_ventricle & (z > -60))
    face = _face(grid, cavity, skull, skin, np.random.default_rng(152))
    return Anatomy(tissue, shell, face, cisterns)
