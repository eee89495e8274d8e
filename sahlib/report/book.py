"""The executed notebooks of a study as a book: one site of linked, searchable chapters, made by Sphinx.

    ./run_all.sh book

It takes nothing from a network, neither while it is made nor when it is read.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sahlib.report.notebook_page import MATH, mathml
from sahlib.study import StudyError
from sahlib.workspace import NOTEBOOKS, Workspace, disk_errors_named

TITLE = "Attention for subarachnoid hemorrhage, reproduced"
CONF = f"""\
project = html_title = "{TITLE}"
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "sphinx_book_theme"
html_theme_options = {{"use_download_button": False}}
html_copy_source = html_show_sourcelink = False
"""
INDEX = """\
# {title}

The notebooks of `{study}` as they were executed, in reading order.

```{{toctree}}
{chapters}
```
"""


def write(workspace: Workspace, folder: Path) -> Path:
    """The newest study's executed notebooks as a site in `folder`, which is new or an earlier book; its first page.

    Raises StudyError where no study was run, the folder is something else, and where Sphinx fails.
    """
    executed = newest(workspace)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "searchindex.js").exists():
        raise StudyError(f"{folder} is not empty and no book; name a new folder with --to.")
    with tempfile.TemporaryDirectory() as made, disk_errors_named(folder):
        source = Path(made, "source")
        source.mkdir()
        chapters = sorted(executed.glob("[0-9]*.ipynb"))
        for path in chapters:
            _write_chapter(path, source / path.name, {own.stem[:2]: own.name for own in chapters})
        names = "\n".join(path.stem for path in chapters)
        (source / "index.md").write_text(INDEX.format(title=TITLE, study=executed.name, chapters=names))
        (source / "conf.py").write_text(CONF)
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", source, Path(made, "site")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StudyError(f"Sphinx could not make the book: {done.stderr.strip().splitlines()[-1]}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(made, "site"), folder)
    return folder / "index.html"


def newest(workspace: Workspace) -> Path:
    """The folder of the executed notebooks of the study that was run last; StudyError where none is whole."""
    every = {path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb")}
    whole = [
        folder
        for folder in (workspace.runs / "notebooks").glob("*")
        if every <= {path.name for path in folder.glob("*.ipynb")}
    ]
    if not whole:
        raise StudyError(f"No study was run in {workspace.runs}; ./run_all.sh runs one, then a book can be made of it.")
    return max(whole, key=lambda folder: max(path.stat().st_mtime for path in folder.glob("*.ipynb")))


def _write_chapter(path: Path, target: Path, chapters: dict[str, str]) -> None:
    """A copy of an executed notebook with formulas as MathML, and links where it names another chapter or notebook."""
    import nbformat

    def linked(found: re.Match) -> str:
        return f"[{found[0]}]({chapters[key]})" if (key := found[1].zfill(2)) in chapters else found[0]

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = MATH.sub(mathml, cell.source)
            cell.source = re.sub(r"(?<![`\w])(?:chapter|notebook) (\d+)\b", linked, text)
    nbformat.write(notebook, target)
