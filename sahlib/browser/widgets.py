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

from sahlib.browser import contents, pictures
from sahlib.browser.contents import EVERY, Content
from sahlib.browser.one_slice import AREA, ERRORS, GATES, OUTLINE, PROBABILITY, OneSlice
from sahlib.chapters.results import Results
from sahlib.data.slices import SliceStore, window_to_grey
from sahlib.figures import drawing
from sahlib.progress import is_headless
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import WINDOWS, Study, StudyError
from sahlib.training.runs import Run

BY_HAND = "by hand"  # a value of its own: a dropdown shows nothing at all for None
WHEEL_MS = 30  # a wheel sends more turns than a person can look at

STYLE = """<style>
.sah { --sah-ink: var(--jp-ui-font-color1, #1b1f24); --sah-quiet: var(--jp-ui-font-color2, #57606a);
  --sah-line: var(--jp-border-color2, #d0d7de); border: 1px solid var(--sah-line); border-radius: 10px; padding: 12px;
  max-width: 1180px }
.sah .sah-bar { gap: 4px 14px; flex-flow: row wrap; align-items: center; overflow: visible }
.sah .sah-panels { gap: 10px; flex-flow: row wrap; margin: 8px 0; overflow: visible }
.sah .sah-panel { background: #0d1117; border-radius: 8px; padding: 8px; overflow: hidden; flex: 1 1 240px;
  max-width: 340px }
.sah .sah-panel .widget-html-content { width: 100%; line-height: normal }
.sah .sah-panel img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block;
  border-radius: 4px; cursor: ns-resize; margin: 6px 0 }
.sah .sah-head { color: #f0f3f6; font-weight: 600; font-size: 13px; line-height: 20px; display: flex; gap: 8px;
  align-items: center }
.sah .sah-head i { width: 18px; border-top: 3px solid; display: inline-block }
.sah .sah-note { color: #d1d9e0; font-size: 12.5px; line-height: 19px; font-variant-numeric: tabular-nums;
  min-height: 38px }
.sah .sah-note b { color: #fff; font-size: 14px }
.sah .sah-status { color: var(--sah-quiet); font-size: 12.5px; line-height: 19px }
.sah .sah-status b { color: var(--sah-ink) }
.sah .sah-key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 0;
  vertical-align: -1px }
.sah button:focus-visible, .sah select:focus-visible, .sah input:focus-visible, .sah .noUi-handle:focus-visible {
  outline: 2px solid #0969da; outline-offset: 2px }
</style>"""


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
        self._start()

    # what a person can set

    def _make_controls(self) -> None:
        content = self.content
        narrow, small = {"width": "190px"}, {"description_width": "initial"}

        def choice(label, options, width="190px", **more):
            return widgets.Dropdown(
                description=label,
                options=options,
                layout={"width": width},
                style=small,
                disabled=len(options) < 2,
                **more,
            )

        sides = [(side or "all sides", side) for side in contents.side_options(content)]
        self.side = choice("Side", sides, value="test" if content.networks else "")
        self.kind = choice("Slices", list(content.kinds()), value=EVERY)
        self.lesion = choice("Lesion", list(content.lesions))
        most = int(content.lesion_pixels.max())
        self.size = widgets.IntRangeSlider(
            description="Lesion px", min=0, max=max(most, 1), value=(0, max(most, 1)), style=small,
            layout={"width": "270px"}, continuous_update=False,
        )  # fmt: skip
        self.patient = widgets.SelectionSlider(
            description="Patient", options=[""], layout={"width": "46%", "min_width": "300px"}
        )
        self.slice = widgets.IntSlider(description="Slice", min=0, max=1, layout={"width": "46%", "min_width": "300px"})
        names = [(network.label, index) for index, network in enumerate(content.networks)]
        self.judge = choice("of", names or [("no network", 0)], "210px")
        self.jumps = {
            name: widgets.Button(description=name.capitalize(), tooltip=f"Go to the {name} {what}; again for the next",
                                 layout={"width": "78px"})
            for name, what in (("worst", "Dice"), ("best", "Dice"), ("largest", "lesion"), ("smallest", "lesion"))
        }  # fmt: skip
        for name in ("worst", "best"):
            self.jumps[name].disabled = not content.networks

        level, width = content.stored_windows[0]
        stored = [(self._window_name(window), window) for window in content.stored_windows]
        named = [
            (f"{name} {own[0]:g}/{own[1]:g}", own)
            for name, own in WINDOWS.items()
            if content.unit == "HU" and own not in content.stored_windows
        ]
        self.window = widgets.Dropdown(
            description="Window", options=[*stored, *named, (BY_HAND, BY_HAND)], layout={"width": "230px"}, style=small
        )
        least, most, widest = (-200, 1000, 3000) if content.unit == "HU" else (0, 255, 255)
        levels, widths = zip(*content.stored_windows, strict=True)
        self.level = widgets.IntSlider(
            value=round(level),
            min=min(least, *map(round, levels)),
            max=max(most, *map(round, levels)),
            description="Level",
            layout={"width": "260px"},
        )
        self.width = widgets.IntSlider(
            value=round(width),
            min=1,
            max=max(widest, *map(round, widths)),
            description="Width",
            layout={"width": "260px"},
        )
        self.truth = widgets.Checkbox(value=True, description="Ground truth", indent=False, layout={"width": "120px"})
        self.shown = [
            widgets.Checkbox(value=True, description=n.label, indent=False, layout={"width": "auto"})
            for n in content.networks
        ]
        gates = [GATES] if any(network.has_gates for network in content.networks) else []
        self.overlay = choice("Networks show", [AREA, OUTLINE, PROBABILITY, ERRORS, *gates], "220px")
        self.threshold = widgets.FloatSlider(
            value=THRESHOLD, min=0.01, max=0.99, step=0.01, description="Threshold", layout={"width": "270px"}
        )
        self.opacity = widgets.FloatSlider(
            value=0.6, min=0.1, max=1, step=0.05, description="Opacity", layout={"width": "240px"}, readout_format=".2f"
        )
        self.export = widgets.Button(
            description="Export PNG", tooltip="The view as one picture", layout={"width": "100px"}
        )
        self.link = widgets.HTML()
        self.status = widgets.HTML()
        for control in (self.threshold, self.opacity, self.overlay, *self.shown):
            control.layout.display = None if content.networks else "none"
        self.lesion.layout = {**narrow, "display": None if len(content.lesions) > 1 else "none"}

    def _arrange(self) -> None:
        # A picture within HTML, because the Image widget takes no alternative text.
        self.panels = [_classed(widgets.HTML(), "sah-panel") for _ in ("CT", *self.content.networks)]

        def bar(*children):
            return _classed(widgets.HBox(children), "sah-bar")

        by = [widgets.Label("Jump to"), *self.jumps.values(), *([self.judge] if self.content.networks else [])]
        self.row_of_panels = _classed(widgets.HBox(self.panels), "sah-panels")
        self.add_class("sah")
        self.children = [
            widgets.HTML(STYLE),
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
        for control in (self.side, self.kind, self.size):
            control.observe(lambda _: self._fill(), "value")
        self.lesion.observe(lambda _: self._change_lesion(), "value")
        self.patient.observe(lambda _: self._fill_slices(), "value")
        for control in (self.slice, self.threshold, self.opacity, self.overlay, self.truth, *self.shown):
            control.observe(lambda _: self._show(), "value")
        self.window.observe(lambda _: self._take_window(), "value")
        for control in (self.level, self.width):
            control.observe(lambda _: self._window_by_hand(), "value")
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

    def _start(self) -> None:
        """The largest lesion there is to see: a rule over the ground truth."""
        largest = self.content.by_area(self._rows)
        if len(largest):
            self.go_to(int(largest[-1]))

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
        self._drawn = list(self._pool.map(lambda number: self._draw(number, grey), self._chosen))
        for box, panel in zip(self.shown, self.panels[1:], strict=True):
            panel.layout.display = None if box.value else "none"
        for number, data in zip(self._chosen, self._pool.map(pictures.png, self._drawn), strict=True):
            self.panels[number].value = self._panel(number, data)
        self._say("")

    def _draw(self, number: int, grey: np.ndarray) -> np.ndarray:
        if number == 0:
            return self._seen.base(grey, self.truth.value)
        return self._seen.panel(number - 1, grey, self.overlay.value, self.opacity.value, self.truth.value)

    @property
    def _chosen(self) -> list[int]:
        """The numbers of the panels that are on show: the CT and the networks ticked."""
        return [0, *(number for number, box in enumerate(self.shown, 1) if box.value)]

    def _panel(self, number: int, data: bytes) -> str:
        """A panel as HTML: heading, picture and scores; decoded at once, so that nothing flickers."""
        title, (first, beside, below) = self._seen.titles[number], self._seen.notes[number]
        colour = drawing.COLOURS[self.content.networks[number - 1].model] if number else pictures.TRUTH
        alt = escape(f"{title}: {self._seen.identity}. {_sentence(first, beside, below)}", quote=True)
        return (
            f'<div class="sah-head"><i style="border-color:{colour}"></i>{escape(title)}</div>'
            f'<img alt="{alt}" decoding="sync" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
            f'<div class="sah-note"><b>{first}</b> &nbsp;{beside}<br>{below}</div>'
        )

    def _say(self, message: str) -> None:
        words = []
        if self.row is not None:
            choice = f"{_counted(len(self._rows), 'slice')} of {_counted(len(self.patient.options), 'patient')}"
            words = [
                f"<b>{escape(self._seen.identity)}</b>",
                f"window {escape(self._window_words)}",
                f"{choice} to choose from",
            ]
        legend = ""
        if self.overlay.value == ERRORS and self.content.networks:
            colours = {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in pictures.ERRORS.items()}
            key = "".join(f'<i style="background:{colour}"></i>{name}&emsp;' for name, colour in colours.items())
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


def _classed(box: widgets.Box, name: str) -> widgets.Box:
    box.add_class(name)
    return box


def _counted(number: int, what: str) -> str:
    """ "1 slice", "1,234 slices" """
    return f"{number:,} {what}{'s' * (number != 1)}"


def _sentence(*parts: str) -> str:
    return ", ".join(filter(None, parts)) + "."
