"""The sweep's overview: scores are those of `intervals`, rows are told apart, and each odd run is named."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers.fabricated_sweep import PIXELS, begin, begin_sweep, change, counts_of, finish, of_dice

from sahlib.scoring import intervals, metrics
from sahlib.study import StudyError
from sahlib.sweep import overview, run_states
from sahlib.workspace import Workspace


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def only_row(runs):
    rows = overview.table(run_states.gather(runs))
    assert len(rows) == 1
    return rows.iloc[0]


def written(runs):
    return overview.write(Workspace(str(runs.parent))).read_text()


# Scores


def test_mean_over_seeds_by_hand(runs):
    """Three patients of Dice 0.2, 0.6, 1.0 in one seed and 0.4, 0.6, 0.5 in the other; no slice is empty."""
    finish(begin(runs, seed=0), of_dice(0.2, 0.6, 1.0))
    finish(begin(runs, seed=1), of_dice(0.4, 0.6, 0.5))
    row = only_row(runs)
    assert row.dice == pytest.approx((0.6 + 0.5) / 2)
    assert row.seed_scores == pytest.approx((0.6, 0.5))
    assert (row.patients, row.patients_with_lesion, row.runs, row.finished, row.seeds_tested) == (3, 3, 2, 2, 2)
    assert (row.dice_empty_1, row.background_empty_1, row.collapsed) == (pytest.approx(0.55), 0, 0)


def test_empty_slices_are_seen_in_the_second_dice_alone(runs):
    """One slice of two is empty: background everywhere has 0.5, and a network that finds all and no more has 1."""
    perfect = counts_of(["A", "B"]).assign(fp=0, fn=0)
    perfect = perfect.assign(tp=perfect.lesion_pixels, tn=PIXELS - perfect.lesion_pixels)
    finish(begin(runs), perfect)
    row = only_row(runs)
    assert (row.dice, row.dice_empty_1, row.background_empty_1) == (1, 1, 0.5)


def test_the_interval_is_that_of_statistics_over_all_seeds(runs):
    counts = [counts_of(list("ABCDEFGH"), seed) for seed in range(3)]
    for seed, own in enumerate(counts):
        finish(begin(runs, seed=seed), own)
    expected = intervals.interval(counts, "dice", "sah_slices")
    row = only_row(runs)
    assert (row.dice, row.low, row.high) == (expected.estimate, expected.low, expected.high)
    assert row.seed_scores == expected.seed_scores
    assert row.dice_empty_1 == np.mean([metrics.score(own, "dice", "mean_empty_1") for own in counts])
    shown = overview.displayed(overview.table(run_states.gather(runs))).iloc[0]
    assert shown["Dice, slices with lesion"] == intervals.in_words(expected)
    low, high = min(expected.seed_scores), max(expected.seed_scores)
    assert shown["Range over seeds"] == f"{low:.3f} to {high:.3f}"


def test_folds_of_a_seed_are_pooled_in_their_order(runs):
    """Both seeds, though their folders sort otherwise than their folds, are tables of the same slices."""
    parts = {seed: [counts_of([f"{fold}a", f"{fold}b"], seed) for fold in range(3)] for seed in (0, 1)}
    for seed in (0, 1):
        for fold in (2, 0, 1):
            finish(begin(runs, seed=seed, folds=3, fold=fold), parts[seed][fold])
    expected = intervals.interval([pd.concat(own) for own in parts.values()], "dice", "sah_slices")
    row = only_row(runs)
    assert (row.dice, row.low, row.high) == (expected.estimate, expected.low, expected.high)
    assert (row.patients, row.folds, row.folds_tested, row.seeds_tested) == (6, 3, 3, 2)
    assert not [text for text in overview.named(run_states.gather(runs)) if "Left out" in text]


def test_a_seed_without_all_folds_does_not_enter_and_is_named(runs):
    whole = [counts_of([f"{fold}a", f"{fold}b"]) for fold in range(3)]
    for fold in range(3):
        finish(begin(runs, seed=0, folds=3, fold=fold), whole[fold])
    finish(begin(runs, seed=1, folds=3, fold=1), whole[1])
    row = only_row(runs)
    assert row.dice == metrics.score(pd.concat(whole), "dice", "sah_slices")
    assert (row.seeds, row.seeds_tested, row.folds_tested) == (2, 1, 3)
    (sentence,) = overview.named(run_states.gather(runs))
    assert sentence == "Left out of the scores: U-Net, paper, seed 1: 1 of 3 folds are tested, and not 0, 2."


def test_before_any_seed_has_all_folds_there_is_no_score(runs):
    for fold in range(2):
        finish(begin(runs, folds=5, fold=fold), counts_of([f"{fold}a"]))
    row = overview.displayed(overview.table(run_states.gather(runs))).iloc[0]
    assert row["Folds"] == "2 of 5"
    assert row["Seeds"] == "0 of 1"
    assert row["Patients"] == row["Dice, slices with lesion"] == row["Dice, 0/0 = 1"] == ""


def test_seeds_tested_on_other_slices_are_left_out(runs):
    finish(begin(runs, seed=0), counts_of(["A", "B"]))
    finish(begin(runs, seed=1), counts_of(["A", "C"]))
    assert only_row(runs).seeds_tested == 1
    (sentence,) = overview.named(run_states.gather(runs))
    assert "seed 1: it was tested on other slices" in sentence


def test_folds_that_share_a_patient_are_left_out(runs):
    for fold, patients in enumerate((["A", "B"], ["B", "C"])):
        finish(begin(runs, folds=2, fold=fold), counts_of(patients))
    assert only_row(runs).seeds_tested == 0
    (sentence,) = overview.named(run_states.gather(runs))
    assert "test some patients more than once" in sentence


def test_a_copied_folder_does_not_count_twice(runs):
    path = finish(begin(runs), counts_of(["A", "B"]))
    shutil.copytree(path, path.with_name(f"{path.name}-copy"))
    assert only_row(runs).seeds_tested == 0
    (sentence,) = overview.named(run_states.gather(runs))
    assert "test some patients more than once" in sentence


def test_of_several_lesions_the_first_counts(runs):
    path = finish(begin(runs, target="all"), of_dice(0.5, 0.7), lesions=["SAH", "IVH"])
    of_dice(0.0, 0.0).to_csv(path / "counts_IVH.csv", index=False)
    assert only_row(runs).dice == pytest.approx(0.6)


def test_a_test_side_without_a_lesion_has_no_dice_and_says_so(runs):
    counts = counts_of(["A", "B"])
    finish(begin(runs), counts.assign(tn=counts.tn + counts.tp + counts.fn, tp=0, fn=0, lesion_pixels=0))
    assert (
        overview.displayed(overview.table(run_states.gather(runs))).iloc[0]["Dice, slices with lesion"] == "undefined"
    )
    assert "nan" not in written(runs)


# Rows


def test_what_differs_in_more_than_seed_and_fold_is_another_row(runs):
    for changes in ({}, {"seed": 1}, {"prior_bias": True}, {"size": 64}, {"folds": 2}, {"split_seed": 5}):
        finish(begin(runs, **changes))
    for bias in (False, True):
        finish(begin(runs, augmentation="travels", prior_bias=bias))
    finish(begin(runs, "attention_unet"))
    rows = overview.table(run_states.gather(runs))
    assert rows["runs"].tolist().count(2) == 1
    assert rows["runs"].sum() == 9
    labels = list(zip(rows["network"], rows["recipe"], strict=True))
    assert len(set(labels)) == len(labels) == 8  # none looks like another
    assert rows["recipe"].tolist()[-3] == "prior"
    assert set(rows["recipe"][-2:]) == {"own, prior bias False", "own, prior bias True"}
    assert {r for r in rows["recipe"] if "size 64" in r} == {"paper, size 64, single split, split seed 0"}


def test_groups_that_only_a_digest_tells_apart(runs):
    finish(begin(runs))
    second = finish(begin(runs, seed=1))
    recipe = json.loads((second / "run.json").read_text())["recipe"]
    change(second, recipe=recipe | {"store": "0123456789ab"})
    one, other = overview.table(run_states.gather(runs))["recipe"]
    assert one != other and one.startswith("paper, group ") and other.startswith("paper, group ")


def test_the_learning_rate_is_told_where_a_network_has_several(runs):
    for rate in (3e-4, 1e-3):
        finish(begin(runs, prior_bias=True, learning_rate=rate))
    finish(begin(runs, "attention_unet", prior_bias=True, learning_rate=1e-3))
    recipes = overview.displayed(overview.table(run_states.gather(runs)))["Recipe"].tolist()
    assert recipes == ["own, learning rate 0.0003", "own, learning rate 0.001", "own"]


def test_untested_trainings_are_named_once_for_all_folds(runs):
    rates = (1e-4, 3e-4, 1e-3)
    for fold in range(2):
        for rate in rates:
            path = begin(runs, prior_bias=True, learning_rate=rate, learning_rates=rates, folds=2, fold=fold)
            finish(path, counts_of([f"P{fold}"]) if rate == 1e-3 else None)
    (sentence,) = overview.named(run_states.gather(runs))
    assert sentence.startswith("Trained, and not tested yet or only trained to choose a learning rate: ")
    assert sentence.count("U-Net, ") == 2
    assert "U-Net, prior at 0.0001" in sentence and "U-Net, own at 0.0003" in sentence


# States


def test_what_is_not_finished_is_named(runs):
    held = []
    begin(runs, seed=0, held_by=held)
    left = begin(runs, seed=1, epochs=2)
    (left / "begun.json").unlink()
    text = written(runs)
    held[0].release()
    assert "- Training: U-Net, paper, seed 0, in phantom/unet/seed0-" in text
    assert f"- Interrupted: U-Net, in phantom/unet/{left.name}. After 2 epochs" in text


def test_collapsed_is_named_and_counted(runs):
    finish(begin(runs, seed=0), metrics.background_everywhere(counts_of(["A", "B"])))
    finish(begin(runs, seed=1), counts_of(["A", "B"]))
    assert only_row(runs).collapsed == 1
    (sentence,) = overview.named(run_states.gather(runs))
    assert sentence.startswith("Collapsed: U-Net, paper, seed 0, in phantom/unet/seed0-")


# What others wrote, or damaged


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"seed": 0, "recipe": []}', '{"seed": "0", "recipe": {}}'])
def test_a_damaged_record_is_a_failed_run_with_a_way_out(runs, text):
    finish(begin(runs, seed=0), counts_of(["A", "B"]))
    damaged = finish(begin(runs, seed=1), counts_of(["A", "B"]))
    (damaged / "run.json").write_text(text)
    place = f"phantom/unet/{damaged.name}"
    assert f"- Failed: U-Net, in {place}. Its run.json is damaged; delete the folder and run again." in written(runs)
    assert only_row(runs).runs == 1


def test_only_damaged_runs_still_give_an_overview(runs):
    path = begin(runs)
    (path / "begun.json").write_bytes(b"\xff\xfe\x00")
    assert "Its begun.json is damaged" in written(runs)


def test_a_run_with_damaged_counts_has_failed(runs):
    (finish(begin(runs)) / "counts.csv").write_text("")
    assert only_row(runs).states == "1 failed"


def test_a_record_of_another_version(runs):
    """Fields that this version does not know, and records without the Study or without the newer fields."""
    study = json.loads((begin(runs, seed=9) / "begun.json").read_text())["study"]
    shutil.rmtree(runs)
    without = {name: value for name, value in study.items() if name not in ("folds", "fold", "raters")}
    for seed, changes in enumerate(({"study": study | {"optimizer": "adam"}}, {"study": None}, {"study": without})):
        change(finish(begin(runs, seed=seed), counts_of(["A", "B"])), **changes)
    change(finish(begin(runs, seed=3), counts_of(["A", "B"])), lesions=None)
    assert only_row(runs).seeds_tested == 4
    assert "4 of 4" in written(runs)


def test_a_dataset_read_from_disk_and_a_network_from_elsewhere(runs):
    """Their records name no data_dir, without which no Study can be made, and no network that is known here."""
    path = begin(runs)
    record = json.loads((path / "begun.json").read_text())
    change(path, "begun.json", study=record["study"] | {"dataset": "ct_ich"}, model="swin")
    place = runs / "ct_ich" / "swin" / "seed0-abc"
    shutil.move(path, place)
    finish(place, counts_of(["A", "B"]))
    row = only_row(runs)
    assert (row.dataset, row.network) == ("ct_ich", "swin")
    assert "no clinical evidence" not in written(runs)


# What is written


def test_a_workspace_without_runs(runs):
    with pytest.raises(StudyError, match=r"There are no runs in .*; train first"):
        overview.write(Workspace(str(runs.parent)))


def test_the_files_are_the_same_each_time_and_hold_no_place(runs, tmp_path):
    begin_sweep(runs)
    written(runs)
    names = [f"overview.{suffix}" for suffix in ("csv", "md", "tex", "png", "svg", "txt")]
    first = {name: (runs / name).read_bytes() for name in names}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(runs, elsewhere / "runs")
    written(elsewhere / "runs")
    for name in names:
        assert (elsewhere / "runs" / name).read_bytes() == first[name], name
        assert str(tmp_path).encode() not in first[name]


def test_what_is_not_there_is_blank(runs):
    begin(runs)
    text = written(runs)
    assert "nan" not in text.lower()
    assert "| phantom | U-Net | paper | 0 of 1 (1 interrupted) | 0 of 1 |  |  |  |  |  |  |  |" in text
    numbers = pd.read_csv(runs / "overview.csv").iloc[0]
    assert np.isnan(numbers.dice)
    assert numbers.patients == 0


def test_all_is_well_is_said(runs):
    finish(begin(runs), counts_of([f"P{k}" for k in range(intervals.FEW_PATIENTS)]))
    assert overview.named(run_states.gather(runs)) == []
    text = written(runs)
    assert "- Every run is trained and tested, and none has collapsed." in text
    assert "fewer than" not in text
    assert "no clinical evidence" in text


def test_few_patients_are_said(runs):
    finish(begin(runs), counts_of(["A", "B", "C"]))
    assert "fewer than 20 patients with a lesion (3 at the fewest)" in written(runs)


def test_csv_holds_the_numbers_unrounded(runs):
    begin_sweep(runs)
    written(runs)
    rows = overview.table(run_states.gather(runs))
    read = pd.read_csv(runs / "overview.csv")
    assert read["dice"].tolist() == pytest.approx(rows["dice"].tolist(), rel=1e-15, nan_ok=True)
    assert tuple(map(float, read["seed_scores"][0].split())) == rows["seed_scores"][0]
