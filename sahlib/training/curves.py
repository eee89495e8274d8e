"""Numbers of a training curve, and which of them show what the paper says of its training.

A history is a table with epoch, train_loss and validation_loss, one row per epoch in order. The drop of the validation
loss is the first minus the lowest; what is measured over it does not depend on the loss's scale.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

NEAR = 0.05  # of the way from the first to the lowest validation loss


def _shape(history: pd.DataFrame) -> SimpleNamespace:
    loss, fifth = history["validation_loss"].to_numpy(float), max(1, len(history) // 5)
    return SimpleNamespace(
        loss=loss, fifth=fifth, drop=max(loss[0] - loss.min(), 1e-12), end=loss[-fifth:].mean(),
        train=history["train_loss"].to_numpy(float), steps=np.clip(np.diff(loss), 0, None),
    )  # fmt: skip


def settled_epoch(history: pd.DataFrame) -> float:
    """First epoch whose validation loss is within NEAR of its drop (first minus lowest) of the lowest."""
    s = _shape(history)
    return float(history["epoch"].to_numpy()[np.argmax(s.loss <= s.loss.min() + NEAR * s.drop)])


def roughness(history: pd.DataFrame) -> float:
    """Sum of the upward steps of the validation loss, as a multiple of its drop."""
    s = _shape(history)
    return float(s.steps.sum() / s.drop)


def early_roughness(history: pd.DataFrame) -> float:
    """The same over the first fifth of the epochs."""
    s = _shape(history)
    return float(s.steps[: s.fifth].sum() / s.drop)


def late_gain(history: pd.DataFrame) -> float:
    """How much of the drop of the validation loss came in the last fifth of the epochs; at most NEAR: converged."""
    s = _shape(history)
    return float(max(0.0, s.loss[: -s.fifth].min() - s.loss.min()) / s.drop)


def late_rise(history: pd.DataFrame) -> float:
    """Mean validation loss of the last fifth above the lowest, over the drop; infinite if training loss did not fall;
    more than 0.1: overfitted."""
    s = _shape(history)
    return float((s.end - s.loss.min()) / s.drop) if s.train[-s.fifth :].mean() < s.train[0] else np.inf


def late_gap(history: pd.DataFrame) -> float:
    """Validation minus training loss in the last fifth, over the first validation loss; small: within 0.1 of 0."""
    s = _shape(history)
    return float((s.end - s.train[-s.fifth :].mean()) / s.loss[0])


def end_level(history: pd.DataFrame) -> float:
    """Mean validation loss of the last fifth of the epochs."""
    return _shape(history).end


# What a number is called before its values, by the name of the measure.
WORDS = {
    "converged": "still falling by", "not_overfitted": "up again by", "small_gap": "gap", "same_level": "off by",
    "settled_epoch": "epoch", "roughness": "steps up", "early_roughness": "early steps up",
}  # fmt: skip
_RUN_TESTS = {"converged": (late_gain, NEAR), "not_overfitted": (late_rise, 0.1), "small_gap": (late_gap, 0.1)}
_COMPARED = {f.__name__: f for f in (settled_epoch, roughness, early_roughness)}

Values = dict[str, list[float]]


def measured(name: str, runs: dict[str, list[pd.DataFrame]]) -> tuple[Values, dict[str, list[bool]] | None]:
    """A number of every run, and whether the run shows what is claimed; None for a number that is only compared.

    name: one of WORDS; runs: arm -> one history per seed. "same_level" is of the first arm alone, against the mean of
    the last one's seeds
    """
    if name in _RUN_TESTS:
        function, limit = _RUN_TESTS[name]
        values = {arm: [function(h) for h in own] for arm, own in runs.items()}
        return values, {arm: [abs(v) <= limit for v in own] for arm, own in values.items()}
    if name == "same_level":
        first, *_, last = list(runs)
        reference = float(np.mean([end_level(h) for h in runs[last]]))
        values = {first: [end_level(h) / reference - 1 for h in runs[first]]}
        return values, {first: [abs(v) <= NEAR for v in values[first]]}
    return {arm: [_COMPARED[name](h) for h in own] for arm, own in runs.items()}, None
