"""One CT series in DICOM: headers read and checked, slices ordered in space, pixels turned into Hounsfield units.

Everything is brought to the view of the phantom, which is DICOM's own axial one: seen from below, row 0 at the front,
column 0 at the patient's right side, slices from the neck to the vertex. Axes are swapped and flipped, never
interpolated: slices under a gantry tilt stay as they were acquired.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sahlib.study import StudyError

SAME_PLACE_MM = 0.01  # positions this near along the normal are one position
SAME_STEP_MM = 5e-4  # by which the pixel steps of two slices of a series may differ: 0.25 mm over 512 pixels
GAP_RATIO = 1.5  # a step this much longer than the others, for its slices' thickness, has lost a slice
AXIAL_COSINE = 0.7  # of the angle between the slices' normal and the body's axis; tilts reach 30 degrees, cosine 0.87
PADDING_HU = -1024
WORD, UID = "[A-Z0-9_ ]{1,16}", "[0-9.]{1,64}"  # what CS and UI elements may hold (DICOM PS3.5, 6.2)
LONGEST_REASON = 100  # letters
LARGEST_NUMBER = 1e6  # in mm or HU; what is beyond it in a header is damage
MULTI_FRAME_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # Enhanced, Legacy Converted Enhanced
SINGLE_FRAME_CT = "1.2.840.10008.5.1.4.1.1.2"
DIRECTORY = "1.2.840.10008.1.3.10"  # what a DICOMDIR is
HEADER_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "ImageType"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing"),
    *("SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ReferencedSeriesSequence"),
]


@dataclass(frozen=True, eq=False)
class Plane:
    """Where the pixels of a slice lie, in mm along the patient's axes as DICOM has them: to left, back and head.

    corner  [3] the centre of pixel (0, 0)
    down    [3] the step from a row to the next
    across  [3] the step from a column to the next
    shape   (rows, columns)
    """

    corner: np.ndarray
    down: np.ndarray
    across: np.ndarray
    shape: tuple[int, int]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector [3] across the slice; it points to the head in a canonical plane."""
        cross = np.cross(self.across, self.down)
        return cross / np.linalg.norm(cross)

    def canonical(self) -> Plane:
        """The same pixels in the canonical view; `to_canonical` moves them there."""
        transpose, flip_rows, flip_columns = _turn(self)
        corner, down, across, (rows, columns) = self.corner, self.down, self.across, self.shape
        if transpose:
            down, across, rows, columns = across, down, columns, rows
        if flip_rows:
            corner, down = corner + (rows - 1) * down, -down
        if flip_columns:
            corner, across = corner + (columns - 1) * across, -across
        return Plane(corner, down, across, (rows, columns))


@dataclass(frozen=True)
class Slice:
    """The header of one CT slice. `patient` is PatientID, used to tell patients apart and never passed on."""

    path: Path
    series_uid: str
    instance_uid: str
    patient: str = field(repr=False)
    plane: Plane
    thickness_mm: float
    slope: float
    intercept: float


@dataclass(frozen=True)
class Segmentation:
    """A DICOM-SEG file; `refers_to` is the series it was drawn on, "" where it does not say."""

    path: Path
    refers_to: str


@dataclass(frozen=True)
class Ignored:
    """A file of something else than CT slices, and why it is left alone."""

    path: Path
    series_uid: str
    reason: str


