"""./run_all.sh judge: raters, classes, missing masks, and what is refused before anything is written."""

from __future__ import annotations

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from sahlib import __main__ as command
from sahlib.chapters import judging
from sahlib.report import judge
from sahlib.scoring import metrics
from sahlib.study import StudyError

SAH, IVH = 1, 2
PATIENTS = [f"P{p}" for p in range(8)]


def shifted(values, rows):
    return np.roll(values, rows, 0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Three raters and two competitors on eight scans; one of them lacks a mask."""
    root = tmp_path_factory.mktemp("scans")
    for number, patient in enumerate(PATIENTS):
        truth = np.zeros((24, 20, 4), np.uint8)
        truth[4 : 8 + number, 5:9, 1:3] = SAH
        truth[18:22, 12:15, 2] = IVH * (number % 2)
        worse = np.where(shifted(truth, 3) == SAH, SAH, 0)
        content = {"r1": truth, "r2": truth, "r3": shifted(truth, 1), "good": shifted(truth, 1), "worse": worse}
        for name, values in content.items():
            if (name, patient) != ("worse", "P7"):
                (root / name).mkdir(exist_ok=True)
                image = nib.Nifti1Image(values.astype(np.uint8), np.diag([-0.5, -0.5, 5, 1]))
                nib.save(image, root / name / f"{patient}.nii.gz")
    return root


def asked(root, *more):
    raters = [part for name in ("r1", "r2", "r3") for part in ("--truth", f"{name}={root / name}")]
    masks = ["--masks", f"good net={root / 'good'}", "--masks", f"worse/net={root / 'worse'}"]
    return ["judge", *raters, *masks, "--label-map", "1=SAH", "2=IVH", "--target", "all", *more]


@pytest.fixture(scope="module")
def judged(scans, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "out"
    assert command.main(asked(scans, "--to", str(folder))) == 0
    return folder


def test_the_headline_says_what_is_better_and_what_is_missing(judged):
    first, *lines = (judged / "judged.md").read_text().splitlines()
    difference = pd.read_csv(judged / "table_differences.csv").iloc[1]
    assert difference["Convention"] == metrics.CONVENTIONS["sah_slices"].label and difference["Told apart"] == "yes"
    assert first.startswith("- good net is better than worse/net. good net minus worse/net, Dice ")
    told = difference["Estimate (95 % interval)"]
    of_worse, lead = ([float(n) for n in re.findall(r"[-+]0\.\d{3}", text)] for text in (told, first))
    assert len(lead) == 3 and lead == [-of_worse[0], -of_worse[2], -of_worse[1]]
    assert "- worse/net has no mask of 1 case (P7): counted as if it had found nothing there." in lines
    assert any("most of 3 raters marked" in line for line in lines)


def test_counts_are_against_the_majority_and_by_class(judged):
    """The majority is r1's and r2's mask; the good net marks it one row further down."""
    counts = pd.read_csv(judged / "counts_good_net.csv")
    by_hand = [(3 + n) * 4 for n in range(8)]
    assert counts["tp"].to_numpy().reshape(8, 4)[:, 1].tolist() == by_hand
    assert (counts["fp"] == counts["fn"]).all() and (counts["lesion_pixels"] == counts["tp"] + counts["fn"]).all()
    missed = pd.read_csv(judged / "counts_worse_net.csv").query("patient_id == 'P7'")
    assert missed["tp"].sum() == missed["fp"].sum() == 0 and missed["fn"].sum() == 2 * 11 * 4
    ventricles = pd.read_csv(judged / "counts_good_net_IVH.csv")
    assert ventricles["tp"].to_numpy().reshape(8, 4)[:, 2].tolist() == [0, 9] * 4
    table = pd.read_csv(judged / "table_classes.csv", keep_default_na=False)
    assert table[table["Class"] == "EDH"]["Slices"].tolist() == [0, 0]


def test_raters_are_judged_among_each_other(judged):
    table = pd.read_csv(judged / "table_raters.csv", keep_default_na=False).set_index("Who")
    assert table.loc["r1", "against r2"].startswith("1.000") and table.loc["r1", "against r1"] == ""
    assert table.loc["r3", "against r1"] == table.loc["good net", "against r1"] != table.loc["good net", "against r3"]
    assert table.loc["good net", "against r3"].startswith("1.000")
    assert table.loc["r1", f"against {judging.MAJORITY}"].startswith("1.000")


def test_the_page_holds_all_and_says_how_it_was_made(judged, scans):
    page = (judged / judge.PAGE).read_text()
    for stem in ("conventions", "lesion_size", "bland_altman", "table_raters", "table_classes", "table_clinical"):
        assert f'id="{judge.report_parts.anchor_of(f"{judged.name}-{stem}")}"' in page
    assert "counts_good_net.csv" in page and "reliability" not in page  # nobody gave probabilities
    record = json.loads((judged / "run.json").read_text())
    assert record["judged"]["truth"][0] == f"r1={scans / 'r1'}"
    line = judge.command_line(record["judged"])
    assert line.startswith("./run_all.sh judge --truth r1=") and line.endswith("--target all --label-map 1=SAH 2=IVH")


def test_a_folder_of_something_else_is_not_touched(scans, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert command.main(asked(scans, "--to", str(tmp_path))) == 2
    assert "is not empty" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("truths", "masks", "says"), [
    (["r1"], ["good"], "--masks 'good' must have the form NAME=FOLDER"),
    (["r1"], ["=good"], "must have the form"),
    (["r1", "r2"], ["a=good"], "--truth 'r1' must have the form"),
    (["r1"], ["a=good", "a=worse"], "--masks names 'a' twice"),
    (["r1"], ["a b=good", "a/b=worse"], "'a b' and 'a/b' make one file name"),
    (["a=r1", "b=r2"], ["a=good"], "'a' is the name of a rater and of a competitor"),
    (["r1"], ["Background everywhere=good"], "'Background everywhere' is what the page calls a predictor of its own"),
    (["nowhere"], ["a=good"], "nowhere is not a folder"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(scans, tmp_path, monkeypatch, truths, masks, says):
    monkeypatch.chdir(scans)
    with pytest.raises(StudyError, match=says):
        judge.write(truths, masks, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truth_without_the_lesion_is_refused(scans, tmp_path):
    with pytest.raises(StudyError, match="The truth shows no SDH anywhere"):
        judging.judge(
            judge.mask_folders.pair({"r1": scans / "r1"}, {"a": scans / "good"}, label_map=("1=SAH", "2=IVH")),
            ("SDH",),
            tmp_path,
        )


def test_a_folder_judged_again_holds_nothing_of_the_masks_before(scans, tmp_path):
    folder = tmp_path / "out"
    judge.write(["r1=" + str(scans / "r1")], [f"{name}={scans / name}" for name in ("good", "worse")], folder,
                label_map=("1=SAH", "2=IVH"))  # fmt: skip
    assert (folder / "table_differences.csv").exists() and (folder / "counts_worse.csv").exists()
    (folder / "mine.txt").write_text("mine")
    judge.write(["r1=" + str(scans / "r1")], [f"good={scans / 'good'}"], folder, label_map=("1=SAH", "2=IVH"))
    assert not (folder / "table_differences.csv").exists() and not (folder / "counts_worse.csv").exists()
    page = (folder / judge.PAGE).read_text()
    assert "worse" not in page and "0.000 apart" not in page and (folder / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(("claims", "verdict", "reason"), [
    ("claims: [good reaches 0.6 in Dice]", "holds", "the interval is above 0.6"),
    ("claims: [good reaches 0.95 in Dice]", "does not hold", "the interval is below 0.95"),
    ("printed: {dice: {good: 0.91}}\nclaims: [good reaches 0.86 in Dice]", "cannot be told", "the interval holds 0.86"),
])  # fmt: skip
def test_a_claim_on_one_number_is_judged_by_the_interval(scans, tmp_path, claims, verdict, reason):
    """The good net's Dice is 0.85 (0.81 to 0.89)."""
    (tmp_path / "claims.yaml").write_text(claims)
    judge.write([f"r1={scans / 'r1'}"], [f"good={scans / 'good'}"], tmp_path / "out",
                claims=str(tmp_path / "claims.yaml"), label_map=("1=SAH", "2=IVH"))  # fmt: skip
    (row,) = pd.read_csv(tmp_path / "out" / "ledger.csv", keep_default_na=False).to_dict("records")
    assert (row["verdict"], row["reason"]) == (verdict, reason) and row["ours"].startswith("good 0.8")
    assert row["printed"] == (0.91 if "printed" in claims else "")
    text = (tmp_path / "out" / "ledger.md").read_text()
    assert "Shown in" not in text and "trial run" not in text and "(7)" not in text


def test_printed_numbers_without_claims_have_figures_and_no_ledger(scans, tmp_path):
    (tmp_path / "claims.yaml").write_text("printed: {dice: {good: 0.8, best: 0.9}, iou: {good: 0.75, best: 0.87}}")
    judge.write([f"r1={scans / 'r1'}"], [f"good={scans / 'good'}"], tmp_path / "out",
                claims=str(tmp_path / "claims.yaml"), label_map=("1=SAH", "2=IVH"))  # fmt: skip
    assert (tmp_path / "out" / "printed_numbers.png").exists() and not (tmp_path / "out" / "ledger.csv").exists()
