"""The paper's tables from counts worked out by hand, and what is written of them."""

import dataclasses
import os
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from sahlib.figures import tables
from sahlib.paper import transcript
from sahlib.paper.transcript import PAPER
from sahlib.study import MODELS, Study, StudyError


def counts(*rows, patients=None):
    """(tp, fp, fn) of each slice; slices have 100 pixels."""
    frame = pd.DataFrame(rows, columns=["tp", "fp", "fn"], dtype=np.int64)
    frame["tn"] = 100 - frame.sum(axis=1)
    frame.insert(0, "slice_id", [f"s{i}" for i in range(len(frame))])
    frame.insert(1, "patient_id", patients or [f"p{i // 2}" for i in range(len(frame))])
    return frame.assign(lesion_pixels=frame.tp + frame.fn)


# s0 has 10 lesion pixels, s1 4, s2 and s3 none.
UNET = counts((5, 5, 5), (0, 0, 4), (0, 0, 0), (0, 2, 0))
ATTENTION = counts((8, 8, 2), (1, 0, 3), (0, 0, 0), (0, 0, 0))
RESNET = counts((10, 0, 0), (4, 0, 0), (0, 0, 0), (0, 0, 0))
COLLAPSED = counts((0, 0, 10), (0, 0, 4), (0, 0, 0), (0, 0, 0))


def column(table, heading, row, slices=tables.WHOLE):
    rows = table[(table["Metric"] == row) & (table["Slices"] == slices)]
    return rows[heading].item()


# Tables 1 and 2


def test_sample_table_by_hand():
    table = tables.sample_table({"unet": UNET, "unet_resnet34": RESNET}, ["s0", "s2"], transcript.TABLE_1)
    assert table.columns.tolist() == [
        "Metric",
        "Sample 1, paper", "Sample 1, U-Net", "Sample 1, U-Net (ResNet34)",
        "Sample 2, paper", "Sample 2, U-Net", "Sample 2, U-Net (ResNet34)",
    ]  # fmt: skip
    assert table["Metric"].tolist() == ["Dice", "IoU", "Precision", "Recall", "F1", "Area %"]
    np.testing.assert_allclose(table["Sample 1, U-Net"], [10 / 20, 5 / 15, 5 / 10, 5 / 10, 10 / 20, 10.0])
    np.testing.assert_allclose(table["Sample 2, U-Net"], [np.nan] * 5 + [0.0])
    assert table["Sample 1, paper"].tolist() == [0.57, 0.39, 0.50, 0.65, 0.57, 3.35]
    assert table["Sample 2, paper"].tolist() == [0.57, 0.40, 0.79, 0.45, 0.57, 1.1]


def test_sample_table_of_several_seeds_shows_the_first():
    table = tables.sample_table({"attention_unet": [ATTENTION, COLLAPSED]}, ["s0"], transcript.TABLE_2)
    np.testing.assert_allclose(table["Sample 1, Attention U-Net"].iloc[2:4], [0.5, 0.8])


def test_sample_table_errors():
    with pytest.raises(ValueError, match="sample_ids must be 1 to 3 slice ids; there are 4"):
        tables.sample_table({"unet": UNET}, ["s0", "s1", "s2", "s3"], transcript.TABLE_1)
    with pytest.raises(ValueError, match="'s9' occurs 0 times in the counts of unet"):
        tables.sample_table({"unet": UNET}, ["s9"], transcript.TABLE_1)
    with pytest.raises(ValueError, match="at least one model"):
        tables.sample_table({}, ["s0"], transcript.TABLE_1)


# Table 3


