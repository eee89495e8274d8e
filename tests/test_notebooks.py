"""The notebooks: one skeleton, nothing left in them, and run: under nbval, again, backwards, and as pages."""

from __future__ import annotations

import ast
import asyncio
import copy
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sahlib import progress
from sahlib.report import notebook_page
from sahlib.workspace import NOTEBOOKS, PROJECT

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
KERNELS = 2  # at a time
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def sections(notebook):
    """(heading with its prose, code cells) of each section of the body."""
    found = []
    for cell in notebook.cells[3:]:
        if cell.source.startswith("## "):
            found.append((cell.source, []))
        elif cell.cell_type == "code":
            found[-1][1].append(cell)
    return found


def test_the_reading_order_is_the_file_order():
    assert [path.stem[:2] for path in PATHS] == [f"{number:02d}" for number in range(1, len(PATHS) + 1)]


def test_skeleton(notebook):
    """Title with a question, parameters, imports and the study, body, summary, a question with its answer folded."""
    first, parameters, imports, body = notebook.cells[:4]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "?**" in first.source
    assert parameters.metadata["tags"] == ["parameters"]
    assert "import" in imports.source and imports.source.endswith("= begin(profile, output, changes)")
    assert body.source.startswith("## ")
    *_, (summary, cells), (question, none) = sections(notebook)
    assert summary.startswith("## Summary\n") and cells and not none
    assert re.fullmatch(
        r"## A question\n\n.*\n\n<details><summary>Answer</summary>\n\n.*\n\n</details>", question, re.S
    )


def test_every_section_says_what_is_done_calls_it_and_shows_something(notebook):
    for text, cells in sections(notebook)[:-1]:
        heading, _, prose = text.partition("\n")
        assert len(prose.split()) >= 5, heading
        assert cells and isinstance(ast.parse(cells[-1].source).body[-1], ast.Expr), heading


