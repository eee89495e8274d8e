"""What the evidence of notebooks 07 and 08 shows, in sentences taken from the tables behind the figures.

As in `findings`, each function returns Markdown. Those that take Results read the CSV that the figure or table of the
same cell has just saved, so that sentence and picture cannot differ.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sahlib.chapters.findings import counted, lesion, listed, percent, shown, span
from sahlib.chapters.results import Results
from sahlib.chapters.verdict import WORDS
from sahlib.paper import printed, transcript
from sahlib.paper.rules import UNKNOWN
from sahlib.scoring import calibration, metrics
from sahlib.scoring.statistics import FEW_PATIENTS
from sahlib.study import MODELS


def conventions(results: Results) -> str:
    """How far the convention alone moves a score, and how far the network."""
    dice = _behind(results, "conventions")
    dice = dice[(dice["metric"] == "dice") & ~dice["printed"] & dice["series"].isin(results.counts)]
    ranges = dice.groupby("series", sort=False)["value"].agg(np.ptp)
    widest = dice[dice["series"] == ranges.idxmax()].sort_values("value")
    low, high = widest.iloc[0], widest.iloc[-1]
    between = dice.groupby("convention")["value"].agg(np.ptp).max()
    more = "More than the networks do" if ranges.max() > between else "Less than the networks do"
    return shown(
        f"The same masks of {low['label']} get Dice {low['value']:.3f} ({low['convention_label']}) or "
        f"{high['value']:.3f} ({high['convention_label']}), {ranges.max():.3f} apart. {more}: under one convention "
        f"they are at most {between:.3f} apart."
    )


def printed_numbers() -> str:
    """What the paper's Dice and IoU imply for its slices, if they are means over slices."""
    table = printed.perfect_slices().set_index(["model", "quantity"])["value"]
    items = []
    for model in (transcript.UNET, transcript.ATTENTION):
        best, high = (
            table[model, f"share of slices with Dice above {limit}, at least"]
            for limit in (printed.BEST_SAMPLE, printed.HIGH)
        )
        items.append(
            f"{MODELS[model]}: at least {percent(best)} of its slices must score above {printed.BEST_SAMPLE}, "
            f"the best Dice that the paper prints for any slice, and at least {percent(high)} above {printed.HIGH}."
        )
    return shown("If the printed Dice and IoU are means over slices:", items=items)


def networks(results: Results) -> str:
    """What the other networks cost, as multiples of the U-Net."""
    table = _behind(results, "table_networks").set_index("Network")
    unet = table.loc[MODELS["unet"]]
    items = []
    for name, row in table.drop(index=MODELS["unet"]).iterrows():
        work = row["GFLOP per image, forward"] / unet["GFLOP per image, forward"]
        text = f"{name} does {work:.1f} times the arithmetic of {MODELS['unet']} for an image"
        if table["Device"].nunique() == 1:
            pace = row["Training slices per second"] / unet["Training slices per second"]
            text += f" and trains at {pace:.2f} times its pace"
        items.append(f"{text}.")
    return shown(items=items)


def intervals(results: Results) -> str:
    """How many patients stand behind the intervals, and whether they tell the networks from finding nothing."""
    patients = _bleeding(results)
    collapsed = [MODELS[m] for m, own in results.counts.items() if any(map(metrics.is_collapsed, own))]
    return shown(
        f"The intervals over slices with {lesion(results.store)} rest on {counted(patients, 'patient')}"
        f"{', so they cover less than they say' if patients < FEW_PATIENTS else ''}.",
        f"{listed(collapsed)} called every pixel background in at least one seed: that is a failure of optimisation "
        "and says nothing of attention."
        if collapsed
        else "",
    )


def differences(table: pd.DataFrame, results: Results) -> str:
    """How many differences can be told from chance; table: of verdict.contrasts."""
    apart = table[table["Told apart"] == "yes"]
    named = [f"{row['Difference']} ({row['Score']}, {row['Convention']})" for _, row in apart.iterrows()]
    seeds = len(results.study.seeds)
    return shown(
        f"{len(apart) or 'None'} of {len(table)} differences {'are' if len(apart) > 1 else 'is'} told apart from 0 by "
        f"interval and corrected test{': ' if named else ''}{listed(named)}.",
        f"With {counted(seeds, 'seed')} that is about these trained networks and not about the architectures."
        if seeds == 1 and named
        else "",
    )


def decision(recipes: dict[str, Results]) -> str:
    """Whether a score moves more from recipe to recipe or from network to network."""
    if len(recipes) == 1:
        return shown("One recipe was run, so how much optimisation decides cannot be seen here.")
    values = pd.DataFrame(
        {
            recipe: {
                MODELS[model]: np.mean([metrics.score(c, "dice", "sah_slices") for c in own])
                for model, own in results.counts.items()
            }
            for recipe, results in recipes.items()
        }
    )
    by_recipe, by_network = np.ptp(values.to_numpy(), axis=1).max(), np.ptp(values.to_numpy(), axis=0).max()
    return shown(
        f"Over slices with {lesion(next(iter(recipes.values())).store)}, Dice moves by up to {by_recipe:.3f} when a "
        f"network is trained by another recipe, and by up to {by_network:.3f} from network to network under one.",
        "Optimisation moves it more than the network." if by_recipe > by_network else "",
    )


