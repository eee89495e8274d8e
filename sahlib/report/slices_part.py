"""The slice browser in a page: as many slices as leave it small enough to mail."""

from __future__ import annotations

from collections.abc import Callable

from sahlib.browser.embedded import Embedded
from sahlib.report.rendering import ENVIRONMENT

PLACE = "<!-- slices -->"
MOST_BYTES = 8_000_000  # of a page
FRAME = 100_000  # for viewer.js, its style and what stands around


def with_slices(page: str, embed: Callable[[int], Embedded]) -> str:
    """The page with the browser in PLACE; embed: the most bytes that its slices may take -> Embedded."""
    held = embed(MOST_BYTES - FRAME - len(page.encode()))
    return page.replace(PLACE, ENVIRONMENT.get_template("slices.html.j2").render(held=held))
