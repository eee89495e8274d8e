import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahlib.data import slices, splits
from sahlib.data.splits import SIDES, by_patient
from sahlib.study import Study, StudyError


def lesions(bleeding, others, seed=0):
    rng = np.random.default_rng(seed)
    pixels = [*rng.integers(1, 5000, bleeding), *([0] * others)]
    return pd.Series(pixels, index=[f"p{i:04d}" for i in rng.permutation(len(pixels))])


@settings(deadline=None, max_examples=60)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 1000))
def test_no_patient_is_on_two_sides_and_each_side_bleeds_like_the_whole(bleeding, others, seed):
    pixels = lesions(bleeding, others, seed)
    split = by_patient(pixels, 0.70, 0.15, seed)
    assert set(split.sides) == set(pixels.index)  # a dict holds each patient once, on one side
    sides = pd.Series(split.sides)
    assert set(sides) == set(SIDES)
    share = bleeding / len(pixels)
    for side in SIDES:
        patients = sides.index[sides == side]
        assert abs((pixels[patients] > 0).sum() - share * len(patients)) <= 2


def test_no_slice_of_a_patient_is_on_two_sides(small):
    _, store, split = small
    owners = [set(store.slices.patient_id.iloc[split.rows(store, side)]) for side in SIDES]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    assert sorted(np.concatenate([split.rows(store, side) for side in SIDES])) == list(range(len(store)))


def test_sizes_of_the_sides():
    sides = pd.Series(by_patient(lesions(60, 40), 0.70, 0.15, 0).sides).value_counts()
    assert sides.to_dict() == {"train": 70, "validation": 15, "test": 15}


def test_large_and_small_lesions_are_on_every_side():
    pixels = lesions(60, 40)
    split = by_patient(pixels, 0.70, 0.15, 3)
    median = pixels[pixels > 0].median()
    for side in SIDES:
        own = pixels[[patient for patient, where in split.sides.items() if where == side]]
        assert (own > median).any() and ((own > 0) & (own <= median)).any() and (own == 0).any()


def test_the_seed_decides_and_the_order_of_patients_does_not():
    pixels = lesions(20, 20)
    assert by_patient(pixels, 0.7, 0.15, 1) == by_patient(pixels[::-1], 0.7, 0.15, 1)
    assert by_patient(pixels, 0.7, 0.15, 1) != by_patient(pixels, 0.7, 0.15, 2)


@pytest.mark.parametrize(("bleeding", "others"), [(0, 30), (1, 30), (2, 30), (1, 1), (2, 1)])
def test_too_few_patients_are_counted_out_loud(bleeding, others):
    with pytest.raises(
        StudyError, match=f"{bleeding + others} patients, {bleeding} of them with a lesion, cannot be split"
    ):
        by_patient(lesions(bleeding, others), 0.70, 0.15, 0)


def test_shares_that_leave_a_side_empty_are_what_is_named():
    words = "14 patients, 7 .* cannot be split into 0 for training, 2 for validation and 12 for test.*change the shares"
    with pytest.raises(StudyError, match=words):
        by_patient(lesions(7, 7), 0.01, 0.15, 0)


def test_a_cohort_is_the_test_side_and_the_others_keep_the_ratio_of_their_shares():
    pixels = lesions(24, 16)
    cohort = sorted(pixels.index)[34:]
    split = by_patient(pixels, 0.70, 0.15, 0, cohort=cohort)
    on = {side: sorted(who for who, where in split.sides.items() if where == side) for side in SIDES}
    assert on["test"] == cohort and (len(on["train"]), len(on["validation"])) == (28, 6)
    # What the cohort shows has no say in who trains.
    other = pixels.copy()
    other[cohort] = pixels[cohort].to_numpy()[::-1] * 3 + 1
    assert by_patient(other, 0.70, 0.15, 0, cohort=cohort) == split


def test_the_phantom_s_cohort_comes_after_those_who_train_and_folds_take_everybody(tmp_path):
    study = Study.of_profile("smoke", phantom_patients=10, phantom_test_patients=3)
    store = slices.prepare(study, tmp_path)
    split = splits.prepare(store, study)
    assert [who for who, side in sorted(split.sides.items()) if side == "test"] == ["P0010", "P0011", "P0012"]
    folds = [splits.prepare(store, dataclasses.replace(study, folds=2, fold=k)).sides for k in (0, 1)]
    assert all(sorted(sides[who] for sides in folds).count("test") == 1 for who in split.sides)


def test_the_saved_split_is_read_and_not_drawn_again(small, monkeypatch):
    study, store, split = small
    monkeypatch.setattr(splits, "by_patient", None)
    assert splits.prepare(store, study) == split


def test_the_summary_counts_patients_and_slices(small):
    _, store, split = small
    table = split.summary(store)
    assert table["patients"].sum() == 12 and table["slices"].sum() == 36
    assert table["patients with SAH"].sum() == 6 and table["slices with SAH"].sum() == 12


@settings(deadline=None, max_examples=30)
@given(st.integers(10, 40), st.integers(10, 40), st.integers(2, 5), st.integers(0, 1000))
def test_over_all_folds_each_patient_is_tested_once(bleeding, others, folds, seed):
    pixels = lesions(bleeding, others, seed)
    found = [by_patient(pixels, 0.70, 0.15, seed, folds, fold) for fold in range(folds)]
    tested = [patient for split in found for patient, side in split.sides.items() if side == "test"]
    assert sorted(tested) == sorted(pixels.index)
    for split in found:
        sides = pd.Series(split.sides)
        assert set(split.sides) == set(pixels.index) and set(sides) == set(SIDES)
        patients = sides.index[sides == "test"]
        # As many who bleed as the whole would lead to expect: two strata of them, each dealt out to within one.
        assert abs((pixels[patients] > 0).sum() - bleeding / folds) < 2


def test_the_folds_of_a_study_reach_the_split_that_is_saved(small):
    study, store, single = small
    first, second = (splits.prepare(store, dataclasses.replace(study, folds=2, fold=fold)) for fold in (0, 1))
    sides = [{p for p, side in split.sides.items() if side == "test"} for split in (first, second)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(single.sides)
    assert len({split.digest for split in (single, first, second)}) == 3
    assert splits.prepare(store, study) == single


def test_too_few_patients_for_so_many_folds_are_counted_out_loud():
    with pytest.raises(StudyError, match="12 patients, 4 of them with a lesion, cannot be.* in each of 5 folds"):
        by_patient(lesions(4, 8), 0.70, 0.15, 0, folds=5)
