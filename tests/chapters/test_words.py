"""What the chapters say in words: worked out by hand, and nothing claimed that the data do not carry."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sahlib.chapters import data_exploration, preprocessing, train_attention_unet, train_unet, verdict
from sahlib.data.scan import Scan


def a_scan(values, labels, spacing=10.0):
    image, marked = (np.array(side, dtype).reshape(1, 2, 2) for side, dtype in ((values, "int16"), (labels, "uint8")))
    return Scan("p", image, marked, ("p_0",), "HU", (spacing, spacing), 10.0)


def a_run(dice, loss=(1.0, 0.5, 0.2)):
    epochs = np.arange(1, len(loss) + 1)
    history = pd.DataFrame({"epoch": epochs, "train_loss": loss, "validation_loss": loss, "validation_dice": dice})
    history = history.assign(seconds=2.0, best=epochs == 1 + int(np.argmax(dice)))
    record = {"provenance": {"device": "this one"}, "parameters": 12345, "digest": "abc"}
    record["recipe"] = {"learning_rate": 1e-3}
    return SimpleNamespace(history=history, record=record, model="unet", seed=0)


def test_scans_are_measured_voxel_by_voxel():
    """One voxel is 10 x 10 x 10 mm, 1 mL."""
    table = data_exploration.describe([a_scan([30, 30, 60, 60], [0, 0, 1, 1]), a_scan([30, 30, 30, 60], [0, 0, 0, 2])])
    assert table["SAH mL"].tolist() == [2.0, 0.0] and table["IVH slices"].tolist() == [0, 1]
    assert "IPH mL" not in table


def test_how_many_voxels_of_blood_s_values_are_blood():
    hidden = data_exploration.threshold_in_words([a_scan([60, 60, 60, 60], [1, 0, 0, 0])])
    assert "from 60 to 60 HU" in hidden and "25.0 % are SAH" in hidden
    assert "No scan here shows SAH" in data_exploration.threshold_in_words([a_scan([1] * 4, [0] * 4)])


def test_slices_and_sides_are_those_of_the_store(small):
    _, store, split = small
    share = (store.lesion_pixels > 0).mean()
    assert f"{100 * share:.0f} % of the 36 slices show SAH" in preprocessing.rarity_in_words(store)
    test = split.summary(store).loc["test"]
    words = preprocessing.split_in_words(store, split)
    assert f"{test['patients with SAH']:.0f} of {test['patients']:.0f} test patients" in words
    assert "can reach 5 %" in words


def test_a_collapsed_training_is_called_so():
    runs = {"unet": [a_run([0.1, 0.4, 0.3], (1.0, 0.2, 0.6)), a_run([0.0, 0.0, 0.0])]}
    table = train_unet.table(runs)
    assert table["Validation Dice"].tolist() == ["0.400", "collapsed"] and table["Epoch kept"].tolist() == [2, 1]
    assert table["Settled by epoch"].tolist() == ["2", "3"]
    good, silent = train_unet.in_words(runs).splitlines()
    assert "0.400 in epoch 2, loss there 0.200" in good and "COLLAPSED" not in good and "COLLAPSED" in silent


def test_one_epoch_and_a_loss_that_is_not_finite_are_no_curve():
    assert not train_unet.is_curve(a_run([0.1], (1.0,)).history)
    assert not train_unet.is_curve(a_run([0.1, 0.1], (1.0, np.nan)).history)
    assert train_unet.table({"unet": [a_run([0.1], (1.0,))]})["Settled by epoch"].tolist() == ["–"]


@pytest.mark.parametrize(
    ("slow", "seeds", "words"),
    [
        (True, 1, "which one settles first is chance"),
        (True, 3, "took more epochs than U-Net in any"),
        (False, 3, "The seeds of the two overlap"),
    ],
)
def test_attention_is_called_slower_only_by_enough_seeds(slow, seeds, words):
    fast, other = a_run([0.1] * 3, (1.0, 0.5, 0.5)), a_run([0.1] * 3, (1.0, 0.8, 0.5) if slow else (1.0, 0.5, 0.5))
    assert words in train_attention_unet.pace_in_words({"unet": [fast] * seeds, "attention_unet": [other] * seeds})


def test_what_moves_a_score_more_is_taken_from_the_table(tmp_path):
    """Dice 0.2 and 0.8 of one network, 0.3 and 0.7 of the other: 0.6 by convention, 0.1 by network. Soft Dice is of
    probabilities, so it is not another value of the same masks."""
    rows = [("unet", "a", 0.2), ("unet", "b", 0.8), ("attention_unet", "a", 0.3), ("attention_unet", "b", 0.7)]
    rows += [("unet", verdict.SOFT, 0.1), ("attention_unet", verdict.SOFT, 0.9)]
    table = pd.DataFrame(rows, columns=["series", "convention", "value"]).assign(metric="dice", printed=False)
    table = table.assign(label=table["series"], convention_label=table["convention"])
    table.to_csv(tmp_path / "conventions.csv", index=False)
    results = SimpleNamespace(folder=tmp_path, counts={"unet": [], "attention_unet": []})
    words = verdict.conventions_in_words(results)
    assert "0.200 (a) or 0.800 (b), 0.600 apart" in words and "at most 0.100 apart" in words


def test_one_recipe_is_said_to_be_one():
    assert "One recipe was run" in verdict.decision_in_words({"fair": None})
