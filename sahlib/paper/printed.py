"""What the paper's printed numbers prove alone: how they can have been averaged, and how many slices were perfect.

Notation: D, J, P, R, F are printed means of Dice, IoU, precision, recall, F1; a unit (slice, batch, patient) has d, j,
p, r, f. Every unit has d = f and d = 2j/(1+j), 0/0 included, because Dice, IoU and F1 are 0/0 together. A printed
number v stands for anything in [v - 0.0005, v + 0.0005]. "Possible" is shown by a table of counts that scores what was
printed (tests/helpers/witness.py finds one for each pair of conventions); "impossible" by an inequality that every
table of counts obeys (`RULES`).

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

import numpy as np
import pandas as pd

from sahlib.paper.transcript import ATTENTION, SETTINGS, TABLE_1, TABLE_3, UNET
from sahlib.scoring.metrics import CONVENTIONS

ROUNDING = 0.0005  # half of the last printed decimal
NETWORKS = (UNET, ATTENTION)
OVERLAP = ("dice", "iou")
BATCHES = SETTINGS["test_batches"].value
TEST_SLICES = (16 * (BATCHES - 1) + 1, 16 * BATCHES)  # the last batch may be short: 1361 to 1376
BEST_SAMPLE = max(TABLE_1.rows["dice"])  # the highest Dice that the paper prints for any one slice: 0.73
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


def rounded(model: str, metric: str) -> tuple[float, float]:
    """The interval of numbers that are printed as Table 3 has it."""
    value = TABLE_3.value(metric, model)
    return value - ROUNDING, value + ROUNDING


def convention_bounds() -> pd.DataFrame:
    """For each network, convention and group of metrics: can the printed numbers be this convention's at all?

    returns: model, convention, group, quantity (bounded by the group's others), printed, low, high (bounds, the
    others' rounding included), slack (how far the printed value's interval reaches into the bounds; negative: the gap)
    and possible. The group "all five" asks whether Dice can be F1. Proofs in the module's docstring.
    """
    rows = []
    for model, convention in itertools.product(NETWORKS, CONVENTIONS):
        pooled = CONVENTIONS[convention].unit == "all"
        (p0, p1), (r0, r1), (j0, j1) = (rounded(model, m) for m in ("precision", "recall", "iou"))
        dice_low = _dice_of(j0) if pooled else j0
        f1_low = _harmonic(p0, r0) if pooled else max(0.0, p0 + r0 - 1)
        for group, quantity, low, high in (
            ("dice, iou", "dice", dice_low, _dice_of(j1)),
            ("precision, recall, f1", "f1", f1_low, _harmonic(p1, r1)),
            ("all five", "dice", *rounded(model, "f1")),
        ):
            below, above = rounded(model, quantity)
            slack, printed = min(above - low, high - below), TABLE_3.value(quantity, model)
            rows.append((model, convention, group, quantity, printed, low, high, slack, slack >= 0))
    columns = ["model", "convention", "group", "quantity", "printed", "low", "high", "slack", "possible"]
    return pd.DataFrame(rows, columns=columns)


def obstacle(model: str, overlap: str, triple: str) -> str:
    """The rule (a key of RULES) that forbids Dice and IoU under one convention beside P, R, F1 under another; or ""."""
    (d0, d1), (j0, j1), (p0, _), (r0, r1), (f0, f1) = (rounded(model, m) for m in TABLE_3.rows)
    single = _possible_alone()
    one, zero, left, sah = OVER_SLICES
    pair = (overlap, triple)
    obeyed = {  # by those pairs that a rule is about
        "curve": single[model, overlap, "dice, iou"] and single[model, triple, "precision, recall, f1"],
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

    returns: model, overlap, triple, possible, rule (what forbids it), why (its proof), and for possible ones
    near_perfect: the least share of those units that have a lesion or a prediction which must have a Dice above HIGH.
    Only where 0/0 counts as 1 can empty slices stand in for them.
    """
    rows = []
    for model, overlap, triple in itertools.product(NETWORKS, CONVENTIONS, CONVENTIONS):
        rule = obstacle(model, overlap, triple)
        share = math.nan if rule else _near_perfect(model, overlap, triple)
        rows.append((model, overlap, triple, not rule, rule, RULES.get(rule, ""), share))
    return pd.DataFrame(rows, columns=["model", "overlap", "triple", "possible", "rule", "why", "near_perfect"])


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


def sah_share(dice: float, iou: float, f1: float) -> tuple[float, float]:
    """Least and largest share of slices with SAH, if Dice and IoU are means over slices with 0/0 = 1 and F1 is the mean
    over SAH slices.

    Proof. Let q be the share. A slice without SAH has d = j = 0 or 1, so D - J is q times the mean over SAH slices of
    d - j = d(1-d)/(2-d), which is concave with mean d = F: D - J <= q F(1-F)/(2-F). And the SAH slices alone lose
    q (1-F) of Dice: 1 - D >= q (1-F).
    """
    return (dice - iou) * (2 - f1) / (f1 * (1 - f1)), (1 - dice) / (1 - f1)


