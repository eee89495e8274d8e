"""Model cards: for each trained network a page on what it is, what for, from which data, its scores and its limits.

Sections as in Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993), and the files at the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np
import pandas as pd

from sahlib.chapters import evaluation, published, train_unet, verdict
from sahlib.chapters.results import Results
from sahlib.data import catalogue
from sahlib.figures import tables
from sahlib.paper.rules import MIN_PATIENTS
from sahlib.scoring import baselines, metrics, statistics
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import MODELS
from sahlib.training.runs import Run
from sahlib.workspace import writing

ARCHITECTURES = {
    "unet": "MONAI's `UNet` in 2-D with residual units, five levels of {channels} channels",
    "unet_resnet34": "MONAI's `FlexibleUNet` in 2-D: a ResNet34 encoder, not pretrained, and a decoder of {channels} "
    "channels",
    "attention_unet": "MONAI's `AttentionUnet` in 2-D, an attention gate on every skip connection (Oktay et al. 2018), "
    "five levels of {channels} channels",
    "attention_unet_open_gates": "MONAI's `AttentionUnet` in 2-D with every attention gate held open, the control that "
    "tells what the gates add, five levels of {channels} channels",
}
TOO_FEW = "too few to tell"


def write(results: Results) -> dict[str, str]:
    """Writes model_card_<model>.md for each network into the results' folder; returns the Markdown by network."""
    cards = {model: card(only(results, model)) for model in results.runs}
    for model, text in cards.items():
        with writing(results.folder / f"model_card_{model}.md") as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    return cards


def only(results: Results, model: str) -> Results:
    """The Results of one network."""
    own = {name: {model: getattr(results, name)[model]} for name in ("runs", "counts")}
    searches = {name: table for name, table in results.searches.items() if name == model}
    return dataclasses.replace(results, **own, searches=searches)


def card(results: Results) -> str:
    """The card of Results that hold one network, as Markdown."""
    ((model, counts),) = results.counts.items()
    study = results.study
    lead = f"{MODELS[model]} of profile {study.profile}, recipe {results.recipe}, trained on dataset {study.dataset}."
    sections = {
        "What it is": network(results),
        "Intended use": intended_use(results),
        "Training data": training_data(results),
        "Training": training(results),
        "Scores on the test set": [scores(results)],
        "Scores by subgroup": [subgroups_in_words(results)],
        "On scans from elsewhere": elsewhere(results),
        "Limits": limits(results),
        "Files": files(results),
    }
    body = "\n\n".join(f"## {heading}\n\n" + "\n".join(lines).strip() for heading, lines in sections.items())
    title = f"# Model card: {tables.label(model, counts)}"
    return f"{title}\n\n**For research alone. Not for clinical use.** {lead}\n\n{body}\n"


def network(results: Results) -> list[str]:
    """Architecture, input and output."""
    ((_, (run, *_)),) = results.runs.items()
    study = results.study
    channels = "{0} to {4}".format(*run.record["recipe"]["channels"])
    if study.dataset == "paired_folder" and not study.grey_window:
        shown = "grey levels as they were exported"
    else:
        shown = ", ".join(
            f"{name} window, {level - width / 2:g} to {level + width / 2:g} HU"
            for name, (level, width) in zip(study.windows, study.window_values, strict=True)
        )
    found = ", ".join("hemorrhage of any type" if lesion == "any" else lesion for lesion in run.lesions)
    return [
        f"- **Architecture:** {ARCHITECTURES[run.model].format(channels=channels)}; {run.record['parameters']:,} "
        "parameters.",
        f"- **Input:** slices of head CT one by one, resized to {study.size}x{study.size} pixels, "
        f"{len(study.windows)} channel{'s' * (len(study.windows) > 1)} in [0, 1] ({shown}).",
        f"- **Output:** at each pixel one logit for {found}. Its sigmoid is read as the probability of a lesion; above "
        f"{THRESHOLD:g} the pixel counts as lesion. The threshold was fixed beforehand and not tuned.",
    ]


def intended_use(results: Results) -> list[str]:
    """What the network is for and what not."""
    lines = [
        "- **For:** reproducing and questioning a paper's comparison of U-Net and Attention U-Net; teaching; comparing "
        "methods on the same slices.",
        "- **Not for:** any decision about a patient. It is no medical device: it must not diagnose, rule out, triage "
        "or measure bleeding.",
    ]
    if results.study.dataset == "phantom":
        lines.append("- **No clinical evidence:** it has learned from synthetic scans alone.")
    return lines


