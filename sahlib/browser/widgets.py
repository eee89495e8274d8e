"""The slice browser: a store's slices and what networks say of them, in a notebook.

    browse(store)              the slices
    browse(judged)             masks of judging.judge
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
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from ipyevents import Event

from sahlib.browser import contents, mask_content, pictures
from sahlib.browser.contents import EVERY, Content
from sahlib.browser.one_slice import AREA, ERRORS, GATES, OUTLINE, PROBABILITY, OneSlice
from sahlib.chapters.judging import Masks
from sahlib.chapters.results import Results
from sahlib.data.slices import SliceStore
from sahlib.figures.tables import counted
from sahlib.progress import is_headless
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import Study, StudyError
from sahlib.training.runs import Run

BY_HAND = "by hand"  # a value of its own: a dropdown shows nothing at all for None
WHEEL_MS = 30  # a wheel sends more turns than a person can look at

STYLE = f"<style>{Path(__file__).with_name('style.css').read_text()}</style>"


def browse(*shown: SliceStore | Run | Results | Masks, study: Study | None = None) -> Browser:
    """A browser of the slices of a store, of Results, of runs tested on the same slices, or of judged masks.

    study  says where the scans lie, so that any window can be taken from their Hounsfield units; without it runs on a
           phantom and Results on a study's own slices have them, and others are windowed within their stored 8 bits
    Raises StudyError where nothing of the kind is given, runs do not go together, or slices, split or predictions of a
    run are missing.
    """
    if [type(one) for one in shown] == [Masks]:
        browser = Browser(mask_content.of(*shown))
        browser._jump("worst")
        return browser
    return Browser(contents.of(*shown, study=study))


class Browser(widgets.VBox):
    """The widget; `view()` is what it shows as one PNG, `row` the slice's row in the store."""

    def __init__(self, content: Content):
        super().__init__()
        self.content = content
        self._every_lesion = content
        self._quiet = False
        self._jumped: tuple = (None, 0)  # by what the last jump went, and how far
        self._drawn: list[np.ndarray] = []
        self._pool = ThreadPoolExecutor(4)
        self._make_controls()
        self._arrange()
        self._listen()
        self._fill()
        if len(lesions := content.by_area(self._rows)):
            self.go_to(int(lesions[-1]))  # the largest to begin with: a rule over the ground truth

    # what a person can set

    def _make_controls(self) -> None:
        content, IntSlider, FloatSlider = self.content, widgets.IntSlider, widgets.FloatSlider
        tested = bool(content.networks)
        self.side = _choice("Side", [(side or "all sides", side) for side in content.side_options])
        self.side.value = "test" if tested else ""
        self.kind = _choice("Slices", list(content.kinds()))
        self.lesion = _choice("Lesion", list(content.lesions))
        self.lesion.layout.display = None if len(content.lesions) > 1 else "none"
        most = max(int(content.lesion_pixels.max()), 1)
        self.size = _slider(widgets.IntRangeSlider, "Lesion px", (0, most), 0, most, "270px", continuous_update=False)
        self.size.style.description_width = "initial"
        self.patient = widgets.SelectionSlider(description="Patient", options=[""], layout={"width": "46%"})
        self.slice = _slider(IntSlider, "Slice", 0, 0, 1, "46%")
        for slider in (self.patient, self.slice):
            slider.layout.min_width = "300px"
        judges = [(network.label, index) for index, network in enumerate(content.networks)]
        self.judge = _choice("of", judges or [("no network", 0)], "210px")
        self.jumps = {}
        for name, what in {"worst": "Dice", "best": "Dice", "largest": "lesion", "smallest": "lesion"}.items():
            tip = f"Go to the {name} {what}; again for the next"
            self.jumps[name] = widgets.Button(description=name.capitalize(), tooltip=tip, layout={"width": "78px"})
            self.jumps[name].disabled = what == "Dice" and not tested

        self.window = _choice("Window", [*content.windows(), (BY_HAND, BY_HAND)], "230px")
        lowest, highest, widest = (-200, 1000, 3000) if content.store.unit == "HU" else (0, 255, 255)
        levels, widths = ([round(value) for value in values] for values in zip(*content.stored_windows, strict=True))
        ends = min(lowest, *levels), max(highest, *levels)
        self.level = _slider(IntSlider, "Level", levels[0], *ends, "260px")
        self.width = _slider(IntSlider, "Width", widths[0], 1, max(widest, *widths), "260px")
        self.truth, *self.shown = (
            widgets.Checkbox(value=True, description=label, indent=False, layout={"width": "auto"})
            for label in ("Ground truth", *(network.label for network in content.networks))
        )
        gates = [GATES] if any(network.has_gates for network in content.networks) else []
        self.overlay = _choice("Networks show", [AREA, OUTLINE, PROBABILITY, ERRORS, *gates], "220px")
        self.threshold = _slider(FloatSlider, "Threshold", THRESHOLD, 0.01, 0.99, "270px", step=0.01)
        self.opacity = _slider(FloatSlider, "Opacity", 0.6, 0.1, 1, "240px", step=0.05)
        for control in (self.threshold, self.opacity, self.overlay, *self.shown):
            control.layout.display = None if tested else "none"
        tip = "The view as one picture"
        self.export = widgets.Button(description="Export PNG", tooltip=tip, layout={"width": "100px"})
        self.link, self.status = widgets.HTML(), widgets.HTML()

    def _arrange(self) -> None:
        # A picture within HTML, because the Image widget takes no alternative text.
        self.panels = [_classed(widgets.HTML(), "sah-panel") for _ in ("CT", *self.content.networks)]
        self.row_of_panels = _classed(widgets.HBox(self.panels), "sah-panels")
        judge = [self.judge] if self.content.networks else []
        above = [
            (self.side, self.kind, self.lesion, self.size),
            (widgets.Label("Jump to"), *self.jumps.values(), *judge),
            (self.patient, self.slice),
        ]
        below = [
            (self.window, self.level, self.width),
            (self.overlay, self.threshold, self.opacity),
            (self.truth, *self.shown, self.export, self.link),
        ]
        above, below = ([_classed(widgets.HBox(bar), "sah-bar") for bar in bars] for bars in (above, below))
        self.add_class("sah")
        self.children = [widgets.HTML(STYLE), *above, self.status, self.row_of_panels, *below]

    def _listen(self) -> None:
        seen = (self.slice, self.threshold, self.opacity, self.overlay, self.truth, *self.shown)
        for act, controls in {
            self._fill: (self.side, self.kind, self.size),
            self._change_lesion: (self.lesion,),
            self._fill_slices: (self.patient,),
            self._show: seen,
            self._take_window: (self.window,),
            self._window_by_hand: (self.level, self.width),
        }.items():
            for control in controls:
                control.observe(lambda _, act=act: act(), "value")
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
        at = (self._jumped[1] + 1) % len(rows) if self._jumped[0] == key else 0
        self._jumped = (key, at)
        self.go_to(int(rows[at]))
        self._say(f"{name.capitalize()}, {at + 1} of {len(rows)}")

    # which window

    def _take_window(self) -> None:
        with self._at_once():
            if self.window.value != BY_HAND:
                self.level.value, self.width.value = (round(value) for value in self.window.value)

    def _window_by_hand(self) -> None:
        if not self._quiet:  # where it is a person who moves level or width
            with self._at_once():
                self.window.value = BY_HAND

    # what is seen

    def _show(self) -> None:
        """Draws the slice; a panel whose pixels stay the same is not sent again."""
        if self._quiet:
            return
        if self.row is None:
            self._drawn = []
            for panel in self.panels:
                panel.value = ""
            self._say("No slice fits this choice; widen it.")
            return
        self._seen = OneSlice(self.content, self.row, self.threshold.value)
        by_hand = self.window.value == BY_HAND
        window = (self.level.value, self.width.value) if by_hand else self.window.value
        grey, self._window_words = self.content.in_window(self.row, *window)
        look = self.overlay.value, self.opacity.value, self.truth.value
        self._drawn = list(self._pool.map(lambda number: self._seen.panel(number, grey, *look), self._chosen))
        for box, panel in zip(self.shown, self.panels[1:], strict=True):
            panel.layout.display = None if box.value else "none"
        for number, data in zip(self._chosen, self._pool.map(pictures.png, self._drawn), strict=True):
            self.panels[number].value = self._panel(number, data)
        self._say("")

    @property
    def _chosen(self) -> list[int]:
        """The numbers of the panels that are on show: the CT and the networks ticked."""
        return [0, *(number for number, box in enumerate(self.shown, 1) if box.value)]

    def _panel(self, number: int, data: bytes) -> str:
        """A panel as HTML: heading, picture and scores; decoded at once, so that nothing flickers."""
        title, (first, beside, below) = self._seen.titles[number], self._seen.notes[number]
        colour = self.content.networks[number - 1].colour if number else pictures.TRUTH
        scores = ", ".join(filter(None, (first, beside, below)))
        alt = escape(f"{title}: {self._seen.identity}. {scores}.", quote=True)
        return (
            f'<div class="sah-head"><i style="border-color:{colour}"></i>{escape(title)}</div>'
            f'<img alt="{alt}" decoding="sync" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
            f'<div class="sah-note"><b>{first}</b> &nbsp;{beside}<br>{below}</div>'
        )

    def _say(self, message: str) -> None:
        words = []
        if self.row is not None:
            choice = f"{counted(len(self._rows), 'slice')} of {counted(len(self.patient.options), 'patient')}"
            identity, window = escape(self._seen.identity), escape(self._window_words)
            words = [f"<b>{identity}</b>", f"window {window}", f"{choice} to choose from"]
        legend = ""
        if self.overlay.value == ERRORS and self.content.networks:
            key = "".join(f'<i style="background:rgb{rgb}"></i>{name}&emsp;' for name, rgb in pictures.ERRORS.items())
            legend = f'<div class="sah-key">{key}</div>'
        if message:
            words.append(f"<b>{escape(message)}</b>")
        self.status.value = f'<div class="sah-status" role="status">{" · ".join(words)}{legend}</div>'

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


def _choice(label: str, options: list, width: str = "190px") -> widgets.Dropdown:
    layout, style = {"width": width}, {"description_width": "initial"}
    return widgets.Dropdown(description=label, options=options, layout=layout, style=style, disabled=len(options) < 2)


def _slider(kind: type, label: str, value: object, least: float, most: float, width: str, **more) -> widgets.Widget:
    return kind(description=label, value=value, min=least, max=most, layout={"width": width}, **more)


def _classed(box: widgets.Box, name: str) -> widgets.Box:
    box.add_class(name)
    return box
