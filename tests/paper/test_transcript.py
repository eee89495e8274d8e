"""The transcription against itself: what the paper's own numbers say of each other."""

import dataclasses

import pytest

from sahlib.paper import transcript
from sahlib.paper.transcript import ATTENTION, TABLE_1, TABLE_2, TABLE_3, UNET


def quotes(section, *models):
    """(value in the text, value in Tables 1 to 3, network, sample) of the numbers that a section quotes."""
    table_of = {UNET: TABLE_1, ATTENTION: TABLE_2}
    found = []
    for (where, model, sample), numbers in transcript.QUOTES.items():
        if where == section and model in (models or (UNET, ATTENTION)):
            table, column = (TABLE_3, model) if sample == "test set" else (table_of[model], sample)
            found += [(value, table.value(metric, column), model, sample) for metric, value in numbers.items()]
    return found


def could_be(printed, low, high, step=0.01):
    """Whether a printed, rounded number can come from a value in [low, high]."""
    return low - step / 2 <= printed <= high + step / 2


def test_tables_are_complete_and_plausible():
    for number, table in enumerate((TABLE_1, TABLE_2, TABLE_3), 1):
        assert table.number == number
        for metric, values in table.rows.items():
            assert len(values) == len(table.columns)
            assert all(0 < v < (100 if metric == "area_percent" else 1) for v in values)
    assert list(TABLE_1.rows) == ["dice", "iou", "precision", "recall", "f1", "area_percent"]
    assert list(TABLE_3.rows) == ["dice", "iou", "precision", "recall", "f1"]


def test_tables_1_and_2_are_identical():
    assert TABLE_1.rows == TABLE_2.rows


def test_f1_is_dice_in_tables_1_and_2_but_not_in_3():
    for table in (TABLE_1, TABLE_2):
        assert table.rows["f1"] == table.rows["dice"]
    for dice, f1 in zip(TABLE_3.rows["dice"], TABLE_3.rows["f1"], strict=True):
        assert dice - f1 > 0.3


@pytest.mark.parametrize("sample", transcript.SAMPLES)
def test_a_sample_in_tables_1_and_2_obeys_the_formulas(sample):
    # Each printed number stands for an interval of 0.01; Dice = 2 IoU / (1 + IoU), F1 = 2 P R / (P + R).
    iou, p, r = (TABLE_1.value(m, sample) for m in ("iou", "precision", "recall"))
    ends = (-0.005, 0.005)
    assert could_be(TABLE_1.value("dice", sample), *(2 * (iou + e) / (1 + iou + e) for e in ends))
    assert could_be(TABLE_1.value("f1", sample), *(2 * (p + e) * (r + e) / (p + r + 2 * e) for e in ends))


def test_the_samples_of_the_text_obey_the_formulas_too():
    samples = [q for (*_, sample), q in transcript.QUOTES.items() if {"dice", "iou"} <= set(q) and sample != "test set"]
    assert len(samples) == 5
    for said in samples:
        assert could_be(said["dice"], *(2 * (said["iou"] + e) / (1 + said["iou"] + e) for e in (-0.005, 0.005)))


def test_table_3_holds_averages():
    # No single pair of masks has these: Dice is not 2 IoU / (1 + IoU), and F1 is not made of the P and R beside it.
    for model in (UNET, ATTENTION):
        dice, iou, p, r, f1 = (TABLE_3.value(m, model) for m in ("dice", "iou", "precision", "recall", "f1"))
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
    said = {numbers["dice"] for (_, *place), numbers in transcript.QUOTES.items() if place == [ATTENTION, "sample 2"]}
    assert said | {TABLE_2.value("dice", "sample 2")} == {0.49, 0.38, 0.57}


def test_text_of_3_4_and_3_5_agrees_with_table_3():
    assert len(quotes("3.4")) == 4 and len(quotes("3.5")) == 8
    assert all(said == printed for said, printed, *_ in quotes("3.4") + quotes("3.5"))


def test_claims_about_table_3_are_true_of_table_3():
    rows = {m: dict(zip(TABLE_3.columns, v, strict=True)) for m, v in TABLE_3.rows.items()}
    for metric in ("dice", "iou", "recall"):
        assert f"attention_higher_{metric}" in transcript.CLAIMS
        assert rows[metric][ATTENTION] > rows[metric][UNET]
    assert "unet_higher_precision" in transcript.CLAIMS
    assert rows["precision"][UNET] > rows["precision"][ATTENTION]
    assert rows["f1"][ATTENTION] > rows["f1"][UNET]  # printed, but the text passes over it


def test_records_are_complete_frozen_and_unique():
    for records in (transcript.CLAIMS.values(), transcript.CONTRADICTIONS):
        assert len({r.key for r in records}) == len(list(records))
        assert all(r.words and r.sections for r in records)
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
    assert {name for models in transcript.COUNTERPARTS.values() for name in models} <= set(study.models)
