"""The page of `check`: complete, escaped, whole in one file, and cut where a terminal would be flooded."""

import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd

from sahlib.data.check import examine
from sahlib.data.check.examine import Contact
from sahlib.data.check.findings import GRAVITIES
from sahlib.data.sources.paired_folder import open_folder
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.report import check_page
from sahlib.report.rendering import millimetres

HOSTILE = "<img src=x onerror=alert(1)>&\"'"
VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Tags as they open, and whether each closed in turn."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def of(folder):
    return examine.examine(open_folder(folder))


def test_a_range_of_millimetres_by_hand():
    table = pd.DataFrame({"row_mm": [0.434, 0.49], "column_mm": [0.5, np.nan]})
    assert millimetres(table, 2) == "0.43 to 0.50 mm, in part unknown"
    assert millimetres(table["row_mm"], 1) == "0.4 to 0.5 mm"
    assert millimetres([5, 5], 1) == "5.0 mm" and millimetres([np.nan], 1) == "unknown"


def test_write_returns_the_text_and_leaves_one_whole_file(paired_folder, tmp_path):
    page = check_page.write(of(paired_folder), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.html"]
    assert page.splitlines()[0] == "Check of paired_folder"
    assert str(tmp_path / "out" / "check.html") in page.splitlines()[-1]
    assert max(map(len, page.splitlines()[:-1])) <= check_page.TEXT_WIDTH


def test_the_html_needs_nothing_beside_it_and_is_well_formed(paired_folder):
    examination = of(paired_folder)
    page = check_page.html(examination)
    tags = Outline(page).tags
    assert not re.search(r"https?:|url\(|<script|<link|@import", page)
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == len(examination.patients) == 12
    assert all(one["src"].startswith("data:image/png;base64,") and one["alt"] for one in pictures)
    assert any("SAH outlined" in one["alt"] for one in pictures) and any("no lesion" in one["alt"] for one in pictures)
    assert {attributes.get("scope") for tag, attributes in tags if tag == "th"} == {"col", "row"}
    for patient in examination.patients.index:
        assert f">{patient}</th>" in page


def test_text_and_html_hold_the_same_findings_by_gravity(paired_folder):
    (paired_folder / "masks" / "07_1.png").write_bytes(b"not a picture")
    image = cv2.imread(str(paired_folder / "images" / "02_1.png"))
    cv2.imwrite(str(paired_folder / "images" / "04_1.png"), image)
    examination = of(paired_folder)
    text, page = check_page.text(examination), check_page.html(examination)
    for name in ("07_1.png", "02_1 = 04_1"):
        assert name in text and name in page
    places = [text.index(gravity.capitalize()) for gravity in GRAVITIES if gravity.capitalize() in text]
    assert places == sorted(places) and len(places) >= 2
    assert "1 more unreadable" in text


def test_every_name_is_escaped(paired_folder):
    rows = pd.read_csv(paired_folder / "slices.csv", dtype=str)
    rows.loc[rows["patient_id"] == "p02", "patient_id"] = HOSTILE
    rows.to_csv(paired_folder / "slices.csv", index=False)
    (paired_folder / "masks" / "02_2.png").write_bytes(b"<b>bold</b>")
    page = check_page.html(of(paired_folder))
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;" in page
    Outline(page)


def test_long_lists_are_cut_in_the_text_and_folded_in_the_html(paired_folder):
    for path in (paired_folder / "masks").iterdir():
        path.write_bytes(b"")
    cv2.imwrite(str(paired_folder / "images" / "11_2.png"), np.zeros((9, 9), np.uint16))
    examination = of(paired_folder)
    text, page = " ".join(check_page.text(examination).split()), check_page.html(examination)  # lines end anywhere
    assert "and 32 more like these, all in check.html" in text and "11_2.png holds uint16" in text
    assert page.count("<details>") == 1 and page.count("Unreadable.") == 36
    assert "Contact sheet" not in page and "Patients</h2>" not in page
    Outline(page)


def test_an_outline_lies_around_the_mask_in_the_colour_of_its_class():
    labels = np.zeros((256, 256), np.uint8)
    labels[100:120, 50:80] = 1
    picture = check_page.outlined(Contact("p", "p_0", np.full((256, 256), 90, np.uint8), labels))
    assert (picture[labels == 1] == 90).all()
    assert picture[99, 60].tolist() == picture[120, 60].tolist() == [0x3E, 0x4B, 0xFF]
    assert (picture != 90).any(2).sum() == 22 * 32 - 20 * 30


def test_what_a_source_left_out_is_told_and_the_page_fits_into_a_notebook():
    class Source:
        name = "a <folder>"
        remarks = ("p1/scout ignored: it is a localizer.",)

        def __len__(self):
            return 1

        def scan(self, _):
            return Phantom(2, 0).scan(0)

    examination = examine.examine(Source())
    assert "p1/scout ignored" in check_page.text(examination)
    frame = check_page.embedded(examination)
    assert frame.startswith("<div><iframe srcdoc=") and "<html" not in frame
    assert 'title="Check of a &lt;folder&gt;"' in frame
