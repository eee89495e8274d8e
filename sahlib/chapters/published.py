"""How the chapters publish: a figure or table goes to the results' folder with the notes on its run, and is returned.

`run.json` beside them leads from there back to runs, split and slices.
"""

from __future__ import annotations

import json

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from sahlib.chapters.judged import Judged
from sahlib.chapters.results import Results
from sahlib.figures import drawing, tables
from sahlib.scoring import metrics
from sahlib.workspace import provenance


def figure(judged: Judged, drawn: Figure, stem: str, data: pd.DataFrame, caption: str) -> Figure:
    """`drawn`, saved as stem.* with the table of what it shows and a caption that ends in what run it is of."""
    drawing.save(drawn, judged.folder, stem, data, f"{caption} {' '.join(judged.notes[:2])}")
    return drawn


def table(judged: Judged, content: pd.DataFrame, stem: str, caption: str, *more: str) -> pd.DataFrame:
    """The cells of `content` as they are shown, saved as stem.* with the notes on the run and `more` of them."""
    tables.write(content, judged.folder, stem, caption, [*judged.notes, *more])
    return tables.displayed(content)


def readable(shown: pd.DataFrame) -> Styler:
    """The table for a notebook whose cells hold sentences: none of them cut short, all to the left, no row numbers."""
    return shown.style.hide(axis="index").set_table_styles([{"selector": "th, td", "props": "text-align: left"}])


def record(results: Results, *further: Results) -> dict:
    """run.json of the folder: the Study, the data and every run behind the figures and tables.

    further  the same Study's Results under further recipes
    """
    content = {
        "recipe": results.recipe,
        "study": {name: value for name, value in results.study.as_dict().items() if name != "data_dir"},
        "store": {"digest": results.store.digest, "recipe": results.store.meta["recipe"]},
        "split": {"digest": results.split.digest, **results.split.summary(results.store).to_dict(orient="index")},
        **_trainings(results),
        "further_recipes": {other.recipe: _trainings(other) for other in further},
        "provenance": provenance(),
    }
    drawing.save_text(results.folder / "run.json", json.dumps(content, indent=1) + "\n")
    return content


def record_in_words(record: dict) -> str:
    """What a folder's figures come from, in a sentence; record: run.json."""
    runs = [run for own in record["runs"].values() for run in own]
    devices = ", ".join(sorted({run["provenance"]["device"] for run in runs}))
    return (
        f"Profile {record['study']['profile']} on {record['study']['dataset']}: {len(runs)} runs, trained in "
        f"{sum(run['seconds'] for run in runs) / 60:.1f} minutes on {devices}; "
        f"slices {record['store']['digest']}, split {record['split']['digest']}."
    )


def _trainings(results: Results) -> dict:
    """The runs of Results, and which of them have collapsed."""
    return {
        "runs": {model: [run.record for run in own] for model, own in results.runs.items()},
        "collapsed": {model: [bool(metrics.is_collapsed(c)) for c in own] for model, own in results.counts.items()},
    }
