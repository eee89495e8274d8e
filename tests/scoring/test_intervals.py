"""Intervals and tests worked out by hand, their properties, and what they refuse."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers.fabricated_counts import one_slice_each, predictions, table, truth_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sahlib.scoring import intervals, metrics, resampling
from sahlib.scoring.intervals import Difference, by_size, difference, holm, interval, mean_interval, size_terciles
from sahlib.scoring.metrics import CONVENTIONS, METRICS, score

NAN = float("nan")


# By hand.

TWO = table("ab", [10, 0], [0, 5], [0, 5])  # patient a: Dice 1, patient b: Dice 0


def test_two_patients_by_hand():
    # Draws are aa, ab, ba, bb: Dice 1, 1/2, 1/2, 0, so the quantiles far enough out are 0 and 1.
    found = interval(TWO, "dice", "mean_empty_1")
    assert (found.estimate, found.low, found.high) == (0.5, 0, 1)
    assert (found.patients, found.seed_scores) == (2, (0.5,))
    # A quarter of the draws is 0, a quarter 1: at level 0.2 the quantiles, 32 % and 68 %, are both 1/2.
    found = interval(TWO, "dice", "mean_empty_1", level=0.2)
    assert (found.low, found.high) == (0.5, 0.5)


def test_patients_are_drawn_whole():
    # Two slices in each patient, one good and one bad: every draw has the same mean, however slices differ.
    counts = table("aabbcc", [10, 0] * 3, [0, 5] * 3, [0, 5] * 3)
    found = interval(counts, "dice", "mean_empty_1")
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)


def test_seeds_are_averaged_within_a_draw_and_their_spread_stands_apart():
    # Seed 1 is good on a, seed 2 on b; on any patients drawn their mean is 1/2, so there is no spread over patients.
    other = table("ab", [0, 5], [10, 0], [10, 0])
    found = interval([TWO, other], "dice", "mean_empty_1")
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.seed_spread == 0
    better = interval([TWO, table("ab", [10, 5], [0, 0], [0, 0])], "dice", "mean_empty_1")
    assert better.seed_scores == (0.5, 1.0)
    assert better.seed_spread == 0.5
    assert np.isnan(interval(TWO, "dice", "mean_empty_1").seed_spread)


def test_a_difference_over_seeds_widens_by_the_spread_of_trainings():
    # Nothing varies over patients; trainings score 0, 1/2, 1 and 1/2, 1/2, 1/2.
    a = [table("ab", [hit] * 2, [10 - hit] * 2, [10 - hit] * 2) for hit in (0, 5, 10)]
    b = [table("ab", [5, 5], [5, 5], [5, 5])] * 3
    found = difference(a, b, "dice", "sah_slices")
    assert (found.estimate, found.low, found.high, found.patient_error) == (0, 0, 0, 0)
    assert found.seed_variances == (0.25, 0)
    whole = found.over_seeds()
    # Welch's degrees of freedom are those of a alone, 2: t = 4.303, standard error sqrt(0.25 / 3).
    assert whole.high == pytest.approx(4.30265 * (0.25 / 3) ** 0.5) and whole.low == -whole.high
    # With patients that vary, the two parts add as squares.
    mixed = dataclasses.replace(found, low=-0.1, high=0.2).over_seeds()
    assert mixed.high == pytest.approx(np.hypot(0.2, whole.high)) and mixed.low == pytest.approx(
        -np.hypot(0.1, whole.high)
    )


def test_with_one_seed_the_interval_is_over_patients_alone():
    found = difference(TWO, table("ab", [10, 2], [0, 3], [0, 3]), "dice", "mean_empty_1")
    whole = found.over_seeds()
    assert (whole.low, whole.high) == (found.low, found.high) and np.isnan(found.seed_variances).all()


def test_an_interval_over_seeds_covers_as_often_as_it_says():
    """Five trainings of each network from a normal distribution: 95 % of intervals hold the true difference."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(2000):
        scores = tuple(tuple(rng.normal(mean, spread, 5)) for mean, spread in ((0.5, 0.02), (0.53, 0.05)))
        error = 0.02
        estimate = np.mean(scores[1]) - np.mean(scores[0]) + rng.normal(0, error)
        whole = Difference(
            estimate, estimate - 1.96 * error, estimate + 1.96 * error, 50, 1, error, scores
        ).over_seeds()
        held += whole.low <= 0.03 <= whole.high
    assert 0.935 <= held / 2000 <= 0.985


