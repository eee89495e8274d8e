"""One executed notebook as one HTML page that reads like a chapter and takes nothing from a network.

>>> page = html(Path("runs/notebooks/phantom-quick/05_evaluation.ipynb"))
"""

from __future__ import annotations

from pathlib import Path


def html(executed: Path) -> str:
    """The page of an executed notebook, its pictures inside it, each with an alternative text."""
    from jinja2 import PackageLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        extra_loaders=[PackageLoader("sahlib.report")], template_file="chapter.html.j2", embed_images=True
    )
    return exporter.from_filename(str(executed))[0]
