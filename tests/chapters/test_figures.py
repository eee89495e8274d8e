"""Every figure and table from small trained networks, and the rules by which samples are chosen."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from sahlib.chapters import diagnostics, evaluation, figures, published, results
from sahlib.data import samples
from sahlib.scoring import metrics
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def loaded(small, tmp_path_factory):
    study = dataclasses.replace(small[0], models=("unet", "attention_unet"), further_recipes=())
    return results.load(study, Workspace(str(tmp_path_factory.mktemp("output"))))


FIGURES = [getattr(figures, f"figure_{number}") for number in range(1, 10)]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_each_figure_is_saved_with_its_data_and_caption(loaded, figure):
    figure(loaded)
    saved = sorted(loaded.folder.glob(f"{figure.__name__}_*"))
    assert [path.suffix for path in saved] == [".csv", ".png", ".svg", ".txt"]
    assert all(path.stat().st_size > 0 for path in saved)
    caption = saved[-1].read_text()
    assert caption.startswith(f"Figure {figure.__name__[-1]}. ") and "Profile smoke, dataset paired_folder" in caption
    before = saved[1].read_bytes()
    figure(loaded)
    assert saved[1].read_bytes() == before


def test_tables_hold_the_scores_of_the_saved_counts(loaded):
    evaluation.table_3(loaded)
    table = pd.read_csv(loaded.folder / "table_3.csv")
    own = [column for column in table if column.startswith("Attention U-Net") and "paper" not in column]
    counts = pd.read_csv(loaded.runs["attention_unet"][0].path / "counts.csv")
    assert table.loc[0, own[0]] == pytest.approx(metrics.score(counts, "dice", "mean_empty_1"))
    for number, table in ((1, evaluation.table_1(loaded)), (2, evaluation.table_2(loaded))):
        assert len(table) == 6
        text = (loaded.folder / f"table_{number}.md").read_text()
        assert "Prior bias initialisation off" in text and "by rule, not by result" in text


def test_one_sample_is_told_as_one(loaded, tmp_path, monkeypatch):
    three = samples.three_test_slices
    monkeypatch.setattr(samples, "three_test_slices", lambda *of: three(*of)[:1])
    alone = dataclasses.replace(loaded, folder=tmp_path)
    evaluation.table_1(alone), figures.figure_7(alone), diagnostics.gate_maps(alone)
    for name in ("table_1.md", "figure_7_comparison.txt", "gate_maps.txt"):
        assert re.search("n 1 test slice,|of 1 test slice,", (tmp_path / name).read_text()), name


def test_the_record_leads_back_to_runs_and_slices(loaded):
    published.record(loaded)
    record = json.loads((loaded.folder / "run.json").read_text())
    assert record["store"]["digest"] == loaded.store.digest and record["split"]["digest"] == loaded.split.digest
    assert [run["digest"] for own in record["runs"].values() for run in own] == [
        run.record["digest"] for own in loaded.runs.values() for run in own
    ]
    assert "data_dir" not in json.dumps(record)


def test_a_collapsed_network_is_called_so_in_every_place(loaded, tmp_path):
    silent = loaded.counts["unet"][0].assign(tp=0, fp=0)
    silent["fn"] = silent["lesion_pixels"]
    silent["tn"] = 32 * 32 - silent["fn"]
    collapsed = dataclasses.replace(loaded, counts={**loaded.counts, "unet": [silent]}, folder=tmp_path)
    words = "U-Net (collapsed: every pixel background)"
    assert words in evaluation.summary(collapsed)
    (
        evaluation.table_1(collapsed),
        evaluation.table_3(collapsed),
        figures.figure_5(collapsed),
        figures.figure_9(collapsed),
    )
    for name in ("table_1.md", "table_3.md", "table_3.tex", "figure_5_training_unet.txt", "figure_9_scores.csv"):
        text = (tmp_path / name).read_text()
        assert "collapsed:" in text and "every pixel background" in text, name
    assert published.record(collapsed)["collapsed"]["unet"] == [True]


def test_samples_by_hand(small):
    """Largest, median and smallest of the largest lesions of the bleeding test patients, worked out the long way."""
    _, store, split = small
    table = store.slices.assign(row=range(len(store)), side=store.slices.patient_id.map(split.sides))
    test = table[(table.side == "test") & (table.pixels_SAH > 0)]
    largest = test.loc[test.groupby("patient_id")["pixels_SAH"].idxmax()].sort_values("pixels_SAH", ascending=False)
    expected = largest["row"].to_list()
    assert samples.three_test_slices(store, split).tolist() == expected[:3]
    spread = samples.spread_of_test_slices(store, split)
    assert set(spread) == set(test["row"]) and (np.diff(store.slices.pixels_SAH.iloc[spread]) <= 0).all()
    train = table[(table.side == "train") & (table.pixels_SAH > 0)].sort_values("pixels_SAH")
    middle = samples.typical_training_slice(store, split)
    assert abs((train.pixels_SAH < store.slices.pixels_SAH[middle]).sum() - len(train) / 2) <= 1


def test_predicted_masks_are_those_of_the_rows_asked_for(loaded):
    rows = loaded.split.rows(loaded.store, "test")[[2, 0]]
    probabilities = loaded.runs["unet"][0].probabilities
    np.testing.assert_array_equal(loaded.predicted("unet", rows, "SAH"), np.asarray(probabilities[[2, 0]]) > 0.5)


def test_the_paper_s_own_recipe_is_shown_beside_the_one_that_judges(small, tmp_path):
    study = dataclasses.replace(small[0], models=("unet", "attention_unet"), epochs=1, learning_rates=(1e-2,))
    recipes = results.load_recipes(study, Workspace(str(tmp_path)))
    loaded = results.fairest(recipes)
    evaluation.table_3(loaded), figures.figure_7(loaded)
    assert [table.columns.name for table in evaluation.table_3_of_others(recipes)] == ["recipe paper", "recipe prior"]
    for stem, recipe in (("table_3.md", "fair"), ("figure_7_comparison.txt", "fair"), ("table_3_paper.md", "paper")):
        assert f"recipe {recipe}." in (loaded.folder / stem).read_text(), stem