def perfect_slices() -> pd.DataFrame:
    """What the printed Dice and IoU, read as means over slices, say of perfect slices, with the rounding's interval.

    returns: model, quantity (in words), value, low, high; the statements' proofs are in the functions they come from
    """
    statements = {
        "Dice of the imperfect slices, mean weighted by their IoU loss": imperfect_dice,
        "share of perfect slices, at most": perfect_ceiling,
    }
    for t in (BEST_SAMPLE, HIGH):
        statements[f"share of slices with Dice above {t}, at least"] = functools.partial(share_above, t=t)
    rows = []
    for model in NETWORKS:
        box = list(itertools.product(rounded(model, "dice"), rounded(model, "iou")))
        for words, function in statements.items():
            # All are monotone in D and in J over the whole rounding box, so their extremes are at its corners.
            corners = [function(d, j) for d, j in box]
            value = function(TABLE_3.value("dice", model), TABLE_3.value("iou", model))
            rows.append((model, words, value, min(corners), max(corners)))
    return pd.DataFrame(rows, columns=["model", "quantity", "value", "low", "high"])


def slice_numbers() -> pd.DataFrame:
    """The same in whole slices, for 86 batches of 16: 1361 to 1376 test slices (the batch of 16 is that of training).

    returns: model, quantity, low, high (numbers of slices), of which the last two read Dice and IoU as means with
    0/0 = 1. Both-empty: if F1 leaves 0/0 out, D = z/n + (1 - z/n) F, so z/n = (D-F)/(1-F). SAH slices: `sah_share`.
    """
    few, many = TEST_SLICES
    rows = []
    for model in NETWORKS:
        (d0, d1), (j0, j1), (f0, f1) = (rounded(model, m) for m in ("dice", "iou", "f1"))
        box = list(itertools.product((d0, d1), (j0, j1)))
        fewest = min(sah_share(d0, j1, f)[0] for f in (f0, f1))
        shares = {  # least and largest
            "slices that are not perfect, at least": (1 - max(perfect_ceiling(d, j) for d, j in box), 1),
            f"slices with Dice above {BEST_SAMPLE}, at least": (min(share_above(d, j, BEST_SAMPLE) for d, j in box), 1),
            "slices empty in truth and prediction, if F1 leaves 0/0 out": ((d0 - f1) / (1 - f1), (d1 - f0) / (1 - f0)),
            "slices with SAH, if F1 is over SAH slices": (fewest, sah_share(d0, j0, f1)[1]),
        }
        for quantity, (least, most) in shares.items():
            rows.append((model, quantity, math.ceil(least * few), math.floor(most * many)))
    return pd.DataFrame(rows, columns=["model", "quantity", "low", "high"])


def perfect_slices_curves() -> pd.DataFrame:
    """The curves: model, cap (highest Dice of an imperfect slice), floor with floor_low and floor_high (rounding), and
    ceiling; floor and ceiling are shares of perfect slices."""
    rows = []
    for model in NETWORKS:
        dice, iou = TABLE_3.value("dice", model), TABLE_3.value("iou", model)
        # Where the two floors of share_above cross, the extremes may lie inside the rounding box.
        box = list(itertools.product(*(np.linspace(*rounded(model, metric), 9) for metric in OVERLAP)))
        for cap in np.linspace(imperfect_dice(dice, iou), 0.985, 150):
            corners = [share_above(d, j, cap) for d, j in box]
            floor = share_above(dice, iou, cap)
            rows.append((model, cap, floor, min(corners), max(corners), perfect_ceiling(dice, iou)))
    return pd.DataFrame(rows, columns=["model", "cap", "floor", "floor_low", "floor_high", "ceiling"])


@functools.cache
def _possible_alone() -> dict[tuple[str, str, str], bool]:
    return convention_bounds().set_index(["model", "convention", "group"])["possible"].to_dict()


def _dice_of(iou: float) -> float:
    return 2 * iou / (1 + iou)


def _harmonic(p: float, r: float) -> float:
    return 2 * p * r / (p + r)


def _near_perfect(model: str, overlap: str, triple: str) -> float:
    """The least share, among units with a lesion or a prediction, of those with Dice above HIGH."""
    (d0, d1), (j0, _), (_, _), (f0, _) = (rounded(model, m) for m in ("dice", "iou", "precision", "f1"))
    floor = min(share_above(d, j0, HIGH) for d in (d0, d1))
    if overlap != "mean_empty_1":
        return floor
    # Share of both-empty slices, where the pair fixes it; where it does not, they can take the whole floor.
    empty = {"mean_empty_0": d1 - f0, "mean_empty_excluded": (d1 - f0) / (1 - f0)}.get(triple, floor)
    return max(0.0, (floor - empty) / (1 - empty))
