"""The paper's own layout (section 2.1): images/ and masks/, one file per slice, matched by stem.

A mask is black and white, white where SAH is; or, with a label map such as ("#00ffff=SAH", "#ffff00=IVH"), a picture in
colours of which each one named is a class and black is background.

Who the slices belong to comes from `slices.csv` beside the two folders (columns `file` and `patient_id`), or from a
regular expression over the stem whose first group is the patient. Without either the folder is refused, because slices
of one patient on both sides of a split make every score too good.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sahlib.data.scan import SAH, Scan, parse_label_map, to_classes
from sahlib.data.sources import files
from sahlib.data.sources.files import Case, FolderSource
from sahlib.study import StudyError

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LOSSY_ENDINGS = (".jpg", ".jpeg")
LOSSY_MARGIN = 64  # JPEG rings around a mask's edge; values this near to black or white still say which was meant


@dataclass(frozen=True)
class PairedFolder(FolderSource):
    """A checked folder; every slice is yielded as a Scan of its own, patients in order."""

    name = "paired_folder"

    root: Path
    cases: tuple[Case, ...]
    label_map: tuple[str, ...] = ()

    def scan(self, index: int) -> Scan:
        """The Scan of one slice; StudyError where a file is unreadable or the two do not fit together."""
        case = self.cases[index]
        (mask,) = case.masks
        image = read_grey(case.image)
        labels = mapped_labels(mask, self.label_map) if self.label_map else binary_mask(mask) * np.uint8(SAH)
        if image.shape != labels.shape:
            (height, width), (rows, columns) = labels.shape, image.shape
            raise StudyError(
                f"{mask} is {width}x{height} but its image {case.image} is {columns}x{rows}; export both at one size."
            )
        return Scan(
            patient_id=case.patient_id,
            image=image[None],
            labels=labels[None],
            slice_ids=(case.scan_id,),
            unit="grey",
            sources=(case.image.relative_to(self.root), mask.relative_to(self.root)),
        )

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, names and patients."""
        parts = [part for c in self.cases for part in (c.scan_id, c.patient_id, c.image, *c.masks)]
        facts = {"source": self.name, "slices": len(self.cases), "sha256": files.digest(parts)}
        return facts | ({"label_map": sorted(self.label_map)} if self.label_map else {})


def recognises(root: Path) -> bool:
    """Whether a folder holds images/ and masks/ or masks_rgb/."""
    return (root / "images").is_dir() and any((root / masks).is_dir() for masks in ("masks", "masks_rgb"))


def open_folder(
    root: str | Path, patient_pattern: str = "", slices_are_patients: bool = False, label_map: tuple[str, ...] = ()
) -> PairedFolder:
    """Pairs the files and names their patients, without decoding a pixel.

    Masks come from masks_rgb/ where a label map speaks of colours and the folder has one, else from masks/. Raises
    StudyError for a folder that is missing or empty, a mask without an image or the reverse, and a slice without a
    patient.
    """
    root = files.require_folder(root)
    parse_label_map(label_map)
    folders = root / "images", root / ("masks_rgb" if label_map and (root / "masks_rgb").is_dir() else "masks")
    cases = files.matched(*(files.within(folder, ENDINGS) for folder in folders))
    if not cases:
        raise StudyError(f"{folders[0]} and {folders[1]} hold no picture; expected {', '.join(ENDINGS)} files.")
    pattern = "" if slices_are_patients else patient_pattern
    own = str if slices_are_patients or pattern else _patients_by_table(root / "slices.csv", cases).__getitem__
    return PairedFolder(root, files.with_patients(cases, pattern, own), tuple(label_map))


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit picture as grey levels, uint8 [H,W] (section 2.2: loaded in grayscale using OpenCV)."""
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


def mapped_labels(path: Path, label_map: tuple[str, ...]) -> np.ndarray:
    """A mask in colours or grey levels as class values uint8 [H,W]; 0 or black is background.

    Raises StudyError for JPEG, whose colours are not exact, and for a colour or grey level that the map does not name.
    """
    if path.suffix.lower() in LOSSY_ENDINGS:
        raise StudyError(f"{path} is a JPEG, whose colours are not exact; export the masks as PNG.")
    grey = read_grey(path)  # refuses what is truncated or not 8-bit
    classes = parse_label_map(label_map)
    meaning = {int(key.lstrip("#"), 16 if key.startswith("#") else 10): index for key, index in classes.items()}
    if not any(key.startswith("#") for key in classes):
        return to_classes(grey, meaning, path)
    blue, green, red = cv2.split(cv2.imread(str(path), cv2.IMREAD_COLOR).astype(np.uint32))
    return to_classes(red << 16 | green << 8 | blue, meaning, path, "#{:06x}".format)


def _patients_by_table(table: Path, cases: list[Case]) -> dict[str, str]:
    if not table.is_file():
        raise StudyError(
            f"{table.parent} does not say whose the slices are: add slices.csv with the columns file and patient_id, "
            "or give --patient-pattern (patient_pattern in a notebook), a regular expression over the file names, for "
            "example '^(\\d+)_'. If every slice is another patient's, or you accept scores that are too good, add "
            "--slices-are-patients (slices_are_patients)."
        )
    patients: dict[str, str] = {}
    for row in files.read_table(table, ("file", "patient_id")):
        patient = row["patient_id"]
        if patient and patients.setdefault(files.stem(Path(row["file"])), patient) != patient:
            raise StudyError(f"{table} gives {row['file']} two patients; keep one.")
    if without := [case.scan_id for case in cases if case.scan_id not in patients]:
        raise StudyError(f"{table} names no patient for {without[0]} and {len(without) - 1} more slices; add them.")
    return patients