def test_mean_interval_by_hand():
    # Draws of aa, ab, ba, bb have means 1, 1/2, 1/2, 0, as in TWO.
    found = mean_interval([1, 0], ["a", "b"])
    assert (found.estimate, found.low, found.high) == (0.5, 0, 1)
    assert found.patients == 2
    # Slices are averaged, not patients: aab has mean (1 + 1 + 4) / 3; the draw aa has mean 1 and bb 4.
    found = mean_interval([1, 1, 4], ["a", "a", "b"])
    assert (found.estimate, found.low, found.high) == (2, 1, 4)
    # Patients are drawn whole: each has mean 0, however their slices differ.
    found = mean_interval([-3, 3, -1, 1, -2, 2], list("aabbcc"))
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


def test_mean_interval_leaves_out_nan_and_patients_with_nothing_else():
    found = mean_interval([1, NAN, 1, NAN, 4], ["a", "a", "a", "c", "b"])
    assert found == mean_interval([1, 1, 4], ["a", "a", "b"])
    assert found.patients == 2
    nothing = mean_interval([NAN, NAN], ["a", "b"])
    assert np.isnan([nothing.estimate, nothing.low, nothing.high]).all()
    assert nothing.patients == 0


def test_mean_interval_of_one_patient_has_no_ends():
    for values, patients in (([0.2, 0.4], ["a", "a"]), ([0.2, 0.4, NAN], ["a", "a", "b"])):
        found = mean_interval(values, patients)
        assert found.estimate == pytest.approx(0.3)
        assert np.isnan([found.low, found.high]).all()
        assert found.patients == 1


@pytest.mark.parametrize(("values", "patients"), [([1, 2], ["a"]), ([[1, 2]], [["a", "b"]]), (1.0, "a")])
def test_mean_interval_names_shapes_that_do_not_agree(values, patients):
    with pytest.raises(ValueError, match=r"values .* and patients .* must be the same \[k\]"):
        mean_interval(values, patients)


def test_difference_by_hand():
    # b is better by 1/2 on each of three patients. Swaps give +-1/2 (all or none) and +-1/6: p = 2/8.
    a, b = one_slice_each([0.25, 0.25, 0.25]), one_slice_each([0.75, 0.75, 0.75])
    found = difference(a, b, "dice", "mean_empty_1")
    assert (found.estimate, found.low, found.high, found.p) == (0.5, 0.5, 0.5, 0.25)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and the last may not fall below 0.06.
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005], method="holm") gives the same.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    np.testing.assert_allclose(holm([0.02, NAN, 0.03]), [0.04, NAN, 0.04])  # two tests were made
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="p_values"):
        holm([0.5, 1.5])


def test_size_terciles_by_hand():
    areas = {5: "small", 0: NAN, 1: "small", 60: "medium", 40: "medium", 900: "large", 70: "large"}
    counts = table("abcdefg", [0] * 7, [3] * 7, list(areas))
    labels = size_terciles(counts.set_index("slice_id"))
    assert labels.index.tolist() == counts["slice_id"].tolist()
    assert labels.fillna("none").tolist() == ["none" if v != v else v for v in areas.values()]
    equal = size_terciles(table("abcd", [1] * 4, [0] * 4, [6] * 4))
    assert equal.tolist() == ["small"] * 4  # equal areas stay together
    assert size_terciles(table("ab", [0, 0], [1, 0], [0, 0])).isna().all()


