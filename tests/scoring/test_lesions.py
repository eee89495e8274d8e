"""Lesions found, missed and invented, drawn as text."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sahlib.scoring.lesions import COUNTS, components, lesion_counts, lesion_scores


def drawn(*lines):
    return np.array([[[c == "#" for c in line] for line in lines]])


def counts(prediction, truth):
    return tuple(int(v) for v in lesion_counts(prediction, truth).iloc[0])


def test_pixels_that_touch_at_a_corner_are_one_lesion():
    assert components(drawn("#..", ".#.", "..#")[0])[1] == 1
    assert components(drawn("#.#", "...", "#.#")[0])[1] == 4
    assert components(drawn("...")[0])[1] == 0


def test_one_found_one_missed_one_invented():
    truth = drawn("##....#", "##.....", ".......")
    prediction = drawn(".##....", ".......", "....#..")
    assert counts(prediction, truth) == (1, 1, 1)


def test_one_shared_pixel_finds_a_lesion_but_touching_does_not():
    assert counts(drawn("####."), drawn("...##")) == (1, 0, 0)
    assert counts(drawn("###.."), drawn("...##")) == (0, 1, 1)


def test_one_component_over_two_lesions_and_two_on_one():
    assert counts(drawn("#####"), drawn("##.##")) == (2, 0, 0)
    assert counts(drawn("##.##"), drawn("#####")) == (1, 0, 0)


@pytest.mark.parametrize(
    "prediction, truth, expected", [("...", "...", (0, 0, 0)), ("...", "#.#", (0, 0, 2)), ("#.#", "...", (0, 2, 0))]
)
def test_empty_masks(prediction, truth, expected):
    assert counts(drawn(prediction), drawn(truth)) == expected


def test_components_never_reach_into_the_next_slice():
    same = np.ones((3, 4, 4), bool)
    table = lesion_counts(same, same)
    assert table.values.tolist() == [[1, 0, 0]] * 3 and (table.dtypes == np.int64).all()


def test_scores_by_hand():
    scores = lesion_scores(pd.DataFrame({"lesion_tp": [3, 0], "lesion_fp": [1, 1], "lesion_fn": [0, 1]}))
    assert scores == pytest.approx(
        {
            "sensitivity": 3 / 4,
            "f1": 6 / 9,
            "false_positives_per_slice": 1,
        }
    )


def test_without_any_lesion_or_prediction_scores_are_undefined():
    scores = lesion_scores(pd.DataFrame(0, index=range(3), columns=list(COUNTS)))
    assert np.isnan([scores["sensitivity"], scores["f1"]]).all()
    assert scores["false_positives_per_slice"] == 0
    missed = lesion_scores(pd.DataFrame({"lesion_tp": [0], "lesion_fp": [0], "lesion_fn": [2]}))
    assert missed["sensitivity"] == 0 and missed["f1"] == 0


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="lesion_fp"):
        lesion_scores(pd.DataFrame({"lesion_tp": [0], "lesion_fn": [2]}))
    with pytest.raises(ValueError, match="no rows"):
        lesion_scores(pd.DataFrame(columns=list(COUNTS)))
    with pytest.raises(ValueError, match="bool"):
        lesion_counts(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool))


def by_loops(prediction, truth):
    """The challenge's rule spelt out, components grown pixel by pixel."""

    def grown(mask):
        left, parts = {tuple(p) for p in np.argwhere(mask)}, []
        while left:
            part, edge = set(), [left.pop()]
            while edge:
                y, x = edge.pop()
                part.add((y, x))
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
                left -= near
                edge.extend(near)
            parts.append(part)
        return parts

    lesions, found = grown(truth), grown(prediction)
    hit = sum(any(prediction[p] for p in part) for part in lesions)
    return hit, sum(not any(truth[p] for p in part) for part in found), len(lesions) - hit


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[arrays.arrays(bool, (3, 7, 8), elements=st.sampled_from([False, False, True]))] * 2))
def test_the_rule_spelt_out_gives_the_same_and_swapping_keeps_the_components(pair):
    prediction, truth = pair
    table = lesion_counts(prediction, truth)
    assert table.values.tolist() == [list(by_loops(p, t)) for p, t in zip(prediction, truth, strict=True)]
    assert (lesion_counts(truth, truth)[["lesion_fp", "lesion_fn"]] == 0).all(axis=None)
    swapped = lesion_counts(truth, prediction)
    assert (swapped["lesion_fn"] == table["lesion_fp"]).all() and (swapped["lesion_fp"] == table["lesion_fn"]).all()
