"""Other people's scans: networks as they were trained, tested on slices that no part of the study has seen.

    found = test(results.load(study, workspace), workspace, "~/their_scans")

The result is Results again, of the same networks on other slices, so that every figure and table can be made from it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from sahlib.chapters import published, verdict
from sahlib.chapters.results import Results, trivial_counts
from sahlib.data import slices
from sahlib.data.check.measures import content_hash
from sahlib.data.slices import SliceStore
from sahlib.data.sources import READING, recognise
from sahlib.data.splits import Split
from sahlib.figures import drawing, tables
from sahlib.paper.rules import LEVEL, MIN_PATIENTS
from sahlib.scoring import baselines, intervals, metrics, prediction
from sahlib.study import Study, StudyError, require_known
from sahlib.training.runs import Run
from sahlib.workspace import Workspace, absolute

# Added to the Study's phantom seed for patients on whom nothing was ever set or looked at.
FRESH_SEED = 1000
FRESH = f" They are phantom patients of a seed {FRESH_SEED} further on: still no clinical evidence."


def test(results: Results, workspace: Workspace, folder: str = "", **reading: object) -> Results:
    """The networks of `results` on all scans in `folder`, whose layout is recognised; without one, on a fresh phantom.

    reading  Study fields that say how the folder is to be read, for example label_map or patient_pattern

    Raises StudyError as study_elsewhere and require_testable do.
    """
    there = study_elsewhere(results.study, folder, **reading)
    store = slices.prepare(there, workspace.processed)
    require_testable(results.store, store)
    to = results.folder / f"external-{store.digest[:6]}"
    (to / "summary.md").unlink(missing_ok=True)  # until all is made anew
    split = Split(dict.fromkeys(store.slices["patient_id"], "test"))
    # The same trainings, with counts and probabilities of other slices in folders of their own.
    runs, counts = {}, {}
    for model, own in results.runs.items():
        runs[model] = [Run(run.path / f"external-{store.digest}", run.record) for run in own]
        pairs = zip(runs[model], own, strict=True)
        counts[model] = [prediction.test(run, store, split, results.study, trained) for run, trained in pairs]
    origin = (
        f"Tested on {tables.counted(len(store), 'slice')} of {tables.counted(len(split.sides), 'patient')} from "
        f"elsewhere ({there.dataset}, slices {store.digest}), on which no network was trained or chosen."
        f"{'' if folder else FRESH}"
    )
    return replace(
        results,
        store=store,
        split=split,
        runs=runs,
        counts=counts,
        trivial=trivial_counts(counts, store, split.rows(store, "test"), results.band),
        folder=to,
        origin=origin,
    )


def study_elsewhere(study: Study, folder: str, **reading: object) -> Study:
    """The Study with the other scans as its data.

    StudyError for a field that is unknown or decided what the networks were taught, and for the study's own folder.
    """
    require_known(reading)
    of_a_folder = (*READING, "grey_window")
    unread = {field: getattr(Study, field) for field in ("data_dir", *of_a_folder)}
    if not folder:
        seed = study.phantom_seed + FRESH_SEED
        return replace(study, **unread, dataset="phantom", phantom_seed=seed, phantom_test_patients=0)
    if taught := sorted(reading.keys() - {*of_a_folder, "dataset"}):
        raise StudyError(f"{taught[0]} was settled when the networks were trained; leave it out.")
    root = absolute(folder)
    if study.data_dir and root == absolute(study.data_dir):
        raise StudyError(f"{root} is the study's own folder; give scans that it has not seen.")
    return replace(study, **{**unread, "dataset": recognise(root), "data_dir": str(root), **reading})


def require_testable(own: SliceStore, others: SliceStore) -> None:
    """StudyError where the others show no lesion to score, or hold a slice of the study's own, pixel by pixel."""
    if not others.lesion_pixels.any():
        what = "a lesion" if others.lesion == "any" else others.lesion
        raise StudyError(f"No slice from elsewhere shows {what}, so nothing can be scored; check masks and label_map.")
    seen = _by_content(own)
    again = [f"{name} = {seen[content]}" for content, name in _by_content(others).items() if content in seen]
    if again:
        raise StudyError(
            f"{len(again)} of {len(others)} slices from elsewhere are among the study's own scans (first {again[0]}); "
            "give scans that it has not seen."
        )


def _by_content(store: SliceStore) -> dict[bytes, str]:
    """slice_id by a digest of the image; images of one grey are left out, since they are alike anywhere."""
    named = zip(store.images, store.slices["slice_id"], strict=True)
    return {content_hash(image): name for image, name in named if image.min() < image.max()}


def table(here: Results, elsewhere: Results) -> pd.DataFrame:
    """Dice, precision and recall of each network on the study's own test slices and on the others, saved there.

    Intervals are over patients; the predictors that know nothing stand below.
    """
    rows = []
    for series, counts in elsewhere.every_series.items():
        row = {"Predictor": tables.label(series, counts)}
        for where, own in (("own test set", here.every_series[series]), ("elsewhere", counts)):
            row[f"Dice, slices with lesion, {where}"] = intervals.in_words(
                intervals.interval(own, "dice", "sah_slices")
            )
        for score in ("dice", "precision", "recall"):
            pooled = np.mean([metrics.score(c, score, "pooled") for c in counts])
            row[f"{metrics.LABELS[score]}, pooled, elsewhere"] = float(pooled)
        rows.append(row)
    caption = "The same networks on their own test set and on scans from elsewhere."
    return published.table(elsewhere, pd.DataFrame(rows), "table_external", caption)


def in_words(here: Results, elsewhere: Results) -> str:
    """What the table shows, and the networks' differences elsewhere, as Markdown, saved as summary.md.

    A network is called better than the threshold predictor as one is in verdict.contrasts: by its interval and, after
    Holm's correction, by its test, from rules.MIN_PATIENTS patients on.
    """
    lines = [elsewhere.origin, ""]
    threshold = elsewhere.trivial[baselines.THRESHOLD]
    bar = metrics.score(threshold, "dice", "sah_slices")
    gains = [intervals.difference(threshold, counts, "dice", "sah_slices") for counts in elsewhere.counts.values()]
    tests = zip(gains, intervals.holm([gain.p for gain in gains]), strict=True)
    for (model, counts), (gain, p) in zip(elsewhere.counts.items(), tests, strict=True):
        own, other = (intervals.interval(c, "dice", "sah_slices") for c in (here.counts[model], counts))
        told = gain.patients >= MIN_PATIENTS and p <= LEVEL
        sides = {
            "better than": told and gain.low > 0,
            "worse than": told and gain.high < 0,
            "not told apart from": True,
        }
        compared = next(words for words, holds in sides.items() if holds)
        lines.append(
            f"- {tables.label(model, counts)}: Dice over slices with lesion {intervals.in_words(other)} elsewhere, "
            f"{intervals.in_words(own)} at home; {compared} the threshold predictor's {bar:.3f} elsewhere."
        )
    lines += [f"- Elsewhere, {said}" for said in verdict.contrasts_in_words(elsewhere)]
    text = "\n".join(lines)
    drawing.save_text(elsewhere.folder / "summary.md", text + "\n")
    return text
