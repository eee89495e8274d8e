"""The book: chapters in order, linked, with formulas and pictures, and nothing taken from a network."""

import re

import nbformat
import pytest

pytest.importorskip("myst_nb", reason="the book's own packages are not installed: pip install -e '.[book]'")

from sahlib.report import book
from sahlib.study import StudyError
from sahlib.workspace import NOTEBOOKS, Workspace

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The book of the project's notebooks, a picture below the first cell of each."""
    root = tmp_path_factory.mktemp("study")
    executed = root / "runs" / "notebooks" / "phantom-trial"
    executed.mkdir(parents=True)
    for path in NOTEBOOKS.glob("[0-9]*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        shown = nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "a picture"})
        next(cell for cell in notebook.cells if cell.cell_type == "code").outputs.append(shown)
        nbformat.write(notebook, executed / path.name)
    return book.write(Workspace(str(root)), root / "book").parent


def test_every_chapter_is_there_in_order(site):
    index = (site / "index.html").read_text()
    names = [path.stem for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))]
    assert re.findall(r'toctree-l1"><a [^>]*href="(\w+)\.html"', index)[: len(names)] == names
    assert all("_images" in (site / f"{name}.html").read_text() for name in names)


def test_chapters_name_each_other_by_links_and_formulas_are_drawn(site):
    chapter = (site / "03_train_unet.html").read_text()
    assert 'href="02_preprocessing.html"' in chapter.partition("<article")[2]
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"' in chapter and "$$" not in chapter


def test_it_takes_nothing_from_a_network(site):
    for path in site.rglob("*.html"):
        loads = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]+)"', path.read_text())
        assert not [load for load in loads if load.startswith(("http:", "https:", "//"))], path


def test_another_folder_is_not_touched_and_an_earlier_book_is_replaced(site, tmp_path):
    workspace = Workspace(str(site.parent))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match="is not empty and no book"):
        book.write(workspace, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    (site / "old.html").write_text("")
    assert book.write(workspace, site) == site / "index.html" and not (site / "old.html").exists()


def test_without_a_study_it_says_what_makes_one(tmp_path):
    with pytest.raises(StudyError, match="No study was run in .*; ./run_all.sh runs one"):
        book.newest(Workspace(str(tmp_path)))
