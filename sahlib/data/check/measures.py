"""What `check` keeps of a scan once its pixels are gone: counts, extremes, hashes, and how its masks lie.

A scan becomes a row of one table and its slices rows of another. A new measure is a column that `measure` fills;
`findings.py` says what it means.
"""

from __future__ import annotations

import hashlib

import imagehash
import numpy as np
from PIL import Image

from sahlib.data.grey_window import brain_levels
from sahlib.data.orientation import FACES, TURNS, similarities
from sahlib.data.regions import AIR_HU, DARK_GREY, SMALLEST_TOLD, cavity_region, head_region, skull_region, widened
from sahlib.data.scan import CLASSES, Scan

VOXEL_MM = ["row_mm", "column_mm", "thickness_mm"]
SIMILAR = [f"similar {turn}" for turn in FACES]
LEVELS = ["brain decile", "brain median"]
HASH_SIDE = 32  # with the usual 8 or 16 heads cannot be told apart
BITS = HASH_SIDE**2


def measure(scan: Scan, grey: np.ndarray) -> tuple[dict, list[dict]]:
    """What is kept of a scan, and what of each slice; grey uint8 [D,H,W] is its image in a window.

    Counts are of pixels; low and high are in the scan's own unit; mm and mL are NaN where a spacing is unknown.
    """
    side = min(scan.image.shape[1:])
    slices = []
    each = zip(scan.image, grey, scan.labels, scan.slice_ids, scan.thicknesses_mm, strict=True)
    for image, shown, labels, slice_id, thickness in each:
        low, high = int(image.min()), int(image.max())
        head, skull, lesion = head_region(image, scan.unit), skull_region(image, scan.unit), labels > 0
        cavity = cavity_region(skull)
        # A rim of bone is bright by partial volume and no blood.
        tissue = head & (shown > 0) & ~widened(skull, max(1, side // 128))
        slices.append(
            {
                "slice_id": slice_id,
                "patient_id": scan.patient_id,
                # Slices that lie in order: those of a scan, or a patient's that come one by one.
                "stack": scan.slice_ids[0] if len(scan.image) > 1 else scan.patient_id,
                "unit": scan.unit,
                "voxel_ml": float(np.prod([*scan.spacing_mm, thickness])) / 1000,
                **{name: int((labels == k).sum()) for k, name in enumerate(CLASSES[1:], 1)},
                "lesion": int(lesion.sum()),  # of any class
                "inside": int((lesion & widened(head, max(2, side // 64))).sum()),  # of it; a hand may stray a little
                "head_area": int(head.sum()),
                "blank": high - low <= DARK_GREY or (scan.unit == "HU" and high <= AIR_HU),  # noise or air alone
                "cavity": int(cavity.sum()),
                "cavity_clipped": int(np.isin(shown[cavity], (0, 255)).sum()),
                "lesion_white": int((shown[lesion] == 255).sum()),
                "content": content_hash(image),
                "labels": content_hash(labels),
                "bits": perceptual_hash(shown, head),
                **dict(zip(TURNS, contrasts(shown, tissue, lesion), strict=True)),
                **dict(zip(SIMILAR, similarities(shown), strict=True)),
                **dict(zip(LEVELS, brain_levels(shown), strict=True)),
            }
        )
    files, whose = " and ".join(map(str, scan.sources[:2])), f"patient {scan.patient_id}"
    low, high = int(scan.image.min()), int(scan.image.max())
    return {
        "scan": f"{files} ({whose})" if files else f"The scan of {whose}",  # for a sentence that names it
        "patient_id": scan.patient_id,
        "unit": scan.unit,
        "height": scan.image.shape[1],
        "width": scan.image.shape[2],
        **dict(zip(VOXEL_MM, (*scan.spacing_mm, float(np.median(scan.thicknesses_mm))), strict=True)),
        "low": low,
        "high": high,
        "at_high": float((scan.image == high).mean()),  # share of voxels
    }, slices


def content_hash(pixels: np.ndarray) -> bytes:
    """16 bytes that two arrays share only when they have one type, shape and content."""
    return hashlib.blake2b(f"{pixels.dtype} {pixels.shape}".encode() + pixels.tobytes(), digest_size=16).digest()


def perceptual_hash(grey: np.ndarray, head: np.ndarray) -> bytes | None:
    """The signs of low frequencies of a slice's [H,W] uint8 cosine transform, BITS bits, packed: few differ in a copy.

    None where the head [H,W] bool is too small to tell from another.
    """
    if head.mean() < SMALLEST_TOLD:
        return None
    return np.packbits(imagehash.phash(Image.fromarray(grey), hash_size=HASH_SIDE).hash).tobytes()


def contrasts(grey: np.ndarray, tissue: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """For each of TURNS the contrast of the turned mask to a ring around it, times its pixels; float [8].

    grey [H,W] uint8; tissue [H,W] bool, where neither air nor bone is; mask [H,W] bool. Contrast is in robust standard
    deviations of the tissue's grey levels. Pixels beside the tissue count as 0, and so do turns that do not fit.
    """
    sums = np.zeros(len(TURNS))
    if not mask.any() or not tissue.any():
        return sums
    middle = np.median(grey[tissue])
    spread = 1.4826 * np.median(np.abs(grey[tissue] - middle))
    brightness = np.clip((grey - middle) / max(spread, 1.0), -4, 4)
    reach = max(2, min(mask.shape) // 40)
    for index, turn in enumerate(TURNS.values()):  # to others than squares only what keeps their shape
        turned = np.ascontiguousarray(turn.of(mask))
        if turned.shape == mask.shape:
            inside, ring = turned & tissue, widened(turned, reach) & ~turned & tissue
            if inside.any() and ring.any():
                sums[index] = (brightness[inside].mean() - brightness[ring].mean()) * inside.sum()
    return sums
