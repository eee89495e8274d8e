"""What `check` finds in damaged copies of the phantom, and that it finds nothing in the phantom itself."""

import dataclasses
import re
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import pytest

from sahlib.data.check import examine, measures
from sahlib.data.check.duplicates import NEAR_BITS, near_copies
from sahlib.data.check.findings import INFORM, LEAST_PIXELS, LOOK, SPOILS, misfit
from sahlib.data.orientation import AS_STORED, TURNS
from sahlib.data.scan import CLASSES, Scan
from sahlib.data.slices import window_to_grey
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.study import Study, StudyError

PATIENTS = 6


@dataclass(frozen=True)
class Listed:
    """A source of scans that are at hand; an error in their place is raised."""

    scans: tuple
    name: str = "listed"

    def __len__(self):
        return len(self.scans)

    def scan(self, index):
        if isinstance(self.scans[index], Exception):
            raise self.scans[index]
        return self.scans[index]


@pytest.fixture(scope="module")
def scans():
    """Every second slice of the first phantom patients, in Hounsfield units."""
    return [part(scan, slice(None, None, 2)) for scan in map(Phantom(PATIENTS, 0).scan, range(PATIENTS))]


@pytest.fixture(scope="module")
def bleeding(scans):
    """The patients with the most SAH, most first."""
    return sorted(scans, key=lambda scan: -(scan.labels == 1).sum())[:3]


def part(scan, which, **changes):
    return dataclasses.replace(
        scan, image=scan.image[which], labels=scan.labels[which], slice_ids=scan.slice_ids[which], **changes
    )


def as_grey(scan, level=40, width=80):
    return dataclasses.replace(scan, image=window_to_grey(scan.image, level, width), unit="grey")


def renamed(scan, patient, image=None):
    return dataclasses.replace(
        scan,
        patient_id=patient,
        image=scan.image if image is None else image,
        slice_ids=tuple(f"{patient}_{z}" for z in range(len(scan.image))),
    )


def found(*scans):
    """(gravity, kind) -> sentences, without what is always said of a few scans."""
    groups = {}
    for finding in examine.examine(Listed(scans)).findings:
        if finding.kind != "positives":
            groups.setdefault((finding.gravity, finding.kind), []).append(finding.sentence)
    return groups


def test_nothing_is_found_in_the_phantom(scans):
    assert found(*scans) == {}


def test_nothing_is_found_in_the_phantom_as_eight_bit_pictures_but_that_their_spacing_is_unknown(scans):
    unknown = {"spacing_mm": (float("nan"),) * 2, "thickness_mm": float("nan")}
    greys = [dataclasses.replace(as_grey(scan), **unknown) for scan in scans]
    assert list(found(*greys)) == [(INFORM, "spacing")]


def test_amounts_are_millilitres_by_hand_and_pixels_where_the_spacing_is_unknown():
    labels = np.zeros((2, 64, 64), np.uint8)
    labels[0, :10, :10], labels[1, :5, :10] = 1, 2
    image = np.tile(np.arange(64, dtype=np.int16), (2, 64, 1))
    known = Scan("a", image, labels, ("a0", "a1"), "HU", (0.5, 0.4), 5.0)
    unknown = Scan("b", image, labels, ("b0", "b1"), "HU", (0.5, 0.4))
    patients = examine.examine(Listed((known, unknown))).patients
    a, b = patients.loc["a"], patients.loc["b"]
    assert a["in_ml"] and a["sah_slices"] == 1 and (a["scans"], a["slices"]) == (1, 2)
    assert a[list(CLASSES[1:])].tolist() == pytest.approx([0.1, 0.05, 0, 0, 0])
    assert not b["in_ml"] and b[list(CLASSES[1:])].tolist() == [100, 50, 0, 0, 0]


def test_one_bad_scan_is_named_and_the_others_are_still_looked_at(scans):
    bad = [StudyError("x.nii is truncated; copy it again."), StudyError("y.nii is truncated; copy it again.")]
    examination = examine.examine(Listed((bad[0], *scans[:2], bad[1])))
    assert [f.sentence for f in examination.findings if f.kind == "unreadable"] == [str(error) for error in bad]
    assert examination.findings[0].gravity == SPOILS
    assert len(examination.scans) == 2