def test_by_size_by_hand():
    # Lesions of 10, 100 and 1000 pixels, two slices each, Dice 0, 1/2, 1.
    size, found = np.repeat([10, 100, 1000], 2), np.repeat([0, 50, 1000], 2)
    counts = table("abcdef", found, size - found, size - found)
    counts = pd.concat([counts, table("gh", [0, 0], [5, 0], [0, 0])], ignore_index=True)
    frame = by_size({"one": [counts, counts], "two": counts})
    names = ["series", "tercile", "slices", "patients", "lesion_min", "lesion_max", "estimate", "low", "high"]
    assert frame.columns.tolist() == names
    one = [("one", t, 2, 2, s, s, d, d, d) for t, s, d in (("small", 10, 0), ("medium", 100, 0.5), ("large", 1000, 1))]
    assert list(frame[:3].itertuples(index=False, name=None)) == one
    assert frame[3:]["series"].tolist() == ["two"] * 3
    lone = by_size({"x": table("a", [5], [0], [5])})
    assert lone["slices"].tolist() == [1, 0, 0]
    assert lone["estimate"].round(3).fillna(-1).tolist() == [0.667, -1, -1]


# Properties.

SMALL = settings(max_examples=15, deadline=None)


@SMALL
@given(st.integers(0, 10_000), st.sampled_from([c for c in CONVENTIONS if c != "batches"]), st.sampled_from(METRICS))
def test_order_of_slices_does_not_matter(seed, convention, metric):
    truth = truth_of(6, seed)
    a, b = predictions(truth, seed + 1), predictions(truth, seed + 2)
    order = np.random.default_rng(seed).permutation(len(a))
    one = difference(a, b, metric, convention, draws=50, permutations=40)
    other = difference(a.iloc[order], b.iloc[order], metric, convention, draws=50, permutations=40)
    names = ("estimate", "low", "high", "p")
    assert [getattr(one, n) for n in names] == pytest.approx([getattr(other, n) for n in names], abs=1e-12, nan_ok=True)


def test_batches_depend_on_the_order_but_their_draws_do_not():
    counts = predictions(truth_of(8), 1)
    moved = pd.concat([counts[counts["patient_id"] >= "p004"], counts[counts["patient_id"] < "p004"]])
    one, other = (interval(c, "dice", "batches", batch_size=4) for c in (counts, moved))
    assert one.estimate != other.estimate
    assert (one.low, one.high) == (other.low, other.high)


@SMALL
@given(st.integers(0, 10_000), st.sampled_from(list(CONVENTIONS)), st.sampled_from(METRICS))
def test_swapping_the_models_negates(seed, convention, metric):
    truth = truth_of(6, seed)
    a, b = [predictions(truth, seed + k) for k in (1, 2)], [predictions(truth, seed + 3, 0.8)]
    one = difference(a, b, metric, convention, draws=50, batch_size=4)
    other = difference(b, a, metric, convention, draws=50, batch_size=4)
    expected = (-other.estimate, -other.high, -other.low, other.p)
    assert (one.estimate, one.low, one.high, one.p) == pytest.approx(expected, abs=1e-12)
    assert 0 < one.p <= 1
    same = difference(a, a, metric, convention, draws=50, batch_size=4)
    assert (same.estimate, same.low, same.high, same.p) == (0, 0, 0, 1)


@SMALL
@given(st.integers(0, 10_000), st.sampled_from([c for c in CONVENTIONS if c != "batches"]), st.sampled_from(METRICS))
def test_estimate_is_the_score_and_lies_inside(seed, convention, metric):
    counts = predictions(truth_of(6, seed), seed)
    found = interval(counts, metric, convention, draws=400)
    assert found.estimate == score(counts, metric, convention)
    assert 0 <= found.low <= found.estimate + 1e-12
    assert found.estimate - 1e-12 <= found.high <= 1 + 1e-12
    wider = interval(counts, metric, convention, draws=400, level=0.99)
    assert wider.low <= found.low <= found.high <= wider.high