def training_data(results: Results) -> list[str]:
    """Where the slices come from, and how many patients and slices are on each side of the split."""
    study, store, split = results.study, results.store, results.split
    train = store.slices.iloc[split.rows(store, "train")]
    sides = split.summary(store).drop(columns="share positive").astype(int).astype(str)
    return [
        f"- **Source:** {_source(results)}",
        f"- **Geometry of the training side:** pixel spacing after resizing {_range(train['row_mm'])}, slice thickness "
        f"{_range(train['thickness_mm'])}.",
        f"- **Split:** by {'slice, for patients are not known' if study.slices_are_patients else 'patient'}; the best "
        "epoch was chosen on the validation side, and nothing on the test side.",
        f"- **Digests:** slices `{store.digest}`, split `{split.digest}`.",
        "",
        tables.markdown(sides.rename_axis("Side").reset_index(), "Slices and patients on each side of the split."),
    ]


def training(results: Results) -> list[str]:
    """Recipe and settings, then what each seed gave."""
    ((model, runs),) = results.runs.items()
    recipe = runs[0].record["recipe"]
    searched = "chosen on validation patients" if results.searches else "not searched"
    devices = sorted({run.record["provenance"]["device"] for run in runs})
    return [
        f"- **Recipe:** {results.recipe}. Binary cross entropy + Dice loss; Adam, learning rate "
        f"{recipe['learning_rate']:g}, {searched}; {recipe['epochs']} epochs, batches of {recipe['batch_size']}; prior "
        f"bias {'on' if recipe['prior_bias'] else 'off'}; computed in {recipe['precision']} on {', '.join(devices)}.",
        f"- **Augmentation:** flips with probability {recipe['flip_probability']:g}, rotations up to "
        f"{recipe['rotation_degrees']:g} degrees.",
        "- **Kept:** the epoch with the highest Dice over all validation pixels; where equal, the lowest validation "
        "loss.",
        train_unet.in_words(results.runs),
    ]


def scores(results: Results) -> str:
    """The scores of verdict.REPORTED with intervals, those of the predictors that know nothing beside them."""
    rows = []
    for metric, convention in verdict.REPORTED:
        row = {"Score": metrics.LABELS[metric], "Convention": metrics.CONVENTIONS[convention].label}
        for series, own in results.every_series.items():
            found = statistics.interval(own, metric, convention, batch_size=results.study.batch_size)
            row[tables.label(series, own)] = statistics.in_words(found)
        rows.append(row)
    seeds = len(results.study.seeds)
    caption = f"Scores with 95 % intervals over patients{f', means over {seeds} seeds' * (seeds > 1)}."
    note = (
        f"'{metrics.CONVENTIONS['mean_empty_1'].label}' flatters: a slice without lesion counts as 1 where nothing is "
        f"predicted, so '{baselines.BACKGROUND}' scores high by it."
    )
    return tables.markdown(pd.DataFrame(rows), caption, [note])


def subgroups(results: Results) -> pd.DataFrame:
    """One row per subgroup of the test set: lesion size, slice thickness where it varies, class where there are
    several, and slices with and without lesion.

    returns: columns Subgroup, Score, Slices, Patients, the value with its interval, and Remark: TOO_FEW below
    claim_rules.MIN_PATIENTS
    """
    ((model, counts),) = results.counts.items()
    first = counts[0]
    lesion = first["lesion_pixels"] > 0
    rows = [
        (f"{own.tercile} lesions, {own.lesion_min:.0f} to {own.lesion_max:.0f} pixels", "Dice", own.slices,
         own.patients, statistics.in_words(own))
        for own in statistics.by_size({model: counts}).itertuples() if own.slices
    ]  # fmt: skip
    for name, same in _by_thickness(results).items():
        if (same & lesion).any():
            found = statistics.interval([own[same & lesion] for own in counts], "dice", "sah_slices")
            rows.append((name, "Dice", (same & lesion).sum(), found.patients, statistics.in_words(found)))
    if len(results.runs[model][0].lesions) > 1:
        own = evaluation.class_scores(results)
        values = own["Dice, slices with it (95 % interval)"]
        rows += zip("class " + own["Class"], ["Dice"] * len(own), own["Slices"], own["Patients"], values, strict=True)
    # A slice is called positive where any pixel is predicted (detection.py); of several seeds, the mean.
    called = np.mean([(own.tp + own.fp) > 0 for own in counts], axis=0)
    for name, score, inside in (
        ("slices with a lesion", "share in which anything is predicted", lesion),
        ("slices without lesion", "share with a false alarm", ~lesion),
    ):
        if inside.any():
            found = statistics.mean_interval(called[inside], first.loc[inside, "patient_id"])
            rows.append((name, score, inside.sum(), found.patients, statistics.in_words(found)))
    table = pd.DataFrame(rows, columns=["Subgroup", "Score", "Slices", "Patients", "Value (95 % interval)"])
    return table.assign(Remark=np.where(table["Patients"] < MIN_PATIENTS, TOO_FEW, "")).astype(str)


