"""Slice-level detection by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score

from sahlib.scoring import metrics
from sahlib.scoring.detection import auroc, detection, slice_scores

LESION = np.array([True, True, False, False])


def test_by_hand():
    # 0.9 beats both, 0.4 beats one and ties with none: 3 of 4 pairs.
    result = detection([0.9, 0.4, 0.6, 0.1], LESION)
    assert result == pytest.approx({"auroc": 0.75, "sensitivity": 0.5, "specificity": 0.5})


def test_a_score_at_the_threshold_is_no_prediction():
    result = detection([0.5, 0.51, 0.5, 0.0], LESION)
    assert (result["sensitivity"], result["specificity"]) == (0.5, 1)


def test_saying_the_same_of_every_slice_is_worth_a_half():
    result = detection(np.zeros(4), LESION)
    assert (result["auroc"], result["sensitivity"], result["specificity"]) == (0.5, 0, 1)


@pytest.mark.parametrize("lesion, undefined", [(True, "specificity"), (False, "sensitivity")])
def test_one_class_alone_has_no_auroc(lesion, undefined):
    result = detection([0.2, 0.8], np.array([lesion, lesion]))
    assert np.isnan(result["auroc"]) and np.isnan(result[undefined])


def test_the_score_is_the_highest_probability_and_agrees_with_the_masks():
    probabilities = np.random.default_rng(0).random((20, 6, 6)).astype(np.float16) ** 8
    scores = slice_scores(probabilities)
    assert scores.dtype == np.float64 and scores.tolist() == [p.max() for p in probabilities]
    truth = np.random.default_rng(1).random((20, 6, 6)) > 0.98
    counts = metrics.pixel_counts(probabilities > 0.5, truth)
    result = detection(scores, truth.any(axis=(1, 2)))
    called, lesion = counts.tp + counts.fp > 0, counts.tp + counts.fn > 0
    assert 0 < lesion.sum() < 20
    assert result["sensitivity"] == called[lesion].mean()
    assert result["specificity"] == pytest.approx(1 - called[~lesion].mean())
    assert slice_scores(probabilities > 0.5).tolist() == called.astype(float).tolist()


@pytest.mark.parametrize(
    "scores, lesion, message",
    [
        ([0.1], LESION, "same"),
        ([0.1, 0.2, np.nan, 0.3], LESION, "1 of 4 scores are NaN"),
        ([0.1, 0.2, 0.3, 0.4], LESION.astype(int), "bool"),
    ],
)
def test_wrong_input_is_named(scores, lesion, message):
    with pytest.raises(ValueError, match=message):
        detection(scores, lesion)


def test_probabilities_must_be_a_stack():
    with pytest.raises(ValueError, match=r"\[k,H,W\]"):
        slice_scores(np.zeros((4, 4)))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 0.2, 0.5, 0.500001, 0.9, 1]), st.booleans()), min_size=2, max_size=30))
def test_scikit_learn_says_the_same(slices):
    scores, lesion = np.array([s for s, _ in slices]), np.array([t for _, t in slices])
    result = detection(scores, lesion)
    if lesion.any() and not lesion.all():
        assert result["auroc"] == pytest.approx(roc_auc_score(lesion, scores))
        assert auroc(-scores, lesion) == pytest.approx(1 - result["auroc"])
    if lesion.any():
        assert result["sensitivity"] == pytest.approx(recall_score(lesion, scores > 0.5, zero_division=0))
    if not lesion.all():
        assert result["specificity"] == pytest.approx(recall_score(~lesion, scores <= 0.5, zero_division=0))
