"""Masks judged from outside get the numbers that the study gives its own."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import fabricated

from sahlib.chapters import diagnostics, evaluation, judging, own_masks, results, verdict
from sahlib.chapters.results import Results
from sahlib.data import mask_folders
from sahlib.scoring import baselines
from sahlib.study import MODELS, Study, StudyError

NETWORKS = ("unet", "attention_unet")
PATIENTS = 9
SPACING = (0.46875, 0.4375)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Results of two networks that nobody trained, on scans of five slices."""
    root, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    patients = [f"P{p:02d}" for p in range(PATIENTS) for _ in range(5)]
    areas = [int(p % 3 and rng.integers(0, 40)) for p in range(PATIENTS) for _ in range(5)]
    ids = [f"{patient}_z{k % 5:02d}" for k, patient in enumerate(patients)]
    store = fabricated.a_store(root, fabricated.labels_of(areas), patients, spacing=SPACING, ids=ids)
    split = fabricated.a_split(store)
    truth, runs, counts = store.masks(np.arange(len(store))), {}, {}
    for model in NETWORKS:
        noisy = np.clip(truth * rng.uniform(0.3, 1, truth.shape) + rng.normal(0, 0.2, truth.shape), 0, 1)
        runs[model] = [fabricated.a_run(root, store, split, model, {"SAH": noisy})]
        counts[model] = [runs[model][0].counts]
    band = baselines.Band(100, 200)
    return Results(
        study=Study.of_profile("smoke", precision="fp32", batch_size=16),
        recipe="paper",
        store=store,
        split=split,
        runs=runs,
        counts=counts,
        trivial=results.trivial_counts(counts, store, split.rows(store, "test"), band),
        band=band,
        searches={},
        folder=root / "figures",
    )


@pytest.fixture(scope="module")
def published(own):
    """The folder of the study's own figures and tables."""
    for make in (verdict.conventions, evaluation.table_3, verdict.scores, verdict.contrasts, verdict.lesion_size):
        make(own)
    for make in (diagnostics.clinical_scores, diagnostics.reliability, diagnostics.bland_altman):
        make(own)
    return own.folder


def as_nifti(own, folder):
    """Truth, and masks or probabilities, of each patient as NIfTI-2, whose affine holds every digit; some flipped."""
    rows, patients = own.test_rows, own.store.slices["patient_id"].to_numpy()[own.test_rows]
    affine = np.diag([-SPACING[1], -SPACING[0], 5.0, 1.0])
    places = {"truth": own.store.masks(rows).astype(np.uint8)}
    places |= {model: np.asarray(runs[0].probabilities).astype(np.float32) for model, runs in own.runs.items()}
    for what, content in places.items():
        (folder / what).mkdir(parents=True)
        for number, patient in enumerate(dict.fromkeys(patients)):
            image = nib.Nifti2Image(content[patients == patient].transpose(2, 1, 0), affine)
            image = nib.as_closest_canonical(image) if what == "unet" and number % 2 else image
            nib.save(image, folder / what / f"{patient}{'_pred' * (what == 'unet')}.nii.gz")
    return {model: folder / model for model in own.runs}


def rows_of(path):
    """A table without what is of the threshold predictor, whose band is another."""
    table = pd.read_csv(path).drop(columns=[baselines.THRESHOLD], errors="ignore")
    for column in ("series", "label"):
        if column in table:
            table = table[~table[column].isin([baselines.THRESHOLD])].replace(
                {"series": {MODELS[m]: m for m in MODELS}}
            )
    return table.reset_index(drop=True)


@pytest.mark.parametrize("kind", ["pictures", "nifti"])
def test_masks_of_the_study_s_own_networks_get_the_study_s_numbers(own, published, tmp_path, kind):
    if kind == "pictures":
        places, more = own_masks.export(own, tmp_path), {"images": tmp_path / "images"}
        more["patients"] = tmp_path / "patients.csv"
    else:
        places, more = as_nifti(own, tmp_path), {}
    competitors = {MODELS[model]: place for model, place in places.items()}
    folders = mask_folders.pair({"truth": tmp_path / "truth"}, competitors, **more)
    judged = judging.judge(folders, ("SAH",), tmp_path / "judged")
    own_masks.write(judged)
    for model in NETWORKS:
        found = pd.read_csv(judged.folder / f"counts_{own_masks.file_name(MODELS[model])}.csv")
        pd.testing.assert_frame_equal(found, own.counts[model][0], check_dtype=False)
    compared = sorted(published.glob("*.csv"))
    assert len(compared) == 9
    for path in compared:
        found, expected = rows_of(judged.folder / path.name), rows_of(path)
        if path.stem == "conventions":
            expected = expected[~expected["printed"]]
        if kind == "nifti":  # without images nothing is known of the head
            expected = expected[expected["region"] != "head"] if "region" in expected else expected
            found, expected = (
                t[~t["Score"].str.startswith("Brier")] if path.stem == "table_clinical" else t
                for t in (found, expected)
            )
        shared = [column for column in expected if not column.endswith(", paper")]
        pd.testing.assert_frame_equal(
            found[shared].reset_index(drop=True),
            expected[shared].reset_index(drop=True),
            rtol=1e-9,
            atol=1e-9,
            obj=path.stem,
        )


def test_what_an_earlier_study_left_in_the_folder_is_gone(own, tmp_path):
    for name in ("truth", "eroded", "unet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "P99_z00.png").write_bytes(b"")
    folders = own_masks.of_the_study(own, tmp_path)
    assert list(folders.cases[0].masks) == ["U-Net", "Attention U-Net", "Eroded truth"]
    eroded = [folders.read(case) for case in folders.cases]
    assert all(read.masks["Eroded truth"].sum() <= read.truths[0].sum() for read in eroded)
    assert any(read.masks["Eroded truth"].any() for read in eroded) and not folders.missing


@pytest.mark.parametrize(("reading", "says"), [
    ({"image": "ct/"}, "unknown entry 'image'"),
    ({"label_map": {1: "SAH"}}, "label_map must be a list"),
    ({"label_map": "1=SAH"}, "label_map must be a list"),
])  # fmt: skip
def test_what_the_notebook_cannot_read_is_said(tmp_path, reading, says):
    with pytest.raises(StudyError, match=says):
        own_masks.given(str(tmp_path), {"net": str(tmp_path)}, reading)
