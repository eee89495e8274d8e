"""The page of `python -m sahlib check`: as text for a terminal and as one HTML file that needs nothing beside it.

    >>> print(write(source, Path("my_check")))

Both are made from an `Examination`. Every value that came from a file is escaped in the HTML.
"""

from __future__ import annotations

import base64
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

import numpy as np

from sahlib.data.check.examine import BRAIN_WINDOW, Contact, Examination, PatientSummary, examine
from sahlib.data.check.findings import GRAVITIES, Finding
from sahlib.data.scan import CLASSES
from sahlib.figures.drawing import CLASS_COLOURS
from sahlib.workspace import writing

TEXT_WIDTH = 100
TEXT_ROWS = 12  # patients, and findings of one kind, that the text page lists; the HTML has all
OPEN_ROWS = 12  # findings of one kind that the HTML shows before a fold
SIGNS = {"will spoil results": "✗", "look at this": "!", "for information": "i"}

STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 900px; padding: 32px 28px 48px; background: #fff; color: #1b1f24;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em }
h2 { font-size: 18px; margin: 36px 0 10px }
p { margin: 0 0 10px } .quiet { color: #57606a; font-size: 13.5px }
dl.numbers { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 20px 0 0 }
dl.numbers div { border: 1px solid #d8dee4; border-radius: 8px; padding: 10px 14px }
dl.numbers dt { color: #57606a; font-size: 13px } dl.numbers dd { margin: 0; font-size: 17px; font-weight: 600 }
dl.numbers dd small { font-size: 13px; font-weight: 400; color: #57606a }
section.gravity { border-left: 4px solid; padding: 2px 0 2px 14px; margin: 14px 0 }
section.gravity h3 { font-size: 15px; margin: 0 0 6px } section.gravity ul { margin: 0; padding: 0; list-style: none }
section.gravity li { margin: 0 0 7px; overflow-wrap: anywhere } section.gravity li b { font-weight: 600 }
section.g0 { border-color: #b42318 } .g0 h3 { color: #b42318 }
section.g1 { border-color: #b25e09 } .g1 h3 { color: #8a4b08 }
section.g2 { border-color: #57606a } .g2 h3 { color: #424a53 }
summary { cursor: pointer; color: #0550ae; margin-bottom: 7px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 5px 9px; border-bottom: 1px solid #e6eaef; white-space: nowrap }
th { font-weight: 600; vertical-align: bottom } thead th { border-bottom: 2px solid #8c959f }
th:first-child { text-align: left } tbody th { font-weight: 400 } tbody tr:nth-child(even) { background: #f6f8fa }
tfoot th, tfoot td { font-weight: 600; border-top: 2px solid #8c959f; border-bottom: 0 }
.key span { display: inline-block; margin-right: 16px; white-space: nowrap }
.key i { display: inline-block; width: 18px; height: 0; border-top: 3px solid; margin-right: 6px;
  vertical-align: middle; outline: 1px solid #1b1f24 }
.sheet { display: grid; grid-template-columns: repeat(5, 1fr); gap: 10px }
figure { margin: 0; min-width: 0 }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #000; border-radius: 4px }
figcaption { font-size: 12px; line-height: 1.35; margin-top: 4px; overflow-wrap: anywhere }
@media (max-width: 640px) { .sheet { grid-template-columns: repeat(2, 1fr) }
  dl.numbers { grid-template-columns: repeat(2, 1fr) } }
@media print { body { padding: 0 } figure, li { break-inside: avoid } }
"""


def write(source, folder: Path, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> str:
    """Examines a source, writes check.html into `folder` (made where missing) and returns the page as text.

    `progress` wraps the iteration over scans, for example tqdm. StudyError where the disk refuses.
    """
    examination = examine(source, progress)
    path = Path(folder) / "check.html"
    with writing(path) as part:
        part.write_text(html(examination), encoding="utf-8", newline="\n")
    return f"{text(examination)}\n\nThe whole page, with pictures: {path}"


def verdict(examination: Examination) -> str:
    """The findings counted, in one sentence."""
    counts = Counter(finding.gravity for finding in examination.findings)
    spoil, look, inform = (counts[gravity] for gravity in GRAVITIES)
    if not spoil and not look:
        return f"Nothing was found that speaks against training; {_things(inform)} for information."
    first = f"{_things(spoil)} will spoil results" if spoil else "Nothing was found that will spoil results"
    return f"{first}, {_things(look)} to look at, {_things(inform)} for information."


def text(examination: Examination) -> str:
    """The page for a terminal of 100 columns; long lists are cut, and say so."""
    rule = "-" * TEXT_WIDTH
    lines = [f"Check of {examination.name}", rule]
    lines += [f"{what:<18}{value}{f'  ({more})' if more else ''}" for what, value, more in _numbers(examination)]
    lines += ["", *textwrap.wrap(verdict(examination), TEXT_WIDTH)]
    for gravity, kinds in _grouped(examination.findings).items():
        lines += ["", f"{SIGNS[gravity]} {gravity.capitalize()}", rule]
        for own in kinds.values():
            for finding in own[:TEXT_ROWS]:
                lines += textwrap.wrap(
                    finding.sentence, TEXT_WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False
                )
            if rest := len(own) - TEXT_ROWS:
                lines += [f"  and {rest} more of this kind, all in check.html"] if rest > 0 else []
    if examination.patients:
        head, *rows, total = _table(examination.patients)
        shown = [head, *rows[:TEXT_ROWS], total]
        widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
        lines += ["", "Patients", rule]
        lines += [
            "  ".join(
                cell.rjust(n) if k else cell.ljust(n) for k, (cell, n) in enumerate(zip(row, widths, strict=True))
            )
            for row in shown
        ]
        if len(rows) > TEXT_ROWS:
            lines.insert(-1, f"... and {len(rows) - TEXT_ROWS} more patients, all in check.html")
    return "\n".join(line.rstrip() for line in lines)


def html(examination: Examination) -> str:
    """The page as one HTML document, pictures and style inside it."""
    numbers = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}{f' <small>{escape(more)}</small>' if more else ''}</dd></div>"
        for what, value, more in _numbers(examination)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Check of {escape(examination.name)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Check of {escape(examination.name)}</h1>
<p class="quiet">What a look at the scans and masks tells before anything is trained.</p>
<dl class="numbers">{numbers}</dl>
<h2>Findings</h2>
<p>{escape(verdict(examination))}</p>
{"".join(_findings_html(gravity, kinds) for gravity, kinds in _grouped(examination.findings).items())}
{_patients_html(examination.patients)}
{_sheet_html(examination)}
</main>
</body>
</html>
"""


def embedded(examination: Examination) -> str:
    """The page within another one: a frame, so that neither takes the other's style."""
    page = escape(html(examination))
    frame = f'<iframe srcdoc="{page}" title="Check of {escape(examination.name)}" width="100%" height="900"></iframe>'
    # IPython warns of an output that begins with a frame.
    return f"<div>{frame}</div>"


def _things(count: int) -> str:
    return f"{count} finding{'s' * (count != 1)}" if count else "no finding"


def _grouped(findings: Iterable[Finding]) -> dict[str, dict[str, list[Finding]]]:
    """gravity -> kind -> findings, in the order they come."""
    groups: dict[str, dict[str, list[Finding]]] = {}
    for finding in findings:
        groups.setdefault(finding.gravity, {}).setdefault(finding.kind, []).append(finding)
    return groups


def _numbers(examination: Examination) -> list[tuple[str, str, str]]:
    """(what, value, a remark or "") of the source as a whole."""
    slices, patients = examination.slices, examination.patients
    positive = sum(patient.sah_slices for patient in patients)
    bleeding = sum(patient.sah_slices > 0 for patient in patients)
    unread = f"{len(examination.unreadable)} more unreadable" if examination.unreadable else ""
    share = f"{positive / len(slices):.0%}" if slices else "none"
    units = {"HU": "HU", "grey": "8-bit grey"}
    sizes = Counter(f"{scan.size[1]}x{scan.size[0]}" for scan in examination.scans)
    size = f"{sizes.most_common(1)[0][0]}{' and others' * (len(sizes) > 1)}" if sizes else "none"
    return [
        ("Patients", f"{len(patients):,}", f"{bleeding} with SAH"),
        ("Scans", f"{len(examination.scans):,}", unread),
        ("Slices", f"{len(slices):,}", ""),
        ("Slices with SAH", share, f"{positive:,} slices"),
        ("Pixel spacing", _range([row for p in patients for row in (p.row_mm, p.column_mm)], 2), ""),
        ("Slice thickness", _range([patient.thickness_mm for patient in patients], 1), ""),
        ("Picture size", size, ""),
        ("Values", " and ".join(units[unit] for unit in sorted({s.unit for s in examination.scans})) or "none", ""),
    ]


def _range(values: list[float], digits: int) -> str:
    """ "0.43 to 0.49 mm"."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "unknown"
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return f"{low} mm" if low == high else f"{low} to {high} mm"


def _table(patients: Iterable[PatientSummary]) -> list[list[str]]:
    """Header, a row per patient, and the sums; classes that no mask holds have no column."""
    patients = list(patients)
    amounts = np.array([patient.amounts for patient in patients])
    present = np.flatnonzero(amounts.any(0))
    units = {patient.in_ml for patient in patients}
    unit = {True: " mL", False: " px"}.get(units.pop(), "") if len(units) == 1 else ""
    head = ["Patient", "Scans", "Slices", "With SAH", "Pixel mm", "Slice mm", *(CLASSES[1 + k] + unit for k in present)]
    rows = [
        [
            patient.patient_id,
            f"{patient.scans}",
            f"{patient.slices}",
            f"{patient.sah_slices}",
            _spacing(patient.row_mm, patient.column_mm),
            f"{patient.thickness_mm:.1f}" if np.isfinite(patient.thickness_mm) else "unknown",
            *(_amount(patient.amounts[k], patient.in_ml, unit) for k in present),
        ]
        for patient in patients
    ]
    sums = [str(sum(getattr(p, field) for p in patients)) for field in ("scans", "slices", "sah_slices")]
    total = [
        "All",
        *sums,
        "",
        "",
        *(_amount(amounts[:, k].sum(), unit == " mL", unit) if unit else "" for k in present),
    ]
    return [head, *rows, total]


def _spacing(row: float, column: float) -> str:
    if not np.isfinite([row, column]).all():
        return "unknown"
    return f"{row:.2f}" if f"{row:.2f}" == f"{column:.2f}" else f"{row:.2f} x {column:.2f}"


def _amount(amount: float, in_ml: bool, unit: str) -> str:
    """An amount in the column's unit, or with its own where the column mixes two."""
    if amount == 0:
        return "0"
    return (f"{amount:.1f}" if in_ml else f"{amount:,.0f}") + ("" if unit else " mL" if in_ml else " px")


def _findings_html(gravity: str, kinds: dict[str, list[Finding]]) -> str:
    def items(findings):
        return "".join(f"<li><b>{escape(f.kind.capitalize())}.</b> {escape(f.sentence)}</li>\n" for f in findings)

    body = ""
    for own in kinds.values():
        body += f"<ul>{items(own[:OPEN_ROWS])}</ul>"
        if rest := own[OPEN_ROWS:]:
            summary = f"{len(rest)} more of this kind: {escape(own[0].kind)}"
            body += f"<details><summary>{summary}</summary><ul>{items(rest)}</ul></details>"
    title = f'<span aria-hidden="true">{SIGNS[gravity]}</span> {gravity.capitalize()}'
    return f'<section class="gravity g{GRAVITIES.index(gravity)}"><h3>{title}</h3>{body}</section>\n'


def _patients_html(patients: tuple[PatientSummary, ...]) -> str:
    if not patients:
        return ""
    head, *rows, total = _table(patients)

    def cells(row, tag="td"):
        first = "".join(f'<th scope="row">{escape(cell)}</th>' for cell in row[:1])
        return first + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row[1:])

    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(f"<tr>{cells(row)}</tr>\n" for row in rows)
    without = any(not patient.in_ml for patient in patients)
    note = '<p class="quiet">Amounts are in pixels (px) where spacing or thickness is not known.</p>' if without else ""
    return (
        f'<h2>Patients</h2>{note}<div class="wide"><table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody>\n'
        f"<tfoot><tr>{cells(total)}</tr></tfoot></table></div>"
    )


def _sheet_html(examination: Examination) -> str:
    contacts, patients = examination.contacts, examination.patients
    if not contacts:
        return ""
    present = [k for k in range(1, len(CLASSES)) if any((contact.labels == k).any() for contact in contacts)]
    key = "".join(f'<span><i style="border-color:{CLASS_COLOURS[CLASSES[k]]}"></i>{CLASSES[k]}</span>' for k in present)
    level, width = BRAIN_WINDOW
    window = f", in a window of {level - width // 2} to {level + width // 2} HU"
    note = (
        f"The middle slice with a lesion of each patient, or the middle one where there is none"
        f"{window * any(scan.unit == 'HU' for scan in examination.scans)}; masks outlined."
    )
    if len(contacts) < len(patients):
        note += f" {len(contacts)} of {len(patients)} patients, those with a lesion first."
    figures = "".join(_contact_html(contact) for contact in contacts)
    return f"""<h2>Contact sheet</h2><p class="quiet">{note}</p>
<p class="key">{key}</p><div class="sheet">{figures}</div>"""


def _contact_html(contact: Contact) -> str:
    shown = [CLASSES[k] for k in range(1, len(CLASSES)) if (contact.labels == k).any()]
    what = f"{', '.join(shown)} outlined" if shown else "no lesion"
    alt = escape(f"CT slice {contact.slice_id} of patient {contact.patient_id}, {what}", quote=True)
    data = base64.b64encode(outlined_png(contact)).decode()
    caption = f"<b>{escape(contact.patient_id)}</b><br>{escape(contact.slice_id)}{'' if shown else ', no lesion'}"
    return f'<figure><img src="data:image/png;base64,{data}" alt="{alt}"><figcaption>{caption}</figcaption></figure>\n'


def outlined_png(contact: Contact) -> bytes:
    """A contact as PNG, each class outlined in its colour just outside the mask."""
    import cv2

    scale = max(1, round(256 / max(contact.grey.shape)))  # a thin line on a small picture would hide it
    size = tuple(n * scale for n in contact.grey.shape[::-1])
    grey = cv2.resize(contact.grey, size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(contact.labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    for k, name in enumerate(CLASSES[1:], 1):
        mask = (labels == k).astype(np.uint8)
        edge = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask
        picture[edge] = [int(CLASS_COLOURS[name][i : i + 2], 16) for i in (5, 3, 1)]
    return cv2.imencode(".png", picture)[1].tobytes()