@SMALL
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, np.multiply(p, max(len(p), 1)))).all() or not len(p)
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@SMALL
@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_terciles_follow_the_area(areas):
    labels = size_terciles(table(range(len(areas)), areas, [0] * len(areas), [0] * len(areas)))
    number = labels.map({name: k for k, name in enumerate(intervals.TERCILES)}).to_numpy(float)
    areas = np.array(areas)
    assert (np.isnan(number) == (areas == 0)).all()
    assert (np.diff(number[areas > 0][np.argsort(areas[areas > 0])]) >= 0).all()
    lesions = (areas > 0).sum()
    if len(set(areas[areas > 0])) == lesions and lesions % 3 == 0:
        assert [(labels == t).sum() for t in intervals.TERCILES] == [lesions // 3] * 3


some_values = st.lists(
    st.tuples(st.one_of(st.just(NAN), st.floats(-5, 5)), st.sampled_from("abcdef")), min_size=1, max_size=30
)


@SMALL
@given(some_values, st.integers(0, 1000))
def test_mean_interval_is_of_the_mean_and_moves_with_the_values(rows, seed):
    values, patients = np.array([v for v, _ in rows]), np.array([p for _, p in rows])
    found = mean_interval(values, patients)
    defined = values[~np.isnan(values)]
    assert found.patients == len(set(patients[~np.isnan(values)]))
    assert found.estimate == pytest.approx(defined.mean() if len(defined) else NAN, abs=1e-12, nan_ok=True)
    if found.patients > 1:
        assert defined.min() - 1e-9 <= found.low <= found.high <= defined.max() + 1e-9
    order = np.random.default_rng(seed).permutation(len(values))
    again = mean_interval(values[order], patients[order])
    moved = mean_interval(3 - 2 * values, patients)
    ends = (found.estimate, found.low, found.high)
    assert (again.estimate, again.low, again.high) == pytest.approx(ends, abs=1e-9, nan_ok=True)
    expected = (3 - 2 * found.estimate, 3 - 2 * found.high, 3 - 2 * found.low)
    assert (moved.estimate, moved.low, moved.high) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@SMALL
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_mean_interval_of_one_value_a_patient_is_interval_s(thousandths):
    counts = one_slice_each(np.array(thousandths) / 1000)
    values = metrics.unit_scores(counts, "dice", CONVENTIONS["mean_empty_1"]).to_numpy()
    ours, theirs = mean_interval(values, counts["patient_id"]), interval(counts, "dice", "mean_empty_1")
    names = ("estimate", "low", "high", "patients")
    assert [getattr(ours, n) for n in names] == pytest.approx([getattr(theirs, n) for n in names], nan_ok=True)


@SMALL
@given(some_values)
def test_mean_interval_is_the_quantiles_of_means_of_drawn_patients(rows):
    values, patients = np.array([v for v, _ in rows]), np.array([p for _, p in rows])
    own = [values[(patients == p) & ~np.isnan(values)] for p in sorted(set(patients[~np.isnan(values)]))]
    if len(own) < 2:
        return
    drawn = np.random.default_rng(0).integers(0, len(own), (intervals.DRAWS, len(own)))
    means = [np.concatenate([own[i] for i in row]).mean() for row in drawn]
    tail = scipy.stats.norm.sf(np.sqrt(len(own) / (len(own) - 1)) * scipy.stats.t.isf(0.025, len(own) - 1))
    found = mean_interval(values, patients)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [tail, 1 - tail])), abs=1e-9)


def test_the_same_seed_gives_the_same_numbers():
    truth = truth_of(30)
    a, b = predictions(truth, 1), predictions(truth, 2)
    for convention in CONVENTIONS:
        assert difference(a, b, "iou", convention) == difference(a, b, "iou", convention)
        assert interval(a, "iou", convention) == interval(a, "iou", convention)
    assert interval(a, "iou", "pooled", seed=1).low != interval(a, "iou", "pooled").low


def test_working_in_blocks_changes_no_score(monkeypatch):
    truth = truth_of(12, slices=(1, 4))
    a, b = predictions(truth, 1), predictions(truth, 2)
    whole = [difference(a, b, "dice", c, batch_size=4) for c in CONVENTIONS]
    monkeypatch.setattr(resampling, "BLOCK", 500)
    blocks = [difference(a, b, "dice", c, batch_size=4) for c in CONVENTIONS]
    for one, other in zip(whole, blocks, strict=True):
        expected = (other.estimate, other.low, other.high, other.p)
        assert (one.estimate, one.low, one.high, one.p) == pytest.approx(expected, abs=1e-12)


# Nothing to score, or too little.


