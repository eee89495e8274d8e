"""The slice browser: a store's slices and what networks say of them, in a notebook.

    browse(store)              the slices
    browse(judged)             masks of judging.judge
    browse(run, other_run)     and what trained networks predict on the test side
    browse(results)            the same for every network of a study

viewer.js draws; here it is told which slices there are and is sent the pixels that it asks for, so that only another
slice needs the kernel. A headless run keeps a picture instead.
"""

from __future__ import annotations

import base64
from pathlib import Path

import anywidget
import traitlets

from sahlib.browser import contents, mask_content, packing
from sahlib.browser.contents import Content
from sahlib.browser.still import identity, still
from sahlib.chapters.judging import Masks
from sahlib.chapters.results import Results
from sahlib.data.slices import SliceStore
from sahlib.progress import is_headless
from sahlib.study import Study, StudyError
from sahlib.training.runs import Run

HERE = Path(__file__).parent


def browse(*shown: SliceStore | Run | Results | Masks, study: Study | None = None) -> Browser:
    """A browser of the slices of a store, of Results, of runs tested on the same slices, or of judged masks.

    study  says where the scans lie, so that any window can be taken from their Hounsfield units; without it runs on a
           phantom and Results on a study's own slices have them, and others are windowed within their stored 8 bits
    Raises StudyError where nothing of the kind is given, runs do not go together, or slices, split or predictions of a
    run are missing.
    """
    if [type(one) for one in shown] == [Masks]:
        content = mask_content.of(*shown)
        return Browser(content, content.worst)
    content = contents.of(*shown, study=study)
    return Browser(content, content.largest)


class Browser(anywidget.AnyWidget):
    """The widget; `row` is the slice's row in the store, of the one to begin with and of the one on show."""

    _esm = HERE / "viewer.js"
    _css = HERE / "viewer.css"
    index = traitlets.Dict().tag(sync=True)
    row = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, content: Content, row: int | None):
        super().__init__(index=packing.index(content), row=row)
        self.content = packing.of_each_lesion(content)
        self.on_msg(lambda _, asked, __: self._answer(asked))

    def _answer(self, asked: dict) -> None:
        """Sends what a view asks for, or why it cannot be had."""
        row, first = asked["row"], next(iter(self.content.values()))
        try:
            if asked["kind"] == "slice":
                header, data = packing.slice_bytes(self.content[asked["lesion"]], row)
            elif asked["kind"] == "hounsfield":
                header, data = packing.hounsfield_bytes(first, row)
            else:
                header, data = packing.gate_bytes(first, row, asked["network"])
        except (StudyError, OSError) as error:
            self.send({"id": asked["id"], "error": str(error)})
        else:
            self.send({"id": asked["id"], **header}, [data])

    def _repr_mimebundle_(self, **kwargs):
        """The widget for a person; the picture for whoever reads the notebook later."""
        shown, _ = ({}, {}) if is_headless() else super()._repr_mimebundle_(**kwargs)
        if self.row is None:
            return {**shown, "text/plain": "No slice to show."}, {}
        content = next(iter(self.content.values()))
        alt = f"Slice browser at {identity(content, self.row)}"
        picture = base64.b64encode(still(content, self.row)).decode()
        return {**shown, "text/plain": alt, "image/png": picture}, {"image/png": {"alt": alt}}
