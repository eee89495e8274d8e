"""What the pixels of masks mean: values, palettes, colours and alpha, judged over a whole folder."""

import cv2
import numpy as np
import pytest
from PIL import Image

from sahlib.data.scan import CLASSES, SAH
from sahlib.data.sources import paired_folder as source
from sahlib.data.sources.masks import meaning, pixels
from sahlib.data.sources.pictures import read_grey
from sahlib.study import StudyError

SHAPE = np.zeros((16, 16), np.uint8)
SHAPE[3:9, 4:12] = 1
EMPTY = SHAPE * 0


def write(path, array, mode=None, palette=None, **how):
    picture = Image.fromarray(array)
    if palette:
        picture = picture.convert("P") if picture.mode != "P" else picture
        picture.putdata(array.ravel().tolist())
        picture.putpalette(palette)
    (picture.convert(mode) if mode else picture).save(path, **how)
    return path


def folder(tmp_path, *masks, ending="png", **how):
    return [write(tmp_path / f"{k}.{ending}", mask, **how) for k, mask in enumerate(masks)]


def labels(paths, label_map=()):
    found = meaning(paths, label_map)
    return [found.labels(path) for path in paths]


@pytest.mark.parametrize("high", [1, 7, 255])
def test_one_value_is_sah_whatever_it_is(tmp_path, high):
    first, second = labels(folder(tmp_path, SHAPE * high, EMPTY))
    np.testing.assert_array_equal(first, SHAPE * SAH)
    assert not second.any()


@pytest.mark.parametrize("values", [(1, 4), (1, 255), (2, 3)])
def test_two_values_in_different_files_are_refused_with_a_file_of_each(tmp_path, values):
    paths = folder(tmp_path, *(SHAPE * value for value in values))
    with pytest.raises(StudyError, match=rf"{values[0]} \(0.png\), {values[1]} \(1.png\).*--label-map"):
        meaning(paths, ())
    first, second = labels(paths, (f"{values[0]}=SAH", f"{values[1]}=SDH"))
    assert first.max() == SAH and second.max() == CLASSES.index("SDH")


@pytest.mark.parametrize("colour", [(0, 0, 255), (1, 0, 0), (0, 0, 3), (250, 255, 255)])
def test_any_colour_wants_a_label_map_however_dark_or_bright(tmp_path, colour):
    paths = folder(tmp_path, SHAPE[..., None] * np.uint8(colour))
    name = f"#{bytes(colour).hex()}"
    with pytest.raises(StudyError, match=f"{name}.*{name}=SAH"):
        meaning(paths, ())
    np.testing.assert_array_equal(labels(paths, (f"{name}=SAH",))[0], SHAPE * SAH)


def test_white_in_three_channels_is_white(tmp_path):
    np.testing.assert_array_equal(labels(folder(tmp_path, np.dstack([SHAPE * 255] * 3)))[0], SHAPE * SAH)


RED, GREEN, BLACK, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 0], [255, 255, 255]


def test_a_palette_is_read_by_its_colours_and_not_by_its_order(tmp_path):
    both = SHAPE + np.roll(SHAPE, 6, axis=0)  # red above, green below
    both[np.roll(SHAPE, 6, axis=0) > 0] = 2
    paths = [
        write(tmp_path / "0.png", both, palette=[*BLACK, *RED, *GREEN]),
        write(tmp_path / "1.png", np.where(both, 3 - both, 0).astype(np.uint8), palette=[*BLACK, *GREEN, *RED]),
    ]
    for found in labels(paths, ("#ff0000=SAH", "#00ff00=IVH")):
        np.testing.assert_array_equal(found, both)
    with pytest.raises(StudyError, match=r"#00ff00 \(0.png\), #ff0000 \(0.png\)"):
        meaning(paths, ())
    with pytest.raises(StudyError, match=r"0.png holds the value #00ff00.*known: none"):
        labels(paths, ("1=SAH", "2=IVH"))


