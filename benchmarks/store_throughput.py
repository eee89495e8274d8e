"""How many slices a second go from NIfTI files to a slice store, in one process, and where the time goes.

    python benchmarks/store_throughput.py

The scans are the phantom's at 512x512, int16, with fresh noise in every voxel, so that gzip finds no more
to save than in a real scan; a mask each. Files are read from the system's cache. The stages are timed one after the
other, in a pass of their own before that of the whole. Nothing else should run meanwhile.
Writes benchmarks/results/store_throughput-<device>.csv and .md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
from throughput_report import measured_on, write_table

from sahlib.data import slices
from sahlib.data.scan import SAH, Scan
from sahlib.data.sources import open_source
from sahlib.data.sources.nifti_file import hounsfield, read_volume
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.data.sources.volume_folder import VolumeFolder, read_labels
from sahlib.study import Study
from sahlib.workspace import provenance

RESULTS = Path(__file__).parent / "results"
STAGES = {
    "hash": "SHA-256 of the files, for the store's name",
    "read": "Read, decompress, header",
    "orient": "Orient, scale, check values",
    "resize": "Window and resize",
    "write": "Write",
    "rest": "Table of slices and the rest",
}
NOISE_HU = 5.0


def write_scans(folder: Path, ending: str, count: int) -> int:
    """`count` phantom scans and their SAH masks in `folder`/images and `folder`/masks; how many slices that are."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng, written = np.random.default_rng(0), 0
    for index in range(count):
        scan = Phantom(count, 0).scan(index)
        size = (512, 512)
        image = np.stack([cv2.resize(level, size, interpolation=cv2.INTER_LINEAR) for level in scan.image])
        mask = np.stack([cv2.resize(level, size, interpolation=cv2.INTER_NEAREST_EXACT) for level in scan.labels])
        image = image + np.rint(rng.normal(0, NOISE_HU, image.shape))
        affine = np.diag([-scan.spacing_mm[1] / 2, -scan.spacing_mm[0] / 2, scan.thickness_mm, 1])
        for kind, array in (("images", image.astype(np.int16)), ("masks", (mask == SAH).astype(np.uint8))):
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), folder / kind / f"{index:02d}{ending}")
        written += len(image)
    return written


def measure(study: Study, folder: Path) -> dict[str, float]:
    """Seconds of every stage over all scans, and of the whole way to the store ("store")."""
    seconds: dict[str, float] = defaultdict(float)
    clock = Clock(seconds)
    source = open_source(study)
    assert isinstance(source, VolumeFolder)
    source.fingerprint()
    clock.stop("hash")
    with open(folder / "written", "wb") as file:
        for case in source.cases:
            clock.stop("rest")
            volume = read_volume(case.image)
            clock.stop("read")
            image = hounsfield(volume)
            clock.stop("orient")
            read_volume(case.masks[0])
            reading = clock.stop("read")
            labels = read_labels(case.masks[0], volume, dict(source.classes))
            clock.stop("orient")
            seconds["orient"] -= reading
            scan = Scan("p", image, labels, ("",) * len(image), "HU", volume.spacing_mm, volume.thickness_mm)
            images, labels = slices.preprocess(scan, study.size, study.window_values)
            clock.stop("resize")
            for array in (*images, labels):
                file.write(array)
            clock.stop("write")
    clock.stop("rest")
    slices.prepare(study, folder / "processed")
    clock.stop("store")
    seconds["rest"] = max(0.0, seconds["store"] - sum(seconds[stage] for stage in STAGES if stage != "rest"))
    return dict(seconds)


class Clock:
    """Adds the seconds since the last stop to the stage that has ended."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds, self.last = seconds, time.perf_counter()

    def stop(self, stage: str) -> float:
        now = time.perf_counter()
        passed, self.last = now - self.last, now
        self.seconds[stage] += passed
        return passed


def markdown(table: pd.DataFrame, facts: dict, count: int, size: int, load: float) -> str:
    """The table for a reader, with what is needed to repeat it."""
    lines = ["| Files | Slices/s to the store | " + " | ".join(STAGES.values()) + " |", "| --- |" + " ---: |" * 7]
    for ending, rows in table.groupby("files", sort=False):
        shares = rows.set_index("stage")["share"]
        speed = rows["slices_per_second"].iloc[0]
        lines.append(f"| {ending} | {speed:.0f} | " + " | ".join(f"{shares[stage]:.0%}" for stage in STAGES) + " |")
    caption = (
        f"{count} scans of 512×512 pixels a slice, int16, with masks, to {size}×{size} pixels; one process, files in "
        f"the system's cache, the fastest of the repetitions; {load:.1f} other processes were running on average. "
        f"{measured_on(facts)}"
    )
    return "\n".join([*lines, "", caption, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Slices a second from NIfTI files to a slice store.")
    parser.add_argument("--scans", type=int, default=6)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    facts, load, rows = provenance(), os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as temporary:
        for ending in (".nii", ".nii.gz"):
            folder = Path(temporary) / ending.strip(".")
            written = write_scans(folder, ending, chosen.scans)
            study = Study.of_profile("smoke", dataset="nifti", data_dir=str(folder), size=chosen.size)
            best: dict[str, float] = {}
            for repetition in range(chosen.repetitions):
                place = folder / f"out{repetition}"
                place.mkdir()
                found = measure(study, place)
                best = min(best or found, found, key=lambda seconds: seconds["store"])
            for stage in STAGES:
                share = best[stage] / sum(best[stage] for stage in STAGES)
                rows.append({"files": ending, "stage": stage, "seconds": best[stage], "share": share})
                rows[-1]["slices_per_second"] = written / best["store"]
    table = pd.DataFrame(rows)
    write_table(table, markdown(table, facts, chosen.scans, chosen.size, load), "store_throughput", facts, RESULTS)


if __name__ == "__main__":
    main()
