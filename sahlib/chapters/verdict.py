"""Beyond the paper: the evidence on each of its claims, one function each; drawn or tabulated, saved, returned.

`recipes` everywhere is what results.load_recipes returned: {recipe: Results}, the Study's own recipe first.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sahlib.chapters import published
from sahlib.chapters.judged import Judged
from sahlib.chapters.results import Results, fairest, rates_in_words
from sahlib.figures import drawing, evidence_plots, ledger_page, tables
from sahlib.paper import ledger, printed
from sahlib.paper.rules import CONTRADICTS, FAILS, HOLDS, LEVEL, MIN_PATIENTS, UNKNOWN
from sahlib.paper.transcript import PAPER
from sahlib.scoring import baselines, intervals, metrics
from sahlib.study import RECIPES, name_of

# Rows of the scores with intervals: what the paper's table looks like, what only SAH slices give, and pooled pixels.
REPORTED = (
    ("dice", "mean_empty_1"),
    ("dice", "sah_slices"),
    ("dice", "pooled"),
    ("iou", "sah_slices"),
    ("precision", "pooled"),
    ("recall", "pooled"),
)
SOFT = "soft Dice, pooled"
# How the summary says a number of verdicts.
WORDS = {HOLDS: "hold", FAILS: "do not hold", UNKNOWN: "cannot be told", CONTRADICTS: "contradict themselves"}


def conventions(judged: Judged) -> Figure:
    """Every series under every convention, with soft Dice; the figure and its table."""
    frames = []
    for series, own in judged.every_series.items():
        for counts in own:
            scores = metrics.all_scores(counts, judged.batch_size)
            frames.append(scores.assign(series=series, label=tables.label(series, own)))
    for series, own in judged.soft.items():
        for soft in own:
            row = {"convention": SOFT, "metric": "dice", "value": metrics.score(soft, "dice", "pooled")}
            row |= {"series": series, "label": tables.label(series, judged.counts[series])}
            frames.append(pd.DataFrame([row]))
    table = pd.concat(frames, ignore_index=True)
    names = {key: convention.label for key, convention in metrics.CONVENTIONS.items()}
    table["convention_label"] = table["convention"].map(names).fillna(SOFT)
    data = evidence_plots.conventions_data(table, judged.paper)
    over_seeds = ", averaged over seeds" if judged.trainings > 1 else ""
    lines = "; the lines are what the paper printed" if judged.paper else ""
    caption = (
        f"The same predictions under every convention in use. A marker is one predictor's score{over_seeds}{lines}. "
        "Where the grey cross of 'background everywhere' stands near the others, the convention alone explains most of "
        "the score. Recall and precision below use the same rows."
    )
    figure = published.figure(judged, evidence_plots.conventions(data), "conventions", data, caption)
    ours = data[~data["printed"]].rename(columns={"metric": "Metric", "convention_label": "Convention"})
    wide = ours.pivot_table("value", ["Metric", "Convention"], "label", sort=False).reset_index()
    libraries = [f"{metrics.CONVENTIONS[n].label}: given by {', '.join(s)}." for n, s in metrics.SAME_AS.items()]
    caption = f"Every score under every convention{', mean over seeds' * (judged.trainings > 1)}."
    published.table(judged, wide, "table_conventions", caption, *libraries)
    return figure


def conventions_in_words(judged: Judged) -> str:
    """How far the convention alone moves a score, and how far the network; from the table behind `conventions`."""
    dice = pd.read_csv(judged.folder / "conventions.csv")
    dice = dice[(dice["metric"] == "dice") & dice["series"].isin(judged.counts)]
    dice = dice[~dice["printed"] & (dice["convention"] != SOFT)]  # soft Dice is of probabilities, not of masks
    within = dice.groupby("series")["value"].agg(np.ptp)
    widest = dice[dice["series"] == within.idxmax()].sort_values("value")
    low, high = widest.iloc[0], widest.iloc[-1]
    between = dice.groupby("convention")["value"].agg(np.ptp).max()
    beside = f"; under one convention the predictors are at most {between:.3f} apart" if len(within) > 1 else ""
    return (
        f"The same masks of {low['label']} get Dice {low['value']:.3f} ({low['convention_label']}) or "
        f"{high['value']:.3f} ({high['convention_label']}), {within.max():.3f} apart{beside}."
    )


def printed_numbers(judged: Judged) -> Figure:
    """What a paper's printed Dice and IoU already prove; needs no network."""
    caption = (
        "What the printed Dice and IoU imply if both are means over slices: how good the slices that are not perfect "
        "can be, and how many slices at least must be near perfect. On slices that show hemorrhage no method is near "
        "perfect, so these are slices without any."
    )
    figure = evidence_plots.perfect_slices(judged.paper)
    drawing.save(figure, judged.folder, "printed_numbers", printed.perfect_slices_curves(judged.paper), caption)
    return figure


