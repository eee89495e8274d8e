"""What it would take to tell a difference, from the spread that was measured: more patients, or more trainings.

The standard error of a difference is made of two: over patients, which falls with the root of their number, and over
trainings, which falls with the root of the number of seeds. A difference is told where its interval excludes 0, or lies
within a margin around 0; which of the two is nearer is what is asked for. The answer is that of a normal distribution
around the difference as it was measured, which is itself uncertain: an order of magnitude.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from sahlib.scoring.intervals import Difference

POWER = 0.8


@dataclass(frozen=True)
class Needed:
    """How many it would take; math.inf where no number of them would do.

    patients  with as many trainings as there are
    seeds     trainings of each network, with the patients there are
    both      (patients, seeds) that do it together, each at half of the variance
    """

    patients: float
    seeds: float
    both: tuple[float, float]


def needed(found: Difference, level: float, margin: float, margin_level: float) -> Needed:
    """What it would take for a difference to be told with probability POWER.

    level         of the two-sided test that shall exclude 0, after its correction for other tests
    margin        half-width of the range around 0 that counts as no difference
    margin_level  of the interval that shall lie within it
    """
    size = abs(found.estimate)
    excludes = size / (stats.norm.isf(level / 2) + stats.norm.ppf(POWER))
    within = (margin - size) / (stats.norm.isf(margin_level / 2) + stats.norm.ppf((1 + POWER) / 2))
    allowed = max(excludes, within) ** 2
    over_patients = found.patient_error**2 * found.patients  # of a difference on one patient
    variances = [0.0 if math.isnan(v) else v for v in found.seed_variances]
    seeds = min(map(len, found.seed_scores))
    over_seeds = sum(variances)  # of a difference of one training each
    return Needed(
        _number(over_patients, allowed - over_seeds / seeds),
        _number(over_seeds, allowed - found.patient_error**2),
        (_number(over_patients, allowed / 2), _number(over_seeds, allowed / 2)),
    )


def _number(variance: float, allowed: float) -> float:
    """How many it takes until `variance` over their number is as small as allowed."""
    return math.ceil(variance / allowed) if allowed > 0 else math.inf
