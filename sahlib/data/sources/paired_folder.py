"""The paper's own layout (section 2.1): images/ and masks/, one file per slice, matched by stem.

A mask is black and white, white where SAH is; or, with a label map such as ("#00ffff=SAH", "#ffff00=IVH"), a picture in
colours of which each one named is a class and black is background.

Who the slices belong to comes from `slices.csv` beside the two folders (columns `file` and `patient_id`), or from a
regular expression over the stem whose first group is the patient. Without either the folder is refused, because slices
of one patient on both sides of a split make every score too good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import SAH, Scan, parse_label_map, patient_by_pattern
from sahlib.study import StudyError

name = "paired_folder"
FIELDS = ("patient_pattern", "slices_are_patients", "label_map")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LOSSY_ENDINGS = (".jpg", ".jpeg")
# JPEG rings around a mask's edge; values this near to black or white still say which of the two was meant.
LOSSY_MARGIN = 64


@dataclass(frozen=True)
class Pair:
    """One slice on disk and whose it is."""

    slice_id: str
    patient_id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairedFolder:
    """A checked folder; every pair is yielded as a Scan of one slice, patients in order."""

    name = name

    root: Path
    pairs: tuple[Pair, ...]
    label_map: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Scan]:
        return map(self.scan, range(len(self)))

    def scan(self, index: int) -> Scan:
        """The Scan of one pair."""
        pair = self.pairs[index]
        image, labels = read_pair(pair.image, pair.mask, self.label_map)
        return Scan(
            patient_id=pair.patient_id,
            image=image[None],
            labels=labels[None],
            slice_ids=(pair.slice_id,),
            unit="grey",
            sources=(pair.image.relative_to(self.root), pair.mask.relative_to(self.root)),
        )

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, names and patients."""
        total = hashlib.sha256()
        for pair in self.pairs:
            total.update(f"{pair.slice_id}\0{pair.patient_id}\0".encode())
            for path in (pair.image, pair.mask):
                total.update(hashlib.sha256(path.read_bytes()).digest())
        facts = {"source": self.name, "slices": len(self.pairs), "sha256": total.hexdigest()}
        return facts | ({"label_map": sorted(self.label_map)} if self.label_map else {})


def recognises(root: Path) -> bool:
    """Whether a folder holds pictures in images/ and masks/."""
    return (root / "images").is_dir() and any((root / masks).is_dir() for masks in ("masks", "masks_rgb"))


def open(
    root: str | Path, patient_pattern: str = "", slices_are_patients: bool = False, label_map: tuple[str, ...] = ()
) -> PairedFolder:
    """Pairs the files and names their patients, without decoding a pixel.

    Masks come from masks_rgb/ where a label map speaks of colours and the folder has one, else from masks/. Raises
    StudyError for a folder that is missing or empty, a mask without an image or the reverse, and a slice without a
    patient.
    """
    root = Path(root).expanduser()
    parse_label_map(label_map)
    in_colour = label_map and (root / "masks_rgb").is_dir()
    images, masks = _by_stem(root, "images"), _by_stem(root, "masks_rgb" if in_colour else "masks")
    for stem in sorted(set(images) ^ set(masks)):
        have, lack = ("image", "mask") if stem in images else ("mask", "image")
        file = images.get(stem) or masks[stem]
        raise StudyError(f"{file} has no {lack}: add {root}/{lack}s/{stem}.png or remove the {have}.")
    patients = _patients(root, sorted(images), patient_pattern, slices_are_patients)
    pairs = [Pair(stem, patients[stem], images[stem], masks[stem]) for stem in sorted(images)]
    return PairedFolder(root, tuple(sorted(pairs, key=lambda pair: (pair.patient_id, pair.slice_id))), tuple(label_map))


def read_pair(image_path: Path, mask_path: Path, label_map: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [H,W], labels uint8 [H,W], indices into CLASSES) of one slice.

    Raises StudyError where a file is unreadable or the two do not fit together.
    """
    image = read_grey(image_path)
    if label_map:
        labels = mapped_labels(mask_path, parse_label_map(label_map))
    else:
        labels = binary_mask(mask_path) * np.uint8(SAH)
    if image.shape != labels.shape:
        raise StudyError(
            f"{mask_path} is {_size(labels)} but its image {image_path} is {_size(image)}; export both at one size."
        )
    return image, labels


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit picture as grey levels, uint8 [H,W] (section 2.2: loaded in grayscale using OpenCV)."""
    import cv2
    from PIL import Image

    try:
        # OpenCV fills the missing part of a truncated file with grey and says nothing; Pillow refuses it.
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudyError(f"{path} cannot be read ({error}); export it again or remove it with its pair.") from error
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise StudyError(f"{path} cannot be read by OpenCV; export it again as PNG or remove it with its pair.")
    if pixels.dtype != np.uint8:
        raise StudyError(f"{path} holds {pixels.dtype} values; apply a brain window and export it as 8-bit grey.")
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def binary_mask(path: Path) -> np.ndarray:
    """A two-valued mask as bool [H,W], True where it is above half (section 2.2); 0/1 masks count as 0/255."""
    grey = read_grey(path)
    values = np.unique(grey)
    if path.suffix.lower() in LOSSY_ENDINGS:
        if ((values <= LOSSY_MARGIN) | (values >= 255 - LOSSY_MARGIN)).all():
            return grey > 127
    elif len(values) == 1 and values[0] in (0, 1, 255) or len(values) == 2 and values[0] == 0:
        return grey > 0
    raise StudyError(
        f"{path} is not a two-valued mask: it holds {len(values)} grey levels; export it as black (0) and white (255)."
    )