def false_ranking(judged: Judged) -> Figure:
    """How probable it is that a paper's ranking is false, from its printed numbers; needs no network."""
    lower, higher = sorted(printed.networks(judged.paper), key=judged.paper.printed["dice"].get)[-2:]
    data = printed.false_ranking_curves(judged.paper, lower, higher)
    caption = (
        f"The probability that {higher}'s lead in the printed Dice is of the other sign (Christodoulou et al. "
        "2025), against the number of independent observations that the test slices amount to: slices of one scan "
        "resemble each other, and the paper does not say how many scans there are. The spread over slices is that of "
        f"slices which are perfect or alike; the band is for a correlation of {printed.CORRELATIONS[0]:g} to "
        f"{printed.CORRELATIONS[-1]:g} between the networks' scores, the line for {printed.CORRELATIONS[1]:g}."
    )
    figure = evidence_plots.false_ranking(data, judged.paper, higher)
    drawing.save(figure, judged.folder, "false_ranking", data, caption)
    return figure


def scores(judged: Judged) -> pd.DataFrame:
    """Scores with 95 % intervals clustered by patient, for networks and trivial predictors."""
    caption = "Scores with 95 % intervals, resampling patients, not slices."
    return published.table(judged, with_intervals(judged), "table_intervals", caption, *seed_notes(judged))


def with_intervals(judged: Judged) -> pd.DataFrame:
    """A row for each of REPORTED: Score, Convention and, for every series, the score in words."""
    rows = []
    for metric, convention in REPORTED:
        row = {"Score": metrics.LABELS[metric], "Convention": metrics.CONVENTIONS[convention].label}
        for series, own in judged.every_series.items():
            found = intervals.interval(own, metric, convention, batch_size=judged.batch_size)
            spread = f", seeds differ by {found.seed_spread:.3f}" if len(own) > 1 else ""
            row[tables.label(series, own)] = intervals.in_words(found) + spread
        rows.append(row)
    return pd.DataFrame(rows)


def contrasts(judged: Judged) -> pd.DataFrame:
    """Differences between networks, paired by slice, over patients and trainings, with Holm's correction."""
    rows, differences = [], []
    for lower, higher in judged.pairs:
        both = judged.counts[lower], judged.counts[higher]
        for metric, convention in REPORTED[:3]:
            found = intervals.difference(*both, metric, convention, batch_size=judged.batch_size)
            differences.append(found)
            whole = found.over_seeds()
            row = {
                "Difference": " minus ".join(tables.label(model, judged.counts[model]) for model in (higher, lower)),
                "Score": metrics.LABELS[metric],
                "Convention": metrics.CONVENTIONS[convention].label,
                "Estimate (95 % interval)": intervals.in_words(whole, signed=True),
                "p, permutation": f"{found.p:.2g}",
            }
            rows.append(row)
    table = pd.DataFrame(rows)
    adjusted = intervals.holm([found.p for found in differences])
    table["p, Holm"] = [f"{p:.2g}" for p in adjusted]
    enough = np.array([found.patients >= MIN_PATIENTS for found in differences])
    apart = enough & (adjusted <= LEVEL) & [not w.low <= 0 <= w.high for w in (f.over_seeds() for f in differences)]
    table["Told apart"] = np.where(apart, "yes", np.where(enough, "no", "too few patients"))
    over = "patients and trainings" if judged.trainings > 1 else "patients"
    steps = " A free output, the other layers and the gates are the three steps from MONAI's UNet to Attention U-Net."
    told = " Told apart: the interval excludes 0, and p after Holm's correction for the whole table is at most 0.05."
    caption = f"Differences with 95 % intervals over {over}.{told}{steps if judged.paper is PAPER else ''}"
    return published.table(judged, table, "table_differences", caption, *seed_notes(judged))


