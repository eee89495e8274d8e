"""Volumes and Bland-Altman by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sahlib.scoring import metrics
from sahlib.scoring.volumes import bland_altman, patient_volumes

COUNTS = pd.DataFrame(
    {
        "patient_id": ["ann", "ann", "bob"],
        "tp": [10, 20, 0],
        "fp": [0, 10, 5],
        "fn": [10, 0, 0],
        "tn": [80, 70, 95],
    }
)
SPACING = (np.array([0.5, 0.5, 1.0]), np.array([0.5, 0.5, 2.0]), np.array([5.0, 5.0, 10.0]))


def test_volumes_by_hand():
    # ann: a pixel is 0.5 x 0.5 x 5 mm = 1.25 mm3; 40 true and 40 predicted. bob: 20 mm3; none true, 5 predicted.
    table = patient_volumes(COUNTS, *SPACING).set_index("patient_id")
    assert table["truth_ml"].to_dict() == pytest.approx({"ann": 0.05, "bob": 0})
    assert table["predicted_ml"].to_dict() == pytest.approx({"ann": 0.05, "bob": 0.1})
    assert table["difference_ml"].to_dict() == pytest.approx({"ann": 0, "bob": 0.1})
    assert table["mean_ml"].to_dict() == pytest.approx({"ann": 0.05, "bob": 0.05})
    assert table["slices"].tolist() == [2, 1] and table["reason"].tolist() == ["", ""]


def test_one_slice_of_unknown_thickness_makes_a_volume_unknown_and_says_so():
    row_mm, column_mm, _ = SPACING
    table = patient_volumes(COUNTS, row_mm, column_mm, np.array([5.0, np.nan, 10.0])).set_index("patient_id")
    assert table.loc["ann", ["truth_ml", "predicted_ml", "mean_ml", "difference_ml"]].isna().all()
    assert table.loc["ann", "reason"] == "thickness_mm unknown in 1 of 2 slices"
    assert table.loc["bob", "predicted_ml"] == pytest.approx(0.1) and table.loc["bob", "reason"] == ""


def test_all_that_is_unknown_is_named():
    unknown = np.full(3, np.nan)
    table = patient_volumes(COUNTS, unknown, unknown, unknown)
    assert table["reason"].str.count("unknown").tolist() == [3, 3]
    agreement = bland_altman(table)
    assert agreement["patients"] == 0 and agreement["left_out"] == 2 and np.isnan(agreement["bias_ml"])


def test_patients_keep_their_order():
    assert patient_volumes(COUNTS.iloc[::-1], *(s[::-1] for s in SPACING))["patient_id"].tolist() == ["bob", "ann"]


def test_background_everywhere_underestimates_by_the_whole_lesion():
    table = patient_volumes(metrics.background_everywhere(COUNTS), *SPACING)
    np.testing.assert_allclose(table["difference_ml"], -table["truth_ml"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"counts": COUNTS.drop(columns="patient_id")}, "patient_id"),
        ({"counts": COUNTS.drop(columns="fp")}, "fp"),
        ({"counts": COUNTS.assign(patient_id=["a", None, "b"])}, "1 rows without"),
        ({"row_mm": np.ones(2)}, "row_mm must hold"),
        ({"thickness_mm": np.array([5.0, 0.0, 5.0])}, "thickness_mm must be above 0"),
    ],
)
def test_wrong_input_is_named(change, message):
    names = ("row_mm", "column_mm", "thickness_mm")
    arguments = {"counts": COUNTS, **dict(zip(names, SPACING, strict=True))} | change
    with pytest.raises(ValueError, match=message):
        patient_volumes(**arguments)


def differences(values):
    return pd.DataFrame({"difference_ml": values})


def test_bland_altman_by_hand():
    # mean 2, squared deviations 4 + 0 + 4, sd 2
    agreement = bland_altman(differences([0.0, 2.0, 4.0, np.nan]))
    assert agreement["bias_ml"] == 2 and agreement["sd_ml"] == 2
    assert (agreement["lower_ml"], agreement["upper_ml"]) == pytest.approx((2 - 3.92, 2 + 3.92))
    assert (agreement["patients"], agreement["left_out"]) == (3, 1)
    # t of 2 degrees of freedom is 4.303; its steps are sd/sqrt(n) = 1.1547 and, of a limit, sd sqrt(3/n) = 2
    assert agreement["bias_low_ml"] == pytest.approx(2 - 4.303 * 1.1547, abs=1e-3)
    assert agreement["bias_high_ml"] == pytest.approx(2 + 4.303 * 1.1547, abs=1e-3)
    assert agreement["limit_margin_ml"] == pytest.approx(4.303 * 2, abs=1e-3)


def test_one_patient_has_a_bias_and_no_limits():
    agreement = bland_altman(differences([3.0]))
    assert agreement["bias_ml"] == 3 and np.isnan(agreement["lower_ml"]) and np.isnan(agreement["limit_margin_ml"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.floats(-50, 50))
def test_a_shift_moves_bias_and_limits_and_the_interval_is_students(values, shift):
    one, moved = (bland_altman(differences(np.array(values) + s)) for s in (0, shift))
    for name in ("bias_ml", "lower_ml", "upper_ml"):
        assert moved[name] == pytest.approx(one[name] + shift, abs=1e-9)
    assert one["sd_ml"] == pytest.approx(np.std(values, ddof=1))
    if one["sd_ml"] > 1e-6:
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (one["bias_low_ml"], one["bias_high_ml"]) == pytest.approx(tuple(interval))