def mapped_labels(path: Path, classes: dict[str, int]) -> np.ndarray:
    """A mask in colours or grey levels as class values uint8 [H,W]; `classes` as parse_label_map gives them.

    0 or black is background. Raises StudyError for JPEG, whose colours are not exact, and for a colour or grey level
    that the map does not name, because its pixels would silently become background.
    """
    import cv2

    if path.suffix.lower() in LOSSY_ENDINGS:
        raise StudyError(f"{path} is a JPEG, whose colours are not exact; export the masks as PNG.")
    read_grey(path)  # refuses what is truncated or not 8-bit
    if any(value.startswith("#") for value in classes):
        blue, green, red = (plane.astype(np.uint32) for plane in cv2.split(cv2.imread(str(path), cv2.IMREAD_COLOR)))
        pixels = red << 16 | green << 8 | blue
    else:
        pixels = read_grey(path).astype(np.uint32)
    values = {int(value[1:], 16) if value.startswith("#") else int(value): index for value, index in classes.items()}
    labels = np.zeros(pixels.shape, np.uint8)
    for value in np.unique(pixels):
        if value not in values and value != 0:
            name = f"#{value:06x}" if any(key.startswith("#") for key in classes) else value
            raise StudyError(f"{path} holds {name}, which label_map does not name; add {name}=CLASS to it.")
        labels[pixels == value] = values.get(int(value), 0)
    return labels


def _by_stem(root: Path, kind: str) -> dict[str, Path]:
    folder = root / kind
    if not folder.is_dir():
        raise StudyError(f"{folder} is not there; a paired folder holds images/ and masks/ with one file per slice.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.startswith("."):
            continue
        if path.stem in files:
            raise StudyError(f"{path} and {files[path.stem].name} have the same stem; keep one of them.")
        files[path.stem] = path
    if not files:
        raise StudyError(f"{folder} holds no picture; expected {', '.join(ENDINGS)} files.")
    return files


def _patients(root: Path, stems: list[str], pattern: str, slices_are_patients: bool) -> dict[str, str]:
    """Stem -> patient, from the first of: slices_are_patients, the pattern, slices.csv."""
    if slices_are_patients:
        return {stem: stem for stem in stems}
    if pattern:
        return {stem: patient_by_pattern(stem, pattern) for stem in stems}
    table = root / "slices.csv"
    if not table.is_file():
        raise StudyError(
            f"{root} does not say whose the slices are: add slices.csv with the columns file and patient_id, or give "
            "--patient-pattern (patient_pattern in a notebook), a regular expression over the file names, for example "
            "'^(\\d+)_'. If every slice is another patient's, or you accept scores that are too good, add "
            "--slices-are-patients (slices_are_patients)."
        )
    return _patients_from_csv(table, stems)


def _patients_from_csv(table: Path, stems: list[str]) -> dict[str, str]:
    import pandas as pd

    try:
        rows = pd.read_csv(table, dtype=str)
    except (OSError, ValueError) as error:
        raise StudyError(f"{table} cannot be read as CSV ({error}).") from error
    if missing := {"file", "patient_id"} - set(rows.columns):
        raise StudyError(f"{table} lacks the column {' and '.join(sorted(missing))}; it has {', '.join(rows.columns)}.")
    rows = rows.dropna(subset=["file", "patient_id"])
    if (twice := rows.drop_duplicates(["file", "patient_id"])["file"]).duplicated().any():
        raise StudyError(f"{table} gives {twice[twice.duplicated()].iloc[0]} two patients; keep one.")
    named = dict(zip(rows["file"].map(lambda file: Path(file).stem), rows["patient_id"], strict=True))
    if without := [stem for stem in stems if stem not in named]:
        raise StudyError(f"{table} names no patient for {without[0]} and {len(without) - 1} more slices; add them.")
    return {stem: named[stem] for stem in stems}


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
