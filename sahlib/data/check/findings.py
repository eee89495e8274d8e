"""What the measurements of `check` say: findings, each one sentence that names a thing and the way out.

Each of RULES takes the tables of scans and of slices that `measure` filled and yields findings. The limits below were
set on the phantom, on which nothing but what is true of it may be found, and on damaged copies of it;
`tests/data/check` holds both. They are meant to miss a doubtful case rather than to cry wolf.

Blood is brighter than what lies around it (Kamalian et al., Handb. Clin. Neurol. 135:3-20, 2016), so a mask of
hemorrhage has more contrast to its surroundings where it belongs than where a flip or a quarter turn puts it. None of
120 patients of the phantom is called misfit, nor any of 191 single slices. With the masks turned as listed in TURNS, 28
of 38 patients and more are found, 21 when mirrored left to right, since many bleeds are symmetric; over all patients
together each turn is found and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sahlib.data.check import duplicates
from sahlib.data.check.measures import BITS, LEVELS, SIMILAR, VOXEL_MM
from sahlib.data.grey_window import told, written
from sahlib.data.orientation import AS_STORED, FACE_AT, FACES, TURNS, found
from sahlib.data.scan import ToLookAt
from sahlib.study import WINDOWS, Study

SPOILS, LOOK, INFORM = GRAVITIES = ("will spoil results", "look at this", "for information")

LEAST_PATIENTS = 12  # half of them with SAH: the least that a split by patient leaves a test set of
LEAST_PIXELS = 500  # a smaller mask lies on something bright by chance too often
LEAST_CONTRAST = 0.8  # of the best version of a mask, in robust standard deviations of the tissue
MOST_OF_BEST = 0.3  # the mask as it is must have less than this share of it
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
    scans: pd.DataFrame, slices: pd.DataFrame, unreadable: Sequence[str], remarks: Sequence[str], study: Study
) -> tuple[Finding, ...]:
    """Everything there is to say of the scans and of those that could not be read, gravest first.

    remarks  sentences of the source on how the folder was read and what it left out
    study    tells what is to be segmented, and in which window 8-bit slices were exported
    """
    lesion = study.lesion
    found = [Finding(SPOILS, "unreadable", sentence) for sentence in unreadable]
    found += [Finding(LOOK if isinstance(said, ToLookAt) else INFORM, "reading", said) for said in remarks]
    if len(scans):
        found += positives(slices, "lesion" if lesion == "any" else lesion, "hemorrhage" if lesion == "any" else lesion)
        found += exported(slices, study)
        found += [finding for rule in RULES for finding in rule(scans, slices)]
    elif not unreadable:
        found.append(Finding(SPOILS, "empty", "There is no scan; give the folder that holds them."))
    return tuple(sorted(found, key=lambda finding: GRAVITIES.index(finding.gravity)))


def positives(slices: pd.DataFrame, column: str, what: str) -> Iterator[Finding]:
    """Whether there is enough of each kind to split and to learn from; column: of the pixels to be segmented."""
    sah = slices[column] > 0
    patients, bleeding = slices["patient_id"].nunique(), slices["patient_id"][sah].nunique()
    if not bleeding:
        why = f"No slice is labelled {what}, so there is nothing to learn; check the masks and label_map."
        yield Finding(SPOILS, "positives", why)
    elif patients < LEAST_PATIENTS or bleeding < LEAST_PATIENTS // 2:
        sentence = (
            f"There {'are' if patients > 1 else 'is'} {patients} patient{'s' * (patients > 1)}, {bleeding} with "
            f"{what}; a split by patient needs {LEAST_PATIENTS}, half of them with {what}, and a verdict many more: "
            "add patients, or use these for testing only."
        )
        yield Finding(LOOK, "positives", sentence)
    if sah.all():
        sentence = (
            f"Every slice shows {what}, so false alarms cannot be counted; add slices without it, as a reader of whole "
            "scans meets them."
        )
        yield Finding(LOOK, "positives", sentence)


def copies(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Slices that two patients share, which leak from training into the test set, and those that one holds twice."""
    slices = slices[~slices["blank"]]
    for (a, b, exact), pairs in duplicates.shared(slices).items():
        names = _named([f"{one.slice_id} = {other.slice_id}" for one, other, _ in pairs])
        count = f"{len(pairs)} slice{'s' * (len(pairs) > 1)}"
        if exact:
            masks = ", under different masks" * any(one.labels != other.labels for one, other, _ in pairs)
            sentence = (
                f"Patients {a} and {b} share {count}, byte for byte{masks} ({names}): give both one patient_id, or "
                "remove one, or training slices end up in the test set."
            )
            yield Finding(SPOILS, "duplicates", sentence)
        else:
            sentence = (
                f"Patients {a} and {b} have {count} that look the same ({names}; at most "
                f"{max(bits for *_, bits in pairs)} of {BITS} bits differ): compare them, and give both one patient_id "
                "if they are one person's."
            )
            yield Finding(LOOK, "near duplicates", sentence)

    original = slices.groupby(["content", "patient_id"])["slice_id"].transform("first")
    again = slices[slices["slice_id"] != original]
    names = again["slice_id"] + " (= " + original[again.index] + ")"
    for who, own in names.groupby(again["patient_id"], sort=False):
        sentence = (
            f"Patient {who} holds the same picture more than once: {_named(own)}; remove the copies, which count "
            "double."
        )
        yield Finding(LOOK, "duplicates", sentence)


