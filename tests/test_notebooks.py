"""The notebooks: one skeleton, nothing left in them, and under nbval in the smoke profile."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sahlib.paths import NOTEBOOKS, PROJECT

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_the_reading_order_is_the_file_order():
    assert [path.stem[:2] for path in PATHS] == [f"{number:02d}" for number in range(1, len(PATHS) + 1)]


def test_skeleton(notebook):
    """Title, parameters, imports that end in a line of versions, body, summary."""
    first, parameters, imports = notebook.cells[:3]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "?**" in first.source
    assert parameters.metadata["tags"] == ["parameters"]
    assert "import" in imports.source and imports.source.endswith("print(provenance.in_words())")
    assert [cell.source for cell in notebook.cells if cell.source.startswith("## ")][-1] == "## Summary"
    assert notebook.cells[-1].cell_type == "code"


def test_parameters_are_literals(notebook):
    for statement in ast.parse(notebook.cells[1].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_nothing_was_left_in_it_and_no_logic_lives_in_it(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            tree = ast.parse(cell.source.replace("%matplotlib inline", ""))
            logic = (ast.For, ast.While, ast.If, ast.FunctionDef, ast.ClassDef, ast.Try)
            assert not [node for node in ast.walk(tree) if isinstance(node, logic)]
            assert len(cell.source.splitlines()) <= 15


def test_all_run_under_nbval(tmp_path):
    parameters = {"profile": "smoke", "output": str(tmp_path / "output"), "changes": {}}
    for path in PATHS:
        notebook = parameterize_notebook(load_notebook_node(str(path)), parameters)
        nbformat.write(notebook, tmp_path / path.name)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=600", "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    made = {path.name for path in (tmp_path / "output" / "paper_figures" / "phantom-smoke").iterdir()}
    for number in range(1, 10):
        assert {name.rsplit(".")[-1] for name in made if name.startswith(f"figure_{number}_")} == {
            "png",
            "svg",
            "csv",
            "txt",
        }
    assert {f"table_{n}.{suffix}" for n in (1, 2, 3) for suffix in ("csv", "md", "tex")} | {"run.json"} <= made
