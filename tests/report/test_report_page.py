"""The report: whole in one file, readable by all, and true to the folder it is made of."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
import shutil
from collections import Counter

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from sahlib.chapters import verdict as verdict_module
from sahlib.figures import ledger_page, tables
from sahlib.report import report_page, report_parts
from sahlib.workspace import PROJECT

PUBLISHED = PROJECT / "paper_figures" / "phantom-quick"
COMMAND = "./run_all.sh --profile quick --dataset phantom --set precision=bf16"
HOSTILE = "<img src=x onerror=alert(1)>&\"'"
ESCAPED = "&lt;img src=x onerror=alert(1)&gt;&amp;"


@pytest.fixture(scope="module")
def text():
    return report_page.html(PUBLISHED, COMMAND)


@pytest.fixture(scope="module")
def page(text):
    return BeautifulSoup(text, "html.parser")


@pytest.fixture
def folder(tmp_path):
    """A small folder of results: a figure with caption and data, a table, a verdict, and the record of the run."""
    root = tmp_path / "own-quick"
    root.mkdir()
    for name in ("table_3.csv", "table_3.md", "table_intervals.csv", "table_intervals.md", "verdict.md", "run.json"):
        shutil.copy(PUBLISHED / name, root)
    add_figure(root, "figure_1_workflow")
    return root


def add_figure(root, stem, caption="A caption.", width=30):
    Image.new("RGB", (width, 20), "white").save(root / f"{stem}.png")
    (root / f"{stem}.txt").write_text(f"{caption}\n")
    (root / f"{stem}.csv").write_text("a,b\n1,2\n")


def add_elsewhere(root, quoted, origin="Tested on 3 slices of 1 patients from elsewhere (nifti, slices abc)."):
    """The folder of scores elsewhere; a model card quotes its summary or, as of other networks, does not."""
    elsewhere = root / "external-abc123"
    elsewhere.mkdir()
    (elsewhere / "summary.md").write_text(f"{origin}\n\n- U-Net: good.\n")
    (root / "model_card_unet.md").write_text(f"# U-Net\n\n- {origin if quoted else 'Nothing.'} U-Net: good.\n")
    return elsewhere


def parsed(folder, command=COMMAND):
    return BeautifulSoup(report_page.html(folder, command), "html.parser")


def test_write_leaves_one_file_and_equal_folders_give_equal_bytes(folder, tmp_path):
    first = report_page.write(folder, tmp_path / "a" / "report.html", COMMAND).read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]
    assert report_page.write(folder, tmp_path / "b.html", COMMAND).read_bytes() == first


def test_it_is_light_enough_to_mail(text):
    assert len(text.encode()) < 6_000_000


def test_it_loads_nothing(text, page):
    assert page.find_all(["script", "link", "iframe", "object", "base"]) == []
    assert not re.search(r"@import|url\(", page.style.string)
    sources = [tag["src"] for tag in page.find_all(src=True)]
    assert len(sources) > 10 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(tag["href"].startswith(("#", "data:text/csv")) for tag in page.find_all("a", href=True))
    assert not re.search(r"\son\w+=", text)


def test_every_picture_is_described_and_whole(page):
    pictures = page.find_all("img")
    assert all(len(image["alt"]) > 25 for image in pictures)
    assert all(image.find_parent("figure").figcaption.get_text(strip=True) for image in pictures)
    for image in pictures:
        content = base64.b64decode(image["src"].split(",", 1)[1])
        assert content.startswith(b"\x89PNG") and int(image["width"]) <= report_parts.WIDEST


def test_headings_do_not_skip_levels_and_ids_are_unique(page):
    levels = [int(tag.name[1]) for tag in page.find_all(re.compile(r"^h[1-6]$"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {tag["href"][1:] for tag in page.find_all("a", href=re.compile("^#"))} <= set(ids)
    assert {tag["aria-labelledby"] for tag in page.find_all(attrs={"aria-labelledby": True})} <= set(ids)


def test_landmarks_skip_link_and_language(page):
    assert page.html["lang"] == "en" and len(page.find_all("main")) == len(page.find_all("nav")) == 1
    assert page.body.find("a")["href"] == "#report" and page.main["id"] == "report"
    assert ":focus-visible" in page.style.string


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(page):
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in page.find_all("div", class_="wide"))


def test_the_verdict_comes_first(page):
    first, *others = page.main.find_all("section")
    assert first["id"] == "verdict" and others[-1]["id"] == "provenance"
    said = [item.get_text() for item in first.select(".lines li")]
    assert said == [line[2:] for line in (PUBLISHED / "verdict.md").read_text().splitlines()]
    card = " ".join(first.find(class_="card").get_text().split())
    claims = report_parts.rows_of(PUBLISHED / "ledger.csv")
    main = next(row for row in claims if row["key"] == "attention_higher_dice")
    assert f"“{main['claim']}” {ledger_page.SIGNS[main['verdict']][0]} {main['verdict']} because" in card
    counted = Counter(row["verdict"] for row in claims if row["kind"] != "contradiction")
    assert re.findall(r"(\d+) (hold|do not hold|cannot be told|contradict themselves)\b", card) == [
        (str(counted[verdict]), verdict_module.WORDS[verdict]) for verdict in ledger_page.SIGNS
    ]
    assert f"{counted.total()} claims" in card and f"in {len(claims) - counted.total()} places" in card


def test_the_decisive_numbers_are_those_of_the_tables():
    attention, gates, nothing = report_page.decisive_numbers(PUBLISHED)
    label, value, detail = attention
    assert label == "Attention U-Net minus U-Net" and nothing[0] == "Background everywhere"
    assert gates[0] == "Attention U-Net minus Attention U-Net, gates open"
    row = next(
        row
        for row in report_parts.rows_of(PUBLISHED / "table_differences.csv")
        if row["Difference"] == label and "SAH slices" in row["Convention"]
    )
    shown = f"{value} {detail.split('interval ')[1]}"
    assert shown.replace("−", "-") == f"{row['Estimate (95 % interval)']}, p = {row['p, permutation']}"
    first = report_parts.rows_of(PUBLISHED / "table_3.csv")[0]
    assert nothing[1] == f"{float(first['Background everywhere']):.3f}"
    assert nothing[2].endswith("the paper prints 0.867 and 0.896")


def test_a_phantom_is_called_one_before_any_number(text):
    assert 0 < text.index("no clinical evidence") < text.index('id="verdict"')


def test_every_file_of_the_folder_is_in_it(page):
    attached = {a["download"]: base64.b64decode(a["href"].split(",", 1)[1]) for a in page.select("a[download]")}
    expected = {path.name: path for path in PUBLISHED.glob("*.csv") if path.name != "times.csv"}
    expected |= {f"{path.parent.name}-{path.name}": path for path in PUBLISHED.glob("external-*/*.csv")}
    for name in [name for name in expected if name.endswith("figure_7_comparison.csv") and "external" in name]:
        if not expected[name].with_suffix(".png").exists():  # pictures from elsewhere are not published
            del expected[name]
    assert set(attached) == set(expected)
    assert all(attached[name] == path.read_bytes() for name, path in expected.items())
    assert len(page.find_all("img")) == len([*PUBLISHED.rglob("*.png")]) - 1  # the ledger is a table here


def test_table_3_has_the_papers_value_beside_ours(page):
    table = page.find("div", id="phantom-quick-table-3").table
    headings = [th.get_text().strip() for th in table.thead.find_all("th")]
    marked = [th.get_text().strip() for th in table.thead.find_all(class_="printed")]
    ours_too = ["U-Net, paper", "U-Net", "U-Net, free output", "Attention U-Net, paper", "Attention U-Net"]
    assert headings[3:8] == ours_too
    assert marked == ["U-Net, paper", "Attention U-Net, paper"]
    first = table.tbody.tr.find_all(["th", "td"])
    ours = float(report_parts.rows_of(PUBLISHED / "table_3.csv")[0]["U-Net"])
    assert [cell.get_text().strip() for cell in first[:5]] == [
        "whole test set", "Dice", "mean over slices, 0/0 = 1", "0.867", f"{ours:.3f}",
    ]  # fmt: skip
    assert [cell.get("scope") for cell in first[:3]] == ["rowgroup", "row", None] and first[0]["rowspan"] == "5"
    assert "number" in first[3]["class"]
    assert table.get_text().count("not printed") == 10


def test_samples_have_a_heading_of_their_own(page):
    upper, lower = page.find("div", id="phantom-quick-table-1").thead.find_all("tr")
    assert [(th.get_text(strip=True), th.get("colspan"), th.get("rowspan")) for th in upper.find_all("th")] == [
        ("Metric", None, "2"), ("Sample 1", "5", None), ("Sample 2", "5", None), ("Sample 3", "5", None),
    ]  # fmt: skip
    assert [th.get_text().strip() for th in lower.find_all("th")][:2] == ["paper", "U-Net"]


def test_tables_come_back_as_they_were_written(tmp_path):
    table = pd.DataFrame({"A|B": ["x|y", "<b>"], "n, paper": [0.5, float("nan")], "n": [0.25, -1.0]})
    tables.write(table, tmp_path, "table_own", "A **bold** caption.", ["first | note", "second"])
    found = report_parts.table(tmp_path, "table_own", "Own")
    assert found.caption == "A **bold** caption." and found.notes == ["first | note", "second"]
    assert [column.name for column in found.columns] == ["A|B", "n, paper", "n"]
    assert [column.numeric for column in found.columns] == [False, True, True]
    assert [column.printed for column in found.columns] == [False, True, False]
    assert found.groups == [[["x|y", "0.50", "0.250"], ["<b>", "", "-1.000"]]]
    page = parsed(tmp_path).find("div", id=found.anchor)
    shown = [[cell.get_text().strip() for cell in row.find_all(["th", "td"])] for row in page.tbody.find_all("tr")]
    assert shown == [["x|y", "0.50", "0.250"], ["<b>", "not printed", "−1.000"]]
    assert [cell.get("scope") for cell in page.tbody.tr.find_all(["th", "td"])] == ["row", None, None]
    assert [note.get_text() for note in page.find_all("li")] == ["first | note", "second"]


def test_every_row_of_a_table_is_as_wide_as_its_heading(page):
    for table in page.find_all("table"):
        if not table.thead:
            continue
        first = table.thead.tr.find_all("th")
        width = sum(int(th.get("colspan", 1)) for th in first)
        for body in table.find_all("tbody"):
            carried = 0
            for row in body.find_all("tr"):
                cells = row.find_all(["th", "td"])
                assert sum(int(cell.get("colspan", 1)) for cell in cells) + carried == width, table
                carried = max(carried, sum(int(cell.get("rowspan", 1)) > 1 for cell in cells))


def test_every_claim_stands_in_the_ledger_with_its_verdict(page):
    rows = report_parts.rows_of(PUBLISHED / "ledger.csv")
    shown = page.find(id="ledger").table.select("tbody tr:has(th[scope=row])")
    assert len(shown) == len(rows) > 20
    said = {row.th.find(string=True).strip().lower(): row.find(class_="verdict").get_text() for row in shown}
    for row in rows:
        assert said[row["claim"].lower()] == f"{ledger_page.SIGNS[row['verdict']][0]} {row['verdict']}"


def test_what_holds_for_all_is_said_once(text, page):
    """Besides in the model cards, each of which is a page of its own."""
    note = "Prior bias initialisation on: the output bias starts at the log-odds of a lesion pixel"
    assert (
        text.count(note) - str(page.find(id="cards")).count(note) == 1 and note in page.find(class_="every").get_text()
    )
    caption = page.find("div", id="phantom-quick-figure-1-workflow").figcaption.get_text()
    assert caption == "Figure 1. Workflow of the study."


def test_provenance_leads_back_to_commit_data_and_trainings(page):
    record = json.loads((PUBLISHED / "run.json").read_text())
    last = page.find(id="provenance")
    assert last.pre.get_text() == f"git checkout {record['provenance']['commit']}\n{COMMAND}"
    said = last.get_text(" ", strip=True)
    runs = [run for own in record["runs"].values() for run in own]
    known = [record["store"]["digest"], record["split"]["digest"], *(run["digest"] for run in runs)]
    assert all(digest in said for digest in known) and record["provenance"]["device"] in said
    assert f"{runs[0]['parameters']:,}" in said and f"{runs[0]['seconds'] / 60:.1f}" in said
    assert "04_train_attention_unet" in said


def test_a_commit_with_changes_is_no_promise(folder):
    record = json.loads((folder / "run.json").read_text())
    record["provenance"]["commit"] += "+changes"
    run = next(iter(record["runs"].values()))[0]
    run["provenance"]["commit"] = "fedcba98765432+changes"
    (folder / "run.json").write_text(json.dumps(record))
    last = parsed(folder).find(id="provenance")
    assert "fedcba9876+changes" in last.get_text()
    assert "+changes" not in last.pre.get_text() and "Files differed from that commit" in last.get_text()
    record["provenance"]["commit"] = "unknown"
    (folder / "run.json").write_text(json.dumps(record))
    assert parsed(folder).find(id="provenance").pre.get_text() == COMMAND


def test_a_collapsed_network_is_called_so_on_top(folder):
    record = json.loads((folder / "run.json").read_text())
    record["collapsed"]["unet"] = [True, False]
    record["study"]["slices_are_patients"] = True
    (folder / "run.json").write_text(json.dumps(record))
    warning = parsed(folder).find(class_="warning").get_text(" ", strip=True)
    assert "U-Net collapsed in 1 of 2 trainings." in warning and "Patients are not known." in warning


def test_missing_pieces_leave_no_hole(folder, tmp_path):
    page = parsed(folder)
    assert [section["id"] for section in page.main.find_all("section")] == [
        "verdict", "section-beside-the-paper", "section-the-paper-s-figures", "section-beyond-the-paper", "provenance",
    ]  # fmt: skip
    assert page.find(class_="tally") is None and page.find(class_="claim") is None
    (tmp_path / "empty").mkdir()
    empty = parsed(tmp_path / "empty")
    assert [section["id"] for section in empty.main.find_all("section")] == ["provenance"]
    assert empty.find(id="provenance").pre.get_text() == COMMAND and empty.find(class_="warning") is None


def test_unknown_pieces_stand_under_further(folder):
    add_figure(folder, "roc_curves", "ROC curves of the networks. More words.", width=report_parts.WIDEST + 100)
    shutil.copy(folder / "table_3.md", folder / "table_new.md")
    add_figure(add_elsewhere(folder, quoted=True), "scatter")
    page = parsed(folder)
    further = page.find(id="further")
    assert [h3.get_text() for h3 in further.find_all("h3")] == ["Roc curves", "New"]
    assert (
        further.img["alt"] == "ROC curves of the networks. More words."
        and int(further.img["width"]) == report_parts.WIDEST
    )
    assert page.find("nav").find("a", string="Roc curves")["href"] == f"#{further.find(class_='item')['id']}"
    assert page.find(id="elsewhere").h4.get_text() == "Scatter"


@pytest.mark.parametrize("summary", ["of other networks", "empty", "not written"])
def test_scores_elsewhere_that_are_half_made_or_of_other_networks_are_left_out(folder, summary):
    """Notebook 08 removes the summary at its start and writes it last; a model card quotes those of its own network."""
    elsewhere = add_elsewhere(folder, quoted=summary != "of other networks")
    for suffix in ("csv", "md"):
        shutil.copy(PUBLISHED / f"table_3.{suffix}", elsewhere / f"table_external.{suffix}")
    assert (parsed(folder).find(id="elsewhere") is None) == (summary == "of other networks")
    if summary == "empty":
        (elsewhere / "summary.md").write_text("")
    elif summary == "not written":
        (elsewhere / "summary.md").unlink()
    page = parsed(folder)
    assert page.find(id="elsewhere") is None and page.find("a", download="external-abc123-table_external.csv") is None


def test_ledgers_of_other_recipes_follow_the_fairest(folder):
    for stem in ("ledger_prior", "ledger", "ledger_paper"):
        for suffix in ("csv", "md", "txt"):
            shutil.copy(PUBLISHED / f"ledger.{suffix}", folder / f"{stem}.{suffix}")
    section = parsed(folder).find(id="ledger")
    assert [h3.get_text() for h3 in section.find_all("h3")] == [
        "The claims", "Under the recipe: paper", "Under the recipe: prior",
    ]  # fmt: skip
    assert len(section.find_all("details")) == 1


def test_model_cards_are_folded_in_with_their_headings_in_place(folder):
    (folder / "model_card_unet.md").write_text(
        "---\nlicense: mit\n---\n\n# U-Net, a card\n\n## Data\n\n| Group | Dice |\n|---|---:|\n| small | 0.5 |\n\n"
        f"### Deep\n\n## Limits\n\n{HOSTILE}\n\n[x](javascript:alert(1)) ![plot](https://example.org/a.png)\n"
    )
    page = parsed(folder)
    card = page.find(id="cards").details
    assert card.summary.h3.get_text() == "U-Net, a card"
    assert [(tag.name, tag.get_text()) for tag in card.find_all(["h4", "h5"])] == [
        ("h4", "Data"), ("h5", "Deep"), ("h4", "Limits"),
    ]  # fmt: skip
    assert [th["scope"] for th in card.find_all("th")] == ["col", "col"] and "license" not in card.get_text()
    assert HOSTILE in card.get_text() and card.find("img") is None
    assert not any(a["href"].startswith("javascript") for a in card.find_all("a", href=True))


def test_what_a_user_wrote_is_escaped_wherever_it_stands(folder):
    record = json.loads((folder / "run.json").read_text())
    record["study"]["dataset"] = record["study"]["raters"] = HOSTILE
    (folder / "run.json").write_text(json.dumps(record))
    add_figure(folder, "figure_2_slice_and_mask", f"Slice {HOSTILE}")
    add_figure(folder, "own", HOSTILE)
    (folder / "verdict.md").write_text(f"- {HOSTILE}\n")
    table = (folder / "table_3.md").read_text().replace("whole test set", HOSTILE).replace("Table 3.", HOSTILE)
    (folder / "table_3.md").write_text(table + f"- {HOSTILE}\n")
    add_elsewhere(folder, True, f"Tested on {HOSTILE}")
    text = report_page.html(folder, f"./run_all.sh --data-dir '{HOSTILE}'")
    assert "<img src=x" not in text and text.count(ESCAPED) >= 9
    page = BeautifulSoup(text, "html.parser")
    assert page.find_all(onerror=True) == [] and len(page.find_all("img")) == 3


def luminance(colour):
    """WCAG 2.2, relative luminance of #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_every_text_reads_on_every_ground(page):
    style = page.style.string
    root, rest = style[style.index(":root") :].split("}", 1)
    parts = re.split(r"/\* (?:Text|Grounds|Lines)", root)
    texts, grounds = (re.findall(r"--([\w-]+): (#[0-9a-fA-F]{6});", part) for part in parts[1:3])
    assert len(texts) >= 8 and len(grounds) == 4
    for (text, colour), (ground, behind) in itertools.product(texts, grounds):
        assert contrast(colour, behind) >= 4.5, (text, ground)
    # No colour comes from elsewhere, and no text takes a line's colour.
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", rest)
    used = set(re.findall(r"(?<![-\w])color: var\(--([\w-]+)\)", rest))
    assert used <= {name for name, _ in texts} and {"ink", "quiet", "link"} <= used
    behind = set(re.findall(r"background: var\(--([\w-]+)\)", rest))
    assert {"paper", "ground", "tint", "caution"} <= behind


