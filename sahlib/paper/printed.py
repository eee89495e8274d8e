"""What a paper's printed Dice and IoU prove alone: how many of its slices were perfect, or nearly so, and how probable
it is that their ranking is false.

D and J are the printed means of Dice and IoU, read as means over slices; a slice has d and j. Every slice has
d = 2j/(1+j), 0/0 included, because the two are 0/0 together. A printed number v stands for anything in [v - r, v + r],
r being half of the last printed decimal. Which pairs of conventions this study's five printed scores allow is worked
out in tests/helpers/pairs.py.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from scipy import stats

from sahlib.paper.claims import Paper

OVERLAP = ("dice", "iou")
# What nobody but the authors knows of a test set: how far two networks' scores go together from slice to slice, and how
# many independent observations its slices amount to, from as many as there may be scans to all slices.
CORRELATIONS = (0.25, 0.5, 0.75)
CLEAR = 0.9  # a Dice that leaves little to be wanted
SLICES_A_SCAN = 30  # of a head, 4 to 5 mm apart
FEWEST = 20


def networks(paper: Paper) -> list[str]:
    """Those whose Dice and IoU are both printed."""
    return [name for name in paper.networks if all(name in paper.printed.get(metric, ()) for metric in OVERLAP)]


def scans(paper: Paper) -> int:
    """As many as the slices of the test set may be of."""
    return max(2, paper.slices // SLICES_A_SCAN)


def best_sample(paper: Paper) -> float:
    """The highest Dice that the paper prints for any one slice; NaN where it prints none."""
    return max((max(table.rows["dice"]) for table in paper.samples), default=float("nan"))


def rounded(paper: Paper, network: str, metric: str) -> tuple[float, float]:
    """The interval of numbers that are printed as the paper has it."""
    value, half = paper.value(metric, network), 0.5 * 10**-paper.decimals
    return value - half, value + half


def imperfect_dice(dice: float, iou: float) -> float:
    """Mean Dice of the slices that are not perfect, each weighted by its 1 - IoU: exactly 2 - 2 (1-D) / (1-J).

    Proof. 1 - j = 2(1-d)/(2-d), so 1 - d = (1-j)(2-d)/2. Sum over slices: 1 - D = (1-J) (2 - mean)/2, with the mean
    of d weighted by 1 - j; perfect slices have weight 0.
    """
    return 2 - 2 * (1 - dice) / (1 - iou)


def perfect_ceiling(dice: float, iou: float) -> float:
    """The largest possible share of perfect slices (score exactly 1): 1 - (1-D)(1-J) / (2(1-D) - (1-J)).

    Proof. Let i be the share that is not perfect and l = 1 - d its loss; 1 - j = 2l/(1+l) is concave in l. Jensen:
    (1-J)/i <= 2x/(1+x) with x = (1-D)/i, which is i >= (1-D)(1-J) / (2(1-D) - (1-J)). Equality: all of them at the
    Dice of `imperfect_dice`. So this pair bounds the share of perfect slices from above, not from below.
    """
    return 1 - (1 - dice) * (1 - iou) / (2 * (1 - dice) - (1 - iou))


def share_above(dice: float, iou: float, t: float) -> float:
    """The smallest possible share of slices with a Dice above t, 0 <= t < 1: D - (D-J)(2-t)/(1-t), or 1 - (1-D)/(1-t)
    where that is more; never below 0.

    It is a floor on the share of *perfect* slices if no imperfect one has a Dice above t. Without such a cap there is
    none: a slice one pixel short of perfect costs next to nothing.
    Proof. With l = 1 - d, the mean of l is 1 - D and that of g(l) = d - j = l(1-l)/(1+l) is D - J. g is concave and
    g(1) = 0. Put c = 1 - t, w = (1-c)/g(c) = (1+c)/c. Then l + w g(l) is concave and 1 at both ends of [c, 1], so it
    is >= 1 there and >= 0 elsewhere: the share with l >= c is at most its mean, (1-D) + w (D-J). Markov: it is also at
    most (1-D)/c. Equality in the first: slices at 1, t and 0; in the second: at 1 and t.
    """
    if not 0 <= t < 1:
        raise ValueError(f"t must be at least 0 and below 1; it is {t}")
    return max(0.0, dice - (dice - iou) * (2 - t) / (1 - t), 1 - (1 - dice) / (1 - t))


def perfect_slices_curves(paper: Paper) -> pd.DataFrame:
    """The curves: network, cap (highest Dice of an imperfect slice), floor with floor_low and floor_high (rounding),
    and ceiling; floor and ceiling are shares of perfect slices."""
    rows = []
    for network in networks(paper):
        dice, iou = (paper.value(metric, network) for metric in OVERLAP)
        # Where the two floors of share_above cross, the extremes may lie inside the rounding box.
        box = list(itertools.product(*(np.linspace(*rounded(paper, network, metric), 9) for metric in OVERLAP)))
        for cap in np.linspace(imperfect_dice(dice, iou), 0.985, 150):
            corners = [share_above(d, j, cap) for d, j in box]
            floor = share_above(dice, iou, cap)
            rows.append((network, cap, floor, min(corners), max(corners), perfect_ceiling(dice, iou)))
    return pd.DataFrame(rows, columns=["network", "cap", "floor", "floor_low", "floor_high", "ceiling"])


def spread(dice: float, iou: float) -> float:
    """The SD of Dice over slices if they are of two kinds, perfect and alike, as `perfect_ceiling` has them."""
    perfect = perfect_ceiling(dice, iou)
    return (1 - imperfect_dice(dice, iou)) * float(np.sqrt(perfect * (1 - perfect)))


def false_ranking(lead: float, spreads: tuple[float, float], n: float | np.ndarray, r: float) -> float | np.ndarray:
    """The probability that the network with the higher printed mean is not the better one.

    lead: difference of the means; spreads: SD of each network's scores over slices; r: their correlation
    n: how many independent observations the slices amount to, above 1
    With a flat prior the true difference is distributed around the printed one as Student's t with n - 1 degrees of
    freedom, scaled by its standard error (Christodoulou et al. 2025, arXiv:2505.04720).
    """
    a, b = spreads
    return stats.t.sf(np.sqrt(n) * lead / np.sqrt(a**2 + b**2 - 2 * r * a * b), np.asarray(n) - 1)


def false_ranking_curves(paper: Paper, lower: str, higher: str) -> pd.DataFrame:
    """How probable it is that the paper's ranking of two networks in Dice is false: correlation, n (FEWEST to its
    slices), probability."""
    scores = [tuple(paper.value(metric, network) for metric in OVERLAP) for network in (lower, higher)]
    lead, spreads = scores[1][0] - scores[0][0], tuple(spread(*score) for score in scores)
    n = np.unique([*np.geomspace(FEWEST, paper.slices, 120).round().astype(int), scans(paper)])
    curves = [
        pd.DataFrame({"correlation": r, "n": n, "probability": false_ranking(lead, spreads, n, r)})
        for r in CORRELATIONS
    ]
    return pd.concat(curves, ignore_index=True)


def in_words(paper: Paper) -> list[str]:
    """What the printed numbers prove alone, a sentence each; an impossibility holds whatever their rounding."""
    said = []
    for network in networks(paper):
        (d0, d1), (j0, j1) = (rounded(paper, network, metric) for metric in OVERLAP)
        dice, iou = (paper.value(metric, network) for metric in OVERLAP)
        shown = f"{network}: Dice {dice:.{paper.decimals}f} and IoU {iou:.{paper.decimals}f}"
        if j0 > d1 or j1 < d0 / (2 - d0):  # j <= d, and j = d / (2 - d) is convex in d
            said.append(f"{shown} cannot be means over the same slices, whatever the masks.")
        elif d1 < 1:
            said.append(
                f"{shown}, read as means over slices, leave Dice {imperfect_dice(dice, iou):.2f} on the average to "
                f"those that are not perfect (weighted by 1 - IoU); at most {perfect_ceiling(dice, iou):.0%} can be "
                f"perfect, and at least {share_above(dice, iou, CLEAR):.0%} lie above {CLEAR}."
            )
    for network in paper.networks:
        dice, f1 = (paper.printed.get(metric, {}).get(network, np.nan) for metric in ("dice", "f1"))
        if abs(dice - f1) > 10**-paper.decimals:  # never of NaN
            shown = f"{network}: Dice {dice:.{paper.decimals}f} and F1 {f1:.{paper.decimals}f}"
            said.append(f"{shown} are one number of one pair of masks, so they were averaged differently.")
    return said