def test_a_source_whose_every_scan_is_bad_still_gives_an_examination():
    examination = examine.examine(Listed((StudyError("x is bad; remove it."),)))
    assert [f.kind for f in examination.findings] == ["unreadable"]
    assert [f.kind for f in examine.examine(Listed(())).findings] == ["empty"]


# Duplicates


def test_a_slice_of_two_patients_is_found_and_whether_its_masks_differ(scans):
    copy = renamed(part(scans[1], slice(4, 6)), "copy")
    (sentence,) = found(*scans, copy)[SPOILS, "duplicates"]
    assert "share 2 slices, byte for byte (P0001_z08 = copy_0, P0001_z10 = copy_1)" in sentence
    other = dataclasses.replace(copy, labels=np.roll(copy.labels, 40, 1) | (np.indices(copy.labels.shape)[1] == 128))
    assert "under different masks" in found(*scans, other)[SPOILS, "duplicates"][0]


def jpeg(grey, quality):
    return cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


COPIES = {
    "jpeg 90": lambda grey: jpeg(grey, 90),
    "jpeg 50": lambda grey: jpeg(grey, 50),
    "brightened": lambda grey: cv2.convertScaleAbs(grey, alpha=1.05, beta=8),
    "shifted right": lambda grey: np.roll(grey, 1, 1),
    "shifted down": lambda grey: np.roll(grey, 1, 0),
    "halved": lambda grey: cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
}


def hashes(images):
    return [measures.perceptual_hash(grey, measures.head_region(grey, "grey")) for grey in images]


@pytest.fixture(scope="module")
def greys(scans):
    return [as_grey(scan) for scan in scans]


@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_differ_in_fewer_bits_than_the_limit(greys, change):
    """All but a few of the shifted ones: 2 in 100 over 40 patients, more in one of these."""
    bits = []
    for grey in greys:
        originals, copies = hashes(grey.image), hashes([COPIES[change](own) for own in grey.image])
        pairs = zip(originals, copies, strict=True)
        bits += [(int.from_bytes(one) ^ int.from_bytes(copy)).bit_count() for one, copy in pairs if one and copy]
    assert len(bits) > 60
    assert np.mean(np.array(bits) <= NEAR_BITS) > (0.9 if "shifted" in change else 0.999)


def test_slices_of_different_patients_differ_in_more_bits_than_the_limit(greys):
    """Although all have one atlas brain; neighbours in one patient are nearer."""
    owned = [(grey.patient_id, bits) for grey in greys for bits in hashes(grey.image) if bits]
    patients, known = zip(*owned, strict=True)
    assert near_copies(known, patients) == []
    assert near_copies(known, patients, limit=190) == []
    assert near_copies(known, range(len(known)), limit=190) != []


def test_a_changed_copy_among_the_patients_is_found_and_named(greys):
    copy = renamed(greys[3], "copy", np.stack([COPIES["jpeg 50"](own) for own in greys[3].image]))
    (sentence,) = found(*greys, copy)[LOOK, "near duplicates"]
    assert re.match(r"Patients P0003 and copy have 1\d slices that look the same \(P0003_z00 = copy_0, ", sentence)


def test_a_picture_twice_in_one_patient_is_found_but_likeness_there_is_not(scans):
    twice = dataclasses.replace(scans[2], image=scans[2].image.copy())
    twice.image[5] = twice.image[4]
    (sentence,) = found(twice)[LOOK, "duplicates"]
    assert "P0002_z10 (= P0002_z08)" in sentence


# Masks


TURNED = [name for name in TURNS if name != AS_STORED]
UNDOES = {"rot90": "rot270", "rot270": "rot90"}  # what brings a mask back that was turned so


def turned(scan, name):
    return dataclasses.replace(scan, labels=TURNS[name].of(scan.labels))


