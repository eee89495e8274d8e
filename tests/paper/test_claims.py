"""Claims as a file: what is read from it, what is refused, and what the numbers prove alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahlib.paper import claims, printed
from sahlib.paper.ledger import Evidence, ledger
from sahlib.paper.rules import HOLDS, UNKNOWN, rule
from sahlib.study import StudyError

DOCS = Path(__file__).parents[2] / "docs"


def paper(tmp_path, text):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    return claims.read(path)


def counts(found, patients=12):
    """A slice with 100 lesion pixels and one without of each patient, `found` of the lesion found."""
    rows = [
        (f"{p}_{z}", f"p{p}", found + p % 3 if z else 0, 0, 100 - found - p % 3 if z else 0, 900)
        for p in range(patients)
        for z in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["slice_id", "patient_id", "tp", "fp", "fn", "tn"])
    return [table.assign(lesion_pixels=table.tp + table.fn)]


def test_the_example_of_the_documentation_is_read_and_shown_there():
    example = claims.read(DOCS / "claims_example.yaml")
    text = (DOCS / "claims_example.yaml").read_text().partition("\npaper:")[2]
    assert f"\npaper:{text.rstrip()}" in (DOCS / "claims.md").read_text()
    assert example.value("dice", "U-Net++") == 0.2827 and list(example.networks) == ["U-Net", "U-Net++"]
    assert [claim.measure.score for claim in example.claims.values()] == ["dice", "iou"]


def test_a_sentence_is_a_measure(tmp_path):
    own = paper(tmp_path, "claims:\n  - my net v2.0 beats nnU-Net in Recall on small lesions\n  - A beats B in Dice\n")
    first, second = (claim.measure for claim in own.claims.values())
    assert (first.higher, first.than, first.score, first.lesions) == ("my net v2.0", "nnU-Net", "recall", "small")
    assert first.convention == second.convention == "sah_slices" and second.lesions == ""
    assert second.words == "Dice (mean over SAH slices only, 0/0 = 0), A minus B"


def test_claims_of_a_file_are_judged_on_the_masks_that_stand_for_its_networks(tmp_path):
    own = paper(
        tmp_path,
        """
printed:
  dice: {Theirs: 0.7, Ours: 0.9, convention: mean_empty_1}
networks:
  Ours: {stands_for: [ours_b, ours_a]}
claims:
  - Ours beats Theirs in dice
  - Theirs beats Missing in dice
contradictions:
  once: {says: it says so twice, sections: ["1", "2"]}
""",
    )
    evidence = Evidence({"Theirs": counts(40), "ours_a": counts(70)}, {}, "", "", "", draws=200, paper=own)
    better, missing, contradicts = ledger(evidence).to_dict("records")
    assert better["verdict"] == HOLDS and better["printed"] == "0.900 over 0.700 (+0.200)"
    assert better["measure"] == "Dice (mean over slices, 0/0 = 1), ours_a minus Theirs"
    # By hand: of 100 lesion pixels 71 and 41 are found in the mean, each Dice 2 tp / (tp + 100), half the slices empty.
    dice = [np.mean([2 * n / (n + 100) for n in (found, found + 1, found + 2)]) for found in (70, 40)]
    assert better["estimate"] == pytest.approx((dice[0] - dice[1]) / 2)
    assert missing["verdict"] == UNKNOWN and missing["reason"] == "there are no masks of Missing"
    assert contradicts["kind"] == "contradiction" and contradicts["sections"] == "1, 2"


WRONG = {
    "no YAML": ("claims: [", "claims.yaml cannot be read as YAML"),
    "a list": ("- a\n", "the file must be entries"),
    "a misspelt entry": ("claim: []\n", "has an unknown entry 'claim'"),
    "no such score": ("printed: {jaccard: {A: 0.5}}\n", "printed, jaccard is no score; choose of dice"),
    "per cent": ("printed: {dice: {A: 89.6}}\n", "printed, dice, A is 89.6; write a number from 0 to 1"),
    "a text": ("printed: {dice: {A: high}}\n", "printed, dice, A is 'high'"),
    "no such convention": (
        "printed: {dice: {A: 0.5, convention: mean}}\n",
        "names the convention 'mean'; choose of mean_empty_1",
    ),
    "a sentence without sense": ("claims: [A is better than B]\n", "claims, claim_1 must read 'A beats B in Dice'"),
    "no such size": ("claims: [A beats B in dice on tiny lesions]\n", "is on tiny lesions; choose of small"),
    "nothing measured": ("claims: {a: {says: so}}\n", "claims, a lacks measure"),
    "half a difference": ("claims: {a: {says: so, measure: {higher: A}}}\n", "lacks than, score"),
    "no such kind": ("claims: {a: {says: so, measure: {kind: vibes}}}\n", "is of the kind 'vibes'"),
    "of nothing": (
        "claims: {a: {says: so, measure: {kind: complementary, of: [b], words: w}}}\n",
        "is of 'b', which is no claim",
    ),
    "about the weather": (
        "claims: {a: {says: so, about: rain, measure: {kind: unknowable, words: w}}}\n",
        "is about 'rain'",
    ),
}


@pytest.mark.parametrize("way", WRONG)
def test_a_file_that_cannot_be_meant_is_refused_in_a_sentence(tmp_path, way):
    text, says = WRONG[way]
    with pytest.raises(StudyError) as told:
        paper(tmp_path, text)
    assert says in str(told.value) and "docs/claims.md" in str(told.value) and "\n" not in str(told.value)


# What the numbers prove alone


def test_numbers_that_no_masks_have_are_told(tmp_path):
    own = paper(tmp_path, "printed: {dice: {A: 0.8, B: 0.8, C: 0.8}, iou: {A: 0.66, B: 0.81, C: 0.667}}\n")
    said = printed.in_words(own)
    assert ["cannot be means over the same slices" in sentence for sentence in said] == [True, True, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_numbers_that_masks_have_are_never_called_impossible(dice):
    dice = np.array(dice)
    means = {"dice": {"A": round(dice.mean(), 3)}, "iou": {"A": round((dice / (2 - dice)).mean(), 3)}}
    own = claims.Paper("", {"A": claims.Network(("A",), ("A",))}, means)
    assert not any("cannot be" in sentence for sentence in printed.in_words(own))


def test_a_dice_that_is_not_the_f1_beside_it_is_told(tmp_path):
    own = paper(tmp_path, "printed: {dice: {A: 0.867, B: 0.5}, f1: {A: 0.507, B: 0.5005}}\n")
    (said,) = printed.in_words(own)
    assert said.startswith("A: Dice 0.867 and F1 0.507 are one number")


def test_the_rule_speaks_of_chance_only_where_the_slices_are_told(tmp_path):
    assert "is not chance" not in rule(paper(tmp_path, "claims: [A beats B in dice]\n"))
    assert "all 400 slices" in rule(paper(tmp_path, "test_set: {slices: 400}\nclaims: [A beats B in dice]\n"))
