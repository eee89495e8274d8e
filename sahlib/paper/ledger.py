"""The claims ledger: each claim of the paper, its printed value, ours with an interval, and a verdict by rule.

`claim_rules` is the whole of what decides a verdict, and says what of it was written when. A ledger belongs to
one recipe, profile and data set; `ledger_page` shows it:

    >>> table = ledger(Evidence(counts, histories, recipe="fair", profile="quick", dataset="phantom"))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sahlib.paper import transcript
from sahlib.paper.rules import (
    BOTH,
    CONTRADICTS,
    CONTROLS,
    FAILS,
    GOOD_DICE,
    HOLDS,
    LEVEL,
    MARGIN,
    MEASURES,
    MIN_EPOCHS,
    MIN_PATIENTS,
    MIN_SEEDS,
    UNET,
    UNKNOWN,
    Measure,
)
from sahlib.scoring import metrics, statistics
from sahlib.study import MODELS
from sahlib.training import curves


@dataclass(frozen=True)
class Evidence:
    """What one recipe left behind: counts and histories, arm -> one table per seed, and which study they are of."""

    counts: dict[str, list[pd.DataFrame]]
    histories: dict[str, list[pd.DataFrame]]
    recipe: str
    profile: str
    dataset: str
    batch_size: int = 16
    draws: int = 2000
    counterpart: str = ""  # the arm that stands for the paper's U-Net; "": as in RULE

    @property
    def unet(self) -> str:
        """The arm that stands for the paper's U-Net."""
        if self.counterpart:
            return self.counterpart
        return "unet_resnet34" if "unet_resnet34" in self.counts else UNET


_LEADS = ("attention_higher_dice", "attention_higher_iou", "attention_higher_recall", "unet_higher_precision")

WHERE = {
    "scores": "07_verdict, Scores and differences with intervals",
    "size": "07_verdict, Scores by lesion size",
    "training": "03_train_unet and 04_train_attention_unet, the training curves",
    "": "the paper itself",
}

COLUMNS = ["key", "kind", "claim", "sections", "printed", "measure", "estimate", "low", "high", "p_holm", "ours",
           "verdict", "reason", "where"]  # fmt: skip


def ledger(
    evidence: Evidence,
    difference: Callable = statistics.difference,
    interval: Callable = statistics.interval,
    where: dict[str, str] = WHERE,
) -> pd.DataFrame:
    """One row per claim, control and contradiction, in the paper's order.

    difference, interval: as in sahlib.statistics; where: kind of place -> notebook and cell that shows it
    returns: COLUMNS. kind is "training", "samples", "test set", "control" or "contradiction"; estimate, low, high and
    p_holm are NaN where the measure has none; a difference is positive where the claim is right; ours is text
    raises: KeyError where paper.CLAIMS has a claim without a Measure
    """
    claims = [(key, claim.words, ", ".join(claim.sections), MEASURES[key]) for key, claim in transcript.CLAIMS.items()]
    controls = [(key, words, "control", measure) for key, (words, measure) in CONTROLS.items()]
    found = {key: _find(measure, evidence, difference, interval) for key, _, _, measure in (*claims, *controls)}
    tested = [key for key, row in found.items() if "p" in row]
    adjusted = statistics.holm([found[key]["p"] for key in tested]) if tested else []
    for key, p in zip(tested, adjusted, strict=True):
        found[key] |= _verdict_on_difference(found[key], float(p))
    if "verdict" not in found["complementary"]:
        found["complementary"] |= _complementary([found[key] for key in _LEADS])
    rows = []
    for key, words, sections, measure in (*claims, *controls):
        kind = "control" if key in CONTROLS else _kind(key)
        place = "" if measure.kind in ("contradiction", "unknowable") else where[measure.where]
        row = {"key": key, "kind": kind, "claim": words, "sections": sections, "printed": _printed(key, measure),
               "measure": measure.words, "where": place or where[""], **found[key]}  # fmt: skip
        rows.append(row)
    for one in transcript.CONTRADICTIONS:
        rows.append({"key": one.key, "kind": "contradiction", "claim": one.words, "sections": ", ".join(one.sections),
                     "printed": "", "measure": "the printed text and numbers alone", "ours": "", "where": where[""],
                     "verdict": CONTRADICTS, "reason": "the paper's own numbers or sentences"})  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    numbers = ["estimate", "low", "high", "p_holm"]
    table[numbers] = table[numbers].astype(float)
    return table


# One claim


