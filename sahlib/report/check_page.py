"""The page of `python -m sahlib check`: as text for a terminal and as one HTML file that needs nothing beside it.

    >>> print(write(source, Path("my_check")))

Both are made from an `Examination`, by a template each. Every value that came from a file is escaped in the HTML.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from sahlib.data.check.examine import Contact, Examination
from sahlib.data.check.findings import GRAVITIES, Finding
from sahlib.data.check.measures import LEVELS, SIMILAR, VOXEL_MM
from sahlib.data.grey_window import told, written
from sahlib.data.orientation import FACE_AT, FACES, found
from sahlib.data.scan import CLASSES
from sahlib.figures.drawing import CLASS_COLOURS, save_text
from sahlib.report.rendering import ENVIRONMENT, millimetres
from sahlib.study import WINDOWS

TEXT_WIDTH = 100
ROWS = 12  # patients that the text lists
ALIKE = 3  # findings in the same words that the text lists and the HTML shows before a fold
NAME = re.compile(r"(?<=[Pp]atient )\S+|\S*[/\d]\S*")  # of whom or of what a finding speaks, and its numbers
SIGNS = dict(zip(GRAVITIES, "✗!i", strict=True))


def write(examination: Examination, folder: Path) -> str:
    """Writes check.html into `folder` (made where missing) and returns the page as text; StudyError where the disk
    refuses.
    """
    path = save_text(Path(folder) / "check.html", html(examination))
    return f"{text(examination)}\n\nThe whole page, with pictures: {path}"


def text(examination: Examination) -> str:
    """The page for a terminal of 100 columns; long lists are cut, and say so."""
    return "\n".join(line.rstrip() for line in _render("check.txt.j2", examination).splitlines())


def html(examination: Examination) -> str:
    """The page as one HTML document, pictures and style inside it."""
    contacts = [
        (contact, [CLASSES[k] for k in np.unique(contact.labels) if k], png(outlined(contact)))
        for contact in examination.contacts
    ]
    level, width = WINDOWS["brain"]
    window = f"{level - width / 2:.0f} to {level + width / 2:.0f} HU"
    return _render("check.html.j2", examination, contacts=contacts, colours=CLASS_COLOURS, window=window)


def embedded(examination: Examination) -> str:
    """The page within another one: a frame, so that neither takes the other's style."""
    page, name = escape(html(examination)), escape(examination.name)
    # In a <div>, for IPython warns of an output that begins with a frame.
    return f'<div><iframe srcdoc="{page}" title="Check of {name}" width="100%" height="900"></iframe></div>'


def _render(template: str, examination: Examination, **more) -> str:
    """A template filled with what both pages tell."""
    groups: dict[str, dict[str, list[Finding]]] = {gravity: {} for gravity in GRAVITIES}
    for finding in examination.findings:
        groups[finding.gravity].setdefault(NAME.sub("", finding.sentence), []).append(finding)
    table = _table(examination.patients) if len(examination.patients) else []
    return ENVIRONMENT.get_template(template).render(
        examination=examination,
        numbers=_numbers(examination),
        verdict=verdict(examination),
        groups=groups,
        signs=SIGNS,
        table=table,
        widths=[max(map(len, column)) for column in zip(*table, strict=True)],
        rows=ROWS,
        alike=ALIKE,
        width=TEXT_WIDTH,
        **more,
    )


def verdict(examination: Examination) -> str:
    """The findings counted, in one sentence."""
    counts = [sum(finding.gravity == gravity for finding in examination.findings) for gravity in GRAVITIES]
    spoil, look, inform = (f"{count or 'no'} finding{'s' * (count > 1)}" for count in counts)
    if not any(counts[:2]):
        return f"Nothing was found that speaks against training; {inform} for information."
    first = f"{spoil} will spoil results" if counts[0] else "Nothing was found that will spoil results"
    return f"{first}, {look} to look at, {inform} for information."