def test_aggregate_table_by_hand():
    table = tables.aggregate_table({"unet": UNET, "attention_unet": ATTENTION}, paper=PAPER)
    assert table.columns.tolist() == [
        "Slices", "Metric", "Convention",
        "U-Net, paper", "U-Net", "Attention U-Net, paper", "Attention U-Net", "Background everywhere",
    ]  # fmt: skip
    assert table["Metric"].tolist() == ["Dice", "IoU", "Precision", "Recall", "F1"] * 2
    # U-Net's slices: Dice 1/2, 0, 0/0 -> 1, 0; all four in one batch: tp 5, fp 7, fn 9
    assert column(table, "U-Net", "Dice") == pytest.approx(1.5 / 4)
    assert column(table, "U-Net", "IoU") == pytest.approx((1 / 3 + 1) / 4)
    assert column(table, "U-Net", "Precision") == pytest.approx(5 / 12)
    assert column(table, "U-Net", "Recall") == pytest.approx(5 / 14)
    assert column(table, "U-Net", "F1") == pytest.approx(10 / 26)
    # its SAH slices: s0 and s1, the missed one with precision 0
    assert column(table, "U-Net", "Dice", tables.SAH_ONLY) == pytest.approx(0.25)
    assert column(table, "U-Net", "Precision", tables.SAH_ONLY) == pytest.approx(0.25)
    # the trivial predictor: half the slices are empty
    assert column(table, "Background everywhere", "Dice") == 0.5
    assert column(table, "Background everywhere", "F1") == 0
    assert column(table, "Background everywhere", "Dice", tables.SAH_ONLY) == 0
    assert column(table, "Attention U-Net, paper", "Recall") == 0.557
    assert np.isnan(column(table, "Attention U-Net, paper", "Recall", tables.SAH_ONLY))


def test_a_paper_of_other_conventions_has_rows_of_its_own():
    """Its numbers stand in them alone, and none among the rows that are of other slices."""
    printed = {"dice": {"U-Net": 0.5}, "iou": {"U-Net": 0.4}}
    own = dataclasses.replace(PAPER, conventions={"dice": "sah_slices", "iou": "pooled"}, printed=printed)
    table = tables.aggregate_table({"unet": UNET}, paper=own)
    assert table["Slices"].tolist() == [tables.WHOLE] * 6 + [tables.SAH_ONLY] * 5
    shown = table[table["U-Net, paper"].notna()]
    assert list(zip(shown["Slices"], shown["Metric"], shown["U-Net, paper"], strict=True)) == [
        (tables.WHOLE, "IoU", 0.4), (tables.SAH_ONLY, "Dice", 0.5)]  # fmt: skip


def test_aggregate_table_names_each_rows_convention_and_batch():
    table = tables.aggregate_table({"unet": UNET}, batch_size=2, paper=PAPER)
    whole = table[table["Slices"] == tables.WHOLE].set_index("Metric")["Convention"]
    assert whole["Dice"] == whole["IoU"] == "mean over slices, 0/0 = 1"
    assert whole["F1"] == "pooled per batch of 2, 0/0 = 0, mean over batches"
    assert set(table[table["Slices"] == tables.SAH_ONLY]["Convention"]) == {"mean over SAH slices only, 0/0 = 0"}
    assert column(table, "U-Net", "Recall") == pytest.approx((5 / 14 + 0) / 2)  # s0 s1 | s2 s3


def test_column_order_and_other_models():
    everything = {"attention_unet_open_gates": UNET, "attention_unet": ATTENTION, "unet_resnet34": RESNET, "unet": UNET}
    names = tables.aggregate_table(everything, paper=PAPER).columns.tolist()[3:]
    assert names[:5] == ["U-Net, paper", "U-Net", "U-Net (ResNet34)", "Attention U-Net, paper", "Attention U-Net"]
    assert len(names) == 7 and names[-1] == "Background everywhere"


def test_several_seeds_show_mean_and_spread():
    table = tables.aggregate_table({"unet": [UNET, RESNET], "attention_unet": ATTENTION}, paper=PAPER)
    headings = table.columns.tolist()
    at = headings.index("U-Net")
    assert headings[at : at + 3] == ["U-Net", "U-Net min", "U-Net max"]
    assert "Attention U-Net min" not in headings
    assert column(table, "U-Net min", "Dice") == pytest.approx(0.375)
    assert column(table, "U-Net max", "Dice") == 1
    assert column(table, "U-Net", "Dice") == pytest.approx(1.375 / 2)
    shown = tables.displayed(table)
    assert shown["U-Net"].iloc[0] == "0.688 (0.375 to 1.000)"
    assert "U-Net min" not in shown


def test_a_collapsed_model_is_called_so():
    name = "U-Net (collapsed: every pixel background)"
    assert name in tables.aggregate_table({"unet": COLLAPSED}, paper=PAPER)
    assert f"Sample 1, {name}" in tables.sample_table({"unet": COLLAPSED}, ["s0"], transcript.TABLE_1)
    assert name in set(tables.bars_data(tables.aggregate_table({"unet": COLLAPSED}, paper=PAPER))["series"])
    some = "U-Net (collapsed in 1 of 2 seeds: every pixel background)"
    assert some in tables.aggregate_table({"unet": [UNET, COLLAPSED]}, paper=PAPER)
    table = tables.aggregate_table({"unet": COLLAPSED}, paper=PAPER)
    assert table[name].tolist() == table["Background everywhere"].tolist()


