"""One CT series in DICOM: headers read and checked, slices ordered in space, pixels turned into Hounsfield units.

Everything is brought to the view that `nifti_file` describes, DICOM's own axial one. Axes are swapped and flipped,
never interpolated: slices under a gantry tilt stay as they were acquired.

imagecodecs decodes what pydicom does not: JPEG, JPEG-LS and JPEG 2000. gdcm would too, but ends the whole process on
damaged pixels. CT that was compressed with loss, as some archives store it, is read and marked.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from pydicom import dcmread, uid
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_rescale, get_decoder

from sahlib.data.sources.nifti_file import SPACING_MM
from sahlib.study import StudyError

SAME_PLACE_MM = 0.01  # positions this near along the normal are one position
SAME_STEP_MM = 5e-4  # by which the pixel steps of two slices of a series may differ: 0.25 mm over 512 pixels
LOST_RATIO = 5.5  # a step so much longer than its slices are thick has lost one, though all steps be alike
SAME_THICKNESS = 0.02  # of a step by which slices may be told thicker or thinner than they lie apart
GAP_RATIO = 1.5  # a step this much longer than the others, for its slices' thickness, has lost a slice
AXIAL_COSINE = 0.7  # of the angle between the slices' normal and the body's axis; tilts reach 30 degrees, cosine 0.87
PADDING_HU = -1024
WORD, UID = "[A-Z0-9_ ]{1,16}", "[0-9.]{1,64}"  # what CS and UI elements may hold (DICOM PS3.5, 6.2)
LONGEST_REASON = 100  # letters
LARGEST_NUMBER = 1e6  # in mm or HU; what is beyond it in a header is damage
MULTI_FRAME_CT = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000)
DECODERS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), imagecodecs.jpeg8_decode),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), imagecodecs.jpeg8_decode),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), imagecodecs.jpegls_decode),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), imagecodecs.jpeg2k_decode),
}
END_OF_IMAGE = b"\xff\xd9"  # the marker that ends the streams of all of these, and stands nowhere else in them


@dataclass(frozen=True, eq=False)
class Plane:
    """Where the pixels of a slice lie in the canonical view.

    affine  4x4, from (column, row, slice) to mm towards the patient's right, front and top, as in NIfTI; the third
            column is the slice's unit normal, towards the head
    shape   (rows, columns)
    turn    what brings stored pixels into this view, as nibabel.orientations has it
    """

    affine: np.ndarray
    shape: tuple[int, int]
    turn: np.ndarray

    def view(self, stored: np.ndarray) -> np.ndarray:
        """Pixels [H,W] as the file has them, in the canonical view."""
        return apply_orientation(stored.T[..., None], self.turn)[..., 0].T

    def stored(self, view: np.ndarray) -> np.ndarray:
        """Pixels [H,W] in the canonical view as the file has them: the inverse of `view`."""
        back = np.empty_like(self.turn)
        back[self.turn[:, 0].astype(int)] = np.column_stack([range(3), self.turn[:, 1]])
        return apply_orientation(view.T[..., None], back)[..., 0].T


@dataclass(frozen=True)
class Slice:
    """The header of one CT slice. `patient` is PatientID, used to tell patients apart and never passed on."""

    path: Path
    series_uid: str
    instance_uid: str
    patient: str = field(repr=False)
    plane: Plane
    thickness_mm: float
    lossy: bool


@dataclass(frozen=True)
class Other:
    """A file of something else: a DICOM-SEG with the series it was drawn on ("" where it does not say), or whatever
    is left alone with its own series; `reason` says why it is left alone where it is."""

    path: Path
    series_uid: str
    reason: str
    is_mask: bool = False


@contextmanager
def opened(path: Path, **options) -> Iterator:
    """The dataset of a DICOM file; `options` are pydicom.dcmread's. The one place where such a file is parsed.

    A damaged file can raise almost anything, so all of it becomes a StudyError that names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path, force=True, **options)
            if "TransferSyntaxUID" not in dataset.file_meta:  # an old file; pydicom has found out what it is
                old = uid.ImplicitVRLittleEndian if dataset.original_encoding[0] else uid.ExplicitVRLittleEndian
                dataset.file_meta.TransferSyntaxUID = old
            yield dataset
    except StudyError:
        raise
    except Exception as error:
        # In one short line: messages about damaged files may quote all of their bytes. The cause stands last.
        line = "".join(letter for letter in str(error).split("\n")[-1] if letter.isprintable())
        why = line[:LONGEST_REASON].rstrip(". ") or type(error).__name__
        raise StudyError(f"{path} cannot be read as DICOM ({why}); export it again or remove its series.") from error