def test_a_black_and_white_palette_is_read_whatever_comes_first(tmp_path):
    paths = [
        write(tmp_path / "0.png", SHAPE, palette=[*BLACK, *WHITE]),
        write(tmp_path / "1.png", 1 - SHAPE, palette=[*WHITE, *BLACK]),
    ]
    for found in labels(paths):
        np.testing.assert_array_equal(found, SHAPE * SAH)


def test_a_palette_of_one_colour_is_refused(tmp_path):
    with pytest.raises(StudyError, match="0.png has a palette that shows two values in one colour"):
        pixels(write(tmp_path / "0.png", SHAPE, palette=[9] * 6))


def test_smoothed_edges_are_told_from_classes(tmp_path):
    paths = folder(tmp_path, cv2.GaussianBlur(SHAPE * 255, (5, 5), 0))
    with pytest.raises(StudyError, match="export them without smoothing or JPEG, black"):
        meaning(paths, ())


def test_a_shape_in_alpha_is_the_mask(tmp_path):
    white = np.full_like(SHAPE, 255)
    paths = folder(tmp_path, np.dstack([white, white, white, SHAPE * 255]), np.dstack([white, white, white, EMPTY]))
    first, second = labels(paths)
    np.testing.assert_array_equal(first, SHAPE * SAH)
    assert not second.any()


def test_opaque_alpha_is_nothing_and_alpha_over_colours_is_refused(tmp_path):
    opaque = np.dstack([SHAPE * 255] * 3 + [np.full_like(SHAPE, 255)])
    np.testing.assert_array_equal(labels(folder(tmp_path, opaque))[0], SHAPE * SAH)
    mixed = np.dstack([SHAPE * 255, EMPTY, EMPTY, 255 - SHAPE * 100])
    with pytest.raises(StudyError, match="transparent over several colours"):
        pixels(write(tmp_path / "mixed.png", mixed))


def test_a_shape_under_alpha_that_is_empty_is_refused(tmp_path):
    unseen = np.dstack([SHAPE * 255] * 3 + [EMPTY])
    with pytest.raises(StudyError, match="transparent over several colours"):
        pixels(write(tmp_path / "unseen.png", unseen))


def test_a_black_and_white_jpeg_is_read_with_its_rings(tmp_path):
    big = np.kron(SHAPE, np.ones((4, 4), np.uint8)) * 255
    np.testing.assert_array_equal(labels(folder(tmp_path, big, ending="jpg", quality=90))[0] > 0, big > 0)


@pytest.mark.parametrize("high", [1, 4, 120])
def test_another_jpeg_is_refused_and_never_read_as_empty(tmp_path, high):
    paths = folder(tmp_path, SHAPE * 255, SHAPE * high, ending="jpg", quality=95)
    with pytest.raises(StudyError, match="1.jpg is a JPEG that is not black and white"):
        labels(paths)


def test_white_is_zero_is_read_as_a_viewer_shows_it(tmp_path):
    path = write(tmp_path / "0.tif", SHAPE > 0, tiffinfo={262: 0})
    with Image.open(path) as picture:
        assert picture.tag_v2[262] == 0
    np.testing.assert_array_equal(labels([path])[0], SHAPE * SAH)


@pytest.mark.parametrize("read", [pixels, read_grey])
def test_several_pages_are_refused(tmp_path, read):
    first, *rest = [Image.fromarray(SHAPE * 255)] * 3
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    with pytest.raises(StudyError, match="stack.tif holds 3 pages"):
        read(tmp_path / "stack.tif")


def test_a_file_that_cannot_be_read_is_told_by_its_slice_alone(paired_folder):
    (paired_folder / "masks" / "00_1.png").write_bytes(b"nothing")
    found = source.open_folder(paired_folder)
    with pytest.raises(StudyError, match="00_1.png cannot be read"):
        found.scan(1)
    assert found.scan(2).labels.any() == (cv2.imread(str(paired_folder / "masks" / "00_2.png"), 0) > 0).any()
