"""What is measured of a training curve, by hand."""

import numpy as np
import pandas as pd
import pytest

from sahlib.training import curves

LOSS = [1.0, 0.5, 0.7, 0.2, 0.1, 0.3, 0.1, 0.1, 0.2, 0.2]  # drop 0.9, last fifth 0.2 0.2
HISTORY = pd.DataFrame({"epoch": range(1, 11), "train_loss": np.linspace(1, 0.1, 10), "validation_loss": LOSS})


def test_numbers_by_hand():
    assert curves.numbers(HISTORY) == pytest.approx(
        {
            "settled_epoch": 5,
            "roughness": (0.2 + 0.2 + 0.1) / 0.9,
            "early_roughness": 0.2 / 0.9,
            "late_gain": 0,
            "late_rise": 0.1 / 0.9,
            "late_gap": 0.2 - 0.15,
            "end_level": 0.2,
        }
    )


def test_a_training_loss_that_did_not_fall_is_an_endless_rise():
    assert curves.numbers(HISTORY.assign(train_loss=1.0))["late_rise"] == np.inf


def test_a_loss_that_only_rose_is_endlessly_rough():
    found = curves.numbers(HISTORY.assign(validation_loss=np.linspace(1, 2, 10)))
    assert [found[name] for name in ("roughness", "early_roughness", "late_rise")] == [np.inf] * 3
    assert (found["settled_epoch"], found["late_gain"]) == (1, 0)


def test_a_loss_that_never_moved_has_no_roughness():
    found = curves.numbers(HISTORY.assign(validation_loss=1.0))
    assert (found["settled_epoch"], found["roughness"], found["late_gain"]) == (1, 0, 0)
