"""The paper's tables from counts, its printed numbers beside ours; written as CSV, Markdown and LaTeX.

`counts` everywhere: {model name: DataFrame} or {model name: [one DataFrame per seed]}, all on the same test slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from sahlib.figures import drawing
from sahlib.paper import transcript
from sahlib.paper.claims import Paper, SampleTable
from sahlib.scoring import metrics
from sahlib.scoring.baselines import BACKGROUND, THRESHOLD
from sahlib.study import AUGMENTATIONS, MODELS, Study, name_of

Counts = pd.DataFrame | Sequence[pd.DataFrame]

WHOLE, SAH_ONLY = "whole test set", "SAH slices only"
PAPER = ", paper"  # how the heading of a printed number ends
ROW_LABELS = {**metrics.LABELS, "area_percent": "Area %"}

SAMPLE_NOTES = (
    "The paper prints the same numbers in its Tables 1 and 2, and its text quotes others for the same samples.",
    "The paper's samples are other slices, of a data set it does not name; its numbers are no target for ours.",
)
AGGREGATE_NOTES = (
    "The paper does not say how it averaged; the convention of each row is one its numbers allow, not one it states.",
    f"'{BACKGROUND}' is the predictor that never finds anything; it shows what a row gives for nothing.",
)
UNDEFINED_NOTE = (
    "An en dash marks a score that is 0/0, not 0: nothing was predicted (precision), there is no lesion (recall), or "
    "both (Dice, IoU, F1)."
)
BLANK_NOTE = "A blank cell marks a number that the paper does not print."


def sample_table(counts: Mapping[str, Counts], sample_ids: Sequence[str], printed: SampleTable) -> pd.DataFrame:
    """Table 1 or 2: the scores of one to three test slices, the paper's number before each of ours.

    counts: the models to show; of several seeds the first, because a picture shows one run
    sample_ids: slice_id of sample 1, 2, 3
    printed: transcript.TABLE_1 or TABLE_2
    returns: column Metric and, for each sample, "Sample 1, paper" and "Sample 1, <model>"; rows Dice, IoU, Precision,
    Recall, F1 (NaN where 0/0) and Area %, the predicted share of the image in per cent
    raises: ValueError for no or too many samples, or a slice that is not exactly once among the counts
    """
    if not 1 <= len(sample_ids) <= len(printed.columns):
        raise ValueError(f"sample_ids must be 1 to {len(printed.columns)} slice ids; there are {len(sample_ids)}")
    columns: dict[str, list] = {"Metric": [ROW_LABELS[m] for m in printed.rows]}
    seeds = _seeds(counts)
    for i, (slice_id, sample) in enumerate(zip(sample_ids, printed.columns, strict=False)):
        columns[sample.capitalize() + PAPER] = [values[i] for values in printed.rows.values()]
        for model, frames in seeds.items():
            row = frames[0][frames[0]["slice_id"] == slice_id]
            if len(row) != 1:
                raise ValueError(f"slice_id {slice_id!r} occurs {len(row)} times in the counts of {model}, not once")
            scores = {m: float(getattr(metrics, m)(row)[0]) for m in metrics.METRICS}
            pixels = row[list(metrics.COUNTS)].to_numpy().sum()
            scores["area_percent"] = 100 * float((row.tp + row.fp).iloc[0] / pixels)
            columns[f"{sample.capitalize()}, {label(model, frames[:1])}"] = [scores[m] for m in printed.rows]
    return pd.DataFrame(columns)


def aggregate_table(counts: Mapping[str, Counts], batch_size: int = 16, paper: Paper | None = None) -> pd.DataFrame:
    """Table 3: the scores of the test set, the paper's number before ours, and what "background everywhere" gets.

    batch_size: slices in a batch of the evaluation; the paper's is 16
    paper: whose printed numbers stand before ours, each under the convention that it is read by
    returns: columns Slices, Metric, Convention, then the models; several seeds show their mean, with "<model> min" and
    "<model> max" after it. Five rows for the whole test set, Dice and IoU as means over slices with empty-against-empty
    1, the others per batch with 0/0 = 0, and those of the paper's conventions that are others; then the same five over
    the SAH slices only; NaN where the paper has none
    raises: ValueError for no model, or models or seeds that were not tested on the same slices
    """
    seeds = _seeds(counts)
    first = transcript.PAPER.conventions.items()
    as_printed = [_row(m, c) for m, c in (paper.conventions.items() if paper else ())]
    rows = [*(_row(m, c) for m, c in first), *as_printed, *(_row(m, "sah_slices") for m, _ in first)]
    rows = sorted(dict.fromkeys(rows), key=lambda row: row[0] == SAH_ONLY)
    columns: dict[str, list | np.ndarray] = {
        "Slices": [where for where, _, _ in rows],
        "Metric": [ROW_LABELS[m] for _, m, _ in rows],
        "Convention": [metrics.CONVENTIONS[c].label.replace("batch,", f"batch of {batch_size},") for _, _, c in rows],
    }
    networks = paper.networks if paper else {}
    paired = [m for network in networks.values() for m in network.beside]
    others = [m for m in seeds if m not in paired]  # networks the paper does not have
    for network, models in (*((name, own.beside) for name, own in networks.items()), ("", others)):
        if network:
            columns[network + PAPER] = [
                paper.printed.get(row[1], {}).get(network, np.nan) if row in as_printed else np.nan for row in rows
            ]
        for model in (m for m in models if m in seeds):
            heading = label(model, seeds[model])
            scores = np.array([[metrics.score(f, m, c, batch_size) for f in seeds[model]] for _, m, c in rows])
            columns[heading] = scores.mean(axis=1)
            if len(seeds[model]) > 1:
                columns |= {f"{heading} min": scores.min(axis=1), f"{heading} max": scores.max(axis=1)}
    trivial = metrics.background_everywhere(next(iter(seeds.values()))[0])
    columns[BACKGROUND] = [metrics.score(trivial, m, c, batch_size) for _, m, c in rows]
    return pd.DataFrame(columns)


def _row(metric: str, convention: str) -> tuple[str, str, str]:
    return SAH_ONLY if metrics.CONVENTIONS[convention].lesions else WHOLE, metric, convention


def bars_data(table3: pd.DataFrame) -> pd.DataFrame:
    """The bars of Figure 9: the whole-test-set rows of `aggregate_table`, one number a row.

    returns: columns metric (as printed, "Dice"), model (its name, or the heading of what is no network), series (a
    heading of the table), printed (True: the paper's), value
    """
    whole = table3[table3["Slices"] == WHOLE]
    bars = whole.melt("Metric", _numeric(whole, displayed(whole)), "series").rename(columns={"Metric": "metric"})
    by_length = sorted(MODELS, key=lambda model: -len(name_of(model)))  # "U-Net (ResNet34)" begins with "U-Net"
    models = [next((m for m in by_length if heading.startswith(name_of(m))), heading) for heading in bars["series"]]
    bars.insert(1, "model", models)
    bars.insert(3, "printed", bars["series"].str.endswith(PAPER))
    return bars


def label(model: str, frames: Sequence[pd.DataFrame]) -> str:
    """A model's name for people, with its collapse, if any, said in it; frames: its counts, one per seed.

    A series that is no network of ours bears its name already; a predictor that knows nothing cannot collapse.
    """
    name, collapsed = name_of(model), sum(map(metrics.is_collapsed, frames))
    if not collapsed or model in (BACKGROUND, THRESHOLD):
        return name
    where = "" if collapsed == len(frames) else f" in {collapsed} of {len(frames)} seeds"
    return f"{name} (collapsed{where}: every pixel background)"


def study_notes(study: Study, counts: pd.DataFrame) -> list[str]:
    """What a reader of any table or figure of a run must know about it; counts: those of any of its models."""
    prior = "on: the output bias starts at the log-odds of a lesion pixel, which the paper does not do"
    notes = [
        f"Profile {study.profile}, dataset {study.dataset}, {study.size}x{study.size} pixels, {study.epochs} epochs, "
        f"batches of {study.batch_size}, {study.channels[0]} to {study.channels[-1]} channels, computed in "
        f"{study.precision}, learning rate {study.learning_rate:g}, "
        f"seed{'s' * (len(study.seeds) != 1)} {', '.join(map(str, study.seeds))}.",
        f"Prior bias initialisation {prior if study.prior_bias else 'off, as in the paper'}.",
    ]
    ours = {"image size": study.size, "epochs": study.epochs, "batch size": study.batch_size}
    ours["learning rate"] = study.learning_rate
    printed = {what: transcript.SETTINGS[what.replace(" ", "_")].value for what in ours}
    printed["image size"] = printed["image size"][0]
    changed = [f"{w} {n:g} (the paper's is {printed[w]:g})" for w, n in ours.items() if n != printed[w]]
    left_out = [name_of(m) for m in Study.models if m not in study.models]  # of those the paper's question needs
    where_it_holds = {
        f"Other than in the paper: {', '.join(changed)}.": changed,
        f"Augmentation {study.augmentation}, which the paper does not do: {AUGMENTATIONS[study.augmentation]}.": (
            study.augmentation != "paper"
        ),
        f"Tested on fold {study.fold + 1} of {study.folds} of a cross-validation by patient.": study.folds,
        "The target is any hemorrhage: where it says SAH, read hemorrhage of every type.": study.target == "any",
        "The networks find every hemorrhage class, each by an output of its own; this is about SAH.": (
            study.target == "all"
        ),
        f"Profile {study.profile}, phantom: no clinical evidence. The scans are synthetic.": study.dataset == "phantom",
        "The smoke profile only shows that the code runs; its numbers mean nothing.": study.profile == "smoke",
        f"Left out in this run: {', '.join(left_out)}.": left_out,
        "Patients are not known: slices of one patient may be on both sides of the split.": study.slices_are_patients,
    }
    notes += [note for note, holds in where_it_holds.items() if holds]
    patients, lesions = counts["patient_id"].nunique(), int(((counts.tp + counts.fn) > 0).sum())
    what = "slices taken as patients" if study.slices_are_patients else "patients"
    notes.append(f"Test set: {counted(len(counts), 'slice')}, {lesions} with SAH, of {patients} {what}.")
    if patients < 10:
        notes.append(f"Fewer than 10 test patients ({patients}): the numbers mean little.")
    return notes


def write(table: pd.DataFrame, folder: str | Path, stem: str, caption: str, notes: Sequence[str] = ()) -> list[Path]:
    """Write folder/stem.csv (full precision), stem.md and stem.tex (3 decimals, caption, notes); return the paths.

    An en dash or a blank cell gets its explanation as a further note. Each file appears whole or not at all.
    """
    cells, notes = displayed(table), list(notes)
    for sign, note in (("–", UNDEFINED_NOTE), ("", BLANK_NOTE)):
        if (cells[_numeric(table, cells)] == sign).to_numpy().any():
            notes.append(note)
    texts = {
        "csv": table.to_csv(index=False, lineterminator="\n"),
        "md": markdown(table, caption, notes),
        "tex": latex(table, f"tab:{stem}", caption, notes),
    }
    return [drawing.save_text(Path(folder) / f"{stem}.{suffix}", text) for suffix, text in texts.items()]


def counted(number: int, what: str) -> str:
    """ "1 slice", "1,234 slices" """
    return f"{number:,} {what}{'s' * (number != 1)}"


def displayed(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: 3 decimals, "mean (min to max)" where seeds have a spread, printed numbers as printed."""
    cells = {}
    for column in table:
        if not is_numeric_dtype(table[column]):
            cells[column] = table[column].astype(str).tolist()
        elif not (column.endswith((" min", " max")) and column[:-4] in table):
            cells[column] = [_number(v, column.endswith(PAPER)) for v in table[column]]
            if f"{column} min" in table:
                spread = zip(cells[column], table[f"{column} min"], table[f"{column} max"], strict=True)
                cells[column] = [f"{t} ({low:.3f} to {high:.3f})" if low <= high else t for t, low, high in spread]
    return pd.DataFrame(cells, index=table.index)


def markdown(table: pd.DataFrame, caption: str, notes: Sequence[str] = ()) -> str:
    """A GitHub table under its caption in bold, notes as a list."""
    cells = displayed(table)
    numeric = _numeric(table, cells)
    lines = [[c.replace("|", "\\|") for c in row] for row in (cells.columns, *cells.to_numpy().tolist())]
    lines.insert(1, ["---:" if c in numeric else "---" for c in cells])
    text = [f"**{caption}**", "", *(f"| {' | '.join(line)} |" for line in lines)]
    if notes:
        text += ["", *(f"- {note}" for note in notes)]
    return "\n".join(text) + "\n"


def latex(table: pd.DataFrame, name: str, caption: str, notes: Sequence[str] = ()) -> str:
    """A table environment for \\usepackage{booktabs,graphicx}, labelled `name`, notes in small type under the rules."""
    cells = displayed(table)
    numeric = _numeric(table, cells)
    rows = [" & ".join(map(escaped, row)) + r" \\" for row in cells.to_numpy().tolist()]
    if "Slices" in cells:
        starts = np.flatnonzero(cells["Slices"] != cells["Slices"].shift())
        for start in starts[:0:-1]:
            rows.insert(start, r"\midrule")
    small = "".join(rf"\par\footnotesize {escaped(note)}" + "\n" for note in notes)
    return LATEX_TABLE.substitute(
        name=name,
        caption=escaped(caption),
        columns="".join("r" if c in numeric else "l" for c in cells),
        headings=" & ".join(_heading(c, c in numeric) for c in cells),
        rows="\n".join(rows),
        notes=f"\\begin{{flushleft}}\n{small}\\end{{flushleft}}\n" if small else "",
    )


LATEX_TABLE = Template(r"""% needs \usepackage{booktabs,graphicx}
\begin{table}[htbp]
\centering
\caption{$caption}
\label{$name}
\resizebox{\textwidth}{!}{%
\begin{tabular}{$columns}
\toprule
$headings \\
\midrule
$rows
\bottomrule
\end{tabular}}
$notes\end{table}
""")
LATEX_SIGNS = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "–": "--", "—": "---", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\le$", "≥": r"$\ge$",
})  # fmt: skip