def test_print_opens_folds_repeats_headings_and_spills_no_address(page):
    rules = page.style.string.split("@media print", 1)[1]
    for words in ("::details-content", "table-header-group", "break-inside: avoid", "overflow: visible"):
        assert words in rules
    assert "attr(href)" not in page.style.string and "size: A4" in page.style.string


def test_a_note_that_holds_for_one_recipe_alone_is_not_said_of_all():
    """Tables 1 to 3 may be of another recipe than the verdict's; each then keeps its own line."""
    own, fair = "Profile smoke, 2 epochs; recipe paper.", "Profile smoke, 2 epochs; recipe fair."
    rest = ["The scans are synthetic."]
    tables = [_noted([own, *rest]), _noted([fair, *rest]), _noted([fair, *rest])]
    assert report_parts.shared_notes(tables) == rest
    assert report_parts.shared_notes(tables[1:]) == [fair, *rest]


def _noted(notes):
    fields = {field.name: "" for field in dataclasses.fields(report_parts.Table)}
    return report_parts.Table(**fields | {"notes": notes})


def test_the_trainings_of_every_recipe_are_listed(tmp_path):
    folder = tmp_path / "several"
    shutil.copytree(PUBLISHED, folder)
    record = json.loads((folder / "run.json").read_text())
    twin = json.loads(json.dumps(record["runs"]))
    twin["unet"][0]["digest"] = "feedfeedfeed"
    record["further_recipes"] = {"prior": {"runs": twin, "collapsed": {"unet": [True]}}}
    (folder / "run.json").write_text(json.dumps(record))
    said = BeautifulSoup(report_page.html(folder, COMMAND), "html.parser").get_text(" ", strip=True)
    assert "feedfeedfeed" in said and "U-Net collapsed in 1 of 1 trainings under the recipe prior." in said
