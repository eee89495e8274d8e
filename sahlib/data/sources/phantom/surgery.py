"""What surgeons leave in a phantom's head: gaps in the vault, air, a drain, coils, and the streaks of metal."""

from __future__ import annotations

import numpy as np

from sahlib.data.sources.phantom.anatomy import COARSE_SHAPE, coordinates
from sahlib.data.sources.phantom.bleeding import PatientPlan, smooth_noise

DRAIN_HU, METAL_HU = 220.0, 3071.0
CENTRE = np.array([0, -14, 8])  # of the vault, MNI mm
FOREHEAD, HORN = np.array([25, 34, 78]), np.array([7, 16, 6])  # from where a drain comes, and where it ends
STREAKS = 24  # dark and bright ones around half a turn; their HU at the metal, and by how much they fade
STREAKS_HU, STREAK_MM, FULL_STREAKS_MM2 = 60.0, 12.0, 60.0


def left_by_surgery(p: PatientPlan, rng) -> np.ndarray:
    """Margins in mm (positive inside) of gaps in bone, a drain's wall, metal and air, [127,115,99,4] float32."""
    y, z, x = coordinates()
    away = [x - CENTRE[0], y - CENTRE[1], z - CENTRE[2]]
    out = np.full(COARSE_SHAPE + (4,), -99, np.float32)
    side = rng.choice([-1, 1])
    if "craniotomy" in p.surgery or "craniectomy" in p.surgery:
        direction = np.array([side, rng.uniform(-0.4, 0.7), rng.uniform(0.1, 0.6)])
        cosine = sum(a * d for a, d in zip(away, direction / np.linalg.norm(direction), strict=True))
        angle = np.arccos(np.clip(cosine / np.sqrt(sum(a * a for a in away) + 1e-3), -1, 1))
        inside = 75 * (rng.uniform(0.35, 0.6) - angle) + smooth_noise(rng, COARSE_SHAPE, 12) * np.float32(2)
        out[..., 0] = inside if "craniectomy" in p.surgery else 1.2 - np.abs(inside)  # of a flap the cut remains
        if rng.random() < 0.6:  # air rises to the forehead of a patient who lies on his back
            out[..., 3] = y + rng.uniform(-0.2, 0.2) * x - rng.uniform(50, 66) + 0 * z
    if "drain" in p.surgery:
        start, end = FOREHEAD * (side, 1, 1), HORN * (side, 1, 1) + rng.normal(0, 2, 3)
        axis = end - start
        from_start = [at - s for at, s in zip((x, y, z), start, strict=True)]
        along = np.clip(sum(f * a for f, a in zip(from_start, axis, strict=True)) / (axis @ axis), 0, 1)
        apart = np.sqrt(sum((f - along * a) ** 2 for f, a in zip(from_start, axis, strict=True)))
        out[..., 0] = np.maximum(out[..., 0], 5 - apart)  # the burr hole
        out[..., 1] = 1.6 - apart
    if "coil" in p.surgery:
        out[..., 2] = rng.uniform(2.5, 5) - np.sqrt(
            sum((at - a) ** 2 for at, a in zip((x, y, z), p.aneurysm, strict=True))
        )
    return out


def streaks(metal: np.ndarray, spacing_mm: float, profile: np.ndarray) -> np.ndarray:
    """HU [H,W] that metal (fractions [H,W]) adds along rays; profile [A]: dark and bright over half a turn."""
    area = metal.sum() * spacing_mm**2
    if area < 1:
        return np.zeros_like(metal)
    rows, columns = np.indices(metal.shape, np.float32)
    down, right = (at - (at * metal).sum() / metal.sum() for at in (rows, columns))
    angle = np.arctan2(down, right) / np.pi % 1 * len(profile)
    fall = 1 / (1 + np.hypot(down, right) * spacing_mm / STREAK_MM) * min(1.0, area / FULL_STREAKS_MM2)
    return (np.interp(angle, np.arange(len(profile) + 1), [*profile, profile[0]]) * fall * STREAKS_HU).astype(
        np.float32
    )
