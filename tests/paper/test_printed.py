"""The bounds of printed.py against random test sets, against sets that attain them, and against made-up counts."""

import functools
import os

import numpy as np
import pandas as pd
import pytest
from helpers import witness as witnesses
from hypothesis import given, settings
from hypothesis import strategies as st

from sahlib.figures import evidence_plots
from sahlib.paper import printed, transcript
from sahlib.scoring import metrics
from sahlib.scoring.metrics import score

SLOW = "SAHLIB_SLOW_TESTS"  # environment variable: also look for the witnesses that take seconds each
POPULATIONS, SETS = (300, 50) if os.environ.get(SLOW) else (100, 20)  # examples of a property

witness = functools.cache(witnesses.witness)  # two tests look at the same ones

# Slice scores: many perfect, many 0, the rest anywhere, some a hair from perfect.
dices = st.lists(
    st.one_of(st.just(1.0), st.just(0.0), st.floats(0, 1), st.floats(0.99, 0.99999)), min_size=1, max_size=60
).map(np.array)
slices = st.tuples(*[st.sampled_from([0, 0, 1, 7, 300, 40000])] * 3)
test_sets = st.lists(slices, min_size=1, max_size=40).map(
    lambda rows: pd.DataFrame(rows, columns=["tp", "fp", "fn"]).assign(tn=9, patient_id=np.arange(len(rows)) // 5)
)


def iou_of(dice):
    return dice / (2 - dice)


@settings(deadline=None, max_examples=POPULATIONS)
@given(dices, st.floats(0, 0.995))
def test_bounds_hold_for_every_population(d, t):
    mean, iou = d.mean(), iou_of(d).mean()
    assert (d > t).mean() >= printed.share_above(mean, iou, t) - 1e-9
    if d.min() < 1 - 1e-6:
        assert (d == 1).mean() <= printed.perfect_ceiling(mean, iou) + 1e-6
        loss = 1 - iou_of(d)
        assert printed.imperfect_dice(mean, iou) == pytest.approx((loss * d).sum() / loss.sum(), abs=1e-6)
        assert d[d < 1].mean() >= printed.imperfect_dice(mean, iou) - 1e-6  # without weights it is no less
    imperfect = d[d < 1]
    if len(imperfect) and (cap := imperfect.max()) < 0.995:  # then what is above the cap is perfect
        assert (d == 1).mean() >= printed.share_above(mean, iou, cap) - 1e-9


@pytest.mark.parametrize("t", [0.4, 0.73, 0.9, 0.99])
def test_floor_is_attained(t):
    d = np.array([1.0] * 60 + [t] * 30 + [0.0] * 10)  # the imperfect ones at the cap or at 0
    assert printed.share_above(d.mean(), iou_of(d).mean(), t) == pytest.approx(0.6)
    d = np.array([1.0] * 60 + [t] * 40)  # Markov's: all imperfect ones at the cap
    assert printed.share_above(d.mean(), iou_of(d).mean(), t) == pytest.approx(0.6)


def test_ceiling_is_attained_and_there_is_no_floor_on_perfect_slices():
    d = np.array([1.0] * 85 + [0.309] * 15)
    assert printed.perfect_ceiling(d.mean(), iou_of(d).mean()) == pytest.approx(0.85)
    assert printed.imperfect_dice(d.mean(), iou_of(d).mean()) == pytest.approx(0.309)
    near = np.where(d == 1, 1 - 1e-7, d)  # the same printed numbers without one perfect slice
    assert abs(near.mean() - d.mean()) < 1e-6
    assert printed.share_above(d.mean(), iou_of(d).mean(), 1 - 1e-7) == 0


@pytest.mark.parametrize("t", [-0.1, 1.0])
def test_share_above_names_a_wrong_t(t):
    with pytest.raises(ValueError, match="t must"):
        printed.share_above(0.9, 0.88, t)


def test_numbers_of_the_paper():
    table = printed.perfect_slices().set_index(["model", "quantity"])
    alike, ceiling, best, high = table.index.get_level_values("quantity").unique()
    expected = {
        (transcript.ATTENTION, alike): 0.309, (transcript.ATTENTION, ceiling): 0.850,
        (transcript.ATTENTION, best): 0.807,
        (transcript.ATTENTION, high): 0.687, (transcript.UNET, alike): 0.250, (transcript.UNET, ceiling): 0.823,
        (transcript.UNET, best): 0.778, (transcript.UNET, high): 0.658,
    }  # fmt: skip
    for key, value in expected.items():
        assert table.loc[key, "value"] == pytest.approx(value, abs=5e-4)
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()


def test_rounding_interval_holds_inside_the_box():
    rng = np.random.default_rng(0)
    table = printed.perfect_slices().set_index("model")
    for model in printed.NETWORKS:
        inside = rng.uniform(*zip(*(printed.rounded(model, m) for m in printed.OVERLAP), strict=True), (500, 2))
        functions = (
            printed.imperfect_dice,
            printed.perfect_ceiling,
            lambda d, j: printed.share_above(d, j, 0.73),
            lambda d, j: printed.share_above(d, j, 0.9),
        )
        for (_, row), function in zip(table.loc[model].iterrows(), functions, strict=True):
            values = [function(d, j) for d, j in inside]
            assert row["low"] <= min(values) and max(values) <= row["high"]


# Conventions


@settings(deadline=None, max_examples=SETS)
@given(test_sets)
def test_conventions_stay_within_their_bounds(counts):
    for name, convention in metrics.CONVENTIONS.items():
        d, j, p, r, f = (score(counts, m, name) for m in ("dice", "iou", "precision", "recall", "f1"))
        if not np.isnan(d):
            assert d == pytest.approx(f)
            assert j - 1e-9 <= d <= 2 * j / (1 + j) + 1e-9
            if convention.unit == "all":
                assert d == pytest.approx(2 * j / (1 + j))
        if not np.isnan(d + p + r):
            assert max(0, p + r - 1) - 1e-9 <= f <= (2 * p * r / (p + r) if p + r else 0) + 1e-9


@settings(deadline=None, max_examples=SETS)
@given(test_sets)
def test_rules_hold_for_every_test_set(counts):
    s = {(c, m): score(counts, m, c) for c in printed.OVER_SLICES for m in metrics.METRICS}
    one, zero, left, sah = printed.OVER_SLICES

    def no_less(a, b):
        assert np.isnan(a) or np.isnan(b) or a >= b - 1e-9

    for overlap, triple in ((zero, one), (zero, left), (zero, sah), (left, one), (left, sah)):
        no_less(s[triple, "f1"], s[overlap, "dice"])
    for triple in (one, left):
        no_less(s[triple, "recall"], s[sah, "iou"])
    for overlap in (sah, left):
        no_less(s[zero, "f1"], s[zero, "precision"] * s[overlap, "dice"])
    if 0 < s[sah, "f1"] < 1:
        least, most = printed.sah_share(s[one, "dice"], s[one, "iou"], s[sah, "f1"])
        assert least - 1e-9 <= ((counts.tp + counts.fn) > 0).mean() <= most + 1e-9
    no_less(1 + s[zero, "f1"], s[zero, "precision"] + s[one, "dice"])
    no_less(1 + s[one, "iou"], 2 * (s[one, "dice"] - s[zero, "f1"]) + s[zero, "precision"] + s[zero, "recall"])


def test_which_pairs_are_possible():
    table = printed.convention_pairs()
    assert len(table) == 2 * 49
    possible = table[table["possible"]]
    assert (possible["overlap"] != possible["triple"]).all()
    assert "pooled" not in {*possible["overlap"], *possible["triple"]}
    both = possible.groupby(["overlap", "triple"])["model"].nunique()
    assert (both == 2).sum() == 20
    assert both[both == 1].index.tolist() == [("mean_empty_1", "mean_empty_0")]  # Attention U-Net's numbers alone
    free = possible[possible["near_perfect"] == 0]
    assert set(free["overlap"]) == {"mean_empty_1"}
    assert set(free["triple"]) == {"mean_empty_excluded", "sah_slices", "batches", "per_patient"}
    assert (possible.loc[possible["overlap"] != "mean_empty_1", "near_perfect"] > 0.64).all()
    assert set(table["rule"]) - {""} <= set(printed.RULES)


def test_no_convention_gives_all_five_numbers():
    table = printed.convention_bounds()
    assert not table.query("group == 'all five'")["possible"].any()
    assert not table.query("convention == 'pooled'")["possible"].any()
    assert table.query("convention != 'pooled' and group != 'all five'")["possible"].all()
    assert ((table["slack"] >= 0) == table["possible"]).all()


FAST = {
    ("unet", "mean_empty_1", "sah_slices"),
    ("attention_unet", "mean_empty_1", "mean_empty_excluded"),
    ("attention_unet", "mean_empty_1", "sah_slices"),
    ("attention_unet", "mean_empty_1", "batches"),
    ("attention_unet", "mean_empty_0", "batches"),
    ("attention_unet", "per_patient", "mean_empty_1"),
    ("unet", "sah_slices", "batches"),
}
POSSIBLE = [tuple(row) for row in printed.convention_pairs().query("possible")[["model", "overlap", "triple"]].values]


@pytest.mark.parametrize("model, overlap, triple", POSSIBLE)
def test_possible_pairs_have_counts_that_score_what_was_printed(model, overlap, triple):
    if (model, overlap, triple) not in FAST and not os.environ.get(SLOW):
        pytest.skip(f"takes seconds; set {SLOW}=1")
    counts = witness(model, overlap, triple)
    assert 1361 <= len(counts) <= 1376
    pixels = counts[list(metrics.COUNTS)].to_numpy()
    assert (pixels >= 0).all() and (pixels.sum(axis=1) == 256 * 256).all()
    for metric in transcript.TABLE_3.rows:
        value = score(counts, metric, overlap if metric in printed.OVERLAP else triple)
        assert round(value, 3) == transcript.TABLE_3.value(metric, model)


def test_impossible_pair_is_refused_with_its_rule():
    assert printed.obstacle("unet", "batches", "batches") == "same"
    with pytest.raises(ValueError, match="same"):
        witness("unet", "batches", "batches")


def test_slice_numbers_are_of_86_batches():
    table = printed.slice_numbers()
    assert (table["high"] <= 1376).all() and (table["low"] <= table["high"]).all()
    imperfect = table[table["quantity"].str.startswith("slices that are not")].set_index("model")["low"]
    assert imperfect.to_dict() == {"unet": 239, "attention_unet": 202}
    for model in printed.NETWORKS:  # what the witnesses count lies within
        counts = witness(model, "mean_empty_1", "sah_slices")
        row = table.query("model == @model and quantity.str.startswith('slices with SAH')").iloc[0]
        assert row["low"] <= ((counts.tp + counts.fn) > 0).sum() <= row["high"]


def test_figure_and_its_data():
    data = printed.perfect_slices_curves()
    assert (data["floor_low"] <= data["floor"] + 1e-12).all() and (data["floor"] <= data["floor_high"] + 1e-12).all()
    assert (data["floor"] <= data["ceiling"] + 1e-9).all()
    texts = [text.get_text() for ax in evidence_plots.perfect_slices().axes for text in ax.texts]
    assert any("at least 81% perfect" in text for text in texts) and any("at least 78% perfect" in t for t in texts)
