"""Sentences under pictures: their numbers worked out by hand, and nothing claimed that the data do not carry."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sahlib.chapters import evidence_findings, findings, publish, results, score_findings, verdict
from sahlib.data.sources import Scan
from sahlib.figures import drawing
from sahlib.scoring import baselines, metrics
from sahlib.workspace import Workspace

NO_BREAK = "\N{NO-BREAK SPACE}"


def plain(text):
    return text.replace(NO_BREAK, " ")


def a_scan(values, labels, spacing=10.0):
    image, marked = (np.array(side, dtype).reshape(1, 2, 2) for side, dtype in ((values, "int16"), (labels, "uint8")))
    return Scan("p", image, marked, ("p_0",), "HU", (spacing, spacing), 10.0)


def counts(rows):
    """tp, fp, fn of each slice of 100 pixels, two slices to a patient."""
    table = pd.DataFrame(rows, columns=["tp", "fp", "fn"])
    table["tn"] = 100 - table.sum(axis=1)
    table.insert(0, "slice_id", [f"s{i}" for i in range(len(table))])
    table.insert(1, "patient_id", [f"p{i // 2}" for i in range(len(table))])
    return table.assign(lesion_pixels=table.tp + table.fn)


def some_results(by_model, folder=None, seeds=1):
    first = next(iter(by_model.values()))[0]
    threshold = first.assign(tp=0, fp=10, fn=first.lesion_pixels, tn=90 - first.lesion_pixels)
    trivial = {baselines.BACKGROUND: metrics.background_everywhere(first), baselines.THRESHOLD: threshold}
    study = SimpleNamespace(seeds=tuple(range(seeds)))
    return SimpleNamespace(counts=by_model, trivial=trivial, folder=folder, study=study, store=a_store())


def a_store(lesion="SAH"):
    return SimpleNamespace(lesion=lesion)


def a_run(dice, loss=(1.0, 0.5, 0.2), device="this one"):
    epochs = np.arange(1, len(loss) + 1)
    history = pd.DataFrame({"epoch": epochs, "train_loss": loss, "validation_loss": loss, "validation_dice": dice})
    history = history.assign(seconds=2.0, best=epochs == 1 + int(np.argmax(dice)))
    return SimpleNamespace(history=history, record={"provenance": {"device": device}})


def test_words():
    assert (
        findings.listed(["a"]) == "a" and findings.listed(["a", "b", "c"]) == "a, b and c" and not findings.listed([])
    )
    assert findings.span([0.5, 0.5]) == "0.500" and findings.span([2, 1], ".0f", " mL") == "1 to 2 mL"
    assert findings.counted(1, "slice") == "1 slice" and findings.counted(1200, "slice") == "1,200 slices"
    assert findings.shown("a.", "") == "**What it shows.** a."
    assert findings.shown(items=["only one."]) == "**What it shows.** only one."
    assert findings.shown(items=["a", "b"]).splitlines() == ["**What it shows.**", "", "- a", "- b"]


def test_scans_by_hand():
    """One voxel is 10 x 10 x 10 mm, 1 mL."""
    text = findings.scans([a_scan([30, 30, 60, 60], [0, 0, 1, 1]), a_scan([30, 30, 30, 60], [0, 0, 0, 2])])
    assert "Of 2 scans, 2 show blood: SAH in 1 and IVH in 1." in text and "it measures 2.0 mL" in text
    assert "measures" not in findings.scans([a_scan([1] * 4, [1] * 4, spacing=np.nan)])
    assert findings.scans([a_scan([1] * 4, [0] * 4)]).endswith("Of 1 scan, 0 show blood.")


def test_a_threshold_is_called_good_only_where_it_is():
    hidden = plain(findings.threshold([a_scan([60, 60, 60, 60], [1, 0, 0, 0])]))
    assert "25.0 % are SAH: what tells it from the rest" in hidden
    assert "100 % are SAH: in these scans a threshold" in plain(
        findings.threshold([a_scan([30, 30, 60, 60], [0, 0, 1, 1])])
    )
    assert "No scan here shows SAH" in findings.threshold([a_scan([1] * 4, [0] * 4)])


def test_slices_and_sides_are_those_of_the_store(small):
    _, store, sides = small
    share = (store.lesion_pixels > 0).mean()
    assert f"{share:.0%}".replace("%", " %") in plain(findings.slices(store))
    text = findings.split(store, sides)
    test = sides.summary(store).loc["test"]
    assert f"{test['patients with SAH']:.0f} of {test['patients']:.0f} patients" in text and "can reach 5 %" in text
    area = 100 * store.lesion_pixels.to_numpy()[sides.rows(store, "test")] / 32**2
    assert f"to {area.max():.2f} %" in plain(findings.areas(store, sides))


def test_a_training_is_told_by_its_end():
    text = plain(findings.training({"unet": [a_run([0.1, 0.4, 0.3], (1.0, 0.2, 0.6))]}))
    assert (
        "U-Net: best validation Dice 0.400, in epoch 2 of 3; the validation loss ended above its lowest, by 50 %"
        in text
    )
    assert "still fell by 50 %" in plain(findings.training({"unet": [a_run([0.1, 0.2, 0.3], (1.0, 0.5, 0.0))]}))
    assert "had settled" in findings.training({"unet": [a_run([0.1, 0.2, 0.3], (1.0, 0.5, 0.5))]})
    assert "trains none" in findings.training({})


def test_a_collapsed_training_is_called_so_seed_by_seed():
    text = findings.training({"unet": [a_run([0.0, 0.0, 0.0]), a_run([0.1, 0.2, 0.3])]})
    assert "0.000 to 0.300 over 2 seeds" in text and "**Collapsed in 1 of 2 seeds**" in text
    assert "**Collapsed**" in findings.training({"unet": [a_run([0.0, 0.0, 0.0])]})


@pytest.mark.parametrize(
    ("slow", "seeds", "words"),
    [
        (True, 1, "chance as much as anything"),
        (True, 3, "took more epochs than U-Net in any"),
        (False, 3, "The seeds of the two overlap"),
    ],
)
def test_attention_is_called_slower_only_by_enough_seeds(slow, seeds, words):
    fast, other = a_run([0.1] * 3, (1.0, 0.5, 0.5)), a_run([0.1] * 3, (1.0, 0.8, 0.5) if slow else (1.0, 0.5, 0.5))
    text = plain(findings.pace({"unet": [fast] * seeds, "attention_unet": [other] * seeds}))
    assert words in text and f"by epoch 2 (U-Net) and {3 if slow else 2} (Attention U-Net)" in text
    assert "2.0 s (U-Net)" in text


def test_times_of_different_machines_are_not_compared():
    runs = {"unet": [a_run([0.1] * 3)], "attention_unet": [a_run([0.1] * 3, device="another")]}
    assert "An epoch took" not in findings.pace(runs)
    assert "no curve" in findings.pace({"unet": [a_run([0.1], (1.0,))]})


def test_detections_by_hand():
    own = counts([(5, 0, 5), (0, 2, 4), (0, 3, 0), (0, 0, 0)])
    text = plain(score_findings.detections(some_results({"unet": [own]})))
    assert "in 50 % of the 2 slices that show one and something in 50 % of the 2 slices that do not" in text
    only = plain(score_findings.detections(some_results({"unet": [own.iloc[:2]]})))
    assert "that do not" not in only and "nan" not in only


def test_averages_by_hand():
    """Dice over slices: U-Net (1 + 1 + 0 + 1) / 4, the silent one (0 + 1 + 1 + 1) / 4 as finding nothing gets."""
    good = counts([(4, 0, 0), (0, 0, 0), (0, 1, 0), (0, 0, 0)])
    silent = counts([(0, 0, 4), (0, 0, 0), (0, 0, 0), (0, 0, 0)])
    text = score_findings.averages(some_results({"unet": [good], "attention_unet": [silent]}))
    assert "none of 2 networks gets a higher Dice than calling every pixel background, which gets 0.750" in text
    assert "the networks 0.000 to 1.000" in text and "at most 1.000 apart" in text


def test_a_collapsed_network_is_named_under_the_intervals():
    silent = counts([(0, 0, 4), (0, 0, 0), (0, 0, 3)])
    text = evidence_findings.intervals(some_results({"unet": [silent]}))
    assert "rest on 2 patients, so they cover less than they say" in text
    assert "U-Net called every pixel background in at least one seed" in text


def test_gates_are_counted_by_what_their_intervals_say(tmp_path):
    table = pd.DataFrame({"Seed": "0", "Lesion against rest": ["higher", "lower", "not told apart", "not told apart"]})
    table.to_csv(tmp_path / "table_gates.csv", index=False)
    text = evidence_findings.gates(some_results({"unet": [counts([(1, 0, 0)])]}, tmp_path))
    assert (
        "Of the 4 gates, 1 weighs the lesion more" in text and "2 cannot be told" in text and "over 1 patient." in text
    )


def test_volumes_that_are_not_known_are_not_made_up(tmp_path):
    table = pd.DataFrame({"series": ["unet"], "label": ["U-Net"], "patient_id": ["1"], "difference_ml": [np.nan]})
    table.to_csv(tmp_path / "bland_altman.csv", index=False)
    assert "not known" in evidence_findings.volume(SimpleNamespace(folder=tmp_path))
    known = table.assign(difference_ml=1.5, bias_ml=1.5, lower_ml=np.nan, upper_ml=np.nan, truth_ml=4.0)
    known.to_csv(tmp_path / "bland_altman.csv", index=False)
    text = evidence_findings.volume(SimpleNamespace(folder=tmp_path))
    assert "+1.5 mL on average over 1 patient." in text and "limits" not in text


def test_the_ledger_is_counted():
    claims = pd.DataFrame(
        {
            "kind": ["test set", "test set", "control", "contradiction"],
            "verdict": ["cannot be told", "holds", "cannot be told", "contradicts itself"],
            "reason": ["too few patients; one seed", "", "too few patients", ""],
        }
    )
    text = evidence_findings.ledger(claims)
    assert "Of 3 claims and controls, 1 hold and 2 cannot be told." in text and "too few patients (2 times)" in text


def test_differences_are_named_where_they_are_told_apart():
    table = pd.DataFrame(
        {
            "Difference": ["A minus B"] * 2,
            "Score": "Dice",
            "Convention": ["pooled", "slices"],
            "Told apart": ["yes", "no"],
        }
    )
    text = evidence_findings.differences(table, some_results({"unet": [counts([(1, 0, 0)])]}))
    assert "1 of 2 differences is told apart" in text and "A minus B (Dice, pooled)" in text and "1 seed" in text
    none = evidence_findings.differences(table.iloc[1:], some_results({"unet": [counts([(1, 0, 0)])]}))
    assert "None of 1 differences" in none and "seed" not in none


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """Results of all classes in two seeds; at this rate something is predicted."""
    study = dataclasses.replace(small[0], models=("unet", "attention_unet"), seeds=(0, 1), target="all")
    return results.load(study, Workspace(str(tmp_path_factory.mktemp("findings"))))


def test_sentences_on_several_seeds_come_from_their_counts(trained):
    verdict.conventions(trained), publish.figure_9(trained)
    trivial = metrics.score(trained.trivial[baselines.BACKGROUND], "dice", "mean_empty_1")
    assert f"background, which gets {trivial:.3f}" in score_findings.averages(trained)
    assert "Means over 2 seeds." in score_findings.detections(trained)
    assert f"earns Dice {trivial:.3f}" in score_findings.bars(trained)
    table = pd.read_csv(trained.folder / "conventions.csv")
    dice = table[(table.metric == "dice") & ~table.printed & table.series.isin(trained.counts)]
    widest = dice.groupby("series")["value"].agg(np.ptp).max()
    assert f"{widest:.3f} apart" in evidence_findings.conventions(trained)
    for text in (score_findings.examples(trained), score_findings.sizes(trained), score_findings.typical(trained)):
        assert text.startswith("**What it shows.**") and "nan" not in text
    assert f"{trained.runs['unet'][0].record['parameters']:,} weights" in score_findings.architectures(trained)


def test_one_class_and_one_recipe_are_said_to_be_one(trained):
    assert "one class alone: SAH" in score_findings.classes(trained)
    assert "One recipe was run" in evidence_findings.decision({"fair": trained})
    twice = evidence_findings.decision({"fair": trained, "prior": trained})
    assert "moves by up to 0.000 when a network is trained by another recipe" in twice


def test_a_figure_is_shown_with_its_caption_as_alternative_text(tmp_path):
    figure = drawing.slice_and_mask(np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    caption = f"Figure 2. A slice & its mask. {'Which run it is of. ' * 20}"
    drawing.save(figure, tmp_path, "figure_2", pd.DataFrame({"a": [1]}), caption)
    content, metadata = figure._repr_mimebundle_(include=None, exclude=None)
    alt = metadata["image/png"]["alt"]
    assert alt.startswith("Figure 2. A slice & its mask.") and len(alt) < drawing.ALT_LENGTH
    assert (
        'alt="Figure 2. A slice &amp; its mask.' in content["text/html"]
        and content["image/png"] in content["text/html"]
    )


def test_an_alternative_text_is_whole_sentences_and_more_than_a_number():
    long = "Here is what it shows, at a length that no one wants to hear " * 5 + "to the end."
    assert drawing.alternative_text(f"Figure 7. {long} More.") == f"Figure 7. {long}"
    assert drawing.alternative_text("A caption of 0.05 mm. And more.") == "A caption of 0.05 mm. And more."