def test_prose_quotes_no_result(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\d\.\d\d|\d ?%", cell.source), cell.source


def test_parameters_are_literals(notebook):
    for statement in ast.parse(notebook.cells[1].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_nothing_was_left_in_it_and_no_logic_lives_in_it(notebook):
    """What is computed by hand, beside the library's value, may take a function or a loop."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            tree = ast.parse(cell.source)
            logic = (ast.While, ast.If, ast.ClassDef, ast.Try)
            assert not [node for node in ast.walk(tree) if isinstance(node, logic)]
            assert len(cell.source.splitlines()) <= 15


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder with the notebooks as the smoke profile runs them, and `output`, where that profile leaves its files."""
    folder = tmp_path_factory.mktemp("smoke")
    parameters = {"profile": "smoke", "output": str(folder / "output"), "changes": {}}
    for path in PATHS:
        nbformat.write(parameterize_notebook(load_notebook_node(str(path)), parameters), folder / path.name)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=600", "-p", "no:cacheprovider", folder],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.fixture(scope="module")
def passes(smoke, tmp_path_factory):
    """notebook's name -> its outputs after three passes in one kernel: forwards, forwards, body cells backwards."""
    return asyncio.run(_all_passes(smoke, tmp_path_factory.mktemp("elsewhere")))


async def _all_passes(smoke, elsewhere):
    turn = asyncio.Semaphore(KERNELS)

    async def run(path):
        async with turn:
            return path.name, await _three_passes(nbformat.read(path, as_version=4), elsewhere)

    return dict(await asyncio.gather(*(run(smoke / path.name) for path in PATHS)))


async def _three_passes(notebook, folder):
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )
    forwards = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    # The parameters, what papermill put below them, and the imports.
    backwards = forwards[:2] + forwards[:2:-1]
    states = []
    async with client.async_setup_kernel(env={**ENVIRONMENT, progress.VARIABLE: "1"}):
        for order in (forwards, forwards, backwards):
            for index in order:
                await client.async_execute_cell(notebook.cells[index], index)
            states.append(copy.deepcopy(notebook))
    return states


def test_every_figure_and_table_is_left_behind(smoke):
    made = {path.name for path in (smoke / "output" / "paper_figures" / "phantom-smoke").iterdir()}
    for number in range(1, 10):
        assert {name.rsplit(".")[-1] for name in made if name.startswith(f"figure_{number}_")} == {
            "png",
            "svg",
            "csv",
            "txt",
        }
    assert {f"table_{n}.{suffix}" for n in (1, 2, 3) for suffix in ("csv", "md", "tex")} | {"run.json"} <= made


def said(notebook):
    """The sentences, tables and pictures under each cell; pandas draws the id of a styled table at random."""
    kinds = ("text/markdown", "text/html", "image/png")
    return {
        cell.id: [
            re.sub(r"\bT_[0-9a-f]{5}", "T", output.data[kind])
            for output in cell.outputs
            for kind in kinds
            if kind in output.get("data", {})
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.mark.parametrize("name", [path.name for path in PATHS])
def test_cells_say_the_same_again_and_in_any_order_after_the_first_pass(passes, name):
    first, second, backwards = map(said, passes[name])
    assert first == second == backwards
    assert sum(map(len, first.values())) > 1


@pytest.mark.parametrize("name", [path.name for path in PATHS])
def test_nothing_that_nobody_can_operate_is_left_in_a_headless_run(passes, name):
    outputs = [output for cell in passes[name][0].cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert not any("widget" in kind for kind in kinds)
    assert "widgets" not in passes[name][0].metadata
    assert not any("\r" in output.get("text", "") for output in outputs)
    browsers = [cell for cell in passes[name][0].cells if cell.source.startswith("browse(")]
    assert len(browsers) == (name[:2] in ("02", "05", "08", "09"))
    assert all(any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in browsers)


class Page(HTMLParser):
    """What a page loads, and its pictures; a page framed in it counts as part of it."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.alts, self.styles, self._in = [], [], "", ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes, self._in = dict(attributes), tag
        self.loads += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        self.loads += [attributes["href"]] if tag == "link" else []
        self.styles += attributes.get("style") or ""
        if tag == "img":
            self.alts.append(attributes.get("alt") or "")
        if "srcdoc" in attributes:
            inner = Page(attributes["srcdoc"])
            self.loads, self.alts = self.loads + inner.loads, self.alts + inner.alts
            self.styles += inner.styles

    def handle_data(self, data):
        self.styles += data if self._in == "style" else ""


@pytest.mark.parametrize("name", [path.name for path in PATHS])
def test_its_page_takes_nothing_from_a_network_and_says_what_each_picture_is(passes, name, tmp_path):
    nbformat.write(passes[name][0], tmp_path / name)
    html = notebook_page.html(tmp_path / name)
    page = Page(html)
    assert page.alts
    assert all(load.startswith("data:") for load in page.loads)
    assert not re.search(r"@import|url\(\s*['\"]?(?!['\"]?(data:|#))", page.styles)
    assert "Loading widget" not in html and "requirejs" not in html and "require.min.js" not in html
    formulas = sum(cell.source.count("$$") // 2 for cell in passes[name][0].cells if cell.cell_type == "markdown")
    assert html.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == formulas
    assert "$$" not in html and notebook_page.MARK not in html
    assert all(len(alt.split()) > 3 and "No description" not in alt for alt in page.alts)


def test_a_page_that_loads_something_would_be_seen():
    page = Page('<link href="https://a/b.css"><style>a { background: url(https://a/c) }</style><img src="x.png">')
    assert page.loads == ["https://a/b.css", "x.png"] and page.alts == [""] and "url(https" in page.styles
    framed = Page('<iframe srcdoc="&lt;img src=&quot;https://a/d.png&quot; alt=&quot;d&quot;&gt;"></iframe>')
    assert framed.loads == ["https://a/d.png"] and framed.alts == ["d"]
