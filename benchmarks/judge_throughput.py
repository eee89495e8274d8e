"""How fast masks from elsewhere are judged, beside reading them alone, and in how much memory.

    python benchmarks/judge_throughput.py --volumes 300

Makes scans of 512x512x40 voxels with a truth and three competitors (two masks, one of probabilities) in a temporary
folder, reads them all by as many threads as judging has, then judges them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np

from sahlib.chapters.judging import judge
from sahlib.data import mask_folders
from sahlib.workspace import cores

SHAPE = (512, 512, 40)
COMPETITORS = ("one row lower", "two columns further", "probabilities")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=40)
    volumes = parser.parse_args().volumes
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(volumes):
            write(root, number)
        folders = mask_folders.pair({"truth": root / "truth"}, {name: root / name for name in COMPETITORS})
        began = time.perf_counter()
        with ThreadPoolExecutor(cores()) as pool:
            slices = sum(pool.map(lambda case: len(folders.read(case).slice_ids), folders.cases))
        reading, began = time.perf_counter() - began, time.perf_counter()
        judge(folders, ("SAH",), root / "judged")
        judging = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{volumes} scans, {slices:,} slices, {len(COMPETITORS)} competitors, {cores()} threads")
    print(f"reading alone {reading:.1f} s; judged in {judging:.1f} s, {judging / reading:.1f} times as long")
    print(f"{slices / judging:.0f} slices a second; at most {peak:.2f} GB of memory")


def write(root: Path, number: int) -> None:
    """A scan's truth, of which every fourth is empty, and the competitors' masks of it."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    truth = np.zeros(SHAPE, np.uint8)
    for z in range(10, 28) if number % 4 else ():
        for _ in range(3):
            row, column, radius = rng.integers(120, 390), rng.integers(120, 390), rng.integers(3, 25)
            truth[..., z] |= (y - row) ** 2 + 9 * (x - column) ** 2 < 4 * radius**2
    probabilities = np.clip(0.9 * truth + 0.02 * (rng.random((*SHAPE[:2], 1)) > 0.5), 0, 1).astype(np.float32)
    masks = (truth, np.roll(truth, 1, 0), np.roll(truth, 2, 1), probabilities)
    for name, values in zip(("truth", *COMPETITORS), masks, strict=True):
        (root / name).mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(values, np.diag([-0.45, -0.45, 5, 1])), root / name / f"P{number:03d}.nii.gz")


if __name__ == "__main__":
    main()
