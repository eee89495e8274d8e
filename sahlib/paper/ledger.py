"""The claims ledger: each claim of the paper, its printed value, ours with an interval, and a verdict by rule.

`rules` has the limits that decide a verdict, and says what of it was written when; here they are applied. A ledger
belongs to one recipe, profile and data set; `figures/ledger_page.py` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sahlib.paper import printed, rules, transcript
from sahlib.paper.claims import Measure, Paper
from sahlib.paper.rules import CONTRADICTS, FAILS, HOLDS, UNKNOWN
from sahlib.scoring import intervals, metrics, power
from sahlib.study import name_of
from sahlib.training import curves


@dataclass(frozen=True)
class Evidence:
    """What one recipe left behind: counts and histories, predictor -> one table per seed, and which study they are of,
    all empty for masks from elsewhere; paper: whose claims they are held against."""

    counts: dict[str, list[pd.DataFrame]]
    histories: dict[str, list[pd.DataFrame]]
    recipe: str
    profile: str
    dataset: str
    batch_size: int = 16
    draws: int = intervals.DRAWS
    paper: Paper = transcript.PAPER

    def arm(self, named: str) -> str:
        """The predictor that a Measure names, or that stands for the network that it names."""
        return self.paper.stand_in(named, self.counts)

    def in_words(self, words: str) -> str:
        """A Measure's words with the names of what stands for the paper's networks."""
        for network in self.paper.networks:
            words = words.replace(f"{{{network}}}", name_of(self.arm(network)))
        return words


# Kind of place -> notebook and cell that shows it.
WHERE = {
    "scores": "07_verdict, Scores and differences with intervals",
    "size": "07_verdict, Scores by lesion size",
    "training": "03_train_unet and 04_train_attention_unet, the training curves",
    "printed": "07_verdict, What the printed numbers already prove",
    "": "the paper itself",
}
# Conventions in a few words.
SHORT = {
    "mean_empty_1": "all slices, 0/0 = 1", "mean_empty_0": "all slices, 0/0 = 0", "mean_empty_excluded": "0/0 left out",
    "sah_slices": "SAH slices", "pooled": "pooled", "batches": "per batch", "per_patient": "per patient",
}  # fmt: skip
FAR = 100_000  # patients or trainings that nobody has
OUT_OF_REACH = "more than anybody has"
COLLAPSED = "collapsed (every pixel background)"


def ledger(
    evidence: Evidence, difference: Callable = intervals.difference, interval: Callable = intervals.interval
) -> pd.DataFrame:
    """One row per claim, control and contradiction, in the paper's order.

    difference, interval: as in sahlib.scoring.intervals
    returns: key, kind (of claims.ABOUT, or "contradiction"), claim, sections, score (of a difference, in a few words),
    printed, measure, estimate, low, high (over patients and, where there are several seeds, trainings), p_holm, ours
    (text), verdict, reason, would_take (what would settle it, in words), where; estimate, low, high and p_holm are NaN
    where the measure has none, and a difference is positive where the claim is right
    """
    claims = evidence.paper.claims | evidence.paper.controls
    found = {key: _find(claim.measure, evidence, difference, interval) for key, claim in claims.items()}
    tested = [key for key, row in found.items() if "p" in row]
    for key, p in zip(tested, intervals.holm([found[key]["p"] for key in tested]), strict=True):
        found[key] |= _verdict_on_difference(found[key], float(p), len(tested))
    for key, claim in claims.items():
        if claim.measure.kind == "complementary" and "verdict" not in found[key]:
            found[key] |= complementary(claim.measure, found, evidence)
    rows = []
    for key, claim in claims.items():
        row = {
            "key": key,
            "kind": claim.about,
            "claim": claim.says,
            "sections": "control" if claim.about == "control" else ", ".join(claim.sections),
            "score": _score(claim.measure),
            "printed": _printed(claim.measure, evidence.paper),
            "measure": evidence.in_words(claim.measure.words),
            "where": WHERE[_where(claim.measure)],
        }
        rows.append(row | found[key])
    for key, one in evidence.paper.contradictions.items():
        rows.append({"key": key, "kind": "contradiction", "claim": one.says, "sections": ", ".join(one.sections),
                     "printed": "", "measure": "the printed text and numbers alone", "where": WHERE[""],
                     **_told(CONTRADICTS, "the paper's own numbers or sentences")})  # fmt: skip
    numbers = ["estimate", "low", "high", "p_holm"]
    columns = ["key", "kind", "claim", "sections", "score", "printed", "measure", *numbers]
    columns += ["ours", "verdict", "reason", "would_take", "where"]
    table = pd.DataFrame(rows).reindex(columns=columns).astype(dict.fromkeys(numbers, float))
    return table.fillna({"would_take": "", "score": ""})


def _told(verdict: str, reason: str, ours: str = "") -> dict:
    return {"ours": ours, "verdict": verdict, "reason": reason}


def _find(measure: Measure, evidence: Evidence, difference: Callable, interval: Callable) -> dict:
    """estimate, low, high, ours, and either verdict and reason or the p of a difference still to be judged."""
    if verdict := {"contradiction": CONTRADICTS, "unknowable": UNKNOWN}.get(measure.kind):
        return _told(verdict, measure.words)
    if measure.kind == "printed":
        return _chance(measure, evidence.paper)
    of = [evidence.paper.claims[key].measure for key in measure.of]
    arms = [evidence.arm(named) for one in (measure, *of) for named in one.arms]
    if reason := _unusable(arms, evidence):
        return _told(UNKNOWN, reason)
    if measure.kind == "difference":
        return _difference(measure, *arms, evidence, difference)
    if measure.kind == "accuracy":
        return _accuracy(measure, arms, evidence, interval)
    if measure.kind == "complementary":
        return {"ours": ""}
    return _training(measure, arms, evidence)


def _unusable(arms: list[str], evidence: Evidence) -> str:
    for arm in arms:
        if not evidence.counts.get(arm):
            return f"there are no masks of {name_of(arm)}"
        if collapsed := sum(map(metrics.is_collapsed, evidence.counts[arm])):
            return f"{name_of(arm)} {COLLAPSED} in {collapsed} of {len(evidence.counts[arm])} seeds"
    return ""


def _difference(measure: Measure, higher: str, lower: str, evidence: Evidence, difference: Callable) -> dict:
    above, below = evidence.counts[higher], evidence.counts[lower]
    if measure.lesions:
        inside = (intervals.size_terciles(above[0]) == measure.lesions).to_numpy()
        if not inside.any():
            return _told(UNKNOWN, "no test slice has a lesion of this size")
        above, below = [c[inside] for c in above], [c[inside] for c in below]
    score, size = (measure.score, measure.convention), evidence.batch_size
    got = difference(below, above, *score, draws=evidence.draws, level=1 - rules.LEVEL, batch_size=size)
    whole = got.over_seeds(1 - rules.LEVEL)
    row = {name: getattr(whole, name) for name in ("estimate", "low", "high", "patients")}
    return row | {"p": got.p, "difference": got, "ours": _signs(intervals.in_words(whole, signed=True))}


def _verdict_on_difference(row: dict, p: float, tests: int) -> dict:
    """By (3) of the rule; leads: 1 or -1 where the claimed or the other network is surely ahead.

    p: after Holm's correction for all `tests`
    """
    low, high, found = row["low"], row["high"], row["difference"]
    sure = p <= rules.LEVEL
    verdict, why, leads = _first(
        (row["patients"] < rules.MIN_PATIENTS, UNKNOWN, "too few patients", 0),
        (low > 0 and sure, HOLDS, "the interval excludes 0 as claimed", 1),
        (high < 0 and sure, FAILS, "the interval excludes 0 the other way", -1),
        (low > -rules.MARGIN and high < rules.MARGIN, FAILS, f"no difference above {rules.MARGIN}", 0),
        (np.isnan(low) or np.isnan(high), UNKNOWN, "too few patients for an interval", 0),
        (low <= 0 <= high, UNKNOWN, "the interval holds 0", 0),
        (True, UNKNOWN, f"p = {p:.2g} after Holm", 0),
    )
    seeds = min(map(len, found.seed_scores))
    notes = ["one seed"] * (seeds == 1)
    if row["patients"] < intervals.FEW_PATIENTS:
        notes.append(f"{row['patients']} test patients")
    more = ""
    if verdict == UNKNOWN and found.patient_error > 0:
        # No fewer can reach the level in an exact permutation test, whose p is at least 2 / 2**patients.
        fewest = max(rules.MIN_PATIENTS, math.ceil(math.log2(2 * tests / rules.LEVEL)))
        needed = power.needed(found, rules.LEVEL / tests, rules.MARGIN, rules.LEVEL)
        more = would_take(needed, found.patients, seeds, fewest)
    return {"p_holm": p, "verdict": verdict, "leads": leads, "reason": "; ".join([why, *notes]), "would_take": more}


def would_take(needed: power.Needed, patients: int, seeds: int, fewest: int) -> str:
    """What would settle a difference, in words.

    patients, seeds: as many as there are; fewest: patients with which it can be told at all
    """
    # Never as many as there are: those have not told it.
    alone = [_about(max(needed.patients, fewest, patients + 1), f"test patients ({patients} here)")]
    if seeds > 1 and patients >= fewest:
        alone.append(_about(max(needed.seeds, seeds + 1), f"trainings of each ({seeds} here)"))
    if said := " or ".join(filter(None, alone)):
        return f"about {said}"
    together = [_about(n, what) for n, what in zip(needed.both, ("test patients", "trainings of each"), strict=True)]
    return f"about {' and '.join(together)} ({patients} and {seeds} here)" if all(together) else OUT_OF_REACH


def _about(number: float, what: str) -> str:
    """The number to two digits, "" where it is out of reach."""
    if number > FAR:
        return ""
    digits = max(0, len(str(int(number))) - 2)
    return f"{-(-int(number) // 10**digits) * 10**digits:,} {what}"


def _first(*cases: tuple) -> tuple:
    """What stands beside the first condition that is true."""
    return next(tuple(outcome) for condition, *outcome in cases if condition)


def _accuracy(measure: Measure, arms: list[str], evidence: Evidence, interval: Callable) -> dict:
    asked = {"draws": evidence.draws, "level": 1 - rules.LEVEL, "batch_size": evidence.batch_size}
    got = [interval(evidence.counts[arm], measure.score, measure.convention, **asked) for arm in arms]
    words = [f"{name_of(arm)} {_signs(intervals.in_words(i))}" for arm, i in zip(arms, got, strict=True)]
    fewest, least = min(i.patients for i in got), measure.least or rules.GOOD_DICE
    every, one = ("both intervals are", "an interval") if len(got) == 2 else ("the interval is", "the interval")
    verdict, reason = _first(
        (fewest < rules.MIN_PATIENTS, UNKNOWN, f"too few patients; {fewest} test patients"),
        (all(i.low > least for i in got), HOLDS, f"{every} above {least}"),
        (any(i.high < least for i in got), FAILS, f"{one} is below {least}"),
        (True, UNKNOWN, f"{one} holds {least}"),
    )
    return _told(verdict, reason, "; ".join(words))


def complementary(measure: Measure, found: dict[str, dict], evidence: Evidence) -> dict:
    """By (5) of the rule, from the rows of the claims that `measure` is of."""
    asked = [(evidence.paper.claims[key].measure, found[key].get("leads")) for key in measure.of]
    leads = [{1: m.higher, -1: m.than}.get(ahead, "") for m, ahead in asked]
    leads = [name_of(evidence.arm(named)) if named else "" for named in leads]
    verdict, reason = _first(
        (len(set(leads) - {""}) == 2, HOLDS, "each leads in one score at least"),
        (len(set(leads)) == 1 and leads[0], FAILS, f"{leads[0]} leads in all of them"),
        (True, UNKNOWN, "not every lead is sure"),
    )
    scores = [metrics.LABELS[m.score] for m, _ in asked]
    words = (f"{score}: {lead or 'open'}" for score, lead in zip(scores, leads, strict=True))
    return _told(verdict, reason, ", ".join(words))


def _chance(measure: Measure, paper: Paper) -> dict:
    """By (7) of the rule."""
    if not {measure.than, measure.higher} <= {*printed.networks(paper)} or not paper.slices:
        return _told(UNKNOWN, "it takes the printed Dice and IoU of both, and the number of test slices")
    curves = printed.false_ranking_curves(paper, measure.than, measure.higher)
    sizes = printed.scans(paper), paper.slices
    scans, slices = (curves.loc[curves["n"] == n, "probability"] for n in sizes)
    verdict, reason = _first(
        (scans.max() <= rules.LEVEL, HOLDS, f"at most {rules.LEVEL} for scans too"),
        (slices.min() > rules.LEVEL, FAILS, f"above {rules.LEVEL} even if all slices were independent"),
        (True, UNKNOWN, "it depends on how many scans the slices are of, which the paper does not say"),
    )
    ours = (
        f"{scans.min():.2g} to {scans.max():.2g} for {sizes[0]} scans; at most {slices.max():.1g} for {sizes[1]:,} "
        "independent slices"
    )
    return _told(verdict, reason, ours)


def _training(measure: Measure, arms: list[str], evidence: Evidence) -> dict:
    runs = {arm: evidence.histories.get(arm, []) for arm in arms}
    histories = [h for own in runs.values() for h in own]
    if not all(runs.values()):
        return _told(UNKNOWN, "a history is missing")
    if not all(np.isfinite(h[["train_loss", "validation_loss"]].to_numpy(float)).all() for h in histories):
        return _told(UNKNOWN, "a loss is not finite: its training failed")
    if min(map(len, histories)) < 2:
        return _told(UNKNOWN, "one epoch is no curve")
    values = {arm: [curves.numbers(h)[measure.curve] for h in own] for arm, own in runs.items()}
    if measure.curve == "end_level":
        reference = float(np.mean(values.pop(arms[1])))
        values = {arm: [v / reference - 1 for v in own] for arm, own in values.items()}
    ours = "; ".join(f"{name_of(arm)} {_range_text(own, measure.curve)}" for arm, own in values.items())
    seeds, epochs = min(map(len, runs.values())), min(map(len, histories))
    verdict, reason = _first(
        (seeds < rules.MIN_SEEDS, UNKNOWN, f"too few seeds ({seeds}): runs differ by chance"),
        (epochs < rules.MIN_EPOCHS, UNKNOWN, f"{epochs} epochs are too few to speak of"),
        (True, *(_each_run if measure.kind == "each run" else _compared)(list(values.values()), measure.limit)),
    )
    more = {"would_take": f"{rules.MIN_SEEDS} trainings of each ({seeds} here)"} if seeds < rules.MIN_SEEDS else {}
    return _told(verdict, reason, f"{measure.name}: {ours}") | more


def _each_run(values: list[list[float]], limit: float) -> tuple[str, str]:
    """Whether every run of every arm shows what is claimed."""
    passed = [[abs(v) <= limit for v in own] for own in values]
    verdict = HOLDS if all(map(all, passed)) else UNKNOWN if all(map(any, passed)) else FAILS
    return verdict, f"{sum(map(sum, passed))} of {sum(map(len, passed))} runs show it"


def _compared(values: list[list[float]], _: float) -> tuple[str, str]:
    high, low = values
    return _first(
        (min(high) > max(low), HOLDS, "all seeds apart, as claimed"),
        (max(high) < min(low), FAILS, "all seeds apart, the other way"),
        (len({*high, *low}) == 1, FAILS, "all are equal"),
        (True, UNKNOWN, "the seeds of the two overlap"),
    )


def _where(measure: Measure) -> str:
    """The kind of place that shows what a measure is of; of WHERE."""
    if measure.curve:
        return "training"
    if measure.kind in ("contradiction", "unknowable"):
        return ""
    return "size" if measure.lesions else "printed" if measure.kind == "printed" else "scores"


def _score(measure: Measure) -> str:
    """What a difference is of, in a few words."""
    if measure.kind != "difference":
        return ""
    where = f"{measure.lesions} third of lesions" if measure.lesions else SHORT[measure.convention]
    return f"{metrics.LABELS[measure.score]}, {where}"


def _printed(measure: Measure, paper: Paper) -> str:
    """The printed numbers that a measure is of, where there are any."""
    if measure.kind == "complementary":
        return _leads(paper)
    if measure.kind == "accuracy" and measure.least:
        return "; ".join(
            f"{paper.value(measure.score, network):.{paper.decimals}f}"
            for network in measure.networks
            if network in paper.printed.get(measure.score, {})
        )
    asked = (measure.higher, measure.than)
    of_table = measure.convention == paper.conventions.get(measure.score) and not measure.lesions
    if measure.kind != "difference" or not of_table or not {*asked} <= paper.printed[measure.score].keys():
        return ""
    a, b = (paper.value(measure.score, network) for network in asked)
    return f"{a:.{paper.decimals}f} over {b:.{paper.decimals}f} ({a - b:+.{paper.decimals}f})"


def _leads(paper: Paper) -> str:
    """Which network has the highest printed number, by score: "Dice, IoU: A; precision: B"."""
    leads: dict[str, list[str]] = {}
    for metric, numbers in paper.printed.items():
        leads.setdefault(max(numbers, key=numbers.get), []).append(metrics.LABELS[metric])
    return "; ".join(f"{', '.join(scores)}: {network}" for network, scores in leads.items())


def _signs(text: str) -> str:
    """With the minus sign of print."""
    return text.replace("-", "−")


def _range_text(values: list[float], metric: str) -> str:
    """The lowest and highest, in epochs or in per cent."""
    factor, unit = (1, "") if metric == "settled_epoch" else (100, "\u00a0%")  # not to be broken before the sign
    low, high = (f"{factor * value:.0f}".replace("inf", "∞") for value in (min(values), max(values)))
    return _signs(low if low == high else f"{low} to {high}") + unit
