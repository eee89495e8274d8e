"""Stores and runs that nobody preprocessed or trained: arrays written by hand in the layout that `sahlib` reads.

They lie in a workspace as real ones do, `data/processed/<dataset>-<digest>/` and `runs/<dataset>/<model>/<run>/`.
"""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd

from sahlib.chapters.results import Results
from sahlib.data.scan import CLASSES, SAH
from sahlib.data.slices import SliceStore, open_store
from sahlib.data.splits import Split
from sahlib.scoring import prediction
from sahlib.study import Study
from sahlib.training.runs import Run, find

PHANTOM = {"name": "phantom"}


def labels_of(areas, size=16, value=SAH) -> np.ndarray:
    """Labels uint8 [N,S,S] with so many pixels of a class each, row by row from the top left."""
    flat = np.zeros((len(areas), size * size), np.uint8)
    for row, area in enumerate(areas):
        flat[row, :area] = value
    return flat.reshape(-1, size, size)


def a_store(
    workspace, labels, patients, images=(), windows=((40, 80),), source=PHANTOM, spacing=(1.0, 1.0), ids=()
) -> SliceStore:
    """The store "phantom-hand" of labels [N,S,S] (indices into CLASSES) and one image array per window; noise where
    there is none."""
    labels = np.asarray(labels, np.uint8)
    rng = np.random.default_rng(0)
    images = images or [rng.integers(0, 256, labels.shape).astype(np.uint8) for _ in windows]
    path = workspace / "data" / "processed" / "phantom-hand"
    path.mkdir(parents=True)
    np.save(path / "labels.npy", labels)
    for number, image in enumerate(images, 1):
        np.save(path / ("images.npy" if number == 1 else f"images_{number}.npy"), image)
    table = pd.DataFrame({"slice_id": ids or [f"{p}_{i}" for i, p in enumerate(patients)], "patient_id": patients})
    table["z"] = table.groupby("patient_id").cumcount()
    table = table.assign(row_mm=spacing[0], column_mm=spacing[1], thickness_mm=5.0, source="")
    for value, name in enumerate(CLASSES[1:], 1):
        table[f"pixels_{name}"] = (labels == value).sum((1, 2))
    table.to_csv(path / "slices.csv", index=False)
    recipe = {"source": source, "windows": windows}
    (path / "meta.json").write_text(json.dumps({"digest": "hand", "size": labels.shape[1], "recipe": recipe}))
    return open_store(path)


def a_split(store, **sides) -> Split:
    """The split saved beside a store; `sides` maps patient to side, "test" for all others."""
    split = Split({patient: sides.get(patient, "test") for patient in dict.fromkeys(store.slices["patient_id"])})
    (store.path / "splits").mkdir(exist_ok=True)
    table = pd.Series(split.sides, name="side").rename_axis("patient_id")
    table.to_csv(store.path / "splits" / f"{split.digest}.csv")
    return split


def a_run(workspace, store, split, model, probabilities, seed=0, name="seed0-hand") -> Run:
    """A run tested on the test side; `probabilities` maps each of its lesions to an array [k,S,S]."""
    folder = workspace / "runs" / "phantom" / model / name
    folder.mkdir(parents=True)
    recipe = {"store": store.digest, "split": split.digest}
    study = Study.of_profile("smoke", precision="fp32").as_dict()
    record = {"model": model, "seed": seed, "lesions": list(probabilities), "recipe": recipe, "study": study}
    (folder / "run.json").write_text(json.dumps(record))
    run = find(folder)
    write_predictions(run, store, split, probabilities)
    return run


def write_predictions(run, store, split, probabilities) -> list[pd.DataFrame]:
    """probabilities.npy and counts.csv of each lesion; the counts."""
    run.path.mkdir(exist_ok=True)
    rows, found = split.rows(store, "test"), []
    for lesion, values in probabilities.items():
        values = np.asarray(values, np.float16)
        np.save(run.file("probabilities", lesion, "npy"), values)
        found.append(prediction.counts_of(values > prediction.THRESHOLD, store.of(lesion), rows))
        found[-1].to_csv(run.file("counts", lesion, "csv"), index=False)
    return found


def results_of(store, split, networks, origin="") -> Results:
    """Results of `networks`, model -> runs, with nothing in them that the browser does not look at."""
    study = Study.of_profile("smoke", precision="fp32")
    counts = {name: [run.counts] for name, (run, *_) in networks.items()} if not origin else {}
    return Results(
        study=study,
        recipe="paper",
        store=store,
        split=split,
        runs=networks,
        counts=counts,
        trivial={},
        band=None,
        searches={},
        folder=store.path,
        origin=origin,
    )


def nifti_study(root, patients=3, seed=0) -> Study:
    """A folder of NIfTI scans of noise with masks, 20 rows and 28 columns, and the Study that reads it."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for patient in range(patients):
        shape = (28, 20, 2 + patient)
        affine = np.diag([-0.5, -0.6, 5.0, 1.0])
        image = nib.Nifti1Image(rng.integers(-1000, 1500, shape).astype(np.int16), affine)
        mask = nib.Nifti1Image((rng.random(shape) < 0.1).astype(np.uint8), affine)
        for name, volume in (("images", image), ("masks", mask)):
            volume.header.set_xyzt_units("mm")
            nib.save(volume, root / name / f"p{patient}.nii.gz")
    return Study.of_profile("smoke", dataset="nifti", data_dir=str(root), precision="fp32")
