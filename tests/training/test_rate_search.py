"""A choice of learning rate that sees validation data alone."""

import dataclasses

from sahlib.training import loop, rate_search


def test_the_rate_with_the_best_validation_dice_is_chosen_and_loss_breaks_ties(small, tmp_path, monkeypatch):
    study, store, split = small
    study = dataclasses.replace(study, learning_rates=(1e-4, 1e-3, 1e-2), epochs=1)
    scores = {1e-4: (0.9, 0.3), 1e-3: (0.8, 0.5), 1e-2: (0.7, 0.5)}
    monkeypatch.setattr(loop, "evaluate", lambda score, slices, used: scores[used.learning_rate])
    table = rate_search.search_learning_rate(store, split, study, "unet", tmp_path)
    assert table["learning_rate"].tolist() == [1e-4, 1e-3, 1e-2] and table["chosen"].tolist() == [False, False, True]
    assert rate_search.chosen_rate(table) == 1e-2
