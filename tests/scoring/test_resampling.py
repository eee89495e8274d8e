"""Intervals and tests against brute force, scipy where a patient is a slice, and simulated truth."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers.fabricated_counts import one_slice_each, predictions, table, truth_of

from sahlib.scoring.intervals import difference, interval
from sahlib.scoring.metrics import CONVENTIONS, METRICS, score


def tail(patients):
    """Below which quantile of the draws the expanded interval of 95 % ends (Hesterberg 2015)."""
    return scipy.stats.norm.cdf(-np.sqrt(patients / (patients - 1)) * scipy.stats.t.ppf(0.975, patients - 1))


# Against brute force: every draw or swap written out as a table of counts and scored by metrics.score.


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_interval_is_the_quantiles_of_scores_of_drawn_tables(metric, convention):
    truth = truth_of(5)
    frames = [predictions(truth, seed) for seed in (1, 2)]
    drawn = np.random.default_rng(7).integers(0, 5, (25, 5))
    by_patient = [[g for _, g in frame.groupby("patient_id")] for frame in frames]
    scores = []
    for row in drawn:
        # A patient drawn twice is two patients.
        sets = [pd.concat([g[i].assign(patient_id=k) for k, i in enumerate(row)]) for g in by_patient]
        scores.append(np.mean([score(s, metric, convention, 4) for s in sets]))
    found = interval(frames, metric, convention, draws=25, seed=7, batch_size=4)
    assert found.patients == 5
    assert found.estimate == pytest.approx(np.mean([score(f, metric, convention, 4) for f in frames]), abs=1e-14)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(scores, [tail(5), 1 - tail(5)])), abs=1e-12)


@pytest.mark.parametrize("metric", ["dice", "precision"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_p_is_the_share_of_all_swaps(metric, convention):
    truth = truth_of(4)
    a, b = [predictions(truth, 1, 0.55)], [predictions(truth, s, 0.75) for s in (3, 4)]
    swapped = []
    for swap in product([False, True], repeat=4):  # the first swaps nobody: what was observed
        names = [f"p{i:03d}" for i in range(4) if swap[i]]
        changed, pairs = a[0]["patient_id"].isin(names), []
        for x, y in product(a, b):
            new_x, new_y = x.mask(changed, y), y.mask(changed, x)
            pairs.append(score(new_y, metric, convention, 4) - score(new_x, metric, convention, 4))
        swapped.append(np.mean(pairs))
    found = difference(a, b, metric, convention, batch_size=4)
    assert found.estimate == pytest.approx(swapped[0], abs=1e-14)
    assert found.p == pytest.approx(np.mean(np.abs(swapped) >= abs(swapped[0]) - 1e-12))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_random_swaps_come_near_to_all_swaps(convention):
    truth = truth_of(10)
    a, b = predictions(truth, 1, 0.62), predictions(truth, 2, 0.66)
    exact = difference(a, b, "dice", convention)
    random = difference(a, b, "dice", convention, permutations=500)
    assert exact.p * 512 == pytest.approx(round(exact.p * 512))  # the half of all 1024 swaps, which the other mirrors
    assert random.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p * (1 - exact.p) / 500) + 0.01)
    assert random.p * 501 == pytest.approx(round(random.p * 501))  # Phipson and Smyth's (1 + far) / (1 + made)
    assert (random.low, random.high) == (exact.low, exact.high)


# Against scipy, where a patient is a slice.

SKEWED = np.random.default_rng(3).beta(4, 1.2, 25)


def test_interval_is_scipys_percentile_interval_at_the_expanded_level():
    theirs = scipy.stats.bootstrap(
        (np.rint(SKEWED * 1000) / 1000,),
        np.mean,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail(25),
        method="percentile",
        rng=1,
    ).confidence_interval
    ours = interval(one_slice_each(SKEWED), "dice", "mean_empty_1", draws=20_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))


def test_expanded_interval_is_near_scipys_bca_and_the_t_interval_for_many_patients():
    scores = np.rint(np.random.default_rng(4).beta(4, 1.2, 400) * 1000) / 1000
    ours = interval(one_slice_each(scores), "dice", "mean_empty_1", draws=20_000)
    bca = scipy.stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    t = scipy.stats.ttest_1samp(scores, 0).confidence_interval()
    for theirs in (bca, t):
        assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.05 * (theirs.high - theirs.low))


def test_expanded_interval_is_as_wide_as_a_t_interval_for_few_patients():
    scores = np.linspace(0.3, 0.9, 8)
    ours = interval(one_slice_each(scores), "dice", "mean_empty_1", draws=20_000)
    t = scipy.stats.ttest_1samp(scores, 0).confidence_interval()
    assert ours.high - ours.low == pytest.approx(t.high - t.low, rel=0.07)


def test_p_is_scipys():
    rng = np.random.default_rng(5)
    a, b = (np.rint(x * 1000) / 1000 for x in (rng.beta(4, 2, 10), rng.beta(5, 2, 10)))
    theirs = scipy.stats.permutation_test(
        (b, a), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    ours = difference(one_slice_each(a), one_slice_each(b), "dice", "mean_empty_1")
    assert ours.estimate == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue)


# Against simulated truth.


def clustered(rng, patients):
    """A test set whose patients differ far more in Dice (0.7 on average) than the slices of one patient do.

    How many slices a patient has, and how large the lesions are, has nothing to do with it: every convention's truth
    is 0.7.
    """
    slices = rng.integers(6, 15, patients)
    level = np.repeat(rng.beta(7, 3, patients), slices)
    size = rng.integers(200, 2000, slices.sum())
    tp = rng.binomial(size, level)
    return table(np.repeat([f"p{i:03d}" for i in range(patients)], slices), tp, size - tp, size - tp)


@pytest.mark.parametrize(("convention", "patients"), [("mean_empty_1", 10), ("pooled", 40)])
def test_intervals_cover_as_often_as_they_say_and_those_over_slices_do_not(convention, patients):
    rng = np.random.default_rng(patients)
    ours = slices = 0
    for k in range(250):
        counts = clustered(rng, patients)
        found = interval(counts, "dice", convention, draws=500, seed=k)
        ours += found.low <= 0.7 <= found.high
        if k < 50:
            naive = interval(counts.assign(patient_id=counts["slice_id"]), "dice", convention, draws=500, seed=k)
            slices += naive.low <= 0.7 <= naive.high
            assert naive.high - naive.low < 0.7 * (found.high - found.low)
    # 250 trials at 95 % have a standard error of 1.4 %.
    assert 0.90 <= ours / 250 <= 0.98
    assert slices / 50 < 0.65


def test_paired_interval_and_p_hold_their_level_where_models_are_alike():
    rng = np.random.default_rng(11)
    covered = significant = 0
    for k in range(250):
        level = rng.beta(7, 3, 12)
        pair = []
        for _ in "ab":
            # Patients are hard for both models alike; each model has its own luck with each patient.
            tp = rng.binomial(1000, np.repeat(np.clip(level + rng.normal(0, 0.05, 12), 0, 1), 5))
            pair.append(table(np.repeat(range(12), 5), tp, 1000 - tp, 1000 - tp))
        found = difference(*pair, "dice", "mean_empty_1", draws=500, permutations=2048, seed=k)
        covered += found.low <= 0 <= found.high
        significant += found.p <= 0.05
    assert 0.92 <= covered / 250 <= 0.98
    assert 0.01 <= significant / 250 <= 0.09


def test_pairing_sees_a_small_difference_between_patients_that_differ_much():
    rng = np.random.default_rng(12)
    level = rng.uniform(0.2, 0.9, 30)
    a, b = one_slice_each(level), one_slice_each(level + rng.uniform(0, 0.04, 30))
    alone = interval(a, "dice", "mean_empty_1")
    found = difference(a, b, "dice", "mean_empty_1")
    assert alone.high - alone.low > 10 * (found.high - found.low)
    assert found.low > 0
    assert found.p == 1 / 5000  # the smallest that 4999 random swaps can give
