"""How the paper's printed numbers can have been averaged: which conventions, and pairs of them, arithmetic allows.

Notation: D, J, P, R, F are printed means of Dice, IoU, precision, recall, F1; a unit (slice, batch, patient) has d, j,
p, r, f. Every unit has d = f and d = 2j/(1+j), 0/0 included, because Dice, IoU and F1 are 0/0 together. A printed
number v stands for anything in [v - 0.0005, v + 0.0005]. "Possible" is shown by a table of counts that scores what was
printed (witness.py finds one for each pair of conventions); "impossible" by an inequality that every table of counts
obeys (`RULES`).

**Dice and IoU under one convention.** A mean of points on the curve d = 2j/(1+j), 0 <= j <= 1, lies in the curve's
convex hull, and every point of the hull is such a mean: the curve is concave with ends (0,0) and (1,1), so
J <= D <= 2J/(1+J). Pooled there is one unit, so D = 2J/(1+J).

**Precision, recall and F1 under one convention.** Every unit has f = h(p,r), the harmonic mean with h(0,0) = 0; that
holds for 0/0 taken as 0 or 1 too: (1,0,0), (0,1,0), (1,1,1). h is concave on the unit square, so its mean is at most
h(P,R) and at least the convex function max(0, P+R-1) that meets h at the four corners. Where 0/0 is left out, P, R and
F are means over x, y and n units, where each of the n has a prediction or a lesion, and the x + y - n with both carry
all of f. There max(0, p+r-1) <= f <= h(p,r), so F <= h(Px/n, Ry/n) <= h(P,R), and F >= 1 - (1-P)x/n - (1-R)y/n
>= P+R-1. Pooled, F = h(P,R).
"""

from __future__ import annotations

import functools
import itertools
import math

import pandas as pd

from sahlib.paper.printed import rounded, share_above
from sahlib.paper.transcript import PAPER
from sahlib.scoring.metrics import CONVENTIONS

HIGH = 0.9  # a Dice that hardly any slice with bleeding gets
OVER_SLICES = ("mean_empty_1", "mean_empty_0", "mean_empty_excluded", "sah_slices")

# Inequalities that every table of counts obeys, and why. n slices; m with lesion; z with neither lesion nor prediction;
# e = n - z. "Sum" is over slices, with 0/0 = 0.
RULES = {
    "curve": "D = 2J/(1+J) and F = 2PR/(P+R): pooled, all pixels are one unit.",
    "same": "F = D: under one convention they are the same number.",
    "F >= D": "Sum d = Sum f, D divides it by at least as many slices as F does, and 0/0 = 1 only adds to F.",
    "R >= J": "r >= j on each SAH slice, so R over these is at least J; slices without lesion are left out of R or "
    "count 1 in it.",
    "P D <= F": "F = Sum d / n = D e/n (or D m/n), and P <= e/n (or m/n), as p is 0 on all other slices.",
    "P + D <= 1 + F": "D - F = z/n, and P <= 1 - z/n, as 0/0 counts 0 in P.",
    "2(D - F) + P + R <= 1 + J": "1 - j <= (1-p) + (1-r) on the e slices that are not both empty; summed, "
    "1 - J <= 2(1 - z/n) - P - R, and z/n = D - F.",
}


@functools.cache
def possible_alone() -> dict[tuple[str, str, str], bool]:
    """(network, convention, group of metrics) -> whether their printed numbers can be this convention's at all.

    The last of each group is bounded by the group's others, their rounding included; "all five" asks whether Dice can
    be F1. Proofs in the module's docstring.
    """
    found = {}
    for model, convention in itertools.product(PAPER.networks, CONVENTIONS):
        pooled = CONVENTIONS[convention].unit == "all"
        (p0, p1), (r0, r1), (j0, j1) = (rounded(PAPER, model, m) for m in ("precision", "recall", "iou"))
        for group, bounded, low, high in (
            ("iou, dice", "dice", _dice_of(j0) if pooled else j0, _dice_of(j1)),
            ("precision, recall, f1", "f1", _harmonic(p0, r0) if pooled else max(0.0, p0 + r0 - 1), _harmonic(p1, r1)),
            ("all five", "dice", *rounded(PAPER, model, "f1")),
        ):
            below, above = rounded(PAPER, model, bounded)
            found[model, convention, group] = above >= low and high >= below
    return found


def obstacle(model: str, overlap: str, triple: str) -> str:
    """The rule (a key of RULES) that forbids Dice and IoU under one convention beside P, R, F1 under another; or ""."""
    (d0, d1), (j0, j1), (p0, _), (r0, r1), (f0, f1) = (rounded(PAPER, model, m) for m in PAPER.printed)
    single = possible_alone()
    one, zero, left, sah = OVER_SLICES
    pair = (overlap, triple)
    obeyed = {  # by those pairs that a rule is about
        "curve": single[model, overlap, "iou, dice"] and single[model, triple, "precision, recall, f1"],
        "same": overlap != triple or (f1 >= d0 and d1 >= f0),
        "F >= D": overlap not in (zero, left) or triple not in (one, left, sah) or f1 >= d0,
        "R >= J": pair not in ((sah, one), (sah, left)) or r1 >= j0,
        "P D <= F": pair not in ((sah, zero), (left, zero)) or p0 * d0 <= f1,
        "P + D <= 1 + F": pair != (one, zero) or p0 + d0 <= 1 + f1,
        "2(D - F) + P + R <= 1 + J": pair != (one, zero) or 2 * (d0 - f1) + p0 + r0 <= 1 + j1,
    }
    return next((rule for rule, holds in obeyed.items() if not holds), "")


def convention_pairs() -> pd.DataFrame:
    """All pairs of conventions, Dice and IoU under `overlap`, precision, recall and F1 under `triple`.

    returns: model, overlap, triple, possible, rule (of RULES, what forbids it), and for possible ones near_perfect: the
    least share of those units that have a lesion or a prediction which must have a Dice above HIGH. Only where 0/0
    counts as 1 can empty slices stand in for them.
    """
    rows = []
    for model, overlap, triple in itertools.product(PAPER.networks, CONVENTIONS, CONVENTIONS):
        rule = obstacle(model, overlap, triple)
        share = math.nan if rule else _near_perfect(model, overlap, triple)
        rows.append((model, overlap, triple, not rule, rule, share))
    return pd.DataFrame(rows, columns=["model", "overlap", "triple", "possible", "rule", "near_perfect"])


def _dice_of(iou: float) -> float:
    return 2 * iou / (1 + iou)


def _harmonic(p: float, r: float) -> float:
    return 2 * p * r / (p + r)


def _near_perfect(model: str, overlap: str, triple: str) -> float:
    """The least share, among units with a lesion or a prediction, of those with Dice above HIGH."""
    (d0, d1), (j0, _), (_, _), (f0, _) = (rounded(PAPER, model, m) for m in ("dice", "iou", "precision", "f1"))
    floor = min(share_above(d, j0, HIGH) for d in (d0, d1))
    if overlap != "mean_empty_1":
        return floor
    # Share of both-empty slices, where the pair fixes it; where it does not, they can take the whole floor.
    empty = {"mean_empty_0": d1 - f0, "mean_empty_excluded": (d1 - f0) / (1 - f0)}.get(triple, floor)
    return max(0.0, (floor - empty) / (1 - empty))