def orientation(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Masks that lie on blood only when they are mirrored or turned."""
    marked = slices[slices["lesion"] > 0]
    sums = marked.groupby("patient_id", sort=False)[["lesion", *TURNS]].sum()
    turns, common = misfit(sums), misfit(sums.sum().to_frame().T).item()
    # One export turns all masks alike; one patient with a large bleed must not speak for the others.
    if scans["patient_id"].nunique() == 1 or (turns == common).sum() < (sums["lesion"] >= LEAST_PIXELS).sum() / 2:
        common = ""
    if common:
        sentence = (
            f"Over all patients the masks lie on blood only when they are {TURNS[common].words}: export images and "
            "masks the same way round."
        )
        yield Finding(SPOILS, "orientation", sentence)
    for who, turn in turns[~turns.isin(["", common])].items():
        own = marked["slice_id"][marked["patient_id"] == who]
        sentence = (
            f"The masks of patient {who} ({_named(own)}) lie on blood only when they are {TURNS[turn].words}: compare "
            "them with the images and export both the same way round."
        )
        yield Finding(SPOILS, "orientation", sentence)


def misfit(sums: pd.DataFrame) -> pd.Series:
    """What masks need, by name in TURNS, or "" where they fit: of each row with lesion pixels and summed contrasts."""
    contrasts, lesion = sums[list(TURNS)], sums["lesion"]
    best = contrasts.max(axis=1)
    clear = (lesion >= LEAST_PIXELS) & (best >= LEAST_CONTRAST * lesion) & (contrasts[AS_STORED] < MOST_OF_BEST * best)
    return contrasts.idxmax(axis=1).where(clear, "")


def heads(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Heads whose face is not at the top, in all scans of a kind or in one patient's."""
    for unit, own in slices.groupby("unit", sort=False):
        common = found(similar := own[SIMILAR].to_numpy())[0]
        if common not in ("", AS_STORED):
            agree = (similar[~np.isnan(similar[:, 0])].argmax(1) == list(FACES).index(common)).mean()
            way = (
                f"add --set orientation={common}, or {FACES[common]} if left and right are exchanged besides, which no "
                "picture tells."
                if unit == "grey"
                else "their headers say otherwise, so look how they were made."
            )
            yield Finding(LOOK, "heads", f"The heads' faces are {FACE_AT[common]}, by {agree:.0%} of the slices: {way}")
        for who, turn in (
            (who, found(one[SIMILAR].to_numpy())[0]) for who, one in own.groupby("patient_id", sort=False)
        ):
            if turn not in ("", AS_STORED, common):
                why = f"The face of patient {who} is {FACE_AT[turn]}, unlike those of others: export this head again."
                yield Finding(LOOK, "heads", why)


def masks(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Masks that are too large for a hemorrhage or lie beside the head."""
    marked = slices[(slices["lesion"] > 0) & ~slices["blank"]]
    covered = marked["inside"] / marked["head_area"].clip(lower=1)
    beside = (marked["lesion"] - marked["inside"]) / marked["lesion"]
    large = covered > COVERS
    for who, own in marked[large].groupby("patient_id", sort=False):
        share = min(covered[own.index].max(), 1)
        sentence = (
            f"The mask of {_named(own['slice_id'])} (patient {who}) covers up to {share:.0%} of the head: it "
            "may be inverted or outline the brain; export it as black with white lesions."
        )
        yield Finding(SPOILS, "mask too large", sentence)
    for gravity, least, most in ((SPOILS, OUTSIDE_SPOILS, 1), (LOOK, OUTSIDE_LOOK, OUTSIDE_SPOILS)):
        outside = marked[(beside > least) & (beside <= most) & ~large]
        for who, own in outside.groupby("patient_id", sort=False):
            sentence = (
                f"Up to {beside[own.index].max():.0%} of the mask of {_named(own['slice_id'])} (patient {who}) lies "
                "outside the head: check that image and mask belong together, or remove the pair."
            )
            yield Finding(gravity, "mask outside the head", sentence)


def blanks(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Slices that show nothing, but for the first and last of a scan: beyond the head there is air."""
    head = ~slices["blank"]
    inside = head.groupby(slices["stack"]).cummax() & head[::-1].groupby(slices["stack"]).cummax()
    for gravity, marked, but in ((SPOILS, True, ", yet the mask marks a lesion there"), (LOOK, False, "")):
        blank = slices[slices["blank"] & ((slices["lesion"] > 0) == marked) & (inside | marked)]
        for who, own in blank["slice_id"].groupby(blank["patient_id"], sort=False):
            shows = "show" if len(own) > 1 else "shows"
            sentence = f"{_named(own)} (patient {who}) {shows} no head{but}: export again or remove."
            yield Finding(gravity, "blank slices", sentence)


def units(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Scans said to be in Hounsfield units that are not, or whose values a window or a limit cut off."""
    for own in scans[(scans["unit"] == "HU") & (scans["low"] < scans["high"])].itertuples():
        if own.low > AIR_BELOW and own.high > WINDOWED_BELOW:
            sentence = (
                f"{own.scan} has no air, its values go from {own.low} to {own.high}: they look like raw CT numbers; "
                "apply the rescale slope and intercept."
            )
            yield Finding(SPOILS, "units", sentence)
        elif own.high <= WINDOWED_BELOW:
            sentence = (
                f"{own.scan} stops at {own.high} HU and starts at {own.low} HU, where a head has bone and air: a "
                "window was applied to it; export it without one."
            )
            yield Finding(LOOK, "window", sentence)
        elif own.at_high > PILED_UP and own.high < LOWEST_FREE_LIMIT:
            sentence = (
                f"{own.scan} is cut off at {own.high} HU, which leaves brain windows as they are: nothing to do, "
                "unless bone matters to you."
            )
            yield Finding(INFORM, "window", sentence)


def exported(slices: pd.DataFrame, study: Study) -> Iterator[Finding]:
    """8-bit slices of another window than the brain's, or than the one that the Study names or finds."""
    levels = slices.loc[slices["unit"] == "grey", LEVELS].to_numpy()
    windows = told(levels)
    if named := study.grey_window_values:
        settled = told(levels, [named])
    else:
        settled = len(windows) == 1 if study.grey_window else WINDOWS["brain"] in windows
    if windows and not settled:
        ends = " or ".join(f"{level - width / 2:g} to {level + width / 2:g} HU" for level, width in windows)
        sentence = (
            f"By the brain's grey levels the window goes from {ends}: add --set grey_window="
            f"{' or '.join(map(written, windows))} to show these slices in the same window as other scans."
        )
        yield Finding(LOOK, "grey window", sentence)


def clipping(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """8-bit slices whose window was too narrow for blood or brain."""
    for who, own in slices[slices["unit"] == "grey"].groupby("patient_id", sort=False):
        whose = f"patient {who} ({_named(own['slice_id'])})"
        white = own["lesion_white"].sum() / max(own["lesion"].sum(), 1)
        if white > CLIPPED_LESION:
            sentence = (
                f"{white:.0%} of the lesion pixels of {whose} are white (255), as bone is: export with a window that "
                "ends above 80 HU."
            )
            yield Finding(LOOK, "window", sentence)
        clipped = own["cavity_clipped"].sum() / max(own["cavity"].sum(), 1)
        if clipped > CLIPPED_CAVITY:
            sentence = (
                f"{clipped:.0%} of the pixels inside the skull of {whose} are black or white: the window is too "
                "narrow; export with a wider one, such as 0 to 80 HU."
            )
            yield Finding(LOOK, "window", sentence)


def shapes(scans: pd.DataFrame, slices: pd.DataFrame) -> Iterator[Finding]:
    """Voxels of unknown size; slices of several sizes, or not square."""
    unknown = scans[VOXEL_MM].isna().any(axis=1)
    if unknown.any():
        who = scans["patient_id"][unknown].unique()
        whose = "any patient" if unknown.all() else f"patient{'s' * (len(who) > 1)} {_named(who)}"
        sentence = (
            f"Spacing or thickness is not known for {whose}: amounts are in pixels there, and distances in mm and "
            "volumes stay blank; NIfTI and DICOM bring them."
        )
        yield Finding(INFORM, "spacing", sentence)
    sizes = [f"{width}x{height}" for height, width in sorted(set(zip(scans["height"], scans["width"], strict=True)))]
    if len(sizes) > 1:
        sentence = f"Slices come in {len(sizes)} sizes ({_named(sizes)}): all are resized to that of the study."
        yield Finding(INFORM, "sizes", sentence)
    odd = scans["scan"][scans["height"] != scans["width"]]
    if len(odd):
        why = "not square, so resizing would stretch the heads: pad to squares."
        yield Finding(LOOK, "sizes", f"{_named(odd)} {'are' if len(odd) > 1 else 'is'} {why}")


RULES = (copies, orientation, heads, masks, blanks, units, clipping, shapes)


def _named(things: Sequence[str]) -> str:
    """ "a, b, c and 4 more"."""
    rest = len(things) - NAMED
    return ", ".join(list(things)[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