def read_header(path: Path) -> Slice | Other:
    """What a DICOM file is, without its pixels; StudyError where it is damaged, or CT that cannot be read here."""
    with opened(path, stop_before_pixels=True) as dataset:
        if dataset.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
            return Other(path, "", "it is a DICOMDIR")
        modality, series = _code(dataset, "Modality", WORD), _code(dataset, "SeriesInstanceUID", UID)
        if modality == "SEG":
            references = dataset.get("ReferencedSeriesSequence")
            source = _code(references[0], "SeriesInstanceUID", UID) if references else ""
            return Other(path, source, "it refers to no series here", is_mask=True)
        if modality != "CT":
            contours = "its contours (RTSTRUCT) are no voxels; export them as DICOM-SEG or NIfTI"
            return Other(path, series, contours if modality == "RTSTRUCT" else f"its Modality is {modality}, not CT")
        if "LOCALIZER" in (dataset.get("ImageType") or ""):
            return Other(path, series, "it is a localizer")
        kind = _code(dataset, "SOPClassUID", UID)
        if kind in MULTI_FRAME_CT or int(dataset.get("NumberOfFrames") or 1) > 1:
            raise StudyError(f"{path} holds many CT slices (enhanced CT); split it, for example with dcm4che's emf2sf.")
        if kind != uid.CTImageStorage:
            return Other(path, series, f"it is no CT slice but {dataset.SOPClassUID.name}")
        photometric = _code(dataset, "PhotometricInterpretation", WORD)
        if photometric != "MONOCHROME2" or int(dataset.get("SamplesPerPixel") or 1) != 1:
            raise StudyError(f"{path} is {photometric}, but CT is MONOCHROME2; export the original, not a picture.")
        if (dataset.get("RescaleType") or "HU") not in ("HU", "US"):
            raise StudyError(f"{path} holds no Hounsfield units, by its RescaleType; export the original series.")
        numbers(dataset, "RescaleIntercept", 1)
        if (slope := numbers(dataset, "RescaleSlope", 1)[0]) <= 0:
            raise ValueError(f"RescaleSlope is {slope}")
        require_decoder(dataset, path)
        told = dataset.get("LossyImageCompression")  # remains when a file is decompressed
        return Slice(
            path,
            series,
            instance_uid=str(dataset.get("SOPInstanceUID", "")),
            patient=str(dataset.get("PatientID") or "").strip(),
            plane=plane(dataset, (int(dataset.Rows), int(dataset.Columns))),
            thickness_mm=_thickness(dataset),
            lossy=told == "01" if told else dataset.file_meta.TransferSyntaxUID in LOSSY,
        )


def _thickness(dataset) -> float:
    """SliceThickness in mm; NaN where it is not given or no thickness."""
    told = numbers(dataset, "SliceThickness", 1)[0] if dataset.get("SliceThickness") else 0
    return told if told > 0 else float("nan")


