"""The figures behind the verdict: conventions, what the printed numbers allow, lesion size, volumes.

A series is a network's name or one of the two trivial predictors; it keeps its colour and its marker in every figure,
so that no figure depends on colour alone. The column `label` holds the legend's text, for instance with a collapse
said in it.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from sahlib.figures.drawing import WIDTH, Look, looks, styled
from sahlib.paper import printed
from sahlib.paper.claims import Paper
from sahlib.scoring import baselines, metrics, volumes


@styled
def conventions(data: pd.DataFrame) -> Figure:
    """Every series under every convention: Dice large, the other metrics small, the paper's numbers as lines.

    A marker is the mean over seeds, the line through it reaches from the least to the greatest.
    """
    ours = data[~data["printed"]]
    rows, series = list(dict.fromkeys(ours["convention"])), list(dict.fromkeys(ours["series"]))
    others = [m for m in dict.fromkeys(ours["metric"]) if m != "dice"]
    names = dict(zip(ours["convention"], ours["convention_label"], strict=True))
    height = len(rows) * max(0.30, 0.075 * len(series) + 0.06)
    figure = Figure(figsize=(WIDTH, 1.7 + height * 1.62), layout="constrained")
    figure.get_layout_engine().set(hspace=0.04, wspace=0.03)
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 0.62])
    _convention_panel(top.subplots(), data[data["metric"] == "dice"], rows, series, names, large=True)
    for ax, metric in zip(bottom.subplots(1, len(others), sharey=True), others, strict=True):
        _convention_panel(ax, data[data["metric"] == metric], rows, series, names, large=False)
    handles = handles_of(ours)
    printed, own = labels_of(data[data["printed"]]), looks([*ours["series"], *data["series"]])
    for number, (network, label) in enumerate(printed.items()):
        look = {"color": own[network].colour, "linestyle": _DASHES[number % len(_DASHES)]}
        handles.append(Line2D([], [], label=f"printed in the paper, {label}", **look))
    if ours["value"].isna().any():
        handles.append(Line2D([], [], linestyle="none", label="no marker: the score is undefined"))
    legend(figure, handles)
    return figure


def conventions_data(table: pd.DataFrame, paper: Paper | None = None) -> pd.DataFrame:
    """One row per series, convention and metric: value (mean over seeds), low, high, seeds; then a paper's numbers.

    table: rows of `metrics.all_scores`, one for each seed, with the columns series, label and convention_label. The
    paper's numbers have printed True and no convention, for it names none.
    """
    keys = ["metric", "convention", "convention_label", "series", "label"]
    groups = table.groupby(keys, sort=False)["value"]
    data = groups.agg(value="mean", low="min", high="max", seeds="size").reset_index().assign(printed=False)
    papers = [
        (metric, "", "", paper.stand_in(network, {}), network, *[value] * 3, 0, True)
        for metric, numbers in (paper.printed.items() if paper else ())
        if metric in set(table["metric"])
        for network, value in numbers.items()
    ]
    return pd.concat([data, pd.DataFrame(papers, columns=data.columns)], ignore_index=True) if papers else data


_DASHES = ((0, (4, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))  # of the printed numbers, in their order


def _convention_panel(ax: Axes, data: pd.DataFrame, rows: list, series: list, names: dict, large: bool) -> None:
    metric = data["metric"].iloc[0]
    papers, own = data[data["printed"]], looks([*series, *data["series"]])
    for number, row in enumerate(papers.itertuples()):
        look = {"linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.1 if large else 0.9, "zorder": 1}
        ax.axvline(row.value, color=own[row.series].colour, **look)
    for r in range(0, len(rows), 2):
        ax.axhspan(r - 0.5, r + 0.5, color="0.955", zorder=0, linewidth=0)
    step = 0.84 / max(len(series), 1)
    for row in data[~data["printed"]].itertuples():
        if np.isnan(row.value):
            continue
        colour, marker = own[row.series].colour, own[row.series].marker
        y = rows.index(row.convention) + (series.index(row.series) - (len(series) - 1) / 2) * step
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=1.1, solid_capstyle="butt", zorder=3)
        size = (5.2 if large else 3.4) * (1.3 if row.series == baselines.BACKGROUND else 1)
        ax.plot(row.value, y, marker, color=colour, markersize=size, markeredgewidth=0, zorder=4, clip_on=False)
        if large and row.series == baselines.BACKGROUND and row.value > 0:
            beside = {"xytext": (-5, 0), "ha": "right"} if row.value > 0.5 else {"xytext": (5, 0), "ha": "left"}
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
            look = {"va": "center", "fontsize": 7, "fontweight": "bold", "color": "0.25", "zorder": 2, "bbox": box}
            text = f"{row.value:.3f} for finding nothing"
            ax.annotate(text, (row.value, y), textcoords="offset points", **beside, **look)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xticks=np.linspace(0, 1, 6 if large else 3))
    # No line ends or begins in the middle of "0/0 = 1".
    ax.set_yticks(range(len(rows)), [textwrap.fill(names[r].replace(" = ", "\u00a0=\u00a0"), 26) for r in rows])
    ax.tick_params(axis="y", length=0, labelsize=7.5 if large else 6)
    ax.spines["left"].set_visible(False)
    ax.set_title(metrics.LABELS.get(metric, metric), loc="left", fontweight="bold" if large else "normal")
    if large:
        ax.tick_params(axis="x", top=False)
        ax.grid(axis="x", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        above = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right", "fontsize": 7}
        for number, row in enumerate(papers.itertuples()):
            text = f"paper, {row.label}: {row.value:.3f}"
            ax.annotate(text, (row.value, 1), xytext=(0, 2 + 9 * number), color=own[row.series].colour, **above)
    else:
        ax.tick_params(axis="x", labelsize=6.5)


@styled
def perfect_slices(paper: Paper) -> Figure:
    """Share of perfect slices that the printed Dice and IoU allow, against the best Dice among the imperfect ones; a
    panel for each of printed.networks."""
    data, networks = printed.perfect_slices_curves(paper), printed.networks(paper)
    figure = Figure(figsize=(max(WIDTH / 2 * len(networks), 4), 3.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    stand_ins = [paper.stand_in(network, {}) for network in networks]
    best = printed.best_sample(paper)
    for ax, network, look in zip(
        figure.subplots(1, len(networks), sharey=True, squeeze=False)[0],
        networks,
        map(looks(stand_ins).get, stand_ins),
        strict=True,
    ):
        own, colour = data[data["network"] == network], look.colour
        dice, iou = (paper.value(metric, network) for metric in printed.OVERLAP)
        t, floor, ceiling = own["cap"], own["floor"], printed.perfect_ceiling(dice, iou)
        ax.fill_between(t, floor, ceiling, color=colour, alpha=0.18, linewidth=0)
        ax.fill_between(t, own["floor_low"], own["floor_high"], color=colour, alpha=0.35, linewidth=0)
        ax.plot(t, floor, color=colour)
        ax.plot([t.iloc[0], 1], [ceiling, ceiling], color=colour, linestyle=(0, (4, 2)))
        alike = printed.imperfect_dice(dice, iou)
        ax.plot(alike, ceiling, "o", color=colour, markersize=5, zorder=4)
        arrow = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.6, "shrinkB": 4}
        text = {"textcoords": "offset points", "arrowprops": arrow, "fontsize": 7.5}
        ax.annotate(
            f"all imperfect slices alike:\n{ceiling:.0%} perfect,\nthe rest have Dice {alike:.2f}",
            (alike, ceiling), xytext=(-24, -66), ha="left", **text,
        )  # fmt: skip
        if np.isfinite(best):
            capped = printed.share_above(dice, iou, best)
            ax.plot(best, capped, "s", color=colour, markersize=5, zorder=4)
            ax.annotate(
                f"no imperfect slice above {best:.2f},\nthe best the paper prints:\nat least {capped:.0%} perfect",
                (best, capped), xytext=(-60, -112), ha="left", **text,
            )  # fmt: skip
        ax.text(0.985, ceiling + 0.015, f"at most {ceiling:.0%} perfect", ha="right", va="bottom", fontsize=7.5)
        ax.set(title=f"{network}: printed Dice {dice:.3f}, IoU {iou:.3f}", xlim=(0.15, 1), ylim=(0, 1))
        ax.set_xlabel("Highest Dice among the imperfect slices")
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.grid(color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.axes[0].set_ylabel("Share of perfect slices (Dice = 1)")
    if (data.groupby("network")["floor"].max() > 0.5).all():
        figure.suptitle("Most of the paper's test slices must be perfect or nearly so, which empty slices are for free")
    return figure


@styled
def false_ranking(data: pd.DataFrame, paper: Paper, higher: str) -> Figure:
    """Probability that the printed ranking is false against the effective number of slices, a band for the correlation.

    data: printed.false_ranking_curves(paper, ...); higher: the network that is printed as the better one
    """
    scans, slices = printed.scans(paper), paper.slices
    figure = Figure(figsize=(WIDTH * 0.75, 3.3), layout="constrained")
    ax = figure.subplots()
    low, middle, high = (data[data["correlation"] == r] for r in printed.CORRELATIONS)
    colour = next(iter(looks([paper.stand_in(higher, {})]).values())).colour
    ax.fill_between(low["n"], high["probability"], low["probability"], color=colour, alpha=0.2, linewidth=0)
    ax.plot(middle["n"], middle["probability"], color=colour)
    ax.axhline(0.05, color="0.4", linestyle=(0, (4, 2)), linewidth=0.8)
    ax.text(printed.FEWEST * 1.05, 0.053, "5 %", va="bottom", fontsize=7.5)
    of_scans, of_slices = (float(middle.loc[middle["n"] == n, "probability"].iloc[0]) for n in (scans, slices))
    look = {"color": colour, "markersize": 5, "clip_on": False, "zorder": 4}
    ax.plot([scans, slices], [of_scans, of_slices], "o", **look)
    beside = {"textcoords": "offset points", "fontsize": 7.5}
    words = f"{of_scans:.2f} if the {slices:,} slices\ncount as {scans} scans of {printed.SLICES_A_SCAN}"
    ax.annotate(words, (scans, of_scans), xytext=(12, 14), **beside)
    words = f"{of_slices:.5f} if all slices\nwere independent"
    ax.annotate(words, (slices, of_slices), xytext=(0, 44), ha="right", **beside)
    ends = f"{printed.CORRELATIONS[0]:g} to {printed.CORRELATIONS[-1]:g}"
    ax.set(xscale="log", xlim=(printed.FEWEST, slices), ylim=(0, None))
    ax.set(xlabel="Independent observations that the test slices amount to", ylabel="Probability of a false ranking")
    ax.xaxis.set_major_locator(FixedLocator([20, 50, 100, 200, 500, 1000]))
    ax.xaxis.set_major_formatter(lambda n, _: f"{n:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    figure.suptitle(f"{higher}'s printed lead; band: the networks' scores correlate by {ends}", fontsize=9)
    return figure


@styled
def size_strata(data: pd.DataFrame) -> Figure:
    """Dice in each tercile of lesion area, with intervals; NaN is left out.

    data: one row per series and tercile: series, label, tercile (the text under the axis), estimate, low, high; order
    of appearance is order in the figure.
    """
    terciles, series = list(dict.fromkeys(data["tercile"])), list(dict.fromkeys(data["series"]))
    figure = Figure(figsize=(WIDTH * 0.8, 3.2), layout="constrained")
    ax = figure.subplots()
    step, own = min(0.14, 0.8 / max(len(series), 1)), looks(series)
    for s, name in enumerate(series):
        rows = data[data["series"] == name]
        x = np.array([terciles.index(t) for t in rows["tercile"]]) + (s - (len(series) - 1) / 2) * step
        colour = own[name].colour
        ax.vlines(x, rows["low"], rows["high"], color=colour, linewidth=1.3)
        look = {"color": colour, "markersize": 6, "markeredgewidth": 0, "clip_on": False}
        ax.plot(x, rows["estimate"], own[name].marker, **look)
    for edge in np.arange(len(terciles) - 1) + 0.5:
        ax.axvline(edge, color="0.85", linewidth=0.6)
    ax.set_xticks(range(len(terciles)), terciles)
    ax.tick_params(axis="x", length=0)
    ax.set(xlim=(-0.5, len(terciles) - 0.5), xlabel="Lesion area", ylabel="Dice (interval: 95 %)")
    low, high = data[["estimate", "low"]].min().min(), data[["estimate", "high"]].max().max()
    ax.set_ylim(min(0, low) if np.isfinite(low) else 0, max(1, high) if np.isfinite(high) else 1)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    legend(figure, handles_of(data))
    return figure


@styled
def bland_altman(data: pd.DataFrame) -> Figure:
    """Difference of predicted and true volume against their mean, one panel per series, one dot per patient.

    data: rows of `volumes.patient_volumes` with the columns series and label. Lines and shades are
    `volumes.bland_altman`'s bias and limits with their 95 % intervals. Panels share their axes, except that of a series
    whose spread would flatten all others: it says so.
    """
    labels = labels_of(data)
    columns = 2 if len(labels) == 4 else min(3, len(labels))
    rows = -(-len(labels) // columns)
    size = (WIDTH if columns == 3 else 3.3 * columns, rows * (2.25 if columns > 1 else 2.8) + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    groups = {name: data[data["series"] == name] for name in labels}
    agreements = {name: volumes.bland_altman(group) for name, group in groups.items()}
    spans = {name: _volume_span(groups[name], agreements[name]) for name in labels}
    reach = {name: max(abs(span[2]), abs(span[3]), 1e-9) for name, span in spans.items()}
    usual = 3 * np.median(list(reach.values()))
    shared = [spans[name] for name in labels if reach[name] <= usual]
    common = [f(s[i] for s in shared) for i, f in enumerate((min, max, min, max))]
    for ax, (name, label) in zip(axes, labels.items(), strict=False):
        own = reach[name] > usual
        left, right, low, high = spans[name] if own else common
        _bland_altman_panel(ax, groups[name], agreements[name], looks(labels)[name])
        pad_x, pad_y = 0.05 * (right - left or 1), 0.08 * (high - low or 1)
        ax.set(xlim=(left - pad_x, right + pad_x), ylim=(low - pad_y, high + pad_y))
        if agreements[name]["patients"]:
            ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_title(textwrap.fill(label + (" (own\u00a0scale)" if own else ""), 28 if columns == 3 else 36))
    for ax in axes[len(labels) :]:
        ax.set_axis_off()
    figure.supxlabel("Mean of true and predicted volume (mL)", fontsize=8)
    figure.supylabel("Predicted - true volume (mL)".replace("-", "\N{MINUS SIGN}"), fontsize=8)
    return figure


def bland_altman_data(data: pd.DataFrame) -> pd.DataFrame:
    """One row per series and patient, with the series' bias and limits of agreement repeated in each."""
    parts = []
    for _, group in data.groupby("series", sort=False):
        agreement = volumes.bland_altman(group)
        parts.append(group.assign(**{c: agreement[c] for c in ("bias_ml", "lower_ml", "upper_ml")}))
    return series_first(pd.concat(parts, ignore_index=True))


