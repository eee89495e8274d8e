"""The recipes, and a choice of learning rate that sees validation data alone."""

import dataclasses

import pytest

from sahlib.study import Study
from sahlib.training import loop, rate_search


def test_what_each_recipe_adds():
    study = Study.of_profile("smoke", learning_rate=0.5)
    assert [(r.prior_bias, r.learning_rate) for r in (study.under("paper"), study.under("prior"))] == [
        (False, 1e-4),
        (True, 1e-4),
    ]
    fair = study.under("fair", 3e-3)
    assert fair.prior_bias and fair.learning_rate == 3e-3
    assert dataclasses.replace(fair, prior_bias=False, learning_rate=0.5) == study
    with pytest.raises(ValueError, match="paper, prior, fair"):
        study.under("best")


@pytest.mark.parametrize(("profile", "name"), [("paper", "paper"), ("quick", "fair")])
def test_a_profile_s_own_recipe_has_a_name(profile, name):
    assert Study.of_profile(profile).recipe == name


def test_the_rate_with_the_best_validation_dice_is_chosen_and_loss_breaks_ties(small, tmp_path, monkeypatch):
    study, store, split = small
    study = dataclasses.replace(study, learning_rates=(1e-4, 1e-3, 1e-2), epochs=1)
    scores = {1e-4: (0.9, 0.3), 1e-3: (0.8, 0.5), 1e-2: (0.7, 0.5)}
    monkeypatch.setattr(loop, "evaluate", lambda score, slices, used: scores[used.learning_rate])
    table = rate_search.search_learning_rate(store, split, study, "unet", tmp_path)
    assert table["learning_rate"].tolist() == [1e-4, 1e-3, 1e-2] and table["chosen"].tolist() == [False, False, True]