@pytest.mark.parametrize("name", TURNED)
def test_masks_the_wrong_way_round_in_all_patients_are_found(greys, name):
    sentences = found(*(turned(grey, name) for grey in greys))[SPOILS, "orientation"]
    words = TURNS[UNDOES.get(name, name)].words
    assert f"Over all patients the masks lie on blood only when they are {words}:" in sentences[0]


def test_masks_the_wrong_way_round_in_one_patient_are_found_and_named(scans):
    sentences = found(turned(scans[0], "rot180"), *scans[1:])[SPOILS, "orientation"]
    assert len(sentences) == 1
    assert sentences[0].startswith("The masks of patient P0000 (P0000_z")
    assert "turned by 180 degrees" in sentences[0]


def test_a_mirrored_image_is_found_where_the_bleed_is_on_one_side(scans):
    mirrored = dataclasses.replace(scans[0], image=scans[0].image[:, :, ::-1])
    assert "mirrored left to right" in found(mirrored, *scans[1:])[SPOILS, "orientation"][0]


def test_small_masks_and_masks_of_nothing_bright_say_nothing_of_orientation():
    random = np.random.default_rng(0)
    grey = random.integers(60, 120, (64, 64)).astype(np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:20, 40:50] = True
    grey[mask[:, ::-1]] += 80
    sums = measures.contrasts(grey, np.ones_like(mask), mask)

    def turn(sums, lesion):
        return misfit(pd.DataFrame([{"lesion": lesion, **dict(zip(TURNS, sums, strict=True))}])).item()

    assert turn(sums, LEAST_PIXELS - 1) == ""
    assert turn(sums * 10, 10 * int(mask.sum())) == "mirrored"
    assert turn(np.zeros(8), 10_000) == ""


def test_only_turns_that_fit_are_tried_where_height_is_not_width():
    grey = np.random.default_rng(0).integers(60, 120, (40, 64)).astype(np.uint8)
    mask = np.zeros((40, 64), bool)
    mask[5:15, 5:15] = True
    assert (measures.contrasts(grey, np.ones_like(mask), mask)[4:] == 0).all()


def test_masks_outside_the_head_and_inverted_masks_are_named(scans, bleeding):
    outside = dataclasses.replace(bleeding[0], labels=np.zeros_like(bleeding[0].labels))
    outside.labels[3, :15, :15] = 1
    (sentence,) = found(outside, *scans[1:3])[SPOILS, "mask outside the head"]
    assert outside.slice_ids[3] in sentence and "100%" in sentence
    half = dataclasses.replace(bleeding[0], labels=bleeding[0].labels.copy())
    z = int((half.labels > 0).sum((1, 2)).argmax())
    side = int(np.sqrt((half.labels[z] > 0).sum() / 3))
    half.labels[z, :side, :side] = 1  # a quarter of the mask then
    assert half.slice_ids[z] in found(half)[LOOK, "mask outside the head"][0]
    inverted = dataclasses.replace(bleeding[1], labels=(bleeding[1].labels == 0).astype(np.uint8))
    groups = found(inverted)
    assert "it may be inverted" in groups[SPOILS, "mask too large"][0]
    assert (SPOILS, "mask outside the head") not in groups


def test_the_head_is_filled_and_leaves_out_the_table():
    image = np.full((128, 128), -1000, np.int16)
    drawn = cv2.circle(image.copy(), (64, 60), 40, 800, 4)
    cv2.rectangle(drawn, (20, 115), (108, 118), 200, -1)
    head = measures.head_region(drawn, "HU")
    assert head[60, 64] and not head[116, 64] and not head[60, 5]
    assert head.sum() == pytest.approx(np.pi * 42**2, rel=0.03)
    assert not measures.head_region(image, "HU").any()


def both_turned(scan, name):
    return dataclasses.replace(scan, image=TURNS[name].of(scan.image), labels=TURNS[name].of(scan.labels))


def test_heads_that_lie_on_their_side_are_told_with_the_option_that_turns_them(greys):
    (sentence,) = found(*(both_turned(grey, "rot90") for grey in greys))[LOOK, "heads"]
    assert sentence.startswith("The heads' faces are on the left, by ")
    assert "add --set orientation=rot270, or transposed if left and right are exchanged besides" in sentence


