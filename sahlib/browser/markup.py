"""What a slice browser writes in HTML: its style, a panel, and the line that says what is shown."""

from __future__ import annotations

import base64
from html import escape

from sahlib.browser import pictures
from sahlib.browser.one_slice import OneSlice
from sahlib.figures import drawing

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


def panel(seen: OneSlice, number: int, data: bytes) -> str:
    """Panel `number` (0 is the CT): heading, picture (a PNG) and scores; decoded at once, so that nothing flickers."""
    title, (first, beside, below) = seen.titles[number], seen.notes[number]
    colour = drawing.COLOURS[seen.content.networks[number - 1].model] if number else pictures.TRUTH
    said = ", ".join(filter(None, (first, beside, below)))
    alt = escape(f"{title}: {seen.identity}. {said}.", quote=True)
    return (
        f'<div class="sah-head"><i style="border-color:{colour}"></i>{escape(title)}</div>'
        f'<img alt="{alt}" decoding="sync" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        f'<div class="sah-note"><b>{first}</b> &nbsp;{beside}<br>{below}</div>'
    )


def status(identity: str, facts: list[str], message: str, with_key: bool) -> str:
    """The slice, facts about the view, a message (none of them where empty), and the colours of right and wrong."""
    bold = [f"<b>{escape(text)}</b>" if text else "" for text in (identity, message)]
    words = " · ".join(filter(None, (bold[0], *map(escape, facts), bold[1])))
    key = ""
    if with_key:
        colours = {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in pictures.ERRORS.items()}
        boxes = "".join(f'<i style="background:{colour}"></i>{name}&emsp;' for name, colour in colours.items())
        key = f'<div class="sah-key">{boxes}</div>'
    return f'<div class="sah-status" role="status">{words}{key}</div>'


def choice(slices: int, patients: int) -> str:
    """ "1,234 slices of 1 patient to choose from" """
    return f"{slices:,} slice{'s' * (slices != 1)} of {patients:,} patient{'s' * (patients != 1)} to choose from"
