"""Numbers of a training curve, none of which depends on the loss's scale but its level."""

from __future__ import annotations

import numpy as np
import pandas as pd

NEAR = 0.05  # of the way from the first to the lowest validation loss


def numbers(history: pd.DataFrame) -> dict[str, float]:
    """What can be measured of a training of at least two epochs.

    history: epoch, train_loss and validation_loss, one row per epoch in order
    returns, with the drop of the validation loss as the first minus the lowest; over a drop of 0, anything is infinite:
        settled_epoch    first epoch whose validation loss is within NEAR of the drop of the lowest
        roughness        sum of the upward steps of the validation loss, as a multiple of the drop
        early_roughness  the same over the first fifth of the epochs
        late_gain        how much of the drop came in the last fifth of the epochs; at most NEAR: converged
        late_rise        mean validation loss of the last fifth above the lowest, over the drop; infinite if the
                         training loss did not fall
        late_gap         validation minus training loss in the last fifth, over the first validation loss
        end_level        mean validation loss of the last fifth
    """
    loss, train = history["validation_loss"].to_numpy(float), history["train_loss"].to_numpy(float)
    fifth, lowest = max(1, len(loss) // 5), loss.min()
    drop, end, train_end = loss[0] - lowest, loss[-fifth:].mean(), train[-fifth:].mean()
    steps = np.clip(np.diff(loss), 0, None)

    def over_drop(amount: float) -> float:
        return float(amount / drop) if drop else np.inf if amount > 0 else 0.0

    return {
        "settled_epoch": float(history["epoch"].to_numpy()[np.argmax(loss <= lowest + NEAR * drop)]),
        "roughness": over_drop(steps.sum()),
        "early_roughness": over_drop(steps[:fifth].sum()),
        "late_gain": over_drop(max(0.0, loss[:-fifth].min() - lowest)),
        "late_rise": over_drop(end - lowest) if train_end < train[0] else np.inf,
        "late_gap": float((end - train_end) / loss[0]),
        "end_level": float(end),
    }