def contrasts_in_words(judged: Judged) -> list[str]:
    """The differences in Dice under both conventions, a sentence each."""
    said = []
    for lower, higher in judged.pairs:
        names = " minus ".join(tables.label(model, judged.counts[model]) for model in (higher, lower))
        said.append(f"{names}, Dice {_difference_in_words(judged.counts[lower], judged.counts[higher])}.")
    return said


def recipes_in_words(recipes: dict[str, Results]) -> list[str]:
    """What training a network by the fairest recipe adds to the Study's own, in Dice; empty where the two are one."""
    own, fair = next(iter(recipes.values())), fairest(recipes)
    if own is fair:
        return []
    return [
        f"{name_of(model)} trained by the recipe {fair.recipe} minus by {own.recipe}, Dice "
        f"{_difference_in_words(own.counts[model], fair.counts[model])}."
        for model in own.counts
    ]


def _difference_in_words(lower: list[pd.DataFrame], higher: list[pd.DataFrame]) -> str:
    said = []
    for metric, convention in reversed(REPORTED[:2]):
        found = intervals.difference(lower, higher, metric, convention)
        words = intervals.in_words(found.over_seeds(), signed=True)
        where = "over SAH slices" if convention == "sah_slices" else "over all, empty against empty as 1"
        said.append(f"{where}: {words}, p = {found.p:.2g}")
    return "; ".join(said)


def decision(recipes: dict[str, Results]) -> pd.DataFrame:
    """What decided it: networks by recipes, pooled Dice and Dice over SAH slices with intervals."""
    first = next(iter(recipes.values()))
    shown = list(first.counts)
    rows = []
    for metric, convention in REPORTED[1:3]:
        for recipe, results in recipes.items():
            row = {
                "Score": f"{metrics.LABELS[metric]}, {metrics.CONVENTIONS[convention].label}",
                "Recipe": RECIPES.get(recipe, "the study's own"),
            }
            for series in shown:
                own = results.counts[series]
                collapsed = sum(map(metrics.is_collapsed, own))
                text = intervals.in_words(intervals.interval(own, metric, convention))
                row[name_of(series)] = f"collapsed in {collapsed} of {len(own)}: {text}" if collapsed else text
            for name, counts in first.trivial.items():
                row[name] = intervals.in_words(intervals.interval(counts, metric, convention))
            rows.append(row)
    chosen = [note for results in recipes.values() for note in rates_in_words(results.searches)]
    # "travels" is for other scans and has no part in the paper's question.
    left_out = [RECIPES[recipe] for recipe in RECIPES if recipe not in (*recipes, "travels")]
    if left_out:
        searched = "" if chosen else "; the learning rate was not searched"
        chosen.append(f"Left out in this profile: {', '.join(left_out)}{searched}.")
    caption = "What decided it: how much belongs to the gates and how much to the optimisation."
    return published.table(first, pd.DataFrame(rows), "table_decision", caption, *chosen, *seed_notes(first))


def decision_in_words(recipes: dict[str, Results]) -> str:
    """Whether Dice over SAH slices moves more from recipe to recipe or from network to network."""
    if len(recipes) == 1:
        return "One recipe was run, so how much optimisation decides cannot be seen here."
    values = [
        [np.mean([metrics.score(c, "dice", "sah_slices") for c in own]) for own in results.counts.values()]
        for results in recipes.values()
    ]
    return (
        f"Over SAH slices, Dice moves by up to {np.ptp(values, axis=0).max():.3f} when a network is trained by another "
        f"recipe, and by up to {np.ptp(values, axis=1).max():.3f} from network to network under one."
    )


def lesion_size(judged: Judged) -> Figure:
    """Dice by thirds of lesion area, with intervals; the paper claims an advantage on small SAH."""
    table = intervals.by_size(judged.every_series)
    table["label"] = table["series"].map({s: tables.label(s, own) for s, own in judged.every_series.items()})
    table["tercile"] = [
        f"{row.tercile}\n{row.lesion_min:.0f} to {row.lesion_max:.0f} px\n{tables.counted(row.slices, 'slice')}"
        if row.slices
        else f"{row.tercile}\nnone"
        for row in table.itertuples()
    ]
    claimed = " The paper claims that attention helps on small lesions." if judged.paper is PAPER else ""
    square = judged.sides["row_mm"] * judged.sides["column_mm"]
    unlike = f" (a pixel is {square.min():.2g} to {square.max():.2g} mm²)" if square.max() > 1.05 * square.min() else ""
    caption = f"Dice over SAH slices by thirds of lesion area in pixels{unlike}, 95 % intervals over patients.{claimed}"
    first = ["series", "label", "tercile", "estimate", "low", "high"]
    data = table[[*first, *(column for column in table if column not in first)]]
    return published.figure(judged, evidence_plots.size_strata(data), "lesion_size", data, caption)


