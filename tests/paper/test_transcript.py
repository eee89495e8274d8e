"""The transcription against itself: what the paper's own numbers say of each other."""

import dataclasses

import pytest

from sahlib.paper import transcript
from sahlib.paper.transcript import ATTENTION, PAPER, TABLE_1, TABLE_2, UNET


def quotes(section, *models):
    """(value in the text, value in Tables 1 to 3, network, sample) of the numbers that a section quotes."""
    table_of = {UNET: TABLE_1, ATTENTION: TABLE_2}
    found = []
    for (where, model, sample), numbers in PAPER.quotes.items():
        if where == section and model in (models or (UNET, ATTENTION)):
            table, column = (PAPER, model) if sample == "test set" else (table_of[model], sample)
            found += [(value, table.value(metric, column), model, sample) for metric, value in numbers.items()]
    return found


def could_be(printed, low, high, step=0.01):
    """Whether a printed, rounded number can come from a value in [low, high]."""
    return low - step / 2 <= printed <= high + step / 2


def test_tables_are_complete_and_plausible():
    for number, table in enumerate((TABLE_1, TABLE_2), 1):
        assert table.number == number
        for metric, values in table.rows.items():
            assert len(values) == len(table.columns)
            assert all(0 < v < (100 if metric == "area_percent" else 1) for v in values)
    assert list(TABLE_1.rows) == ["dice", "iou", "precision", "recall", "f1", "area_percent"]
    assert list(PAPER.printed) == ["dice", "iou", "precision", "recall", "f1"]
    assert all(0 < v < 1 for numbers in PAPER.printed.values() for v in numbers.values())


def test_tables_1_and_2_are_identical():
    assert TABLE_1.rows == TABLE_2.rows


def test_f1_is_dice_in_tables_1_and_2_but_not_in_3():
    for table in (TABLE_1, TABLE_2):
        assert table.rows["f1"] == table.rows["dice"]
    for dice, f1 in zip(PAPER.printed["dice"].values(), PAPER.printed["f1"].values(), strict=True):
        assert dice - f1 > 0.3


@pytest.mark.parametrize("sample", TABLE_1.columns)
def test_a_sample_in_tables_1_and_2_obeys_the_formulas(sample):
    # Each printed number stands for an interval of 0.01; Dice = 2 IoU / (1 + IoU), F1 = 2 P R / (P + R).
    iou, p, r = (TABLE_1.value(m, sample) for m in ("iou", "precision", "recall"))
    ends = (-0.005, 0.005)
    assert could_be(TABLE_1.value("dice", sample), *(2 * (iou + e) / (1 + iou + e) for e in ends))
    assert could_be(TABLE_1.value("f1", sample), *(2 * (p + e) * (r + e) / (p + r + 2 * e) for e in ends))


def test_the_samples_of_the_text_obey_the_formulas_too():
    samples = [q for (*_, sample), q in PAPER.quotes.items() if {"dice", "iou"} <= set(q) and sample != "test set"]
    assert len(samples) == 5
    for said in samples:
        assert could_be(said["dice"], *(2 * (said["iou"] + e) / (1 + said["iou"] + e) for e in (-0.005, 0.005)))


def test_table_3_holds_averages():
    # No single pair of masks has these: Dice is not 2 IoU / (1 + IoU), and F1 is not made of the P and R beside it.
    for model in (UNET, ATTENTION):
        dice, iou, p, r, f1 = (PAPER.value(m, model) for m in ("dice", "iou", "precision", "recall", "f1"))
        assert abs(dice - 2 * iou / (1 + iou)) > 0.01
        assert abs(f1 - 2 * p * r / (p + r)) > 0.01


def test_text_of_3_2_disagrees_with_the_tables():
    right = {tuple(place) for said, printed, *place in quotes("3.2") if said == printed}
    assert right == {(ATTENTION, "sample 3")}
    assert sum(said != printed for said, printed, *_ in quotes("3.2")) == 12


def test_text_of_3_3_agrees_with_table_1_and_disagrees_with_table_2():
    assert all(said == printed for said, printed, *_ in quotes("3.3", UNET))
    assert all(said != printed for said, printed, *_ in quotes("3.3", ATTENTION))
    assert len(quotes("3.3", UNET)) == 2 and len(quotes("3.3", ATTENTION)) == 4


def test_attention_on_sample_2_has_three_dice_scores():
    said = {numbers["dice"] for (_, *place), numbers in PAPER.quotes.items() if place == [ATTENTION, "sample 2"]}
    assert said | {TABLE_2.value("dice", "sample 2")} == {0.49, 0.38, 0.57}


def test_text_of_3_4_and_3_5_agrees_with_table_3():
    assert len(quotes("3.4")) == 4 and len(quotes("3.5")) == 8
    assert all(said == printed for said, printed, *_ in quotes("3.4") + quotes("3.5"))


def test_claims_about_table_3_are_true_of_table_3():
    rows = PAPER.printed
    for metric in ("dice", "iou", "recall"):
        assert f"attention_higher_{metric}" in PAPER.claims
        assert rows[metric][ATTENTION] > rows[metric][UNET]
    assert "unet_higher_precision" in PAPER.claims
    assert rows["precision"][UNET] > rows["precision"][ATTENTION]
    assert rows["f1"][ATTENTION] > rows["f1"][UNET]  # printed, but the text passes over it


def test_records_are_complete_frozen_and_unique():
    for records in (PAPER.claims, PAPER.contradictions):
        assert all(one.says and one.sections for one in records.values())
    assert (len(PAPER.claims), len(PAPER.controls), len(PAPER.contradictions)) == (25, 9, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE_1.number = 2


def test_the_recipe_is_the_default_study():
    from sahlib.study import Study

    study, said = Study(), {name: s.value for name, s in transcript.SETTINGS.items()}
    assert (study.size, study.size) == said["image_size"] == (256, 256)
    assert study.epochs == said["epochs"] == 50
    assert study.batch_size == said["batch_size"] == 16
    assert study.learning_rate == said["learning_rate"] == 1e-4
    assert said["test_batches"] == 86
    assert {name for network in PAPER.networks.values() for name in network.beside} <= set(study.models)
