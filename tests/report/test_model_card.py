"""Model cards: numbers against counts worked out by hand, sentences against the runs, what must not be told."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from sahlib.chapters import results
from sahlib.report import model_card
from sahlib.scoring import metrics
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def loaded(small, tmp_path_factory):
    study = dataclasses.replace(small[0], models=("unet", "attention_unet"), seeds=(0, 1), further_recipes=())
    return results.load(study, Workspace(str(tmp_path_factory.mktemp("output"))))


@pytest.fixture
def own(loaded, tmp_path):
    """The Results of one network, with a folder of the test's own."""
    return dataclasses.replace(model_card.only(loaded, "unet"), folder=tmp_path)


def with_counts(own, frames, **slices):
    """The Results with counts of one's own, and columns of the store's test slices set."""
    store = dataclasses.replace(own.store, slices=own.store.slices.copy())
    for column, values in slices.items():
        store.slices.loc[own.test_rows, column] = values
    return dataclasses.replace(own, store=store, counts={"unet": frames})


def told(own, heading, **study):
    """A section of the card, under a Study with fields of one's own."""
    text = model_card.card(dataclasses.replace(own, study=dataclasses.replace(own.study, **study)))
    return re.search(rf"^## {heading}\n\n(.*?)\n(?=\n## |\Z)", text, re.M | re.S)[1]


def row_of(table, subgroup):
    return table.set_index("Subgroup").loc[subgroup].tolist()


def test_each_network_has_a_card_with_every_section(loaded):
    cards = model_card.write(loaded)
    assert list(cards) == ["unet", "attention_unet"]
    for model, text in cards.items():
        assert (loaded.folder / f"model_card_{model}.md").read_text() == text
        headings = re.findall("^## (.*)$", text, re.M)
        assert headings == [
            "What it is", "Intended use", "Training data", "Training", "Scores on the test set", "Scores by subgroup",
            "On scans from elsewhere", "Limits", "Files",
        ]  # fmt: skip
        assert "Not for clinical use" in text and "{" not in text and "nan" not in text
    assert model_card.write(loaded) == cards


def test_nothing_of_this_machine_is_told(loaded):
    text = "".join(model_card.write(loaded).values())
    assert loaded.study.data_dir not in text and str(loaded.folder.parents[1]) not in text


def test_scores_are_those_of_the_saved_counts(own):
    text = model_card.scores(own)
    saved = [pd.read_csv(run.path / "counts.csv") for run in own.runs["unet"]]
    for convention, label in (("mean_empty_1", "mean over slices, 0/0 = 1"), ("sah_slices", "mean over SAH slices")):
        mean = np.mean([metrics.score(counts, "dice", convention) for counts in saved])
        assert re.search(rf"\| Dice \| {label}[^|]* \| {mean:.3f}", text)
    assert "Background everywhere" in text and "means over 2 seeds" in text


def test_subgroups_by_hand(own):
    """Six slices of two patients: areas 4, 8 and 16; two seeds of which the second finds nothing."""
    n = len(own.test_rows)
    assert n == 6
    lesion = np.array([4, 8, 16, 0, 0, 0])
    first = pd.DataFrame(
        {
            "slice_id": list("abcdef"),
            "patient_id": ["p", "p", "q", "q", "q", "q"],
            "tp": [0, 4, 16, 0, 0, 0],
            "fp": [0, 0, 0, 5, 0, 0],
            "fn": [4, 4, 0, 0, 0, 0],
            "tn": 1024 - lesion - [0, 0, 0, 5, 0, 0],
            "lesion_pixels": lesion,
        }
    )
    second = first.assign(tp=0, fp=0, fn=lesion, tn=1024 - lesion)
    results = with_counts(own, [first, second], thickness_mm=[1, 1, 1, 5, 5.1, np.nan])
    table = model_card.subgroups(results)
    few = model_card.TOO_FEW
    assert row_of(table, "small lesions, 4 to 4 pixels") == ["Dice", "1", "1", "0.000", few]
    # 2 * 4 / (2 * 4 + 4) = 2/3 by the first seed, 0 by the second
    assert row_of(table, "medium lesions, 8 to 8 pixels") == ["Dice", "1", "1", "0.333", few]
    assert row_of(table, "large lesions, 16 to 16 pixels") == ["Dice", "1", "1", "0.500", few]
    # (0 + 2/3 + 1) / 3 / 2
    name = "lesions, slices about 1 mm thick"
    assert row_of(table, name)[:3] == ["Dice", "3", "2"] and row_of(table, name)[3].startswith("0.278 (")
    assert not table["Subgroup"].str.contains("5 mm|unknown").any(), "no slice with a lesion is among them"
    # Found: 2 of 3 by the first seed, none by the second. False alarms: 1 of 3, and none.
    assert row_of(table, "slices with a lesion")[3].startswith("0.333")
    assert row_of(table, "slices without lesion")[1:] == ["3", "1", "0.167", few]
    words = model_card.subgroups_in_words(results)
    # p: 2 * 4 / (2 * 4 + 8) = 0.5 and 0; q: 2 * 16 / (2 * 16 + 5) = 0.865 and 0
    assert "lowest 0.250, median 0.341, highest 0.432; 2 patients, too few to tell." in words