def test_counts_must_be_of_the_same_slices():
    with pytest.raises(ValueError, match="counts of attention_unet and unet are not of the same test slices"):
        tables.aggregate_table({"unet": UNET, "attention_unet": ATTENTION.iloc[::-1]}, paper=PAPER)
    with pytest.raises(ValueError, match="not of the same test slices"):
        tables.aggregate_table({"unet": UNET, "attention_unet": counts((8, 8, 3), (1, 0, 3), (0, 0, 0), (0, 0, 0))})


def test_bars_are_the_whole_test_set_rows():
    table = tables.aggregate_table({"unet": [UNET, RESNET], "attention_unet": ATTENTION}, paper=PAPER)
    bars = tables.bars_data(table)
    assert bars.columns.tolist() == ["metric", "model", "series", "printed", "value"]
    assert len(bars) == 5 * 5 and not bars.isna().any().any()
    assert set(bars[bars["printed"]]["series"]) == {"U-Net, paper", "Attention U-Net, paper"}
    dice = bars[bars["metric"] == "Dice"].set_index("series")["value"]
    assert dice["U-Net, paper"] == 0.867
    assert bars.groupby("series")["model"].first().to_dict() == {
        "U-Net, paper": "unet",
        "U-Net": "unet",
        "Attention U-Net, paper": "attention_unet",
        "Attention U-Net": "attention_unet",
        tables.BACKGROUND: tables.BACKGROUND,
    }
    assert dice["U-Net"] == column(table, "U-Net", "Dice")


# Notes


def test_notes_of_the_quick_phantom():
    study = Study.of_profile("quick")
    notes = tables.study_notes(study, UNET)
    text = " ".join(notes)
    assert "Profile quick, phantom: no clinical evidence" in text
    assert "Prior bias initialisation on" in text
    assert "learning rate 0.005 (the paper's is 0.0001)" in text and "epochs 24 (the paper's is 50)" in text
    left_out = ", ".join(MODELS[name] for name in Study.models if name not in study.models)
    assert f"Left out in this run: {left_out}." in notes and "U-Net (ResNet34)" in left_out
    assert "Test set: 4 slices, 2 with SAH, of 2 patients." in notes
    assert "Fewer than 10 test patients (2): the numbers mean little." in notes
    assert "both sides" not in text


def test_notes_of_the_papers_recipe():
    study = Study.of_profile("paper", dataset="paired_folder", data_dir="scans", slices_are_patients=True, seeds=(1, 2))
    many = counts(*[(1, 1, 1)] * 20)
    text = " ".join(tables.study_notes(study, many))
    assert "Prior bias initialisation off" in text
    assert "slices of one patient may be on both sides of the split" in text
    assert "seeds 1, 2." in text and "learning rate 0.0001" in text
    for absent in ("clinical", "Left out", "Other than in the paper", "Fewer than", "Augmentation"):
        assert absent not in text
    elsewhere = tables.study_notes(study.under("travels", 1e-3), many)
    assert any(
        note.startswith("Augmentation travels, which the paper does not do: random windows") for note in elsewhere
    )


# Files

NASTY = "50 % of a_b & {c} #1 ~ ^ \\ $ <x> – 3 × 4 ≥ 2 | end"


