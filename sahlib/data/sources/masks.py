"""What the pixels of a mask mean: pictures as values, and the values of a whole folder judged together.

A mask's pixels are numbers: grey levels, or colours as 0xRRGGBB; a palette is read as the colours that a viewer shows,
because programs number the same colours differently from file to file. Where one colour is drawn and the shape stands
in the alpha channel, alpha is the mask. Nothing is judged by brightness. Without a label map the masks of a folder must
agree on one value that means lesion, because of two nobody can tell which is SAH.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import CLASSES, SAH, parse_label_map, to_classes
from sahlib.data.sources.pictures import LOSSY_ENDINGS, open_picture
from sahlib.study import StudyError

WHITE, NEAR = 255, 64  # JPEG rings around an edge; levels this near to black or white still say which was meant
NAMED = 4  # values that a sentence names


@dataclass(frozen=True)
class Meaning:
    """What the values of a folder's masks mean: value -> class; `in_colour` where they are 0xRRGGBB."""

    classes: dict[int, int]
    in_colour: bool = False

    def labels(self, path: Path) -> np.ndarray:
        """One mask as class values uint8 [H,W]; StudyError for a value that has no meaning."""
        values, colour = pixels(path)
        if self.in_colour and not colour:
            values = values * 0x010101
        told = self.classes if self.in_colour or not colour else {}
        return to_classes(values, told, path, lambda value: _name(value, colour or self.in_colour))


def meaning(paths: Iterable[Path], label_map: tuple[str, ...]) -> Meaning:
    """What the masks of a folder mean: as the label map says, else the one value that all of them hold is SAH.

    A file that cannot be read says nothing here; its slice does when it is asked for. Raises StudyError for several
    values, or any colour, without a label map: it names them, and a file of each.
    """
    if label_map:
        known = parse_label_map(label_map)
        in_colour = any(value.startswith("#") for value in known)
        return Meaning({int(v.lstrip("#"), 16 if v.startswith("#") else 10): c for v, c in known.items()}, in_colour)
    found: dict[tuple[int, bool], Path] = {}
    for path in paths:
        try:
            values, colour = pixels(path)
        except StudyError:
            continue
        for value in np.unique(values[values != 0]).tolist():
            found.setdefault((value, colour and value != 0xFFFFFF), path)
    names = [f"{_name(value, colour)} ({path.name})" for (value, colour), path in sorted(found.items())]
    if len(names) > 1 or any(colour for _, colour in found):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        way = f"say what each means with --label-map, for example '{_name(*min(found))}=SAH', or export them"
        if len(names) > 2 * len(CLASSES):
            way = "export them without smoothing or JPEG,"
        raise StudyError(
            f"The masks hold {', '.join(names[:NAMED])}{more} besides background, and nothing says which is SAH; {way} "
            "black (0) and white (255)."
        )
    return Meaning({value: SAH for value, _ in found} | {WHITE: SAH})


def pixels(path: Path) -> tuple[np.ndarray, bool]:
    """(values [H,W], whether they are colours 0xRRGGBB) of one mask; StudyError for what is none."""
    picture = open_picture(path)
    if picture.mode in ("RGBA", "LA", "PA"):
        picture = _without_alpha(path, picture)
    if picture.mode == "P":
        picture = _painted(path, picture)
    if picture.mode in ("1", "L", "I;16", "I"):
        values = np.array(picture).astype(np.int64)
        if picture.mode == "1":
            values *= WHITE
        return (_from_jpeg(path, values) if path.suffix.lower() in LOSSY_ENDINGS else values), False
    if picture.mode != "RGB":
        raise StudyError(f"{path} is stored as {picture.mode}, in which no mask is read; export it as grey or RGB PNG.")
    red, green, blue = np.moveaxis(np.array(picture).astype(np.uint32), 2, 0)
    if path.suffix.lower() in LOSSY_ENDINGS:
        if np.ptp([red, green, blue], axis=0).max() > NEAR:
            raise StudyError(f"{path} is a JPEG, whose colours are not exact; export the masks as PNG.")
        return _from_jpeg(path, green.astype(np.int64)), False
    if (red == green).all() and (green == blue).all():
        return red.astype(np.int64), False
    return red << 16 | green << 8 | blue, True


def _painted(path: Path, picture):
    """A picture with a palette in its colours; StudyError where two of its values have one colour."""
    painted = picture.convert("RGB")
    if len(picture.getcolors()) != len(painted.getcolors()):
        raise StudyError(f"{path} has a palette that shows two values in one colour; export the mask as grey PNG.")
    return painted


def _without_alpha(path: Path, picture):
    """The picture's colours where it is opaque; its alpha where one colour is drawn and the shape is in alpha."""
    from PIL import Image

    opacity = np.array(picture.getchannel("A"))
    if (opacity == WHITE).all():
        return picture.convert("L" if picture.mode == "LA" else "RGB")
    drawn = np.array(picture.convert("RGBA"))[(opacity > 0) | ~opacity.any()][:, :3]  # all, where nothing is opaque
    if len(np.unique(drawn, axis=0)) <= 1 and set(np.unique(opacity).tolist()) <= {0, WHITE}:
        return Image.fromarray(opacity)
    raise StudyError(f"{path} is transparent over several colours; export the mask opaque, black and white.")


def _from_jpeg(path: Path, values: np.ndarray) -> np.ndarray:
    """A JPEG's grey levels as 0 and 255; StudyError where they are neither, as in a 0/1 mask saved as JPEG."""
    if not ((values <= NEAR) | (values >= WHITE - NEAR)).all() or 0 < values.max() <= NEAR:
        raise StudyError(
            f"{path} is a JPEG that is not black and white: its levels go from {values.min()} to {values.max()}, as "
            "where a mask of 0 and 1 was saved so; export the masks as PNG."
        )
    return np.where(values > 127, WHITE, 0)


def _name(value: int, colour: bool) -> str:
    return f"#{value:06x}" if colour else str(value)
