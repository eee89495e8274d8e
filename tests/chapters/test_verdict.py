"""The evidence from small trained networks: all of it is made, and every score in it is an independent library's."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from sahlib.chapters import diagnostics, evaluation, results, verdict
from sahlib.paper import rules
from sahlib.scoring import baselines, metrics
from sahlib.study import MODELS, OWN, RECIPES, StudyError
from sahlib.training import rate_search
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def found(small, tmp_path_factory):
    """Results under the three recipes, trained a little longer so that something is predicted."""
    study = dataclasses.replace(
        small[0], epochs=6, prior_bias=True, learning_rate=1e-2, batch_size=8, further_recipes=("prior",)
    )
    return results.load_recipes(study, Workspace(str(tmp_path_factory.mktemp("output"))))


@pytest.fixture(scope="module")
def loaded(found):
    return next(iter(found.values()))


@pytest.fixture(scope="module")
def masks(loaded):
    """Saved predictions as masks bool [k,H,W] of each series, and the truth."""
    rows = loaded.test_rows
    predicted = {model: np.asarray(own[0].probabilities) > 0.5 for model, own in loaded.runs.items()}
    predicted[baselines.BACKGROUND] = np.zeros((len(rows), 32, 32), bool)
    predicted[baselines.THRESHOLD] = baselines.band_masks(loaded.store.images[rows], loaded.band)
    return predicted, loaded.store.masks(rows)


def sklearn_score(metric, prediction, truth, zero):
    from sklearn import metrics as sk

    if metric == "iou" and np.isnan(zero) and not (prediction.any() or truth.any()):
        return np.nan  # jaccard_score alone does not take NaN for zero_division
    zero = 0.0 if metric == "iou" and np.isnan(zero) else zero
    functions = {"iou": sk.jaccard_score, "precision": sk.precision_score, "recall": sk.recall_score}
    return (functions | dict.fromkeys(("dice", "f1"), sk.f1_score))[metric](
        truth.ravel(), prediction.ravel(), zero_division=zero
    )


def by_library(metric, convention, prediction, truth, batch_size, patients):
    """A score from the saved masks by MONAI where it has the convention, else by scikit-learn unit by unit."""
    p, t = (torch.from_numpy(m[:, None]).float() for m in (prediction, truth))
    if convention in ("mean_empty_1", "sah_slices") and metric in ("dice", "iou"):
        from monai.metrics import DiceMetric, MeanIoU

        score = (DiceMetric if metric == "dice" else MeanIoU)(ignore_empty=convention == "sah_slices", reduction="mean")
        score(p, t)
        return float(score.aggregate())
    if convention == "pooled":
        return sklearn_score(metric, prediction, truth, 0)
    zero = {"mean_empty_1": 1.0, "mean_empty_0": 0.0, "sah_slices": 0.0, "batches": 0.0}.get(convention, np.nan)
    if convention == "batches":
        units = [slice(i, i + batch_size) for i in range(0, len(truth), batch_size)]
    elif convention == "per_patient":
        units = [patients == name for name in dict.fromkeys(patients)]
    else:
        chosen = np.flatnonzero(truth.any((1, 2))) if convention == "sah_slices" else range(len(truth))
        units = [slice(i, i + 1) for i in chosen]
    scores = [sklearn_score(metric, prediction[unit], truth[unit], zero) for unit in units]
    return float(np.nanmean(scores)) if not np.isnan(scores).all() else float("nan")


def test_every_score_under_every_convention_is_another_library_s(loaded, masks):
    verdict.conventions(loaded)
    table = pd.read_csv(loaded.folder / "conventions.csv")
    predicted, truth = masks
    patients = loaded.counts["unet"][0]["patient_id"].to_numpy()
    checked = 0
    for row in table[~table["printed"] & (table["convention"] != verdict.SOFT)].itertuples():
        expected = by_library(row.metric, row.convention, predicted[row.series], truth, 8, patients)
        assert row.value == pytest.approx(expected, abs=1e-6, nan_ok=True), (row.series, row.convention, row.metric)
        checked += 1
    assert checked == len(predicted) * len(metrics.CONVENTIONS) * len(metrics.METRICS)


def test_table_3_is_another_library_s(loaded, masks):
    evaluation.table_3(loaded)
    table = pd.read_csv(loaded.folder / "table_3.csv")
    predicted, truth = masks
    names = {metrics.LABELS[key]: key for key in metrics.METRICS}
    for series in predicted:
        heading = next(c for c in table if c.split(" (collapsed")[0] == MODELS.get(series, series))
        for row in table.to_dict("records"):
            metric = names[row["Metric"]]
            convention = (
                "sah_slices" if "SAH" in row["Slices"] else "mean_empty_1" if metric in ("dice", "iou") else "batches"
            )
            expected = by_library(metric, convention, predicted[series], truth, 8, None)
            assert row[heading] == pytest.approx(expected, abs=1e-6), (series, metric, convention)


def test_soft_dice_is_monai_s_loss(loaded, masks):
    from monai.losses import DiceLoss

    verdict.conventions(loaded)
    table = pd.read_csv(loaded.folder / "conventions.csv")
    truth = torch.from_numpy(masks[1][:, None]).double()
    for model, own in loaded.runs.items():
        p = torch.from_numpy(np.asarray(own[0].probabilities, np.float64)[:, None])
        loss = DiceLoss(batch=True, smooth_nr=0, smooth_dr=0)(p, truth)
        value = table[(table["series"] == model) & (table["convention"] == verdict.SOFT)]["value"].iloc[0]
        assert value == pytest.approx(1 - float(loss), abs=1e-9)


@pytest.mark.parametrize(
    ("make", "stem"),
    [
        (verdict.conventions, "conventions"),
        (verdict.printed_numbers, "printed_numbers"),
        (verdict.lesion_size, "lesion_size"),
        (diagnostics.gate_maps, "gate_maps"),
        (diagnostics.bland_altman, "bland_altman"),
        (diagnostics.reliability, "reliability"),
    ],
)
def test_each_figure_is_saved_with_data_and_caption(loaded, make, stem):
    make(loaded)
    assert {".png", ".svg", ".csv", ".txt"} <= {path.suffix for path in loaded.folder.glob(f"{stem}.*")}


@pytest.mark.parametrize(
    ("make", "stem"),
    [
        (diagnostics.networks, "table_networks"),
        (verdict.scores, "table_intervals"),
        (verdict.contrasts, "table_differences"),
        (diagnostics.gate_weights, "table_gates"),
        (diagnostics.clinical_scores, "table_clinical"),
    ],
)
def test_each_table_is_saved_in_three_forms(loaded, make, stem):
    make(loaded)
    assert {path.suffix for path in loaded.folder.glob(f"{stem}.*")} == {".csv", ".md", ".tex"}


def test_trivial_predictors_stand_in_every_table_of_scores(found, loaded):
    tables = [
        verdict.scores(loaded),
        verdict.decision(found),
        diagnostics.clinical_scores(loaded),
        evaluation.table_3(loaded),
    ]
    tables += [evaluation.table_1(loaded), evaluation.table_2(loaded)]
    for table in tables:
        headings = " ".join(table.columns)
        assert baselines.BACKGROUND in headings and baselines.THRESHOLD in headings


def test_recipes_are_compared_and_say_what_they_left_out(found):
    assert list(found) == [OWN, "prior"]
    table = verdict.decision(found)
    assert table["Recipe"].tolist() == ["the study's own", RECIPES["prior"]] * 2
    first = next(iter(found.values()))
    written = first.folder / "table_decision.md"
    left_out = (
        "Left out in this profile: the paper's recipe, + chosen learning rate; the learning rate was not searched."
    )
    assert left_out in written.read_text()
    search = pd.DataFrame({"learning_rate": [1e-3, 1e-2], "chosen": [False, True]})
    searched = dataclasses.replace(first, searches=dict.fromkeys(first.counts, search))
    both = {"fair": dataclasses.replace(searched, recipe="fair"), "prior": found["prior"]}
    assert verdict.decision(both)["Recipe"][0] == RECIPES["fair"]
    assert "Left out in this profile: the paper's recipe." in written.read_text()


def test_there_is_a_ledger_for_each_recipe_and_the_fairest_one_leads(found, loaded):
    assert results.fairest(found) is loaded and loaded.recipe == OWN
    table = verdict.claims(found)
    assert (
        len(table)
        == len(pd.read_csv(loaded.folder / "ledger.csv"))
        == len(pd.read_csv(loaded.folder / "ledger_prior.csv"))
    )
    assert f"recipe {OWN}" in (loaded.folder / "ledger.txt").read_text()
    assert "recipe prior" in (loaded.folder / "ledger_prior.txt").read_text()


def test_travels_trains_at_the_rates_chosen_for_fair_and_leads_no_ledger(travelling, tmp_path):
    fields = {"augmentation": "paper", "epochs": 1, "models": ("unet", "attention_unet")}
    study = dataclasses.replace(travelling[0], **fields, further_recipes=("travels",))
    workspace = Workspace(str(tmp_path))
    found = results.load_recipes(study, workspace)
    assert list(found) == ["paper", "travels"] and results.fairest(found) is found["paper"]
    travels = found["travels"]
    assert travels.recipe == "travels" and travels.study.augmentation == "travels"
    for model, (run,) in travels.runs.items():
        assert run.record["recipe"]["learning_rate"] == rate_search.chosen_rate(travels.searches[model])
        assert run.record["recipe"]["augmentation"] == "travels" and run.record["recipe"]["prior_bias"]
    recipes = [json.loads(path.read_text())["recipe"] for path in workspace.runs.glob("*/*/*/run.json")]
    assert sum(recipe["augmentation"] == "paper" for recipe in recipes) == 2 + 2 * len(study.learning_rates)
    assert len(recipes) == 2 + 2 * len(study.learning_rates) + 2
    searched = results.load_recipes(dataclasses.replace(study, further_recipes=("fair", "travels")), workspace)
    assert results.fairest(searched) is searched["fair"] and searched["travels"].runs == travels.runs
    assert len(list(workspace.runs.glob("*/*/*/run.json"))) == len(recipes)  # all were found
    assert f"{RECIPES['travels']}" in verdict.decision(found)["Recipe"].tolist()
    assert "travels" not in (travels.folder / "table_decision.md").read_text().partition("Left out")[2]


def test_own_settings_never_stand_for_a_rate_that_was_searched(small, tmp_path):
    """prior_bias with a rate of one's own was once called fair, and the searched one's results took its place."""
    fields = {"prior_bias": True, "learning_rate": 3e-4, "epochs": 1, "models": ("unet", "attention_unet")}
    study = dataclasses.replace(small[0], **fields, further_recipes=("fair",))
    found = results.load_recipes(study, Workspace(str(tmp_path)))
    assert list(found) == [OWN, "fair"]
    assert {run.record["recipe"]["learning_rate"] for (run,) in found[OWN].runs.values()} == {3e-4}
    assert {run.record["recipe"]["learning_rate"] for (run,) in found["fair"].runs.values()} <= set(
        study.learning_rates
    )
    assert results.load(study, Workspace(str(tmp_path))).recipe == "fair"


def test_differences_are_of_the_paper_s_network_where_it_was_trained_and_in_steps_from_monai_s():
    steps = [("unet", "unet_free_output"), ("unet_free_output", rules.OPEN), (rules.OPEN, "attention_unet")]
    further = [("unet_resnet34", "swin_unetr"), ("attention_unet", "swin_unetr")]
    first = [("unet_resnet34", "attention_unet"), ("unet", "attention_unet")]
    assert results.compared(MODELS) == [*first, *steps, *further]
    own = results.compared(["unet", "attention_unet", "nets:build"])
    assert own == [("unet", "attention_unet"), ("unet", "nets:build"), ("attention_unet", "nets:build")]


def test_what_cannot_travel_is_refused_before_anything_is_trained(small, tmp_path):
    study = dataclasses.replace(small[0], further_recipes=("travels",))
    with pytest.raises(StudyError, match="grey_window"):
        results.load_data(study, Workspace(str(tmp_path)))


def test_a_chosen_learning_rate_is_named(loaded):
    search = pd.DataFrame({"learning_rate": [1e-3, 1e-2], "chosen": [False, True]})
    searched = dataclasses.replace(loaded, searches={"unet": search})
    assert "a learning rate per network" in searched.notes[0]
    said = "U-Net was trained at 0.01, chosen on validation patients among 0.001, 0.01"
    assert searched.notes[1] == f"{said}, which is the edge: a rate beyond it may be better."
    middle = pd.DataFrame({"learning_rate": [1e-3, 1e-4, 1e-2], "chosen": [True, False, False]})
    inside = dataclasses.replace(loaded, searches={"unet": middle}).notes[1]
    assert inside == "U-Net was trained at 0.001, chosen on validation patients among 0.0001, 0.001, 0.01."
    assert loaded.notes[1].startswith("Prior bias")


def test_the_summary_takes_its_numbers_from_the_counts(found, loaded):
    words = verdict.summary(found, verdict.claims(found))
    trivial = metrics.score(loaded.trivial[baselines.BACKGROUND], "dice", "mean_empty_1")
    assert f"background scores Dice {trivial:.3f}" in words and "One training of each" in words
    assert (loaded.folder / "verdict.md").read_text() == words