def numbers(dataset, keyword: str, count: int) -> np.ndarray:
    """The `count` finite numbers of an element, float [count]; ValueError for anything else."""
    value = dataset.get(keyword)
    if value is None or value == "":
        raise ValueError(f"{keyword} is missing")
    values = np.array([float(part) for part in ([value] if count == 1 else value)])
    if len(values) != count or not (np.abs(values) < LARGEST_NUMBER).all():
        raise ValueError(f"{keyword} is {value}")
    return values


def _code(dataset, keyword: str, form: str) -> str:
    """An element that is a word of a fixed form; never quoted when damaged, as its neighbours hold names."""
    value = str(dataset.get(keyword, "")).strip()
    if not re.fullmatch(form, value):
        raise ValueError(f"{keyword} is missing or damaged")
    return value


def plane(dataset, stored_shape: tuple[int, int]) -> Plane:
    """The Plane of pixels of a shape, by position, orientation and spacing; ValueError where these are damaged or the
    plane is not axial."""
    corner, spacing = numbers(dataset, "ImagePositionPatient", 3), numbers(dataset, "PixelSpacing", 2)
    directions = numbers(dataset, "ImageOrientationPatient", 6).reshape(2, 3)  # along a row, along a column
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(directions[0] @ directions[1]) > 1e-2:
        raise ValueError("ImageOrientationPatient is not two unit vectors at a right angle")
    rows, columns = stored_shape
    if not ((spacing >= SPACING_MM[0]) & (spacing <= SPACING_MM[1])).all() or min(stored_shape) < 1:
        raise ValueError(f"PixelSpacing is {spacing.tolist()}, of a slice of {rows} rows and {columns} columns")
    across, down = directions / lengths * spacing[::-1, None]
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    if abs(normal[2]) < AXIAL_COSINE:
        raise ValueError("it is not axial")
    affine = np.eye(4)
    affine[:3] = np.column_stack([across, down, normal, corner])
    affine[:2] *= -1  # DICOM's axes run to the patient's left and back
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    shape = stored_shape if turn[0, 0] == 0 else stored_shape[::-1]
    return Plane(affine @ inv_ornt_aff(turn, (columns, rows, 1)), shape, turn)


def require_decoder(dataset, path: Path) -> None:
    """StudyError where nothing decodes the transfer syntax of a file's pixels."""
    syntax = dataset.file_meta.TransferSyntaxUID
    with suppress(NotImplementedError):  # of a syntax that pydicom does not know
        if syntax in DECODERS or get_decoder(syntax).is_available:
            return
    raise StudyError(f"{path} is compressed as {syntax.name}, which is not read here; export the series uncompressed.")


def stored_pixels(dataset) -> np.ndarray:
    """The decoded pixels [frames,H,W] of a dataset, signed or unsigned as it says."""
    count, decode = int(dataset.get("NumberOfFrames") or 1), DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    shape = count, int(dataset.Rows), int(dataset.Columns)
    if decode is None:
        return dataset.pixel_array.reshape(shape)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    if any(END_OF_IMAGE not in frame for frame in frames):  # libjpeg would paint what is missing
        raise ValueError("its compressed pixels end early")
    pixels = np.stack([decode(frame) for frame in frames]).reshape(shape)
    # The sign is the highest of the bits stored, whatever the codec takes it for.
    spare = max(0, 8 * pixels.itemsize - int(dataset.BitsStored))
    return pixels.view(f"{'ui'[dataset.PixelRepresentation]}{pixels.itemsize}") << spare >> spare