def _find(measure: Measure, evidence: Evidence, difference: Callable, interval: Callable) -> dict:
    """estimate, low, high, ours, and either verdict and reason or the p of a difference still to be judged."""
    if measure.kind == "contradiction":
        return {"ours": "", "verdict": CONTRADICTS, "reason": measure.words}
    if measure.kind == "unknowable":
        return {"ours": "", "verdict": UNKNOWN, "reason": measure.words}
    own = {UNET: UNET} if measure.metric == "roughness" else {UNET: evidence.unet}
    asked = (*measure.higher, measure.lower) if measure.lower else measure.higher or BOTH
    arms = [own.get(arm, arm) for arm in asked]
    if reason := _unusable(arms, evidence):
        return {"ours": "", "verdict": UNKNOWN, "reason": reason}
    if measure.kind == "difference":
        return _difference(measure, arms[0], arms[-1], evidence, difference)
    if measure.kind == "accuracy":
        return _accuracy(measure, arms, evidence, interval)
    if measure.kind == "complementary":
        return {"ours": ""}
    return _training(measure, arms, evidence)


COLLAPSED = "collapsed (every pixel background)"


def _unusable(arms: list[str], evidence: Evidence) -> str:
    for arm in arms:
        if not evidence.counts.get(arm):
            return f"{MODELS[arm]} was not trained in this run"
        collapsed = sum(map(metrics.is_collapsed, evidence.counts[arm]))
        if collapsed:
            return f"{MODELS[arm]} {COLLAPSED} in {collapsed} of {len(evidence.counts[arm])} seeds"
    return ""


def _difference(measure: Measure, higher: str, lower: str, evidence: Evidence, difference: Callable) -> dict:
    above, below = evidence.counts[higher], evidence.counts[lower]
    if measure.tercile:
        inside = (statistics.size_terciles(above[0]) == measure.tercile).to_numpy()
        if not inside.any():
            return {"ours": "", "verdict": UNKNOWN, "reason": "no test slice has a lesion of this size"}
        above, below = [c[inside] for c in above], [c[inside] for c in below]
    size = evidence.batch_size
    got = difference(
        below, above, measure.metric, measure.convention, draws=evidence.draws, level=1 - LEVEL, batch_size=size
    )
    scores = [[metrics.score(c, measure.metric, measure.convention, size) for c in seeds] for seeds in (above, below)]
    signs = {float(np.sign(a - b)) for a, b in itertools.product(*scores)}
    return {"estimate": got.estimate, "low": got.low, "high": got.high, "p": got.p, "signs": signs,
            "seeds": min(len(above), len(below)), "patients": got.patients,
            "ours": _interval_text(got, signed=True)}  # fmt: skip


def _verdict_on_difference(row: dict, p: float) -> dict:
    low, high = row["low"], row["high"]
    notes = []
    if row["seeds"] == 1:
        notes.append("one seed")
    if row["patients"] < statistics.FEW_PATIENTS:
        notes.append(f"{row['patients']} test patients")
    agree = len(row["signs"]) == 1
    leads = 0  # 1 and -1: the claimed and the other network is surely ahead
    if row["patients"] < MIN_PATIENTS:
        verdict, why = UNKNOWN, "too few patients"
    elif low > 0 and p <= LEVEL and agree:
        verdict, why, leads = HOLDS, "the interval excludes 0 as claimed", 1
    elif high < 0 and p <= LEVEL and agree:
        verdict, why, leads = FAILS, "the interval excludes 0 the other way", -1
    elif low > -MARGIN and high < MARGIN:
        verdict, why = FAILS, f"no difference above {MARGIN}"
    elif np.isnan(low) or np.isnan(high):
        verdict, why = UNKNOWN, "too few patients for an interval"
    elif low <= 0 <= high:
        verdict, why = UNKNOWN, "the interval holds 0"
    elif not agree:
        verdict, why = UNKNOWN, "seeds disagree on the sign"
    else:
        verdict, why = UNKNOWN, f"p = {p:.3f} after Holm"
    return {"p_holm": p, "verdict": verdict, "leads": leads, "reason": "; ".join([why, *notes])}


def _accuracy(measure: Measure, arms: list[str], evidence: Evidence, interval: Callable) -> dict:
    got = {
        arm: interval(
            evidence.counts[arm], measure.metric, measure.convention, draws=evidence.draws, level=1 - LEVEL,
            batch_size=evidence.batch_size,
        )
        for arm in arms
    }  # fmt: skip
    ours = "; ".join(f"{MODELS[arm]} {_interval_text(i)}" for arm, i in got.items())
    if fewest := [i.patients for i in got.values() if i.patients < MIN_PATIENTS]:
        return {"ours": ours, "verdict": UNKNOWN, "reason": f"too few patients; {min(fewest)} test patients"}
    if all(i.low > GOOD_DICE for i in got.values()):
        return {"ours": ours, "verdict": HOLDS, "reason": f"both intervals are above {GOOD_DICE}"}
    if any(i.high < GOOD_DICE for i in got.values()):
        return {"ours": ours, "verdict": FAILS, "reason": f"an interval is below {GOOD_DICE}"}
    return {"ours": ours, "verdict": UNKNOWN, "reason": f"an interval holds {GOOD_DICE}"}


