"""What viewer.js is sent: once a table of all slices, and of each slice its pixels as compressed bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np

from sahlib.browser.contents import Content
from sahlib.browser.pictures import TRUTH
from sahlib.figures.drawing import AGREEMENT
from sahlib.scoring.prediction import THRESHOLD

FAST = 1  # of zlib's levels: what takes longer to compress than to send is not worth it


def index(content: Content, rows: Sequence[int] | None = None) -> dict:
    """All that is known of the slices but their pixels, for JSON; of some `rows` of the store alone where given.

    One entry per slice have: slices and patients (identifiers), sides, square_mm (None where unknown), and in
    lesions[name] pixels and, per network, dice (None where it has none).
    """
    rows = np.arange(len(content.store)) if rows is None else np.asarray(rows, int)
    table, stored = content.store.slices.iloc[rows], content.stored_windows
    return {
        "slices": table["slice_id"].tolist(),
        "patients": table["patient_id"].tolist(),
        "sides": content.sides[rows].tolist(),
        "square_mm": _or_none(table["row_mm"] * table["column_mm"]),
        "classes": {f"with {name}": np.flatnonzero(has[rows]).tolist() for name, has in content.classes().items()},
        "lesions": {
            name: {
                "pixels": own.lesion_pixels[rows].tolist(),
                "dice": [_or_none(own.dice(network)[rows]) for network in own.networks],
            }
            for name, own in of_each_lesion(content).items()
        },
        "networks": [{"label": one.label, "colour": one.colour, "gates": one.has_gates} for one in content.networks],
        "windows": [
            {"name": name, "level": own[0], "width": own[1], "stored": stored.index(own) if own in stored else -1}
            for name, own in content.windows()
        ],
        "unit": content.store.unit,
        "hounsfield": content.store.unit == "HU",
        "threshold": THRESHOLD,
        "truth": TRUTH,
        "agreement": AGREEMENT,
        "heat": matplotlib.colormaps["inferno"](np.arange(256), bytes=True)[:, :3].tolist(),
    }


def of_each_lesion(content: Content) -> dict[str, Content]:
    """The content with each of its lesions in question."""
    if len(content.lesions) == 1:
        return {content.lesions[0]: content}
    return {name: content.for_lesion(name) for name in content.lesions}


def slice_bytes(content: Content, row: int) -> tuple[dict, bytes]:
    """(header, bytes) of a slice: its stored pictures, the truth's bits, and each network's probabilities in per cent,
    rounded up, so that p > t is the same question of them for every t in whole per cent."""
    at = content.position(row)
    pictures, truth = content.stored(row), content.store.masks(np.array([row]))[0]
    found = [] if at is None else [network.probabilities[at] for network in content.networks]
    percent = [np.ceil(np.asarray(one, np.float64) * 100).astype(np.uint8) for one in found]
    height, width = truth.shape
    header = {"kind": "slice", "height": height, "width": width, "stored": len(pictures), "networks": len(percent)}
    return header, _packed((pictures, np.packbits(truth), *percent))


def hounsfield_bytes(content: Content, row: int) -> tuple[dict, bytes]:
    """(header, bytes) of a slice in Hounsfield units, int16 little-endian; StudyError as Content.hounsfield."""
    values = content.hounsfield(row)
    header = {"kind": "hounsfield", "height": values.shape[0], "width": values.shape[1]}
    return header, _packed([values.astype("<i2")])


def gate_bytes(content: Content, row: int, network: int) -> tuple[dict, bytes]:
    """(header, bytes) of a network's gate on a slice, 0 to 255."""
    gate = content.networks[network].gate_map(content.store.inputs(np.array([row])))
    header = {"kind": "gate", "height": gate.shape[0], "width": gate.shape[1]}
    return header, _packed([np.rint(gate.clip(0, 1) * 255).astype(np.uint8)])


def _packed(arrays: Iterable[np.ndarray]) -> bytes:
    return zlib.compress(b"".join(np.ascontiguousarray(one).tobytes() for one in arrays), FAST)


def _or_none(values: Iterable[float]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
