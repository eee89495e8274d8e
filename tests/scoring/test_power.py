"""What more it would take: by hand, and held against what happens at the size that was asked for."""

import math

import numpy as np
import pytest
from helpers.fabricated_counts import table

from sahlib.scoring.intervals import Difference, difference
from sahlib.scoring.power import needed


def found(estimate, error, patients, scores=((0.5,), (0.5,))):
    return Difference(estimate, estimate - 2 * error, estimate + 2 * error, patients, 0.5, error, scores)


def test_by_hand():
    # z is 1.960 for the test and 0.842 for 80 % power: an error of 0.05 / 2.802 = 0.0178 is needed, so
    # (0.05 / 0.0178)^2 = 7.85 times the 20 patients.
    assert needed(found(0.05, 0.05, 20), 0.05, 0.01, 0.05).patients == math.ceil(20 * 2.8016**2)
    # A correction for ten tests asks for z = 2.807.
    assert needed(found(0.05, 0.05, 20), 0.005, 0.01, 0.05).patients == math.ceil(20 * (2.80703 + 0.84162) ** 2)
    # No difference at all lies within the margin once (0.01 / (1.960 + 1.282))^2 is the error's square.
    assert needed(found(0.0, 0.05, 20), 0.05, 0.01, 0.05).patients == math.ceil(20 * (0.05 * 3.24152 / 0.01) ** 2)


def test_trainings_that_differ_are_no_matter_of_patients():
    # Variance over seeds 0.02^2 in each network, over three seeds 2 * 0.0004 / 3: more than (0.01 / 2.8)^2.
    spread = (0.48, 0.50, 0.52)
    asked = needed(found(0.01, 0.002, 50, (spread, spread)), 0.05, 0.001, 0.05)
    assert asked.patients == math.inf
    allowed = (0.01 / 2.8016) ** 2
    assert asked.seeds == math.ceil(0.0008 / (allowed - 0.002**2))
    assert asked.both == (math.ceil(50 * 0.002**2 / (allowed / 2)), math.ceil(0.0008 / (allowed / 2)))


@pytest.mark.parametrize("effect", [0.04, 0.08])
def test_the_number_asked_for_tells_the_difference_in_four_of_five_test_sets(effect):
    """Patients with lesions of their own difficulty; network b finds `effect` more of each on average."""
    rng = np.random.default_rng(1)

    def test_set(patients):
        names, lesion = [f"p{k:04d}" for k in range(patients)], np.full(patients, 1000)
        base = rng.normal(0.5, 0.1, patients)
        gain = rng.normal(effect, 0.15, patients)
        hits = [np.clip(share * lesion, 0, lesion).astype(int) for share in (base, base + gain)]
        return [table(names, tp, lesion - tp, lesion - tp) for tp in hits]

    # Dice is then the share that is found. A large pilot, so that its spread is the true one.
    asked = needed(difference(*test_set(2000), "dice", "sah_slices", draws=500, permutations=1), 0.05, 0.001, 0.05)
    told = 0
    for k in range(120):
        got = difference(*test_set(asked.patients), "dice", "sah_slices", draws=300, seed=k, permutations=300)
        told += got.low > 0 and got.p <= 0.05
    # 80 % of 120 with a standard error of 3.7 %; the expanded interval asks for a little more than z.
    assert 0.68 <= told / 120 <= 0.90
