"""What a throughput measurement leaves: a CSV file and a table in Markdown, and of training a chart."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sahlib.figures import drawing
from sahlib.study import MODELS, Study
from sahlib.workspace import cores, provenance, shortened, writing

BATCH_SIZE = 16  # the paper's
WORKERS = min(8, cores())
LOOPS = {
    "a": f"(a) Usual PyTorch loop, {WORKERS} workers",
    "b": f"(b) MONAI idiom, {WORKERS} workers",
    "b0": "(b) MONAI idiom, no workers",
    "c": "(c) sahlib",
    "c+": "(c) sahlib, compiled",
}
# From Okabe & Ito, and none of figures.COLOURS, where a colour means a network.
LOOKS = {
    "a": {"facecolor": "#BBBBBB"},
    "b": {"facecolor": "#777777"},
    "b0": {"facecolor": "white", "hatch": "////"},
    "c": {"facecolor": "#E69F00"},
    "c+": {"facecolor": "#E69F00", "hatch": "////"},
}


def write_report(table: pd.DataFrame, study: Study, slices: int, epochs: int, peak: float, folder: Path) -> None:
    """train_throughput-<device>.csv, .md and .png in `folder`."""
    facts = provenance()
    text = markdown(table, study.precision, caption(study, slices, epochs, peak, facts))
    title = f"{facts['device']}, {study.size}×{study.size}, channels {study.channels[0]} to {study.channels[-1]}"
    with writing(write_table(table, text, "train_throughput", facts, folder).with_suffix(".png")) as file:
        chart(table, title).savefig(file, format="png", dpi=250, metadata={"Software": None})


def write_table(table: pd.DataFrame, text: str, kind: str, facts: dict, folder: Path) -> Path:
    """<kind>-<device>.csv of the table and .md of the text in `folder`; returns the place of the first."""
    device = re.sub(r"\(\w+\)", "", facts["device"].lower())  # (R) and (TM)
    path = folder / f"{kind}-{re.sub(r'[^a-z0-9]+', '-', device).strip('-')}.csv"
    with writing(path) as file:
        table.to_csv(file, index=False, float_format="%.5g", lineterminator="\n")
    with writing(path.with_suffix(".md")) as file:
        file.write_text(text, encoding="utf-8", newline="\n")
    print(f"\n{text}\nWritten to {path} and beside it", flush=True)
    return path


def measured_on(facts: dict, *libraries: str) -> str:
    """Device, versions, day and commit, of `provenance`."""
    versions = "".join(f", {name} {facts['libraries'][name]}" for name in libraries)
    made = f"{facts['time'][:10]}, commit {shortened(facts['commit'])}"
    return f"{facts['device']}; Python {facts['python']}{versions}; {made}."


def caption(study: Study, slices: int, epochs: int, peak: float, facts: dict) -> str:
    """All that someone needs to know who reads the numbers or wants to repeat them."""
    return (
        f"Training epochs of {slices} slices of {study.size}×{study.size} pixels, data included, without "
        f"validation; channels {', '.join(map(str, study.channels))}. Median of {epochs} after one not counted. "
        f'(a) in fp32, (b) and (c) in {study.precision}. "Ours" is (c) at batch {BATCH_SIZE}. Share of peak: counted '
        f"FLOPs, forward times three, against {peak / 1e12:.3g} TFLOP/s of a {study.precision} matrix product in "
        f"the same process. Preparation, not in the epochs: MONAI's cache; our feed, capture and compilation. "
        f"{measured_on(facts, 'torch', 'monai')}"
    )


def markdown(table: pd.DataFrame, precision: str, caption: str) -> str:
    """The table for a reader, its caption below."""
    lines = [
        f"| Network | Loop | Batch | s/epoch | slices/s | Ours is × faster | Share of {precision} peak | Preparation |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table.itertuples():
        faster = "" if math.isnan(row.ours_times_faster) else f"{row.ours_times_faster:.2f}"
        lines.append(
            f"| {MODELS[row.model]} | {LOOPS[row.loop]} | {row.batch_size} | {row.seconds_per_epoch:.2f} | "
            f"{row.slices_per_second:.1f} | {faster} | {row.share_of_peak:.1%} | {row.preparation_seconds:.1f} s |"
        )
    return "\n".join([*lines, "", caption, ""])


@drawing.styled
def chart(table: pd.DataFrame, title: str) -> Figure:
    """Slices per second, one panel per network, one bar per loop; beside ours its ratio to (a) and the faster (b)."""
    names = list(dict.fromkeys(table["model"]))
    height = 0.9 + sum(0.22 * len(rows) + 0.3 for _, rows in table.groupby("model"))
    figure = Figure(figsize=(drawing.WIDTH, height), layout="constrained")
    counts = [(table["model"] == model).sum() for model in names]
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for ax, model in zip(axes, names, strict=True):
        rows = table[table["model"] == model].reset_index(drop=True)
        best = {letter: rows.loc[rows["loop"].str[0] == letter, "ours_times_faster"].min() for letter in "ab"}
        for place, row in rows.iterrows():
            ax.barh(place, row["slices_per_second"], 0.8, edgecolor="#333333", linewidth=0.7, **LOOKS[row["loop"]])
            text = f"{row['slices_per_second']:.{0 if row['slices_per_second'] >= 100 else 1}f}"
            is_ours = row["loop"] == "c" and row["batch_size"] == BATCH_SIZE
            if is_ours:
                text += "   " + ", ".join(f"{ratio:.1f}× ({letter})" for letter, ratio in best.items() if ratio > 0)
            ax.annotate(
                text,
                (row["slices_per_second"], place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold" if is_ours else "normal",
            )
        batches = [f", batch {row.batch_size}" if row.loop == "c" else "" for row in rows.itertuples()]
        ax.set_yticks(
            range(len(rows)), [LOOPS[loop] + batch for loop, batch in zip(rows["loop"], batches, strict=True)]
        )
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_title(MODELS[model], loc="left", fontweight="bold")
    axes[-1].set_xlim(0, table["slices_per_second"].max() * 1.4)  # room for the ratios
    axes[-1].set_xlabel(
        f"Training slices per second, (a) and (b) at batch {BATCH_SIZE}; ratios are to (a) and to the faster (b)"
    )
    figure.suptitle(title)
    return figure