def test_one_patient_has_no_interval():
    found = interval(table("aa", [5, 1], [0, 1], [1, 1]), "dice", "mean_empty_1")
    assert np.isnan([found.low, found.high]).all()
    assert found.estimate > 0
    assert found.patients == 1
    both = difference(table("a", [5], [0], [1]), table("a", [4], [0], [2]), "dice", "pooled")
    assert np.isnan([both.low, both.high]).all()
    assert (both.estimate < 0, both.p) == (True, 1)


def test_patients_without_anything_to_score_are_not_drawn():
    # Of 22 patients two have a lesion; under sah_slices they are all there is.
    counts = table([f"p{i}" for i in range(22)], [9, 3] + [0] * 20, [0] * 22, [1, 7] + [0] * 20)
    assert [interval(counts, "dice", c).patients for c in ("mean_empty_1", "sah_slices", "pooled")] == [22, 2, 2]


def test_a_draw_without_a_defined_score_is_left_out():
    # Seed 1 has a precision for a alone, seed 2 for b alone: a draw of aa, or of bb, leaves one seed without.
    one, two = table("ab", [5, 0], [5, 0], [5, 10]), table("ab", [0, 8], [0, 2], [10, 2])
    found = interval([one, two], "precision", "mean_empty_excluded", draws=4000)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.65, 0.65, 0.65))


def test_a_score_that_is_undefined_has_no_interval_and_no_p():
    empty = table("abc", [0] * 3, [0] * 3, [0] * 3)
    for convention in ("mean_empty_excluded", "sah_slices", "per_patient"):
        found = interval(empty, "dice", convention)
        assert np.isnan([found.estimate, found.low, found.high]).all()
        assert found.patients == 0
        assert np.isnan(difference(empty, empty, "dice", convention).p)
    flat = interval(empty, "dice", "mean_empty_1")
    assert (flat.estimate, flat.low, flat.high) == (1, 1, 1)
    assert difference(empty, empty, "dice", "pooled").p == 1


def test_a_swap_that_leaves_a_score_undefined_is_left_out():
    # a predicts on patient a only, b on patient b only: exchanging one patient leaves a model without any prediction.
    a, b = table("ab", [5, 0], [5, 0], [5, 10]), table("ab", [0, 8], [0, 2], [10, 2])
    found = difference(a, b, "precision", "mean_empty_excluded")
    assert (found.estimate, found.p) == (pytest.approx(0.3), 1)


def test_mistakes_are_named():
    a = table("aab", [1, 2, 3], [0, 0, 0], [1, 1, 1])
    with pytest.raises(ValueError, match="at least one table"):
        interval([], "dice", "pooled")
    with pytest.raises(ValueError, match="same test slices"):
        interval([a, a[::-1]], "dice", "pooled")
    with pytest.raises(ValueError, match="same test slices"):
        difference(a, a.assign(fn=2), "dice", "pooled")
    with pytest.raises(ValueError, match="1 rows without a patient_id"):
        interval(a.assign(patient_id=["a", None, "b"]), "dice", "pooled")
    with pytest.raises(ValueError, match="no column patient_id"):
        interval(a.drop(columns="patient_id"), "dice", "pooled")
    with pytest.raises(ValueError, match="stand together"):
        interval(a.assign(patient_id=["a", "b", "a"]), "dice", "batches")
    with pytest.raises(ValueError, match="level"):
        interval(a, "dice", "pooled", level=95)
    with pytest.raises(ValueError, match="draws"):
        interval(a, "dice", "pooled", draws=0)
    with pytest.raises(ValueError, match="permutations"):
        difference(a, a, "dice", "pooled", permutations=0)
    with pytest.raises(ValueError, match="convention"):
        interval(a, "dice", "sideways")
    assert metrics.score(a, "dice", "pooled") == interval(a, "dice", "pooled").estimate


def test_ten_thousand_slices_take_less_than_two_seconds():
    import time

    truth = truth_of(300, slices=(30, 37))
    counts = predictions(truth, 1)
    assert len(counts) == pytest.approx(10_000, abs=300)
    for convention in CONVENTIONS:
        started = time.process_time()  # of this process alone: the machine may be shared
        interval(counts, "dice", convention)
        assert time.process_time() - started < 2, convention