def escaped(text: str) -> str:
    """Plain text made safe for LaTeX, character by character."""
    return text.translate(LATEX_SIGNS)


def _seeds(counts: Mapping[str, Counts]) -> dict[str, list[pd.DataFrame]]:
    """Each model's counts as a list, one per seed; all must be of the same slices in the same order."""
    seeds = {model: [c] if isinstance(c, pd.DataFrame) else list(c) for model, c in counts.items()}
    if not seeds or not all(seeds.values()):
        raise ValueError(f"counts must hold at least one model with at least one table; models: {list(seeds)}")
    (first, reference), *others = [(model, frame) for model, frames in seeds.items() for frame in frames]
    for model, frame in others:
        same = frame["slice_id"].tolist() == reference["slice_id"].tolist()
        if not same or (frame.tp + frame.fn).tolist() != (reference.tp + reference.fn).tolist():
            raise ValueError(f"counts of {model} and {first} are not of the same test slices in the same order")
    return seeds


def _numeric(table: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    """The columns of numbers among those that `displayed` shows."""
    return [c for c in cells if is_numeric_dtype(table[c])]


def _number(value: float, printed: bool) -> str:
    """3 decimals; a number the paper printed with 2 keeps 2, for it claims no third; NaN is no score, or no print."""
    if pd.isna(value):
        return "" if printed else "–"
    return f"{value:.2f}" if printed and abs(value - round(value, 2)) < 1e-9 else f"{value:.3f}"


def _heading(column: str, numeric: bool) -> str:
    """A column's heading, broken at its comma or bracket so that narrow numbers do not stand in wide columns."""
    parts = column.replace(" (", "\n(").replace(", ", "\n").replace(": ", ":\n").split("\n")
    lines = r" \\ ".join(map(escaped, parts))
    return rf"\shortstack[{'r' if numeric else 'l'}]{{{lines}}}"