def _volume_span(group: pd.DataFrame, agreement: dict) -> tuple[float, float, float, float]:
    """(left, right, low, high) that a panel has to show, mL; 0 is always in it."""
    x = np.append(group["mean_ml"].dropna(), 0)
    y = np.concatenate([group["difference_ml"].dropna(), [0, agreement["lower_ml"], agreement["upper_ml"]]])
    return float(x.min()), float(x.max()), float(np.nanmin(y)), float(np.nanmax(y))


def _bland_altman_panel(ax: Axes, group: pd.DataFrame, agreement: dict, own: Look) -> None:
    colour, marker = own.colour, own.marker
    ax.axhline(0, color="0.75", linewidth=0.7, zorder=1)
    if np.isfinite(agreement["bias_ml"]):
        ax.axhline(agreement["bias_ml"], color=colour, linewidth=1.2, zorder=2)
    if np.isfinite(agreement["sd_ml"]):
        ax.axhspan(agreement["bias_low_ml"], agreement["bias_high_ml"], color=colour, alpha=0.15, linewidth=0)
        for limit in (agreement["lower_ml"], agreement["upper_ml"]):
            ax.axhline(limit, color=colour, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
            margin = agreement["limit_margin_ml"]
            ax.axhspan(limit - margin, limit + margin, color=colour, alpha=0.07, linewidth=0)
    look = {"color": colour, "markersize": 4, "markeredgecolor": "white", "markeredgewidth": 0.4}
    ax.plot(group["mean_ml"], group["difference_ml"], marker, zorder=3, **look)
    if not agreement["patients"]:
        ax.set(xticks=[], yticks=[], xlabel=f"no volume of {agreement['left_out']} patients is known")
        return
    lines = [f"bias {_signed(agreement['bias_ml'])} mL"]
    if np.isfinite(agreement["sd_ml"]):
        lines.append(f"limits {_signed(agreement['lower_ml'])} to {_signed(agreement['upper_ml'])} mL")
    left_out = f", {agreement['left_out']} without a volume" if agreement["left_out"] else ""
    lines.append(f"{agreement['patients']} patients{left_out}")
    ax.set_xlabel("\n".join(lines), fontsize=7)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


# What the figures share


def series_first(table: pd.DataFrame) -> pd.DataFrame:
    """The columns series and label before all others."""
    first = ["series", "label"]
    return table[[*first, *(c for c in table if c not in first)]]


def labels_of(table: pd.DataFrame) -> dict[str, str]:
    """series -> label, in order of appearance."""
    return dict(zip(table["series"], table["label"], strict=True))


def handles_of(table: pd.DataFrame) -> list[Line2D]:
    """The legend's entries for the series of a table, in order of appearance."""
    labels = labels_of(table)
    return [
        Line2D(
            [],
            [],
            color=own.colour,
            marker=own.marker,
            linestyle="none",
            markersize=5.5,
            markeredgewidth=0,
            label=textwrap.fill(labels[series], 38),
        )
        for series, own in looks(labels).items()
    ]


def legend(figure: Figure, handles: list[Line2D]) -> None:
    longest = max(len(line) for h in handles for line in h.get_label().split("\n"))
    fit = max(1, int(figure.get_figwidth() / (0.062 * longest + 0.45)))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(fit, 4, len(handles)))
