"""The slice browser inside a page that is one file: some slices with everything that viewer.js needs, no kernel."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.browser import contents, mask_content, packing
from sahlib.browser.contents import Content
from sahlib.browser.still import identity, still
from sahlib.chapters.judging import Masks
from sahlib.chapters.results import Results
from sahlib.data import samples

HERE = Path(__file__).parent
EXTREMES = 10  # slices per network at either end of its Dice


@dataclass(frozen=True)
class Embedded:
    """What a page holds: `data`, JSON for viewer.js's `inPage`, and a picture for where no script runs, PNG in base64.

    rule      which slices it holds, in words
    held, of  how many it holds, and there are
    """

    data: str
    picture: str
    alternative: str
    rule: str
    held: int
    of: int

    script = (HERE / "viewer.js").read_text(encoding="utf-8")
    style = (HERE / "viewer.css").read_text(encoding="utf-8")


def of_results(results: Results, most_bytes: int) -> Embedded:
    """The slices of the patients that Figure 7 shows, and every network's worst and best."""
    content = contents.of(results)
    shown = samples.three_test_slices(results.store, results.split)
    return embed(content, dict.fromkeys(content.patients[shown]), "those of the patients of Figure 7", most_bytes)


def of_masks(judged: Masks, most_bytes: int) -> Embedded:
    """The slices of the case on which the first competitor did worst, and everybody's worst and best."""
    content = mask_content.of(judged)
    first = content.largest if content.worst is None else content.worst
    return embed(content, [content.patients[first]], "those of the patient with the worst slice", most_bytes)


def embed(content: Content, patients: Iterable[str], whose: str, most_bytes: int) -> Embedded:
    """All slices of some patients, `whose` in words, then the worst and the best of every network, as many as fit into
    `most_bytes`; no window but the stored 8 bits' and no gates, which take the scan and the network."""
    wanted = [*np.flatnonzero(np.isin(content.patients, list(patients))), *_extremes(content)]
    slices, size = {}, 0
    for row in dict.fromkeys(map(int, wanted)):
        header, data = packing.slice_bytes(content, row)
        text = base64.b64encode(data).decode()
        size += len(text)
        if slices and size > most_bytes:
            break
        slices[row] = [header, text]
    rows = sorted(slices)
    index = packing.index(content, rows) | {"hounsfield": False}
    index["networks"] = [network | {"gates": False} for network in index["networks"]]
    held = {"index": index, "slices": [slices[row] for row in rows]}
    first = rows[int(np.argmax(content.lesion_pixels[rows]))]
    return Embedded(
        json.dumps(held, separators=(",", ":")).replace("<", "\\u003c"),  # nothing in it may end the script
        base64.b64encode(still(content, first)).decode(),
        f"Slice browser at {identity(content, first)}",
        f"{whose}, and the {EXTREMES} worst and best of each",
        len(rows),
        len(content.store),
    )


def _extremes(content: Content) -> list[int]:
    found = []
    for network in content.networks:
        dice = content.dice(network)
        order = np.argsort(dice, kind="stable")[: np.isfinite(dice).sum()]  # NaN stands last
        found += [*order[:EXTREMES], *order[::-1][:EXTREMES]]
    return found
