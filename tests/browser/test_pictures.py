"""A still's pixels: outlines and areas lie where the masks say; and all colours of the browser are told apart."""

import itertools
import re

import cv2
import numpy as np
import pytest

from sahlib.browser import embedded, pictures
from sahlib.browser.pictures import SIDE
from sahlib.figures import drawing
from sahlib.study import MODELS

CELL = SIDE // 8  # pixels of a panel that one pixel of an 8x8 slice becomes
# Machado, Oliveira & Fernandes 2009, table 1, severity 1.0: linear RGB as seen without one kind of cone.
DEFICIENCIES = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
ERRORS = {name: pictures.rgb(colour) for name, colour in drawing.AGREEMENT.items()}
STYLE = embedded.Embedded.style
READABLE = 4.5  # WCAG 2.2, 1.4.3: contrast of text


def a_mask(rows, columns, size=8):
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    return mask


def grey_panel(level=100):
    return pictures.enlarged(np.full((8, 8), level, np.uint8))


def inside(mask):
    """The mask in pixels of the panel, by repetition."""
    return mask.repeat(CELL, 0).repeat(CELL, 1)


def linear(colour):
    share = np.asarray(colour) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(light):
    """CIELAB under D65 of linear sRGB."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(light, 0, 1) / [0.95047, 1, 1.08883], (6 / 29) ** 3))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one, other, seen=None):
    """CIE76 distance of two sRGB colours, as a person with a deficiency sees them."""
    seen = np.eye(3) if seen is None else np.array(seen)
    return float(np.linalg.norm(lab(seen @ linear(one)) - lab(seen @ linear(other))))


def contrast(one, other):
    """WCAG 2.2 contrast ratio of two sRGB colours."""
    bright, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (one, other)), reverse=True)
    return bright / dark


def test_the_measures_of_colour_are_right():
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    np.testing.assert_allclose(lab(linear((255, 0, 0))), [53.24, 80.09, 67.20], atol=0.05)
    np.testing.assert_allclose(np.sum(list(DEFICIENCIES.values()), axis=2), 1, atol=1e-5)  # grey stays grey


# Where things are drawn


@pytest.mark.parametrize("shape", [(8, 8), (256, 256), (512, 300), (300, 512), (1, 9)])
def test_a_panel_keeps_the_slices_shape(shape):
    panel = pictures.enlarged(np.zeros(shape, np.uint8))
    assert max(panel.shape[:2]) == SIDE and panel.shape[2] == 3
    assert panel.shape[0] / panel.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_an_area_fills_its_pixels_and_no_others():
    mask = a_mask(slice(2, 6), slice(3, 5))
    drawn = pictures.with_area(grey_panel(100), mask, "#c80032", 0.25)
    assert (drawn[~inside(mask)] == 100).all()
    assert (drawn[inside(mask)] == (125, 75, 88)).all()  # 100 + 0.25 * (colour - 100), rounded to even


def test_an_outline_runs_just_outside_the_mask_and_covers_none_of_it():
    mask = a_mask(slice(2, 6), slice(3, 7))
    drawn = (pictures.with_outline(grey_panel(0), mask) == pictures.rgb(pictures.TRUTH)).all(-1)
    around = np.zeros_like(drawn)
    around[2 * CELL - 1 : 6 * CELL + 1, 3 * CELL - 1 : 7 * CELL + 1] = True
    np.testing.assert_array_equal(drawn, around & ~inside(mask))
    empty = np.zeros((8, 8), bool)
    np.testing.assert_array_equal(pictures.with_outline(grey_panel(), empty), grey_panel())


@pytest.mark.parametrize("draw", ["area", "outline"])
def test_a_pixel_does_not_get_lost_where_the_panel_is_smaller_than_the_slice(draw):
    """A study may keep 512x512 slices; every one of the pixels on this line would have been a lesion nobody sees."""
    panel = pictures.enlarged(np.zeros((512, 512), np.uint8))
    for at in range(200, 210):
        mask = a_mask(at, at, 512)
        drawn = {
            "area": lambda mask=mask: pictures.with_area(panel, mask, "#ffffff", 1.0),
            "outline": lambda mask=mask: pictures.with_outline(panel, mask),
        }[draw]()
        rows, columns, _ = drawn.nonzero()
        assert len(rows) and abs(rows.mean() - at * SIDE / 512) < 2 and abs(columns.mean() - at * SIDE / 512) < 2


def test_a_sheet_shows_what_others_would_read_as_formulas():
    data = pictures.sheet([grey_panel(), grey_panel()], ["a", "b"], ["1", "2"], r"Slice $\nonsense{$ of $x$")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > picture.shape[0]
    assert data == pictures.sheet([grey_panel(), grey_panel()], ["a", "b"], ["1", "2"], r"Slice $\nonsense{$ of $x$")


# Colours


@pytest.mark.parametrize("seen", [None, *DEFICIENCIES])
def test_found_invented_and_missed_are_told_apart(seen):
    """Filled at the opacity the browser begins with, over any grey; 2.3 is what an eye just notices."""
    opacity = 0.6
    for grey in (0, 90, 200, 255):
        filled = {name: grey * (1 - opacity) + opacity * np.array(colour) for name, colour in ERRORS.items()}
        for one, other in itertools.combinations(filled, 2):
            apart = distance(filled[one], filled[other], DEFICIENCIES.get(seen))
            assert apart > 20, (one, other, grey, apart)


@pytest.mark.parametrize("seen", [None, *DEFICIENCIES])
def test_the_networks_are_told_apart(seen):
    for one, other in itertools.combinations(MODELS, 2):
        colours = [pictures.rgb(drawing.LOOKS[name].colour) for name in (one, other)]
        assert distance(*colours, DEFICIENCIES.get(seen)) > 15, (one, other)


@pytest.mark.parametrize("seen", [None, *DEFICIENCIES])
def test_the_outline_of_the_truth_is_seen_on_whatever_it_lies_on(seen):
    """A network's area or outline, heat that is there to be seen, and any grey."""
    heat = cv2.applyColorMap(np.arange(64, 256, 4, dtype=np.uint8), cv2.COLORMAP_INFERNO)[0, :, ::-1]
    greys = np.arange(0, 256, 5)[:, None].repeat(3, 1)
    networks = [pictures.rgb(drawing.LOOKS[name].colour) for name in MODELS]
    truth = pictures.rgb(pictures.TRUTH)
    for ground in (*networks, *heat, *greys):
        assert distance(truth, ground, DEFICIENCIES.get(seen)) > 25, ground


def test_text_is_readable():
    """Every colour of text against the ground it stands on, and the lines that name a network against theirs."""
    colour = "#[0-9a-f]{3,6}"
    ground = _colour(re.search(rf"\.sah-panel {{ background: ({colour})", STYLE)[1])
    on_panels = [re.search(rf"\.sah-{name} {{ color: ({colour})", STYLE)[1] for name in ("head", "note", "note b")]
    on_paper = re.findall(rf"--sah-(?:ink|quiet): var\([^,]+, ({colour})\)", STYLE)
    assert len(on_paper) == 2
    assert min(contrast(_colour(text), ground) for text in on_panels) >= READABLE
    assert min(contrast(_colour(text), (255, 255, 255)) for text in on_paper) >= READABLE
    for line in (pictures.TRUTH, *(drawing.LOOKS[name].colour for name in MODELS)):
        assert contrast(_colour(line), ground) >= 3, line  # WCAG 2.2, 1.4.11: of graphics


def _colour(text):
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    return pictures.rgb(f"#{digits}")
