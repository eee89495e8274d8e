import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahlib.study import OWN, PROFILES, Study, StudyError, digest


def test_the_paper_profile_is_the_paper_s_recipe():
    study = Study.of_profile("paper")
    assert (study.size, study.epochs, study.batch_size, study.learning_rate) == (256, 50, 16, 1e-4)
    assert study.prior_bias is False


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_survives_json(profile):
    study = Study.of_profile(profile)
    assert Study(**json.loads(json.dumps(study.as_dict()))) == study


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 250}, ["250", "16", "256"]),
        ({"size": 16}, ["16", "32"]),
        ({"size": 240, "models": ["unet", "unet_resnet34", "attention_unet"]}, ["240", "unet_resnet34", "32"]),
        ({"size": 32, "models": ["unet", "unet_resnet34", "attention_unet"]}, ["at least 64", "nearest is 64"]),
        ({"learning_rat": 1e-3}, ["learning_rat", "learning_rate"]),
        ({"dataset": "kaggle"}, ["kaggle", "phantom", "paired_folder"]),
        ({"dataset": "paired_folder"}, ["paired_folder", "data_dir", "folder"]),
        ({"dataset": "phantom", "patient_pattern": "^(.)"}, ["patient_pattern", "--data-dir"]),
        ({"data_dir": "/somewhere"}, ["data_dir", "from disk"]),
        ({"models": ["unet", "transformer"]}, ["transformer", "attention_unet"]),
        ({"models": ["unet"]}, ["attention_unet"]),
        ({"seeds": []}, ["seeds"]),
        ({"seeds": [1, 1]}, ["seeds"]),
        ({"seeds": [{}]}, ["seeds", "a list of int"]),
        ({"seeds": [0.5]}, ["seeds", "a list of int"]),
        ({"seeds": [None]}, ["seeds", "a list of int"]),
        ({"seeds": 0}, ["seeds", "a list of int"]),
        ({"seeds": [-1]}, ["seeds", "0 to 4294967295", "-1"]),
        ({"phantom_seed": -1}, ["phantom_seed", "-1"]),
        ({"split_seed": 2**32}, ["split_seed", "4294967296"]),
        ({"models": "unet"}, ["models", "a list of str"]),
        ({"channels": [8, 8, 8, 8, "8"]}, ["channels", "a list of int"]),
        ({"channels": [8, 8, 8, 8, 8.5]}, ["channels", "a list of int"]),
        ({"label_map": [1]}, ["label_map", "a list of str"]),
        ({"learning_rate": float("inf")}, ["learning_rate", "finite"]),
        ({"rotation_degrees": float("nan")}, ["rotation_degrees", "finite"]),
        ({"learning_rates": [0], "further_recipes": ["fair"]}, ["learning_rates", "above 0"]),
        ({"learning_rates": [], "further_recipes": ["travels"]}, ["'travels'", "learning_rates"]),
        ({"augmentation": "wild"}, ["wild", "paper, travels"]),
        ({"augmentation": "travels", "windows": ["brain", "bone"]}, ["'travels'", "windows"]),
        ({"further_recipes": ["travels"], "windows": ["brain", "bone"]}, ["'travels'", "windows"]),
        ({"profile": "quick"}, ["profile", "--profile"]),
        ({"label-map": ["1=SAH"]}, ["label-map", "is it label_map?"]),
        ({"x": 1}, ["called x", "there are", "windows"]),
        ({"channels": [8, 16]}, ["channels", "five"]),
        ({"epochs": 0}, ["epochs", "0"]),
        ({"batch_size": "16"}, ["batch_size", "int"]),
        ({"train_share": 0.9, "validation_share": 0.2}, ["train_share", "test"]),
        ({"flip_probability": 1.5}, ["flip_probability"]),
        ({"precision": "fp8"}, ["fp8", "bf16"]),
        ({"windows": ["liver"]}, ["liver", "brain", "40/80"]),
        ({"windows": ["40/0"]}, ["40/0", "LEVEL/WIDTH"]),
        ({"windows": ["nan/80"]}, ["nan/80", "LEVEL/WIDTH"]),
        ({"windows": ["inf/80"]}, ["inf/80", "LEVEL/WIDTH"]),
        ({"grey_window": "40/inf"}, ["40/inf", "LEVEL/WIDTH"]),
        ({"windows": []}, ["windows"]),
        ({"target": "tumour"}, ["tumour", "SAH, any, all"]),
        ({"label_map": ["1=SAH"]}, ["label_map", "--data-dir"]),
    ],
)
def test_a_mistake_is_named_with_the_way_out(changes, words):
    with pytest.raises(StudyError) as error:
        Study.of_profile("quick", **changes)
    assert all(word in str(error.value) for word in words)


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(StudyError, match="fast.*auto, paper, quick, verdict, smoke"):
        Study.of_profile("fast")


@given(st.integers(-50, 2000))
def test_only_multiples_of_16_are_sizes(size):
    models = ("unet", "attention_unet")
    if size >= 32 and size % 16 == 0:
        assert Study(size=size, models=models).size == size
    else:
        with pytest.raises(StudyError):
            Study(size=size, models=models)


def test_what_each_recipe_adds():
    study = Study.of_profile("smoke", learning_rate=0.5)
    assert [(r.prior_bias, r.learning_rate) for r in (study.under("paper"), study.under("prior"))] == [
        (False, 1e-4),
        (True, 1e-4),
    ]
    fair = study.under("fair", 3e-3)
    assert fair.prior_bias and fair.learning_rate == 3e-3
    assert dataclasses.replace(fair, prior_bias=False, learning_rate=0.5) == study
    travels = study.under("travels", 3e-3)
    assert travels == dataclasses.replace(fair, augmentation="travels")
    assert travels.under("fair", 3e-3) == fair and travels.under("paper").recipe == "paper"
    with pytest.raises(ValueError, match="paper, prior, fair, travels"):
        study.under("best")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "paper"),
        ({"prior_bias": True}, "prior"),
        ({"learning_rate": 1e-2}, OWN),  # once "paper"
        ({"prior_bias": True, "learning_rate": 3e-4}, OWN),  # once "fair", and then overwritten by the searched one
        ({"augmentation": "travels"}, OWN),
    ],
)
def test_a_recipe_is_named_by_what_it_is(changes, name):
    assert Study(**changes).recipe == name


def test_the_budget_of_rates_reaches_from_the_paper_s_rate_beyond_that_of_quick():
    rates = Study.learning_rates
    assert min(rates) == Study.learning_rate and max(rates) > Study.of_profile("quick").learning_rate


def test_the_rate_of_quick_is_set_by_hand_and_not_called_fair():
    assert Study.of_profile("quick").recipe == OWN


def test_a_study_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Study().epochs = 3


def test_digest_depends_on_values_and_not_on_their_order():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest("x")) == 12