def _complementary(rows: list[dict]) -> dict:
    """From the four rows of _LEADS; the last one claims a lead of U-Net, the others one of Attention U-Net."""
    leads = []
    for row, (claimed, other) in zip(rows, [("Attention U-Net", "U-Net")] * 3 + [("U-Net", "Attention U-Net")],
                                     strict=True):  # fmt: skip
        leads.append({1: claimed, -1: other}.get(row.get("leads"), ""))
    ours = ", ".join(f"{m}: {lead or 'open'}" for m, lead in zip(("Dice", "IoU", "recall", "precision"), leads,
                                                               strict=True))  # fmt: skip
    if len(set(leads) - {""}) == 2:
        return {"ours": ours, "verdict": HOLDS, "reason": "each leads in one score at least"}
    if len(set(leads)) == 1 and leads[0]:
        return {"ours": ours, "verdict": FAILS, "reason": f"{leads[0]} leads in all four"}
    return {"ours": ours, "verdict": UNKNOWN, "reason": "not every lead is sure"}


def _training(measure: Measure, arms: list[str], evidence: Evidence) -> dict:
    runs = {arm: evidence.histories.get(arm, []) for arm in arms}
    if not all(runs.values()):
        return {"ours": "", "verdict": UNKNOWN, "reason": "a history is missing"}
    if not all(np.isfinite(h[["train_loss", "validation_loss"]].to_numpy(float)).all()
               for own in runs.values() for h in own):  # fmt: skip
        return {"ours": "", "verdict": UNKNOWN, "reason": "a loss is not finite: its training failed"}
    if min(len(h) for own in runs.values() for h in own) < 2:
        return {"ours": "", "verdict": UNKNOWN, "reason": "one epoch is no curve"}
    values, passed = curves.measured(measure.metric, runs)
    shown = _range_text if measure.metric == "settled_epoch" else _percent_text
    ours = "; ".join(f"{MODELS[arm]} {shown(own)}" for arm, own in values.items())
    return {"ours": f"{curves.WORDS[measure.metric]}: {ours}", **_training_verdict(values, passed, runs)}


def _training_verdict(values: dict, passed: dict | None, runs: dict) -> dict:
    seeds, epochs = min(map(len, runs.values())), min(len(h) for own in runs.values() for h in own)
    if seeds < MIN_SEEDS:
        return {"verdict": UNKNOWN, "reason": f"too few seeds ({seeds}): runs differ by chance"}
    if epochs < MIN_EPOCHS:
        return {"verdict": UNKNOWN, "reason": f"{epochs} epochs are too few to speak of"}
    if passed is not None:
        shown = f"{sum(map(sum, passed.values()))} of {sum(map(len, passed.values()))} runs show it"
        if all(map(all, passed.values())):
            return {"verdict": HOLDS, "reason": shown}
        return {"verdict": UNKNOWN if all(map(any, passed.values())) else FAILS, "reason": shown}
    high, low = values.values()
    if min(high) > max(low):
        return {"verdict": HOLDS, "reason": "all seeds apart, as claimed"}
    if max(high) < min(low):
        return {"verdict": FAILS, "reason": "all seeds apart, the other way"}
    if len({*high, *low}) == 1:
        return {"verdict": FAILS, "reason": "all are equal"}
    return {"verdict": UNKNOWN, "reason": "the seeds of the two overlap"}


# Words


def _kind(key: str) -> str:
    sections = transcript.CLAIMS[key].sections
    if MEASURES[key].where == "training":
        return "training"
    return "samples" if MEASURES[key].kind in ("contradiction", "unknowable") or sections == ("3.2",) else "test set"


def _printed(key: str, measure: Measure) -> str:
    if measure.kind == "complementary":
        return "Dice, IoU, recall, F1: Attention U-Net; precision: U-Net"
    if key in CONTROLS or key not in _LEADS:
        return ""
    a, b = (transcript.TABLE_3.value(measure.metric, arm) for arm in (measure.higher[0], measure.lower))
    return f"{a:.3f} over {b:.3f} ({a - b:+.3f})"


def _number(value: float, signed: bool = False) -> str:
    return (f"{value:+.3f}" if signed else f"{value:.3f}").replace("-", "−")


def _interval_text(i, signed: bool = False) -> str:
    return f"{_number(i.estimate, signed)} ({_number(i.low, signed)} to {_number(i.high, signed)})"


def _range_text(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return (low if low == high else f"{low} to {high}").replace("-", "−")


def _percent_text(values: list[float]) -> str:
    return f"{_range_text([100 * v for v in values])}\u00a0%"  # not to be broken before the sign
