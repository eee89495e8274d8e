"""Folders of slices on disk as a user would hand them in."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd


def write_paired_folder(root, patients=12, slices_each=3, size=48, seed=0):
    """A folder in the paper's layout: a bright disc on noise is the lesion; every second patient has one."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    y, x = np.mgrid[:size, :size]
    for patient in range(patients):
        for z in range(slices_each):
            image = rng.integers(60, 120, (size, size)).astype(np.uint8)
            mask = np.zeros((size, size), np.uint8)
            if patient % 2 == 0 and z > 0:
                row, column = rng.integers(12, size - 12, 2)
                mask[(y - row) ** 2 + (x - column) ** 2 <= (3 + patient / 3) ** 2] = 255
                image[mask > 0] += 80
            stem = f"{patient:02d}_{z}"
            cv2.imwrite(str(root / "images" / f"{stem}.png"), image)
            cv2.imwrite(str(root / "masks" / f"{stem}.png"), mask)
            rows.append({"file": f"{stem}.png", "patient_id": f"p{patient:02d}"})
    pd.DataFrame(rows).to_csv(root / "slices.csv", index=False)
    return root
