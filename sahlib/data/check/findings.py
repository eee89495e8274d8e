"""What the measurements of `check` say: findings, each one sentence that names a thing and the way out.

The limits below were set on the phantom, on which nothing but what is true of it may be found, and on damaged copies of
it; `tests/test_check.py` holds both. They are meant to miss a doubtful case rather than to cry wolf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sahlib.data.check import fit
from sahlib.data.check.duplicates import BITS, Copies, exact_copies, near_copies
from sahlib.data.check.measures import ScanMeasures, SliceMeasures
from sahlib.data.scan import SAH

SPOILS, LOOK, INFORM = GRAVITIES = ("will spoil results", "look at this", "for information")

LEAST_PATIENTS = 12  # half of them with SAH: the least that a split by patient leaves a test set of
OUTSIDE_SPOILS, OUTSIDE_LOOK = 0.5, 0.1  # share of a mask outside the head
COVERS = 0.4  # share of the head that no hemorrhage covers on a slice
WINDOWED_BELOW = 300  # HU: every head has bone above it
AIR_BELOW = -200  # HU: every scan has air below it
PILED_UP = 1e-4  # share of voxels at the highest value above which it is a limit rather than a maximum
LOWEST_FREE_LIMIT = 2000  # HU: what is cut off above touches teeth and metal only
CLIPPED_CAVITY = 0.2  # share of black and white pixels inside the skull
CLIPPED_LESION = 0.3  # share of white pixels inside the masks
NAMED = 3  # things a sentence names before it counts the rest


@dataclass(frozen=True)
class Finding:
    """One sentence that names a file, slice or patient and the way out; gravity is one of GRAVITIES."""

    gravity: str
    kind: str
    sentence: str


def findings(
    by_patient: dict[str, list[ScanMeasures]], unreadable: list[str], remarks: tuple[str, ...] = ()
) -> tuple[Finding, ...]:
    """Everything there is to say of the patients' scans and of those that could not be read, gravest first.

    remarks  sentences of the source on what it left out of the folder
    """
    found = [Finding(SPOILS, "unreadable", sentence) for sentence in unreadable]
    found += [Finding(INFORM, "left out", sentence) for sentence in remarks]
    if by_patient:
        for look in (_positives, _copies, _orientation, _masks, _blank, _units, _clipping, _spacing):
            found += look(by_patient)
    elif not unreadable:
        found.append(Finding(SPOILS, "empty", "There is no scan; give the folder that holds them."))
    return tuple(sorted(found, key=lambda finding: GRAVITIES.index(finding.gravity)))


def named(things: list[str], noun: str = "more") -> str:
    """ "a, b, c and 4 more"."""
    first, rest = things[:NAMED], len(things) - NAMED
    return ", ".join(first) + (f" and {rest} {noun}" if rest > 0 else "")


def _slices(scans: list[ScanMeasures]) -> list[SliceMeasures]:
    return [own for scan in scans for own in scan.slices]


def _positives(by_patient) -> Iterator[Finding]:
    positive = {who: sum(s.pixels[SAH] > 0 for s in _slices(scans)) for who, scans in by_patient.items()}
    bleeding = sum(count > 0 for count in positive.values())
    if not bleeding:
        yield Finding(
            SPOILS,
            "positives",
            "No slice is labelled SAH, so there is nothing to learn; check the masks and label_map.",
        )
    elif len(by_patient) < LEAST_PATIENTS or bleeding < LEAST_PATIENTS // 2:
        yield Finding(
            LOOK,
            "positives",
            f"There are {len(by_patient)} patients, {bleeding} with SAH; a split by patient needs {LEAST_PATIENTS}, "
            "half of them with SAH, and a verdict many more: add patients, or use these for testing only.",
        )
    if bleeding and sum(positive.values()) == sum(len(_slices(scans)) for scans in by_patient.values()):
        yield Finding(
            LOOK,
            "positives",
            "Every slice shows SAH, so false alarms cannot be counted; add slices without it, as a reader of whole "
            "scans meets them.",
        )


def _copies(by_patient) -> Iterator[Finding]:
    names = list(by_patient)
    owners = [(number, s) for number, scans in enumerate(by_patient.values()) for s in _slices(scans) if not s.blank]
    patients, slices = np.array([number for number, _ in owners], int), [s for _, s in owners]
    exact = exact_copies([s.content for s in slices], patients)
    taken = {position for copies in exact for pair in copies.pairs for position in pair}
    bits = [None if position in taken else s.bits for position, s in enumerate(slices)]
    for copies in exact + near_copies(bits, patients):
        yield _copied(copies, names, slices)
    for who, scans in by_patient.items():
        seen: dict[bytes, str] = {}
        twice = []
        for s in _slices(scans):
            if not s.blank and seen.setdefault(s.content, s.slice_id) != s.slice_id:
                twice.append(f"{s.slice_id} (= {seen[s.content]})")
        if twice:
            yield Finding(
                LOOK,
                "duplicates",
                f"Patient {who} holds the same picture more than once: {named(twice)}; remove the copies, which count "
                "double.",
            )


def _copied(copies: Copies, names: list[str], slices: list[SliceMeasures]) -> Finding:
    a, b = (names[patient] for patient in copies.patients)
    pairs = [f"{slices[i].slice_id} = {slices[j].slice_id}" for i, j in copies.pairs]
    if copies.exact:
        other = any(slices[i].labels != slices[j].labels for i, j in copies.pairs)
        return Finding(
            SPOILS,
            "duplicates",
            f"Patients {a} and {b} share {_counted(pairs, 'slice')}, byte for byte{', under different masks' * other} "
            f"({named(pairs)}): give both one patient_id, or remove one, or training slices end up in the test set.",
        )
    return Finding(
        LOOK,
        "near duplicates",
        f"Patients {a} and {b} have {_counted(pairs, 'slice')} that look the same ({named(pairs)}; at most "
        f"{copies.bits} of {BITS} bits differ): compare them, and give both one patient_id if they are one person's.",
    )


def _orientation(by_patient) -> Iterator[Finding]:
    sums = {who: sum(scan.contrasts for scan in scans) for who, scans in by_patient.items()}
    pixels = {who: sum(s.lesion for s in _slices(scans)) for who, scans in by_patient.items()}
    turns = {who: turn for who in by_patient if (turn := fit.misfit(sums[who], pixels[who]))}
    large_enough = sum(count >= fit.LEAST_PIXELS for count in pixels.values())
    common = fit.misfit(sum(sums.values()), sum(pixels.values()))
    # One export turns all masks alike; one patient with a large bleed must not speak for the others.
    if common and len(by_patient) > 1 and list(turns.values()).count(common) >= large_enough / 2:
        yield Finding(
            SPOILS,
            "orientation",
            f"Over all patients the masks lie on blood only when they are {common}: export images and masks the same "
            "way round.",
        )
        turns = {who: turn for who, turn in turns.items() if turn != common}
    for who, turn in turns.items():
        marked = [s.slice_id for s in _slices(by_patient[who]) if s.lesion]
        yield Finding(
            SPOILS,
            "orientation",
            f"The masks of patient {who} ({named(marked)}) lie on blood only when they are {turn}: compare them with "
            "the images and export both the same way round.",
        )


def _masks(by_patient) -> Iterator[Finding]:
    for who, scans in by_patient.items():
        marked = [s for s in _slices(scans) if s.lesion and not s.blank]
        covering = [s for s in marked if s.lesion - s.outside > COVERS * s.head > 0]
        if covering:
            share = min(max((s.lesion - s.outside) / s.head for s in covering), 1)
            yield Finding(
                SPOILS,
                "mask too large",
                f"The mask of {named([s.slice_id for s in covering])} (patient {who}) covers up to {share:.0%} of the "
                "head: it may be inverted or outline the brain; export it as black with white lesions.",
            )
        for gravity, least, most in ((SPOILS, OUTSIDE_SPOILS, 1.0), (LOOK, OUTSIDE_LOOK, OUTSIDE_SPOILS)):
            outside = [s for s in marked if least < s.outside / s.lesion <= most and s not in covering]
            if outside:
                share = max(s.outside / s.lesion for s in outside)
                yield Finding(
                    gravity,
                    "mask outside the head",
                    f"Up to {share:.0%} of the mask of {named([s.slice_id for s in outside])} (patient {who}) lies "
                    "outside the head: check that image and mask belong together, or remove the pair.",
                )


def _blank(by_patient) -> Iterator[Finding]:
    for who, scans in by_patient.items():
        for gravity, kind in ((SPOILS, True), (LOOK, False)):
            blank = [s.slice_id for s in _slices(scans) if s.blank and bool(s.lesion) == kind]
            if blank:
                but = ", yet the mask marks a lesion there" if kind else ""
                yield Finding(
                    gravity,
                    "blank slices",
                    f"{named(blank)} (patient {who}) {_verb(blank)} no head{but}: export again or remove.",
                )


def _units(by_patient) -> Iterator[Finding]:
    for scans in by_patient.values():
        for scan in scans:
            if scan.unit != "HU" or scan.low == scan.high:
                continue
            if scan.low > AIR_BELOW and scan.high > WINDOWED_BELOW:
                yield Finding(
                    SPOILS,
                    "units",
                    f"{_scan(scan)} has no air, its values go from {scan.low} to {scan.high}: they look "
                    "like raw CT numbers; apply the rescale slope and intercept.",
                )
            elif scan.high <= WINDOWED_BELOW:
                yield Finding(
                    LOOK,
                    "window",
                    f"{_scan(scan)} stops at {scan.high} HU and starts at {scan.low} HU, where a head "
                    "has bone and air: a window was applied to it; export it without one.",
                )
            elif scan.at_high > PILED_UP and scan.high < LOWEST_FREE_LIMIT:
                yield Finding(
                    INFORM,
                    "window",
                    f"{_scan(scan)} is cut off at {scan.high} HU, which leaves brain windows as they "
                    "are: nothing to do, unless bone matters to you.",
                )


def _clipping(by_patient) -> Iterator[Finding]:
    for who, scans in by_patient.items():
        slices = [s for scan in scans if scan.unit == "grey" for s in scan.slices]
        lesion, white = sum(s.lesion for s in slices), sum(s.lesion_white for s in slices)
        cavity = sum(s.cavity for s in slices)
        clipped = sum(s.cavity_black + s.cavity_white for s in slices)
        if lesion and white > CLIPPED_LESION * lesion:
            yield Finding(
                LOOK,
                "window",
                f"{white / lesion:.0%} of the lesion pixels of patient {who} ({named([s.slice_id for s in slices])}) "
                "are white (255), as bone is: export with a window that ends above 80 HU.",
            )
        if clipped > CLIPPED_CAVITY * max(cavity, 1):
            yield Finding(
                LOOK,
                "window",
                f"{clipped / cavity:.0%} of the pixels inside the skull of patient {who} "
                f"({named([s.slice_id for s in slices])}) are black or white: the window is too narrow; export with a "
                "wider one, such as 0 to 80 HU.",
            )


def _spacing(by_patient) -> Iterator[Finding]:
    scans = [(who, scan) for who, own in by_patient.items() for scan in own]
    unknown = [who for who, scan in scans if not np.isfinite([scan.row_mm, scan.column_mm, scan.thickness_mm]).all()]
    if unknown:
        patients = list(dict.fromkeys(unknown))
        whose = f"patient{'s' * (len(patients) > 1)} {named(patients)}" if len(unknown) < len(scans) else "any patient"
        yield Finding(
            INFORM,
            "spacing",
            f"Spacing or thickness is not known for {whose}: amounts are in pixels there, and distances in mm and "
            "volumes stay blank; NIfTI and DICOM bring them.",
        )
    sizes = sorted({scan.size for _, scan in scans})
    if len(sizes) > 1:
        yield Finding(
            INFORM,
            "sizes",
            f"Slices come in {len(sizes)} sizes ({named([f'{w}x{h}' for h, w in sizes])}): all are resized to that of "
            "the study.",
        )
    if odd := [scan for _, scan in scans if scan.size[0] != scan.size[1]]:
        yield Finding(
            LOOK,
            "sizes",
            f"{_scan(odd[0])} and {len(odd) - 1} more scans are not square, so resizing would stretch the heads: pad "
            "them to squares.",
        )


def _scan(scan: ScanMeasures) -> str:
    return f"{scan.files} (patient {scan.patient_id})" if scan.files else f"The scan of patient {scan.patient_id}"


def _counted(things: list[str], noun: str) -> str:
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


def _verb(things: list[str]) -> str:
    return "shows" if len(things) == 1 else "show"