def ordered(name: str, slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """The slices of the series `name` from the neck to the vertex, by position and never by file name.

    A slice that is there twice is kept once. Raises StudyError where slices differ in size or orientation, two
    different ones share a position, or one is missing between others.
    """
    first = slices[0]
    for other in slices[1:]:
        here, there = first.plane, other.plane
        alike = here.shape == there.shape and (here.turn == there.turn).all()
        if not alike or np.abs(here.affine - there.affine)[:3, :2].max() > SAME_STEP_MM:
            how = f"differs from {first.path.name} in size, orientation or pixel spacing"
            raise StudyError(f"{other.path} {how}; remove what does not belong to the series.")
    kept: list[tuple[float, Slice]] = []
    placed = [(float(first.plane.affine[:3, 2] @ s.plane.affine[:3, 3]), s) for s in slices]
    for height, slice_ in sorted(placed, key=lambda p: p[0]):
        if not kept or height - kept[-1][0] >= SAME_PLACE_MM:
            kept.append((height, slice_))
        elif not np.array_equal(hounsfield(slice_), hounsfield(kept[-1][1])):
            both = f"{slice_.path} and {kept[-1][1].path.name}"
            raise StudyError(f"{both} lie at the same position ({height:g} mm) but differ; keep one acquisition.")
    heights, kept_slices = zip(*kept, strict=True)
    if len(kept) > 1:
        _check_gaps(name, np.array(heights), kept_slices)
    return kept_slices


def _check_gaps(name: str, heights: np.ndarray, slices: Sequence[Slice]) -> None:
    """Head CT may be thin at the base and thick above, so a step is judged against the thickness of its slices."""
    steps = np.diff(heights)
    thickness = np.array([s.thickness_mm for s in slices])
    told = (thickness > 0).all()
    relative = steps / ((thickness[:-1] + thickness[1:]) / 2 if told else 1)
    # Where many slices are missing their steps must not become the rule: the lower quartile is.
    usual = np.quantile(relative, 0.25, method="lower")
    lost = (relative > GAP_RATIO * usual) | (told & (relative > LOST_RATIO)) | (steps > SPACING_MM[1])
    for k in np.flatnonzero(lost)[:1]:
        below, above = (f"{slices[z].path.name} at {heights[z]:g} mm" for z in (k, k + 1))
        step = f"a step of {steps[k]:g} mm"
        raise StudyError(f"The series in {name} lacks slices between {below} and {above}, {step}; copy it again.")


def spacing_mm(slices: Sequence[Slice]) -> tuple[float, float]:
    """(row, column) spacing of the slices of a series."""
    column, row = np.linalg.norm(slices[0].plane.affine[:3, :2], axis=0)
    return float(row), float(column)


def thickness_mm(slices: Sequence[Slice]) -> np.ndarray:
    """How much of the head each of the ordered slices stands for, float [D].

    The distance to their neighbours along the normal, because SliceThickness leaves out gaps, overlaps and the tilt of
    the gantry; SliceThickness where it changes within the series and the slices lie as far apart as that says.
    """
    told = np.array([s.thickness_mm for s in slices])
    steps = np.diff([slices[0].plane.affine[:3, 2] @ s.plane.affine[:3, 3] for s in slices])
    fits = (np.abs((told[:-1] + told[1:]) / 2 - steps) <= SAME_THICKNESS * steps).all()
    if not len(steps) or (fits and np.ptp(told) > 0):
        return told
    return (np.append(steps[:1], steps) + np.append(steps, steps[-1:])) / 2


def hounsfield(slice_: Slice) -> np.ndarray:
    """The pixels of a slice in the canonical view, int16 [H,W] in HU; padding is -1024."""
    with opened(slice_.path) as dataset:
        stored = stored_pixels(dataset)[0]
        values = np.rint(apply_rescale(stored, dataset))
        if (padding := dataset.get("PixelPaddingValue")) is not None:
            # Writers give the value as signed or unsigned whatever the pixels are: the bits are what counts.
            limit = dataset.get("PixelPaddingRangeLimit", padding)
            low, high = sorted(np.array([padding, limit]).astype(stored.dtype))
            values[(stored >= low) & (stored <= high)] = PADDING_HU
        if values.min() < -32768 or values.max() > 32767:
            reached = f"{values.min():g} to {values.max():g} HU"
            raise StudyError(f"{slice_.path} reaches from {reached}, more than 16 bits hold; export it again.")
        return slice_.plane.view(values.astype(np.int16))
