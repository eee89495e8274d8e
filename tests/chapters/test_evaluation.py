"""Several hemorrhage classes: what is trained, predicted and scored for each."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from helpers.folders import write_paired_folder

from sahlib.chapters import evaluation, figures, results
from sahlib.data import slices, splits
from sahlib.networks import models
from sahlib.scoring import metrics, prediction
from sahlib.study import Study
from sahlib.training import loop, step
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """(study, workspace) of a folder in which every slice also has a dark square of IVH."""
    root = tmp_path_factory.mktemp("several")
    folder = write_paired_folder(root / "paired")
    for path in (folder / "masks").iterdir():
        mask = (cv2.imread(str(path), 0) > 0).astype(np.uint8)
        mask[20:28, 2:10] = 2
        cv2.imwrite(str(path), mask)
        image = cv2.imread(str(folder / "images" / path.name), 0)
        image[20:28, 2:10] = 0
        cv2.imwrite(str(folder / "images" / path.name), image)
    study = Study.of_profile(
        "smoke",
        dataset="paired_folder",
        data_dir=str(folder),
        label_map=("1=SAH", "2=IVH"),
        target="all",
        precision="fp32",
        models=("unet", "attention_unet"),
        epochs=20,
        learning_rate=1e-2,
        prior_bias=True,
        further_recipes=(),
    )
    return study, Workspace(str(root / "output"))


def test_any_hemorrhage_is_the_union_and_moves_the_split(several):
    study, workspace = several
    store = slices.prepare(study, workspace.processed)
    rows = np.arange(len(store))
    union = store.of("SAH").masks(rows) | store.of("IVH").masks(rows)
    any_store = slices.prepare(dataclasses.replace(study, target="any"), workspace.processed)
    np.testing.assert_array_equal(any_store.masks(rows), union)
    assert any_store.lesion_pixels.tolist() == union.sum((1, 2)).tolist()
    assert any_store.digest == store.digest, "the same pixels are stored once"


def test_one_output_per_class_on_the_training_side_and_sah_first(several):
    study, workspace = several
    store, split = results.load_data(study, workspace)
    shares = loop.lesion_shares(store, split, study)
    assert list(shares) == ["SAH", "IVH"]
    train = split.rows(store, "train")
    assert shares["IVH"] == pytest.approx((store.labels[train] == 2).mean())
    assert list(loop.lesion_shares(store, split, dataclasses.replace(study, target="SAH"))) == ["SAH"]
    network = loop.initial_network(study, "unet", 0, shares.values())
    starts = models.output_layer(network).bias.sigmoid().detach()
    np.testing.assert_allclose(starts, list(shares.values()), rtol=1e-5)


def test_the_loss_of_two_classes_is_the_mean_of_each_alone():
    logits, truth = torch.randn(3, 2, 8, 8), (torch.rand(3, 2, 8, 8) < 0.3).float()
    loss = step.paper_loss()
    alone = [loss(logits[:, k : k + 1], truth[:, k : k + 1]) for k in range(2)]
    assert loss(logits, truth).item() == pytest.approx(sum(alone).item() / 2, abs=1e-5)


def test_from_scans_to_a_table_per_class(several):
    study, workspace = several
    loaded = results.load(study, workspace)
    run = loaded.runs["attention_unet"][0]
    rows = loaded.test_rows
    for lesion in ("SAH", "IVH"):
        counts, truth = run.counts_of(lesion), loaded.store.of(lesion).masks(rows)
        expected = metrics.pixel_counts(np.asarray(run.probabilities_of(lesion)) > prediction.THRESHOLD, truth)
        assert counts[["tp", "fp", "fn", "tn"]].to_numpy().tolist() == expected.to_numpy().tolist()
    assert run.counts.equals(run.counts_of("SAH"))
    table = evaluation.class_scores(loaded).set_index(["Class", "Network"])
    assert table.index.get_level_values(0).tolist() == ["SAH", "SAH", "IVH", "IVH"]
    easy = metrics.score(run.counts_of("IVH"), "dice", "pooled")
    assert table.loc[("IVH", "Attention U-Net"), "Dice, pooled"] == pytest.approx(easy) and easy > 0.5
    evaluation.classes(loaded)
    assert figures.classes(loaded) is not None
    assert {"table_classes.md", "classes.png"} <= {path.name for path in loaded.folder.iterdir()}
    assert "every hemorrhage class" in (loaded.folder / "table_classes.md").read_text()


def test_one_class_has_no_overlay_of_its_own(small, tmp_path):
    study, _, _ = small
    loaded = results.load(
        dataclasses.replace(study, models=("unet", "attention_unet"), further_recipes=()), Workspace(str(tmp_path))
    )
    assert figures.classes(loaded) is None and evaluation.classes(loaded)["Class"].unique().tolist() == ["SAH"]


def test_the_split_is_stratified_by_the_lesion_in_question(several):
    """SAH bleeds in every second patient and each side gets some of both; IVH is in all, so no stratum is without."""
    study, workspace = several
    store = slices.prepare(study, workspace.processed)
    with_sah = splits.prepare(store, study).summary(store)
    assert ((with_sah["patients with SAH"] > 0) & (with_sah["patients with SAH"] < with_sah["patients"])).all()
    other = store.of("IVH")
    assert (splits.prepare(other, study).summary(other)["share positive"] == 1).all()
    assert len(list((store.path / "splits").glob("*.csv"))) >= 2, "each lesion has a split of its own"