def looks_like_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do: DICM after 128 bytes, or, in old exports, with a first element."""
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as error:
        raise StudyError(f"{path} cannot be opened ({error.strerror}); make it readable or remove it.") from error
    return head[128:] == b"DICM" or (head[:2] in (b"\x02\x00", b"\x08\x00") and len(head) == 132 and head[3] == 0)


def parsed(path: Path, use: Callable, **options):
    """use(dataset) of a DICOM file; `options` are pydicom.dcmread's. The one place where such a file is parsed.

    A damaged file can raise almost anything, so all of it becomes a StudyError that names the file.
    """
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True, **options)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, _ = dataset.original_encoding
                dataset.file_meta.TransferSyntaxUID = (
                    pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
                )
            return use(dataset)
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(
            f"{path} cannot be read as DICOM ({why(error)}); copy or export it again, or remove its series."
        ) from error


def why(error: Exception) -> str:
    """What an error says, in one short line: messages about damaged files may quote all of their bytes."""
    line = "".join(letter for letter in str(error).split("\n")[0] if letter.isprintable())
    return line[:LONGEST_REASON].rstrip(". ") or type(error).__name__


def numbers(dataset, keyword: str, count: int) -> np.ndarray:
    """The `count` finite numbers of an element, float [count]; ValueError for anything else."""
    value = dataset.get(keyword)
    if value is None or value == "":
        raise ValueError(f"{keyword} is missing")
    values = [float(part) for part in ([value] if count == 1 else value)]
    if len(values) != count or not all(abs(part) < LARGEST_NUMBER for part in values):
        raise ValueError(f"{keyword} is {value}")
    return np.array(values)


def _code(dataset, keyword: str, form: str) -> str:
    """An element that is a word of a fixed form; never quoted when damaged, as its neighbours hold names."""
    value = str(dataset.get(keyword, "")).strip()
    if not re.fullmatch(form, value):
        raise ValueError(f"{keyword} is missing or damaged")
    return value


def plane(corner: np.ndarray, orientation: np.ndarray, spacing: np.ndarray, shape: tuple[int, int]) -> Plane:
    """A Plane from ImagePositionPatient [3], ImageOrientationPatient [6], PixelSpacing [2] (rows, columns)."""
    along_row, along_column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(along_row @ along_column) > 1e-2:
        raise ValueError(f"ImageOrientationPatient is {orientation.tolist()}, not two unit vectors at a right angle")
    if not (spacing > 0).all() or min(shape) < 1:
        raise ValueError(f"PixelSpacing is {spacing.tolist()} and the slice has {shape[0]} rows, {shape[1]} columns")
    return Plane(corner, along_column / lengths[1] * spacing[0], along_row / lengths[0] * spacing[1], shape)


def read_header(path: Path) -> Slice | Segmentation | Ignored:
    """What a DICOM file is, without its pixels; StudyError where it is damaged, or CT that cannot be read here."""
    return parsed(path, lambda dataset: _header(dataset, path), stop_before_pixels=True, specific_tags=HEADER_TAGS)


def _header(dataset, path: Path) -> Slice | Segmentation | Ignored:
    if dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
        return Ignored(path, "", "it is a DICOMDIR")
    modality, series = _code(dataset, "Modality", WORD), _code(dataset, "SeriesInstanceUID", UID)
    if modality == "SEG":
        references = dataset.get("ReferencedSeriesSequence")
        return Segmentation(path, _code(references[0], "SeriesInstanceUID", UID) if references else "")
    if modality != "CT":
        return Ignored(path, series, f"its Modality is {modality}, not CT")
    if "LOCALIZER" in (dataset.get("ImageType") or ""):
        return Ignored(path, series, "it is a localizer")
    kind = _code(dataset, "SOPClassUID", UID)
    if kind in MULTI_FRAME_CT or int(dataset.get("NumberOfFrames") or 1) > 1:
        raise StudyError(
            f"{path} holds many CT slices in one file (enhanced CT), which is not read here; split it into one file "
            "per slice, for example with dcm4che's emf2sf."
        )
    if kind != SINGLE_FRAME_CT:
        return Ignored(path, series, f"it is no CT slice but {dataset.SOPClassUID.name}")
    photometric = _code(dataset, "PhotometricInterpretation", WORD)
    if photometric != "MONOCHROME2" or int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise StudyError(
            f"{path} is {photometric}, but CT slices are MONOCHROME2; export the original series instead of pictures."
        )
    if (dataset.get("RescaleType") or "HU") not in ("HU", "US"):
        raise StudyError(f"{path} holds no Hounsfield units, by its RescaleType; export the original series.")
    slope = numbers(dataset, "RescaleSlope", 1)[0]
    if slope <= 0:
        raise ValueError(f"RescaleSlope is {slope}")
    check_decoder(dataset.file_meta.TransferSyntaxUID, path)
    return Slice(
        path,
        series,
        str(dataset.get("SOPInstanceUID", "")),
        str(dataset.get("PatientID") or "").strip(),
        plane(
            numbers(dataset, "ImagePositionPatient", 3),
            numbers(dataset, "ImageOrientationPatient", 6),
            numbers(dataset, "PixelSpacing", 2),
            (int(dataset.Rows), int(dataset.Columns)),
        ),
        numbers(dataset, "SliceThickness", 1)[0] if dataset.get("SliceThickness") else float("nan"),
        slope,
        numbers(dataset, "RescaleIntercept", 1)[0],
    )


def check_decoder(syntax, path: Path) -> None:
    """StudyError where nothing that is installed can decode the pixels of a transfer syntax."""
    from pydicom.pixels import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise StudyError(
            f"{path} is compressed as {syntax.name}, for which no decoder is installed; run "
            "pip install 'pylibjpeg[all]' or export the series uncompressed."
        )


def ordered(name: str, slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """The slices of the series `name` from the neck to the vertex, by position and never by file name.

    A slice that is there twice is kept once. Raises StudyError where slices differ in size or orientation, two
    different ones share a position, one is missing between others, or the series is not axial.
    """
    first = slices[0]
    normal = first.plane.canonical().normal
    if normal[2] < AXIAL_COSINE:
        raise StudyError(f"The series in {name} is not axial; export the axial one or remove it.")
    for other in slices[1:]:
        if other.plane.shape != first.plane.shape:
            raise StudyError(
                f"{other.path} is {_size(other)} but {first.path.name} of the same series is {_size(first)}; remove "
                "what does not belong to the series."
            )
        steps = [np.concatenate([p.down, p.across]) for p in (first.plane, other.plane)]
        if not np.allclose(*steps, rtol=0, atol=SAME_STEP_MM):
            raise StudyError(
                f"{other.path} differs from {first.path.name} of the same series in orientation or pixel spacing; "
                "remove what does not belong to the series."
            )
    placed = sorted(((float(normal @ s.plane.canonical().corner), s) for s in slices), key=lambda p: p[0])
    kept = placed[:1]
    for height, slice_ in placed[1:]:
        if height - kept[-1][0] >= SAME_PLACE_MM:
            kept.append((height, slice_))
        elif not np.array_equal(hounsfield(slice_), hounsfield(kept[-1][1])):
            raise StudyError(
                f"{slice_.path} and {kept[-1][1].path.name} lie at the same position ({height:g} mm) but show "
                "different pixels; keep one of the two acquisitions in the folder."
            )
    heights, kept_slices = zip(*kept, strict=True)
    _check_gaps(name, np.array(heights), kept_slices)
    return kept_slices


def _check_gaps(name: str, heights: np.ndarray, slices: Sequence[Slice]) -> None:
    """Head CT may be thin at the base and thick above, so a step is judged against the thickness of its slices."""
    steps = np.diff(heights)
    thickness = np.array([s.thickness_mm for s in slices])
    if not (thickness > 0).all():
        thickness = np.ones(len(slices))
    relative = steps / ((thickness[:-1] + thickness[1:]) / 2)
    if not len(steps):
        return
    # Where many slices are missing their steps must not become the rule: the lower quartile is.
    usual = np.quantile(relative, 0.25, method="lower")
    for k in np.flatnonzero(relative > GAP_RATIO * usual)[:1]:
        raise StudyError(
            f"The series in {name} lacks slices between {slices[k].path.name} at {heights[k]:g} mm and "
            f"{slices[k + 1].path.name} at {heights[k + 1]:g} mm, a step of {steps[k]:g} mm; copy the series again."
        )


def spacing_mm(slices: Sequence[Slice]) -> tuple[float, float, float]:
    """(row, column, slice) spacing of ordered slices; between slices the median step along the normal.

    The positions decide, because SliceThickness leaves out gaps and overlaps; a single slice has nothing else.
    """
    planes = [s.plane.canonical() for s in slices]
    steps = np.diff([planes[0].normal @ p.corner for p in planes])
    between = float(np.median(steps)) if len(steps) else slices[0].thickness_mm
    return float(np.linalg.norm(planes[0].down)), float(np.linalg.norm(planes[0].across)), between


def hounsfield(slice_: Slice) -> np.ndarray:
    """The pixels of a slice in the canonical view, int16 [H,W] in HU; padding is -1024."""
    return to_canonical(parsed(slice_.path, lambda dataset: _hounsfield(dataset, slice_)), slice_.plane)


def _hounsfield(dataset, slice_: Slice) -> np.ndarray:
    if "PixelData" not in dataset:
        raise StudyError(f"{slice_.path} holds no pixel data; export it again with its pixels, or remove its series.")
    stored = dataset.pixel_array
    if stored.shape != slice_.plane.shape:
        raise ValueError(f"its pixels are {stored.shape}, its header says {slice_.plane.shape}")
    values = np.rint(stored * slice_.slope + slice_.intercept)
    if (padding := dataset.get("PixelPaddingValue")) is not None:
        # Writers give the value as signed or unsigned whatever the pixels are: the bits are what counts.
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        low, high = sorted(np.array([padding, limit]).astype(stored.dtype))
        values[(stored >= low) & (stored <= high)] = PADDING_HU
    if values.min() < -32768 or values.max() > 32767:
        raise StudyError(
            f"{slice_.path} reaches from {values.min():g} to {values.max():g} HU, more than 16 bits hold; its "
            "RescaleSlope or PixelRepresentation is wrong, so export it again."
        )
    return values.astype(np.int16)


def to_canonical(pixels: np.ndarray, acquired: Plane) -> np.ndarray:
    """Pixels [H,W] of an acquired plane in the canonical view."""
    transpose, flip_rows, flip_columns = _turn(acquired)
    pixels = pixels.T if transpose else pixels
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _turn(p: Plane) -> tuple[bool, bool, bool]:
    """(swap rows and columns, then flip rows, flip columns): what brings a plane nearest to the canonical view."""
    transpose = abs(p.across[0]) / np.linalg.norm(p.across) < abs(p.across[1]) / np.linalg.norm(p.across)
    down, across = (p.across, p.down) if transpose else (p.down, p.across)
    return bool(transpose), bool(down[1] < 0), bool(across[0] < 0)


def _size(slice_: Slice) -> str:
    return f"{slice_.plane.shape[1]}x{slice_.plane.shape[0]}"
