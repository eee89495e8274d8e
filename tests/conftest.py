"""Small inputs that many tests share: a paired folder on disk and the store, split and Study made from it."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pandas as pd
import pytest

from sahlib import slices, splits
from sahlib.study import Study


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


@pytest.fixture
def paired_folder(tmp_path):
    return write_paired_folder(tmp_path / "paired")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """(study, store, split) of 36 slices of 12 patients at 32x32, in fp32."""
    root = tmp_path_factory.mktemp("small")
    folder = write_paired_folder(root / "paired")
    study = Study.of_profile("smoke", dataset="paired_folder", data_dir=str(folder), precision="fp32")
    store = slices.prepare(study, root / "processed")
    return study, store, splits.prepare(store, study)


def pytest_configure(config):
    # Tests are many small runs; more threads than cores would only make them wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