def structure(tex):
    """The rows of a LaTeX table as lists of cells; fails where its structure is broken."""
    bare = re.sub(r"\\[\\%&_#${}]", lambda m: "\n" if m[0] == r"\\" else "", re.sub(r"\\shortstack\[.\]", "", tex))
    depth = 0
    for c in bare:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0, "a brace closes that was not opened"
    assert depth == 0, "a brace is left open"
    begun, ended = (re.findall(rf"\\{w}{{(\w+)}}", tex) for w in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert [tex.count(rule) for rule in (r"\toprule", r"\bottomrule")] == [1, 1]
    assert tex.index(r"\toprule") < tex.index(r"\midrule") < tex.index(r"\bottomrule")
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = len(re.search(r"\\begin{tabular}{([lr]+)}", tex)[1])
    cells = [re.split(r"(?<!\\)&", line) for line in lines]
    assert {len(c) for c in cells} == {columns}
    return [[c.strip() for c in row] for row in cells]


@pytest.fixture(params=["sample", "aggregate", "seeds"])
def table(request):
    if request.param == "sample":
        return tables.sample_table({"unet": UNET, "unet_resnet34": COLLAPSED}, ["s0", "s1", "s2"], transcript.TABLE_1)
    return tables.aggregate_table(
        {"unet": [UNET, RESNET] if request.param == "seeds" else UNET, "attention_unet": COLLAPSED}, paper=PAPER
    )


def test_written_files(table, tmp_path):
    notes = [*tables.study_notes(Study.of_profile("quick"), UNET), NASTY]
    folder = tmp_path / "figures" / "phantom-quick"
    paths = tables.write(table, folder, "table_1", "Dice & 10 % of it", notes)
    assert sorted(p.name for p in folder.iterdir()) == ["table_1.csv", "table_1.md", "table_1.tex"]
    assert {p.name for p in paths} == {p.name for p in folder.iterdir()}

    back = pd.read_csv(folder / "table_1.csv")
    pd.testing.assert_frame_equal(back, table, check_dtype=False, check_exact=True)

    text = (folder / "table_1.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("**Dice & 10 % of it**")
    assert len(lines) == len(table) + 2 and len({line.count(" | ") for line in lines}) == 1
    assert "- Prior bias initialisation on" in text

    tex = (folder / "table_1.tex").read_text(encoding="utf-8")
    assert len(structure(tex)) == len(table) + 1
    assert r"\caption{Dice \& 10 \% of it}" in tex and r"\label{tab:table_1}" in tex
    assert r"50 \% of a\_b \& \{c\} \#1" in tex and "no clinical evidence" in tex
    assert all(ord(c) < 128 for c in tex)


def test_writing_again_replaces_and_is_identical(table, tmp_path):
    first = [p.read_bytes() for p in tables.write(table, tmp_path, "t", "c", ["n"])]
    assert [p.read_bytes() for p in tables.write(table, tmp_path, "t", "c", ["n"])] == first
    assert len(list(tmp_path.iterdir())) == 3


def test_0_over_0_is_an_en_dash_and_not_printed_is_blank(tmp_path):
    sample = tables.sample_table({"unet": UNET}, ["s1", "s2"], transcript.TABLE_1)
    tables.write(sample, tmp_path, "sample", "c")
    text = (tmp_path / "sample.md").read_text(encoding="utf-8")
    # s1 was missed: precision 0/0, the rest 0; s2 is empty: all 0/0
    assert "| Precision | 0.50 | – | 0.79 | – |" in text
    assert "| Dice | 0.57 | 0.000 | 0.57 | – |" in text
    assert "| Area % | 3.35 | 0.000 | 1.10 | 0.000 |" in text
    assert tables.UNDEFINED_NOTE in text and tables.BLANK_NOTE not in text
    tex = structure((tmp_path / "sample.tex").read_text())
    assert tex[3] == ["Precision", "0.50", "--", "0.79", r"-- \\"]

    tables.write(tables.aggregate_table({"unet": UNET}, paper=PAPER), tmp_path, "aggregate", "c")
    text = (tmp_path / "aggregate.md").read_text(encoding="utf-8")
    assert "| whole test set | Dice | mean over slices, 0/0 = 1 | 0.867 | 0.375 | 0.896 | 0.500 |" in text
    assert "| SAH slices only | Dice | mean over SAH slices only, 0/0 = 0 |  | 0.250 |  | 0.000 |" in text
    assert tables.BLANK_NOTE in text and tables.UNDEFINED_NOTE not in text


def test_a_failed_write_leaves_the_old_file(table, tmp_path, monkeypatch):
    tables.write(table, tmp_path, "t", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StudyError, match="disk full"):
        tables.write(table, tmp_path, "t", "new")
    assert "old" in (tmp_path / "t.md").read_text(encoding="utf-8")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here; the structure is tested instead")
def test_latex_compiles(table, tmp_path):
    tables.write(table, tmp_path, "t", "Dice & 10 % of it", [NASTY])
    main = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{t}\end{document}"
    (tmp_path / "main.tex").write_text(main)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_fold_is_named_as_one_of_several():
    notes = tables.study_notes(Study.of_profile("quick", folds=5, fold=1, precision="fp32"), UNET)
    assert "Tested on fold 2 of 5 of a cross-validation by patient." in notes
    assert not any("fold" in note for note in tables.study_notes(Study.of_profile("quick", precision="fp32"), UNET))
