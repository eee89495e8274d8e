"""The transcription against itself: what the paper's own numbers say of each other."""

import dataclasses

import pytest

from sahlib.paper import transcript
from sahlib.paper.transcript import ATTENTION, TABLE_1, TABLE_2, TABLE_3, UNET


def quotes(section, **where):
    return [q for q in transcript.QUOTES if q.section == section and all(getattr(q, k) == v for k, v in where.items())]


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
    value = {(q.section, q.model, q.sample, q.metric): q.value for q in transcript.QUOTES}
    pairs = [k for k in value if k[3] == "iou" and k[2] != "test set" and (*k[:3], "dice") in value]
    assert len(pairs) == 5
    for key in pairs:
        ends = [2 * (value[key] + e) / (1 + value[key] + e) for e in (-0.005, 0.005)]
        assert could_be(value[(*key[:3], "dice")], *ends), key


def test_table_3_holds_averages():
    # No single pair of masks has these: Dice is not 2 IoU / (1 + IoU), and F1 is not made of the P and R beside it.
    for model in (UNET, ATTENTION):
        dice, iou, p, r, f1 = (TABLE_3.value(m, model) for m in ("dice", "iou", "precision", "recall", "f1"))
        assert abs(dice - 2 * iou / (1 + iou)) > 0.01
        assert abs(f1 - 2 * p * r / (p + r)) > 0.01


def test_text_of_3_2_disagrees_with_the_tables():
    wrong = [q for q in quotes("3.2") if q.value != transcript.printed(q)]
    right = [q for q in quotes("3.2") if q.value == transcript.printed(q)]
    assert len(wrong) == 12
    assert {(q.model, q.sample) for q in right} == {(ATTENTION, "sample 3")}


def test_text_of_3_3_agrees_with_table_1_and_disagrees_with_table_2():
    assert all(q.value == transcript.printed(q) for q in quotes("3.3", model=UNET))
    assert all(q.value != transcript.printed(q) for q in quotes("3.3", model=ATTENTION))
    assert len(quotes("3.3", model=UNET)) == 2 and len(quotes("3.3", model=ATTENTION)) == 4


def test_attention_on_sample_2_has_three_dice_scores():
    said = {q.value for q in transcript.QUOTES if (q.model, q.sample, q.metric) == (ATTENTION, "sample 2", "dice")}
    assert said | {TABLE_2.value("dice", "sample 2")} == {0.49, 0.38, 0.57}


def test_text_of_3_4_and_3_5_agrees_with_table_3():
    assert len(quotes("3.4")) == 4 and len(quotes("3.5")) == 8
    assert all(q.value == transcript.printed(q) for q in quotes("3.4") + quotes("3.5"))


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
    assert len(set(transcript.QUOTES)) == len(transcript.QUOTES)


def test_the_recipe_is_the_default_study():
    from sahlib.study import Study

    study, said = Study(), {name: s.value for name, s in transcript.SETTINGS.items()}
    assert (study.size, study.size) == said["image_size"] == (256, 256)
    assert study.epochs == said["epochs"] == 50
    assert study.batch_size == said["batch_size"] == 16
    assert study.learning_rate == said["learning_rate"] == 1e-4
    assert said["test_batches"] == 86
    assert {name for models in transcript.COUNTERPARTS.values() for name in models} <= set(study.models)
