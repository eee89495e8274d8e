"""What the README says is what the repository holds."""

from __future__ import annotations

import re

from sahlib.workspace import NOTEBOOKS, PROJECT

README = (PROJECT / "README.md").read_text()
PUBLISHED = PROJECT / "paper_figures" / "phantom-verdict"


def test_the_verdict_is_the_published_one():
    block = README.split("<!-- verdict:")[1].split("-->", 1)[1].split("<!-- end of verdict -->")[0]
    assert block.strip() == (PUBLISHED / "verdict.md").read_text().strip()


def test_the_scores_elsewhere_are_the_published_ones():
    block = README.split("<!-- external:")[1].split("-->", 1)[1].split("<!-- end of external -->")[0]
    found = [path.read_text().strip() for path in sorted(PUBLISHED.glob("external-*/summary.md"))]
    assert len(found) == 2 and all(text in block for text in found)


def test_every_picture_and_file_it_names_is_there():
    named = [place for place in re.findall(r"\]\(([^)]+)\)", README) if not place.startswith("#")]
    named += re.findall(r"`(paper_figures/[\w./-]+)`", README)
    named += re.findall(r"`((?:sahlib|docs|benchmarks|workflow)/[\w./-]*)`", README)
    assert len(named) > 10
    made = ["paper_figures/report.html"]  # by a run
    missing = [path for path in named if not (PROJECT / path).exists() and "<" not in path and path not in made]
    assert missing == []


def test_every_notebook_is_in_the_reading_order():
    assert re.findall(r"^\| `(\d\d_\w+)`", README, re.M) == [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]


def test_every_alternative_text_says_something():
    assert all(len(text) > 30 for text in re.findall(r"!\[([^\]]*)\]", README))