def _numbers(examination: Examination) -> list[tuple[str, str, str]]:
    """(what, value, a remark or "") of the source as a whole."""
    scans, patients, unread = examination.scans, examination.patients, len(examination.unreadable)
    remark = f"{unread} more unreadable" if unread else ""
    if scans.empty:
        return [("Scans", "none", remark)]
    sah, sizes = patients["sah_slices"], (scans["width"].astype(str) + "x" + scans["height"].astype(str)).value_counts()
    units = sorted({{"HU": "HU", "grey": "8-bit grey"}[unit] for unit in scans["unit"]}, reverse=True)
    return [
        ("Patients", f"{len(patients):,}", f"{(sah > 0).sum()} with SAH"),
        ("Scans", f"{len(scans):,}", remark),
        ("Slices", f"{patients['slices'].sum():,}", ""),
        ("Slices with SAH", f"{sah.sum() / patients['slices'].sum():.0%}", f"{sah.sum():,} slices"),
        ("Pixel spacing", millimetres(patients[VOXEL_MM[:2]], 2), ""),
        ("Slice thickness", millimetres(patients[VOXEL_MM[2:]], 1), ""),
        ("Picture size", sizes.index[0] + " and others" * (len(sizes) > 1), ""),
        ("Values", " and ".join(units), _window(examination.slices)),
        ("Faces", *_faces(examination.slices[SIMILAR].dropna().to_numpy())),
    ]


def _window(slices: pd.DataFrame) -> str:
    """The window that grey levels look like, in words; "" for Hounsfield units."""
    grey = slices[slices["unit"] == "grey"]
    if grey.empty:
        return ""
    windows = told(grey[LEVELS].to_numpy())
    return f"window {' or '.join(map(written, windows))}" if windows else "of an unknown window"


def _faces(similar: np.ndarray) -> tuple[str, str]:
    """Where the heads' faces are in the pictures, and by how many slices that is told."""
    turn = found(similar)[0]
    if not turn:
        return "in doubt", ""
    return FACE_AT[turn], f"by {(similar.argmax(axis=1) == list(FACES).index(turn)).sum():,} of {len(similar):,} slices"


def _mm(values: Iterable[float], digits: int) -> str:
    """ "0.43 x 0.49", or "0.43" where they are rounded to the same."""
    if pd.isna(values).any():
        return "unknown"
    return " x ".join(dict.fromkeys(f"{value:.{digits}f}" for value in values))


def _table(patients: pd.DataFrame) -> list[list[str]]:
    """Header, a row per patient, and the sums; classes that no mask holds have no column."""
    counts, lesions = ["scans", "slices", "sah_slices"], [name for name in CLASSES[1:] if patients[name].any()]
    unit = " mL" if patients["in_ml"].all() else "" if patients["in_ml"].any() else " px"
    rows = [["Patient", "Scans", "Slices", "With SAH", "Pixel mm", "Slice mm", *(name + unit for name in lesions)]]
    for who, own in patients.iterrows():
        spacing = [_mm(own[VOXEL_MM[:2]], 2), _mm(own[VOXEL_MM[2:]], 1)]
        rows.append([who, *own[counts], *spacing, *(_amount(own[name], own["in_ml"], unit) for name in lesions)])
    sums = [_amount(patients[name].sum(), unit == " mL", unit) if unit else "" for name in lesions]
    rows.append(["All", *patients[counts].sum(), "", "", *sums])
    return [[str(cell) for cell in row] for row in rows]


def _amount(amount: float, in_ml: bool, unit: str) -> str:
    """An amount in the column's unit, or with its own where the column mixes two."""
    own = "" if unit else " mL" if in_ml else " px"
    return f"{amount:,.{int(in_ml)}f}{own}" if amount else "0"


def outlined(contact: Contact) -> np.ndarray:
    """A contact as OpenCV has colours, uint8 [h,w,3], each class outlined in its own just outside the mask."""
    picture = cv2.cvtColor(contact.grey, cv2.COLOR_GRAY2BGR)
    for k, name in enumerate(CLASSES[1:], 1):
        mask = (contact.labels == k).astype(np.uint8)
        edge = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask
        picture[edge] = [int(CLASS_COLOURS[name][i : i + 2], 16) for i in (5, 3, 1)]
    return picture


def png(picture: np.ndarray) -> str:
    """A picture as PNG in base64."""
    return b64encode(cv2.imencode(".png", picture)[1]).decode()