def subgroups_in_words(results: Results) -> str:
    """The table of subgroups, and the range over patients."""
    ((_, counts),) = results.counts.items()
    bleeding = counts[0].loc[counts[0]["lesion_pixels"] > 0, "patient_id"].unique()
    own = [metrics.unit_scores(c[c["patient_id"].isin(bleeding)], "dice", "per_patient") for c in counts]
    patients = np.mean(own, axis=0)
    notes = [
        f"'{TOO_FEW.capitalize()}': fewer than {MIN_PATIENTS} patients, with whom no paired test can reach 5 %.",
        f"Dice of single patients with a lesion, all their pixels pooled: lowest {patients.min():.3f}, median "
        f"{np.median(patients):.3f}, highest {patients.max():.3f}; {len(patients)} patients"
        f"{f', {TOO_FEW}' * (len(patients) < MIN_PATIENTS)}.",
        "Age, sex, scanner and hospital are not stored with the slices, so nothing can be said by them.",
    ]
    caption = f"Dice is the {metrics.CONVENTIONS['sah_slices'].label}; intervals are over patients."
    return tables.markdown(subgroups(results), caption, notes)


def elsewhere(results: Results) -> list[str]:
    """What notebook 08 wrote down of this very network on other scans, from the folders external-*."""
    ((model, runs),) = results.runs.items()
    line = re.compile(rf"- ({re.escape(MODELS[model])}(?: \(collapsed.*?\))?: .*)")
    found = []
    for summary in sorted(results.folder.glob("external-*/summary.md")):
        origin, *lines = summary.read_text(encoding="utf-8").splitlines()
        if all(any(run.path.glob(f"{summary.parent.name}*/counts.csv")) for run in runs):
            found += [f"- {origin} {match[1]}" for match in map(line.fullmatch, lines) if match]
    return found or ["Not tested on any yet; notebook `08_external_validation` does that."]


def limits(results: Results) -> list[str]:
    """What a reader must know of the run and of its test set."""
    known = [*published.notes(results), *verdict.seed_notes(results)]
    known.append("It sees one slice at a time and knows nothing of the slices above and below.")
    return [f"- {note}" for note in known]


def files(results: Results) -> list[str]:
    """Where the weights of each seed lie below the output folder, what made them, and how they are loaded."""
    ((_, runs),) = results.runs.items()
    lines = []
    for run in runs:
        made, checksum = run.record["provenance"], hashlib.sha256(run.weights.read_bytes()).hexdigest()
        lines.append(
            f"- Seed {run.seed}: `{_place(run)}/{run.weights.name}`, SHA-256 `{checksum}`; run "
            f"`{run.record['digest']}`, commit `{made['commit']}`, {made['time']}."
        )
    return [
        *lines,
        "",
        "With images float32 [B,C,H,W] in [0, 1], from the output folder:",
        "",
        "```python",
        "from pathlib import Path",
        "from sahlib.scoring import prediction",
        "from sahlib.training import runs",
        "",
        f'network = prediction.load_network(runs.find(Path("{_place(runs[0])}")))',
        "probabilities = network(images).sigmoid()",
        "```",
    ]


def _by_thickness(results: Results) -> dict[str, np.ndarray]:
    """Test slices bool [k] of each thickness, to the millimetre; empty where all are alike."""
    thickness = results.store.slices["thickness_mm"].to_numpy()[results.test_rows].round()
    groups = {
        f"lesions, slices about {millimetres:.0f} mm thick": thickness == millimetres
        for millimetres in np.unique(thickness[~np.isnan(thickness)])
    }
    if np.isnan(thickness).any():
        groups["lesions, slices of unknown thickness"] = np.isnan(thickness)
    return groups if len(groups) > 1 else {}


def _place(run: Run) -> str:
    """The run's folder, relative to the output folder."""
    return "/".join(("runs", *run.path.parts[-3:]))


def _source(results: Results) -> str:
    study = results.study
    if study.dataset == "phantom":
        return (
            f"the built-in phantom, {study.phantom_patients} synthetic patients of seed {study.phantom_seed}: head CT "
            "computed from the ICBM 152 atlas (Fonov et al. 2011), with drawn bleeding."
        )
    chosen = catalogue.find(study.dataset)
    if chosen.licence == catalogue.OWN:
        return f"a folder of the user's own, read as `{chosen.name}`; its origin and licence are its owner's to state."
    unverified = f" Not verified: {' '.join(chosen.unverified)}" if chosen.unverified else ""
    return (
        f"{chosen.title.text} (`{chosen.name}`). Licence: {chosen.licence.text}. To cite: {chosen.citation.text}."
        f"{unverified}"
    )


def _range(millimetres: pd.Series) -> str:
    if millimetres.isna().all():
        return "unknown"
    low, high = (f"{end:.2f}" for end in (millimetres.min(), millimetres.max()))
    known = f"{low} mm" if low == high else f"{low} to {high} mm"
    return f"{known}, in part unknown" if millimetres.isna().any() else known
