"""What the README says is what the repository holds."""

from __future__ import annotations

import re

import pytest

from sahlib.workspace import NOTEBOOKS, PROJECT

README = (PROJECT / "README.md").read_text()
DOCS = {path: path.read_text() for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))}
VERDICT, READING = ((PROJECT / "docs" / name).read_text() for name in ("verdict.md", "reading.md"))
PUBLISHED = PROJECT / "paper_figures" / "phantom-verdict"


def held(text, name):
    """What stands in a text between the comments that hold it to files."""
    return text.split(f"<!-- {name}:")[1].split("-->", 1)[1].split(f"<!-- end of {name} -->")[0].strip()


def test_the_verdict_is_the_published_one():
    published = (PUBLISHED / "verdict.md").read_text().strip()
    assert held(VERDICT, "verdict") == published
    lines = held(README, "verdict").splitlines()
    assert len(lines) == 5 and lines == [line for line in published.splitlines() if line in lines]


def test_the_scores_elsewhere_are_the_published_ones():
    found = [path.read_text().strip() for path in sorted(PUBLISHED.glob("external-*/summary.md"))]
    assert len(found) == 2 and all(text in held(VERDICT, "external") for text in found)


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_every_picture_and_file_it_names_is_there(document):
    text = DOCS[document]
    links = [place.partition("#")[0] for place in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in place]
    missing = [place for place in links if place and not (document.parent / place).exists()]
    named = re.findall(r"`(paper_figures/[\w./-]+)`", text)
    named += re.findall(r"`((?:sahlib|docs|benchmarks|workflow)/[\w./-]*)`", text)
    made = ["paper_figures/report.html"]  # by a run
    assert missing + [path for path in named if not (PROJECT / path).exists() and path not in made] == []


def test_a_visitor_reads_it_in_a_minute():
    assert len(README) < 6500 and len(README.splitlines()) < 75


def test_every_document_is_reached_from_it():
    reached = " ".join(DOCS.values())
    assert [path.name for path in DOCS if path.name != "README.md" and f"{path.name})" not in reached] == []


def test_every_notebook_is_in_the_reading_order():
    assert re.findall(r"^\| `(\d\d_\w+)`", READING, re.M) == [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]


def test_every_alternative_text_says_something():
    assert all(len(alt) > 30 for text in DOCS.values() for alt in re.findall(r"!\[([^\]]*)\]", text))