def claims(recipes: dict[str, Results]) -> pd.DataFrame:
    """The ledger: each claim of the paper, its printed value, ours with an interval, and a verdict by rule.

    Saved for every recipe, as ledger.* for the fairest one, which is returned, and ledger_<recipe>.* for the others.
    """
    tables_by_recipe = {}
    for recipe, results in recipes.items():
        histories = {model: [run.history for run in own] for model, own in results.runs.items()}
        of_study = results.study.profile, results.study.dataset, results.study.batch_size
        evidence = ledger.Evidence(results.counts, histories, recipe, *of_study)
        tables_by_recipe[recipe] = ledger.ledger(evidence)
        stem = "ledger" if results is fairest(recipes) else f"ledger_{recipe}"
        ledger_page.write(tables_by_recipe[recipe], results.folder, evidence, stem)
    return tables_by_recipe[fairest(recipes).recipe]


def claims_figure(claims: pd.DataFrame) -> Figure:
    """The ledger on one page; `claims` has saved it with its caption."""
    figure = ledger_page.ledger_figure(claims)
    return drawing.described(figure, f"The claims ledger on one page, a row for each of {len(claims)} entries.")


def summary(recipes: dict[str, Results], claims: pd.DataFrame) -> str:
    """The verdict in some lines of Markdown, saved as verdict.md; every number is from the counts.

    claims: the ledger
    """
    results = fairest(recipes)
    trivial = metrics.score(results.trivial[baselines.BACKGROUND], "dice", "mean_empty_1")
    lines = [
        f"- Calling every pixel background scores Dice {trivial:.3f} on this test set when empty against empty counts "
        f"as 1; the paper prints {' and '.join(f'{dice:.3f}' for dice in results.paper.printed['dice'].values())}."
    ]
    for model, own in results.counts.items():
        flattering = np.mean([metrics.score(counts, "dice", "mean_empty_1") for counts in own])
        found = intervals.interval(own, "dice", "sah_slices")
        interval = "" if np.isnan(found.low) else " (95 % interval over patients)"
        lines.append(
            f"- {tables.label(model, own)}: Dice {flattering:.3f} by that convention, "
            f"{intervals.in_words(found)} over SAH slices only{interval}."
        )
    lines += [f"- {said}" for said in (*contrasts_in_words(results), *recipes_in_words(recipes))]
    verdicts = claims[claims["kind"] != "contradiction"]["verdict"].value_counts()
    counted = ", ".join(f"{number} {WORDS[verdict]}" for verdict, number in verdicts.items())
    lines.append(f"- Of {verdicts.sum()} claims and controls, {counted}.")
    contradictions = int((claims["kind"] == "contradiction").sum())
    lines.append(
        f"- Beside these claims the ledger names {contradictions} places where the paper's own numbers or sentences "
        "contradict each other."
    )
    lines += [f"- {note}" for note in [*results.notes[:1], *seed_notes(results)]]
    text = "\n".join(lines) + "\n"
    drawing.save_text(results.folder / "verdict.md", text)
    return text


def seed_notes(judged: Judged) -> list[str]:
    """What test patients and seeds leave open."""
    bleeding = int((next(iter(judged.counts.values()))[0].groupby("patient_id")["lesion_pixels"].sum() > 0).sum())
    found = []
    if bleeding < intervals.FEW_PATIENTS:
        who = "1 test patient has" if bleeding == 1 else f"{bleeding} test patients have"
        found.append(f"Only {who} SAH: these intervals cover less than they say.")
    if bleeding < MIN_PATIENTS:
        found.append("With so few no paired test can reach 5 %, so no claim about scores over SAH slices can be told.")
    if judged.trainings == 1:
        found.append(judged.ONCE)
    else:
        found.append(
            "Intervals of differences hold the chance of other patients and trainings, p that of patients alone."
        )
    return found