def test_enough_patients_are_not_called_too_few(own):
    counts = own.counts["unet"][0].assign(
        patient_id=list("abcdef"), tp=2, fp=0, fn=range(6), lesion_pixels=range(2, 8), tn=1000
    )
    table = model_card.subgroups(with_counts(own, [counts]))
    assert row_of(table, "slices with a lesion")[1:3] == ["6", "6"] and row_of(table, "slices with a lesion")[-1] == ""
    assert "slices without lesion" not in table["Subgroup"].to_list(), "there are none"
    assert not table["Subgroup"].str.contains("thick").any(), "no slice's thickness is known"
    assert "6 patients." in model_card.subgroups_in_words(with_counts(own, [counts]))


def test_several_classes_have_a_row_each(own, monkeypatch):
    runs = [dataclasses.replace(run, record=run.record | {"lesions": ["SAH", "IVH"]}) for run in own.runs["unet"]]
    for run in runs:
        monkeypatch.setattr(type(run), "counts_of", lambda run, lesion: own.counts["unet"][0])
    table = model_card.subgroups(dataclasses.replace(own, runs={"unet": runs}))
    assert [name for name in table["Subgroup"] if name.startswith("class")] == ["class SAH", "class IVH"]
    text = model_card.card(dataclasses.replace(own, runs={"unet": runs}))
    assert "one logit for SAH, IVH." in text


def test_a_collapsed_network_is_named_in_its_title(own):
    silent = [c.assign(tp=0, fp=0, fn=c["lesion_pixels"], tn=32 * 32 - c["lesion_pixels"]) for c in own.counts["unet"]]
    text = model_card.card(dataclasses.replace(own, counts={"unet": silent}))
    assert text.startswith("# Model card: U-Net (collapsed: every pixel background)\n")


def test_a_searched_learning_rate_is_called_so_and_no_other_network_s_is_told(loaded):
    search = pd.DataFrame({"learning_rate": [1e-3, 1e-2], "chosen": [False, True]})
    searched = dataclasses.replace(loaded, recipe="fair", searches={"unet": search, "attention_unet": search})
    text = model_card.card(model_card.only(searched, "unet"))
    assert "chosen on validation patients" in text and "not searched" not in text
    assert "U-Net was trained at 0.01" in text and "Attention U-Net was trained" not in text
    assert "not searched" in model_card.card(model_card.only(loaded, "unet"))


def test_the_augmentation_is_told(own):
    assert "flips with probability 0.5, rotations up to 15 degrees." in told(own, "Training")
    travels = told(own, "Training", augmentation="travels")
    assert "**Augmentation:** travels: random windows, grey scales" in travels and "15 degrees" not in travels


def test_the_source_of_the_data_is_told(own):
    data = told(own, "Training data")
    assert "its owner's to state" in data and "pixel spacing after resizing unknown" in data
    public = told(own, "Training data", dataset="rhuh_sah")
    assert "CC BY 4.0" in public and "Not verified:" in public
    assert "synthetic patients of seed 0" in told(own, "Training data", dataset="phantom", data_dir="")
    assert "by slice, for patients are not known" in told(own, "Training data", slices_are_patients=True)


def test_the_windows_are_told_where_there_were_hounsfield_units(own):
    assert "grey levels as they were exported" in told(own, "What it is")
    told_window = dataclasses.replace(own, store=dataclasses.replace(own.store, meta=own.store.meta | {"unit": "HU"}))
    both = told(told_window, "What it is", grey_window="brain", windows=("brain", "bone"))
    assert "2 channels in [0, 1] (brain window, 0 to 80 HU, bone window, -800 to 2000 HU)" in both


def test_scores_elsewhere_are_quoted_if_this_very_network_was_tested_there(own):
    for name in ("external-aaaaaa", "external-bbbbbb"):
        (own.folder / name).mkdir()
        lines = f"From {name}.\n\n- U-Net: good.\n- U-Net (ResNet34): not this one.\n- Attention U-Net: nor this.\n"
        (own.folder / name / "summary.md").write_text(lines)
    none = "Not tested on any yet; notebook `08_external_validation` does that."
    assert told(own, "On scans from elsewhere") == none
    moved = []
    for run in own.runs["unet"]:
        path = own.folder / f"seed{run.seed}"
        (path / "external-aaaaaa012345").mkdir(parents=True)
        (path / "external-aaaaaa012345" / "counts.csv").touch()
        moved.append(dataclasses.replace(run, path=path))
    assert model_card.elsewhere(dataclasses.replace(own, runs={"unet": moved})) == [
        "From external-aaaaaa. U-Net: good."
    ]


def test_the_weights_are_found_and_loaded_as_the_card_says(own, monkeypatch):
    import torch

    text = told(own, "Files")
    root = own.runs["unet"][0].path.parents[3]
    monkeypatch.chdir(root)
    named = re.findall(r"`(runs/\S+)`, SHA-256 `(\w{64})`", text)
    assert len(named) == 2
    for path, checksum in named:
        assert hashlib.sha256((root / path).read_bytes()).hexdigest() == checksum
    names = {"images": torch.from_numpy(own.store.inputs(own.test_rows)).float() / 255}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], names)
    saved = np.asarray(own.runs["unet"][0].probabilities, np.float32)  # as float16
    np.testing.assert_allclose(names["probabilities"][:, 0].detach().numpy(), saved, atol=1e-3)
