"""The slice browser: a store's slices and what networks say of them, in a notebook.

    browse(store)              the slices
    browse(run, other_run)     and what trained networks predict on the test side
    browse(results)            the same for every network of a study

The pixels are drawn in the kernel and sent as one small PNG per panel, and only where they changed, so that the browser
works the same when the kernel is on another machine. A headless run keeps one picture of it instead.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape

import ipywidgets as widgets
import numpy as np
from ipyevents import Event

from sahlib.browser import contents, markup, pictures
from sahlib.browser.contents import EVERY, Content
from sahlib.browser.one_slice import AREA, ERRORS, GATES, OUTLINE, PROBABILITY, OneSlice
from sahlib.chapters.results import Results
from sahlib.data.slices import SliceStore, window_to_grey
from sahlib.data.splits import SIDES
from sahlib.progress import is_headless
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import WINDOWS, Study, StudyError
from sahlib.training.runs import Run

BY_HAND = "by hand"  # a value of its own: a dropdown shows nothing at all for None
WHEEL_MS = 30  # a wheel sends more turns than a person can look at


def browse(*shown: SliceStore | Run | Results, study: Study | None = None) -> Browser:
    """A browser of the slices of a store, of Results, or of runs tested on the same slices.

    study  says where the scans lie, so that any window can be taken from their Hounsfield units; without it runs on a
           phantom and Results on a study's own slices have them, and others are windowed within their stored 8 bits
    Raises StudyError where nothing of the kind is given, or slices or predictions of a run are missing.
    """
    return Browser(contents.of(*shown, study=study))


class Browser(widgets.VBox):
    """The widget; `view()` is what it shows as one PNG, `row` the slice's row in the store."""

    def __init__(self, content: Content):
        super().__init__()
        self.content = content
        self._every_lesion = content
        self._quiet = False
        self._jumped: tuple = ()
        self._drawn: list[np.ndarray] = []
        self._pool = ThreadPoolExecutor(4)
        self._make_controls()
        self._arrange()
        self._listen()
        self._fill()
        largest = content.by_area(self._rows)  # where it opens: a rule over the ground truth
        if len(largest):
            self.go_to(int(largest[-1]))

    # what a person can set

    def _make_controls(self) -> None:
        content, networks = self.content, self.content.networks
        small = {"description_width": "initial"}

        def control(kind, label, width, **settings):
            return kind(description=label, layout={"width": width}, **settings)

        def choice(label, options, width="190px", **settings):
            return control(
                widgets.Dropdown, label, width, options=options, style=small, disabled=len(options) < 2, **settings
            )

        def tick(label, width):
            return control(widgets.Checkbox, label, width, value=True, indent=False)

        sides = [("all sides", ""), *((side, side) for side in SIDES if side in content.sides)]
        self.side = choice("Side", sides, value="test" if networks else "")
        self.kind = choice("Slices", list(content.kinds()), value=EVERY)
        self.lesion = choice("Lesion", list(content.lesions))
        most = max(int(content.lesion_pixels.max()), 1)
        self.size = control(widgets.IntRangeSlider, "Lesion px", "270px", max=most, value=(0, most), style=small)
        self.size.continuous_update = False
        self.patient = control(widgets.SelectionSlider, "Patient", "46%", options=[""])
        self.slice = control(widgets.IntSlider, "Slice", "46%", max=1)
        self.patient.layout.min_width = self.slice.layout.min_width = "300px"
        names = [(network.label, index) for index, network in enumerate(networks)]
        self.judge = choice("of", names or [("no network", 0)], "210px")
        self.jumps = {
            name: control(
                widgets.Button,
                name.capitalize(),
                "78px",
                tooltip=f"Go to the {name} {what}; again for the next",
                disabled=what == "Dice" and not networks,
            )
            for name, what in (("worst", "Dice"), ("best", "Dice"), ("largest", "lesion"), ("smallest", "lesion"))
        }

        stored = [(self._window_name(window), window) for window in content.stored_windows]
        named = [(f"{name} {own[0]:g}/{own[1]:g}", own) for name, own in WINDOWS.items()]
        further = [(name, own) for name, own in named if content.unit == "HU" and own not in content.stored_windows]
        self.window = choice("Window", [*stored, *further, (BY_HAND, BY_HAND)], "230px")
        least, most, widest = (-200, 1000, 3000) if content.unit == "HU" else (0, 255, 255)
        levels, widths = (list(map(round, values)) for values in zip(*content.stored_windows, strict=True))
        bounds = {"min": min(least, *levels), "max": max(most, *levels)}
        self.level = control(widgets.IntSlider, "Level", "260px", value=levels[0], **bounds)
        self.width = control(widgets.IntSlider, "Width", "260px", value=widths[0], min=1, max=max(widest, *widths))
        self.truth = tick("Ground truth", "120px")
        self.shown = [tick(network.label, "auto") for network in networks]
        gates = [GATES] if any(network.has_gates for network in networks) else []
        self.overlay = choice("Networks show", [AREA, OUTLINE, PROBABILITY, ERRORS, *gates], "220px")
        self.threshold = control(
            widgets.FloatSlider, "Threshold", "270px", value=THRESHOLD, min=0.01, max=0.99, step=0.01
        )
        self.opacity = control(widgets.FloatSlider, "Opacity", "240px", value=0.6, min=0.1, max=1, step=0.05)
        self.export = control(widgets.Button, "Export PNG", "100px", tooltip="The view as one picture")
        self.link, self.status = widgets.HTML(), widgets.HTML()
        if not networks:
            for hidden in (self.threshold, self.opacity, self.overlay):
                hidden.layout.display = "none"
        self.lesion.layout.display = None if len(content.lesions) > 1 else "none"

    def _arrange(self) -> None:
        # A picture within HTML, because the Image widget takes no alternative text.
        self.panels = [_classed(widgets.HTML(), "sah-panel") for _ in ("CT", *self.content.networks)]

        def bar(*children):
            return _classed(widgets.HBox(children), "sah-bar")

        by = [widgets.Label("Jump to"), *self.jumps.values(), *([self.judge] if self.content.networks else [])]
        self.row_of_panels = _classed(widgets.HBox(self.panels), "sah-panels")
        self.add_class("sah")
        self.children = [
            widgets.HTML(markup.STYLE),
            bar(self.side, self.kind, self.lesion, self.size),
            bar(*by),
            bar(self.patient, self.slice),
            self.status,
            self.row_of_panels,
            bar(self.window, self.level, self.width),
            bar(self.overlay, self.threshold, self.opacity),
            bar(self.truth, *self.shown, self.export, self.link),
        ]

    def _listen(self) -> None:
        for answer, *controls in (
            (self._fill, self.side, self.kind, self.size),
            (self._change_lesion, self.lesion),
            (self._fill_slices, self.patient),
            (self._show, self.slice, self.threshold, self.opacity, self.overlay, self.truth, *self.shown),
            (self._take_window, self.window),
            (self._window_by_hand, self.level, self.width),
        ):
            for control in controls:
                control.observe(lambda _, answer=answer: answer(), "value")
        for name, button in self.jumps.items():
            button.on_click(lambda _, name=name: self._jump(name))
        self.export.on_click(lambda _: self._export())
        # The wheel over the pictures goes through the slices.
        self._wheel = Event(
            source=self.row_of_panels, watched_events=["wheel"], wait=WHEEL_MS, throttle_or_debounce="throttle"
        )
        self._wheel.on_dom_event(lambda event: self._step(int(np.sign(event["deltaY"]))))

    # which slice

    @property
    def row(self) -> int | None:
        """The row in the store of the slice shown; None where no slice fits the choice."""
        return int(self._own[self.slice.value]) if len(self._own) else None

    def go_to(self, row: int) -> None:
        """Shows a row of the store; one that the choice leaves out brings back all slices of its patient."""
        with self._at_once():
            if row not in self._rows:
                self.side.value, self.kind.value = "", EVERY
                self.size.value = (0, self.size.max)
                self._fill()
            self.patient.value = self.content.patients[row]
            self._fill_slices()
            self.slice.value = int(np.searchsorted(self._own, row))

    def _fill(self) -> None:
        """The patients and slices that the choice leaves."""
        with self._at_once():
            self._rows = self.content.rows(self.side.value, self.kind.value, *self.size.value)
            patients = list(dict.fromkeys(self.content.patients[self._rows])) or ["none"]
            kept = self.patient.value if self.patient.value in patients else patients[0]
            if list(self.patient.options) != patients:
                self.patient.options = patients
            self.patient.value = kept
            self._fill_slices()

    def _fill_slices(self) -> None:
        with self._at_once():
            self._own = self._rows[self.content.patients[self._rows] == self.patient.value]
            self.slice.max = max(len(self._own) - 1, 0)
            self.slice.value = min(self.slice.value, self.slice.max)

    def _change_lesion(self) -> None:
        with self._at_once():
            self.content = self._every_lesion.for_lesion(self.lesion.value)
            # Its lesions have sizes of their own.
            self.size.max = max(int(self.content.lesion_pixels.max()), 1)
            self.size.value = (0, self.size.max)
            self._fill()

    def _step(self, by: int) -> None:
        self.slice.value = min(max(self.slice.value + by, 0), self.slice.max)

    def _jump(self, name: str) -> None:
        """The first of the slices in question; the next one each time it is asked again."""
        if name in ("worst", "best"):
            rows = self.content.by_dice(self.content.networks[self.judge.value], self._rows)
        else:
            rows = self.content.by_area(self._rows)
        rows = rows[::-1] if name in ("best", "largest") else rows
        if not len(rows):
            self._say("No slice of this choice has a lesion or a Dice to go by.")
            return
        key = (name, self.judge.value, tuple(rows))
        at = self._jumped[1] + 1 if self._jumped and self._jumped[0] == key else 0
        self._jumped = (key, at % len(rows))
        self.go_to(int(rows[at % len(rows)]))
        self._say(f"{name.capitalize()}, {at % len(rows) + 1} of {len(rows)}")

    # which window

    def _window_name(self, window: tuple[float, float]) -> str:
        if self.content.unit == "grey":
            return "grey levels as stored"
        names = {own: name for name, own in WINDOWS.items()}
        return f"{names.get(window, 'window')} {window[0]:g}/{window[1]:g}, as stored"

    def _take_window(self) -> None:
        with self._at_once():
            if self.window.value != BY_HAND:
                self.level.value, self.width.value = (round(value) for value in self.window.value)

    def _window_by_hand(self) -> None:
        if not self._quiet:  # where it is a person who moves level or width
            with self._at_once():
                self.window.value = BY_HAND

    def _grey(self, row: int) -> tuple[np.ndarray, str]:
        """The slice in the chosen window, uint8 [h,w], and what it was computed from."""
        content = self.content
        chosen = self.window.value
        level, width = (self.level.value, self.width.value) if chosen == BY_HAND else chosen
        unit = " HU" if content.unit == "HU" else " of 255"
        words = f"{level - width / 2:g} to {level + width / 2:g}{unit}"
        if (level, width) in content.stored_windows:
            return content.stored(row, level, width), f"{words}, as the networks see it"
        if content.unit == "grey":
            return content.stored(row, level, width), f"{words}, within the stored 8 bits"
        try:
            return window_to_grey(content.hounsfield(row), level, width), f"{words}, from the scan"
        except (StudyError, OSError) as error:
            return content.stored(row, level, width), f"{words}, within the stored 8 bits: {error}"

    # what is seen

    def _show(self) -> None:
        """Draws the slice; a panel whose pixels stay the same is not sent again."""
        if self._quiet:
            return
        row = self.row
        if row is None:
            self._drawn = []
            for panel in self.panels:
                panel.value = ""
            self._say("No slice fits this choice; widen it.")
            return
        self._seen = OneSlice(self.content, row, self.threshold.value)
        grey, self._window_words = self._grey(row)
        settings = grey, self.overlay.value, self.opacity.value, self.truth.value
        self._drawn = list(self._pool.map(lambda number: self._seen.panel(number, *settings), self._chosen))
        for box, panel in zip(self.shown, self.panels[1:], strict=True):
            panel.layout.display = None if box.value else "none"
        for number, data in zip(self._chosen, self._pool.map(pictures.png, self._drawn), strict=True):
            self.panels[number].value = markup.panel(self._seen, number, data)
        self._say("")

    @property
    def _chosen(self) -> list[int]:
        """The numbers of the panels that are on show: the CT and the networks ticked."""
        return [0, *(number for number, box in enumerate(self.shown, 1) if box.value)]

    def _say(self, message: str) -> None:
        facts = []
        if self.row is not None:
            facts = [f"window {self._window_words}", markup.choice(len(self._rows), len(self.patient.options))]
        seen = self._seen.identity if facts else ""
        with_key = self.overlay.value == ERRORS and bool(self.content.networks)
        self.status.value = markup.status(seen, facts, message, with_key)

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        """Several settings change together, and the slice is drawn once, after the last of them."""
        outermost, self._quiet = not self._quiet, True
        try:
            yield
        finally:
            if outermost:
                self._quiet = False
                self._show()

    # what leaves it

    def view(self) -> bytes:
        """What is shown, as one PNG with titles and scores."""
        if self.row is None:
            raise StudyError("No slice fits this choice; widen it.")
        titles, notes = ([what[number] for number in self._chosen] for what in (self._seen.titles, self._seen.notes))
        return pictures.sheet(
            self._drawn, titles, ["\n".join(filter(None, note)) for note in notes], f"S{self._seen.identity[1:]}"
        )

    def _export(self) -> None:
        if self.row is None:
            return  # the status says so already
        # A link and not a file: the kernel's disk may be another machine's.
        name = f"{self.content.store.slices['slice_id'].iloc[self.row]}.png".replace("/", "_")
        data = base64.b64encode(self.view()).decode()
        self.link.value = f'<a download="{escape(name)}" href="data:image/png;base64,{data}">Save {escape(name)}</a>'

    def _repr_mimebundle_(self, **kwargs):
        """The widget for a person; the picture for whoever reads the notebook later."""
        bundle = {} if is_headless() else super()._repr_mimebundle_(**kwargs)
        if self.row is None:
            return {"text/plain": "No slice to show.", **bundle}
        alt = f"Slice browser at {self._seen.identity}"
        bundle = {"text/plain": alt, **bundle, "image/png": base64.b64encode(self.view()).decode()}
        return bundle, {"image/png": {"alt": alt}}


def _classed(box: widgets.Box, name: str) -> widgets.Box:
    box.add_class(name)
    return box