def test_a_picture_that_contradicts_its_header_and_one_unlike_the_others_are_told(scans):
    (sentence,) = found(*(both_turned(scan, "flipped") for scan in scans))[LOOK, "heads"]
    assert "at the bottom" in sentence and "their headers say otherwise" in sentence
    (sentence,) = found(both_turned(scans[0], "rot180"), *scans[1:])[LOOK, "heads"]
    assert sentence.startswith("The face of patient P0000 is at the bottom, unlike those of others")


# Values


def test_blank_slices_are_named_and_graver_under_a_mask(scans):
    blank = dataclasses.replace(scans[0], image=scans[0].image.copy())
    shown = (blank.labels > 0).any((1, 2))
    bare, marked = int(np.flatnonzero(~shown)[1]), int(np.flatnonzero(shown)[0])
    blank.image[bare], blank.image[marked] = -1000, 0
    groups = found(blank)
    assert blank.slice_ids[bare] in groups[LOOK, "blank slices"][0]
    assert blank.slice_ids[marked] in groups[SPOILS, "blank slices"][0]


def test_air_before_and_behind_the_head_is_normal(scans):
    padded = dataclasses.replace(scans[0], image=scans[0].image.copy(), labels=scans[0].labels.copy())
    padded.image[[0, 1, -1]], padded.labels[[0, 1, -1]] = -1000, 0
    again = dataclasses.replace(padded, slice_ids=tuple(f"again {name}" for name in padded.slice_ids))
    assert not any(kind == "blank slices" for _, kind in found(padded, again))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda image: np.clip(image, 0, 80), (LOOK, "window")),
        (lambda image: np.clip(image, -1024, 1023), (INFORM, "window")),
        (lambda image: image + np.int16(1024), (SPOILS, "units")),
    ],
)
def test_hounsfield_units_that_were_windowed_cut_or_never_rescaled(bleeding, change, where):
    spoiled = dataclasses.replace(bleeding[0], image=change(bleeding[0].image))
    assert spoiled.patient_id in found(spoiled)[where][0]


@pytest.mark.parametrize("window", [(35, 30), (40, 20)])
def test_eight_bit_windows_that_cut_blood_off_are_found_and_wide_ones_are_not(bleeding, window):
    assert (LOOK, "window") in found(*(as_grey(scan, *window) for scan in bleeding))
    assert list(found(*(as_grey(scan, 50, 150) for scan in bleeding))) == [(LOOK, "grey window")]


@pytest.mark.parametrize(
    ("given", "advised"), [("", True), ("50/150", False), ("50/140", False), ("auto", False), ("127.5/255", True)]
)
def test_a_window_that_is_given_is_advised_against_only_where_it_does_not_fit(bleeding, given, advised):
    study = Study(dataset="paired_folder", data_dir="x", grey_window=given)
    greys = Listed(tuple(as_grey(scan, 50, 150) for scan in bleeding))
    assert ("grey window" in {finding.kind for finding in examine.examine(greys, study=study).findings}) == advised


# What a split needs


def test_too_few_patients_and_no_lesion_at_all_are_said(scans):
    def kinds(*scans):
        return {(f.gravity, f.kind) for f in examine.examine(Listed(scans)).findings}

    assert (LOOK, "positives") in kinds(*scans[:3])
    empty = [dataclasses.replace(scan, labels=np.zeros_like(scan.labels)) for scan in scans[:3]]
    assert (SPOILS, "positives") in kinds(*empty)


def test_the_contact_sheet_shows_a_middle_slice_with_a_lesion_and_patients_with_lesions_first(scans):
    empty = dataclasses.replace(scans[3], labels=np.zeros_like(scans[3].labels))
    contacts = examine.examine(Listed((empty, scans[0]))).contacts
    assert [contact.patient_id for contact in contacts] == [scans[0].patient_id, empty.patient_id]
    assert contacts[0].labels.any() and contacts[0].grey.shape == (256, 256)
    marked = np.flatnonzero((scans[0].labels > 0).any((1, 2)))
    assert contacts[0].slice_id == scans[0].slice_ids[marked[len(marked) // 2]]
