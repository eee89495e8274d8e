"""Pictures of one slice each: read whole or refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sahlib.study import StudyError

LOSSY_ENDINGS = (".jpg", ".jpeg")


def open_picture(path: Path):
    """A Pillow image with all its pixels, the way up a viewer shows it; StudyError for damage and for several pages."""
    from PIL import Image, ImageOps

    try:
        # OpenCV fills the missing part of a truncated file with grey and says nothing; Pillow refuses it.
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            picture.load()
            turned = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudyError(f"{path} cannot be read ({error}); export it again or remove it.") from error
    if pages > 1:
        raise StudyError(f"{path} holds {pages} pages; save each slice as a picture of its own, or the stack as NIfTI.")
    return turned


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit picture as grey levels, uint8 [H,W] (section 2.2: loaded in grayscale using OpenCV)."""
    import cv2

    open_picture(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH)  # in grey, but with the depth that the file has
    if pixels is None:
        raise StudyError(f"{path} cannot be read by OpenCV; export it again as PNG or remove it.")
    if pixels.dtype != np.uint8:
        raise StudyError(f"{path} holds {pixels.dtype} values; apply a brain window and export it as 8-bit grey.")
    return pixels


def readable(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """The pictures that can be read; of the others their slices tell when they are asked for."""
    for path in paths:
        with contextlib.suppress(StudyError):
            yield read_grey(path)
