"""One executed notebook as one HTML page that reads like a chapter and takes nothing from a network.

>>> page = html(Path("runs/notebooks/phantom-quick/05_evaluation.ipynb"))
"""

from __future__ import annotations

import re
from pathlib import Path

# A formula of its own, or within a line; not in code.
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$`])\$(?!\s)([^$`]+?)(?<!\s)\$(?!\d)", re.DOTALL)
MARK = "\ue000"  # of the characters that nobody has given a meaning


def html(executed: Path) -> str:
    """The page of an executed notebook, its pictures inside it, each with an alternative text."""
    import nbformat
    from jinja2 import PackageLoader
    from nbconvert import HTMLExporter

    notebook, formulas = nbformat.read(executed, as_version=4), []

    def kept(found: re.Match) -> str:
        formulas.append(mathml(found))
        return f"{MARK}{len(formulas) - 1}{MARK}"

    # As MathML, which browsers draw by themselves, where LaTeX takes a script to load; put in after Markdown has become
    # HTML, from which foreign tags are taken out.
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MATH.sub(kept, cell.source)
    exporter = HTMLExporter(
        extra_loaders=[PackageLoader("sahlib.report")], template_file="chapter.html.j2", embed_images=True
    )
    page = exporter.from_notebook_node(notebook)[0]
    return re.sub(rf"{MARK}(\d+){MARK}", lambda found: formulas[int(found[1])], page)


def mathml(found: re.Match) -> str:
    """A formula that MATH found, as MathML."""
    from latex2mathml.converter import convert

    return convert(found[1] or found[2], display="block" if found[1] else "inline")