def lesion_size(results: Results) -> str:
    """Small against large lesions, network by network."""
    table = _behind(results, "lesion_size")
    items = []
    for _, own in table[table["series"].isin(results.counts)].groupby("series", sort=False):
        ends = own.set_index("tercile").loc[["small", "large"]].dropna(subset="estimate")
        if len(ends) == 2:
            small, large = ends.loc["small"], ends.loc["large"]
            items.append(
                f"{own['label'].iloc[0]}: Dice {small['estimate']:.3f} on the small third "
                f"({small['lesion_min']:.0f} to {small['lesion_max']:.0f} pixels), {large['estimate']:.3f} on the "
                "large."
            )
    if not items:
        return shown("The lesions are too alike in size to speak of small and large ones.")
    return shown("Whether the networks differ on small lesions is for the ledger to say.", items=items)


def gates(results: Results) -> str:
    """At how many levels the gates weigh lesions otherwise than the rest of the head."""
    readings = _behind(results, "table_gates")["Lesion against rest"].value_counts()
    words = {
        "higher": "{} the lesion more than the rest of the head",
        "lower": "{} it less than the rest",
        "not told apart": "cannot be told to do either",
    }
    numbers = {reading: readings.get(reading, 0) for reading in words}
    parts = [f"{n} {words[reading].format('weighs' if n == 1 else 'weigh')}" for reading, n in numbers.items()]
    seeds = len(results.study.seeds)
    of = f"the {readings.sum()} gates" + (f" of {seeds} seeds" if seeds > 1 else "")
    return shown(
        f"Of {of}, {listed(parts)}, by intervals over {counted(_bleeding(results), 'patient')}. A gate that looks "
        "at lesions is not yet one that helps: that is what the control with its gates open is for."
    )


def clinical(results: Results) -> str:
    """Lesions found and false alarms, and whether a probability is worth more than saying how rare lesions are."""
    table = _behind(results, "table_clinical").set_index("Score")
    own = [c for c in table if c not in results.trivial]
    items = [
        f"{name} finds {percent(table.loc['Lesions found', name])} of the lesions, with "
        f"{table.loc['False alarms per slice', name]:.2f} false alarms per slice."
        for name in own
    ]
    without = [name for name in own if not table.loc["Brier skill, head", name] > 0]
    unknown = table.loc["HD95 in mm, SAH slices"].isna().all()
    return shown(
        f"The probabilities of {listed(without)} are worth no more than saying everywhere how rare lesions are."
        if without
        else "",
        "Distances are blank because the pixel spacing is not known." if unknown else "",
        items=items,
    )


def reliability(results: Results) -> str:
    """Whether the probabilities add up to the lesions there are."""
    table = _behind(results, "reliability")
    items = []
    for _, own in table.groupby("series", sort=False):
        everywhere = own[own["region"] == "all pixels"]
        ratio = everywhere["probability_sum"].sum() / everywhere["lesion_pixels"].sum()
        skill = calibration.calibration_scores(own).set_index("region")["brier_skill"].iloc[-1]
        items.append(
            f"{own['label'].iloc[0]}: its probabilities add up to {ratio:.2f} times the lesion pixels there are; Brier "
            f"skill in the head {skill:.3f}."
        )
    return shown(items=items)


def volume(results: Results) -> str:
    """Bias and limits of agreement."""
    table = _behind(results, "bland_altman").dropna(subset="difference_ml")
    if table.empty:
        return shown("Volumes are not known, because pixel spacing or slice thickness is not.")
    items = []
    for _, own in table.groupby("series", sort=False):
        row = own.iloc[0]
        text = f"{row['label']}: {row['bias_ml']:+.1f} mL on average over {counted(len(own), 'patient')}"
        if not np.isnan(row["lower_ml"]):
            text += f", limits of agreement {row['lower_ml']:+.1f} to {row['upper_ml']:+.1f} mL"
        items.append(f"{text}.")
    true = table.groupby("patient_id")["truth_ml"].first()
    return shown(f"The true volumes are {span(true, '.1f', ' mL')}.", items=items)


def ledger(claims: pd.DataFrame) -> str:
    """The verdicts counted, and the commonest reason why a claim cannot be told."""
    judged = claims[claims["kind"] != "contradiction"]
    numbers = judged["verdict"].value_counts()
    parts = [f"{numbers[verdict]} {verdict_words}" for verdict, verdict_words in WORDS.items() if verdict in numbers]
    open_ones = judged[judged["verdict"] == UNKNOWN]
    reasons = open_ones["reason"].str.split(";").str[0].value_counts()
    return shown(
        f"Of {len(judged)} claims and controls, {listed(parts)}.",
        f"The commonest reason why one cannot be told: {reasons.index[0]} ({reasons.iloc[0]} times)."
        if len(reasons)
        else "",
    )


def _bleeding(results: Results) -> int:
    """Test patients with a lesion."""
    first = next(iter(results.counts.values()))[0]
    return int((first.groupby("patient_id")["lesion_pixels"].sum() > 0).sum())


def _behind(results: Results, stem: str) -> pd.DataFrame:
    return pd.read_csv(results.folder / f"{stem}.csv", dtype={"patient_id": str, "Seed": str})
