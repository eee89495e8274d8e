"""One NIfTI file, read with every check and turned to the canonical view; no voxel is interpolated.

The view is the phantom's, the radiologist's: slices from the neck to the vertex, rows from the face to the back of the
head, columns from the patient's right to the left. In nibabel's letters the array [D,H,W] has the axes (S, P, L).

Axes are swapped and flipped as `nibabel.as_closest_canonical` would. An oblique scan or one under gantry tilt stays as
it was cut, its axes named after the nearest ones; its spacing is the length of the affine's columns within a slice, and
across slices their distance along the normal, so that the three multiply to a voxel's volume. Where a header gives
neither sform nor qform, the axes are what nibabel assumes then: left, anterior, superior. Where sform and qform differ
in the direction of the slices alone, as dcm2niix writes a tilted series, the qform is right. Other statements of a
header that contradict each other are refused, for nobody can tell which of them is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import igzip, isal_zlib
from nibabel import Nifti1Header, Nifti2Header, orientations
from nibabel.spatialimages import HeaderDataError

from sahlib.study import StudyError

SMALLEST_SPAN_HU = 20.0  # air, water and bone lie further apart in any scan; a normalised one has a span of 1
SPACING_MM = (0.05, 50.0)
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by the code in xyzt_units; 0 does not say
ZOOM_TOLERANCE = 0.01
SCANNER_CODES = (1, 2)  # of an sform; others align the scan with an atlas
SAME_AXIS_COSINE = 0.7
MOST_VOXELS = 2**30
LONGEST_HEADER = 540  # bytes, of NIfTI-2
# What reading a damaged file raises, and one whose header tells of more than memory holds.
DAMAGE = (OSError, EOFError, isal_zlib.error, HeaderDataError, ValueError, ArithmeticError, LookupError, MemoryError)


@dataclass(frozen=True)
class Volume:
    """One NIfTI file in the canonical view, its voxels not yet scaled.

    voxels        [D,H,W], a view of what the file holds
    scale         (slope, intercept), or None where the voxels are the values
    affine        4x4, from (column, row, slice) to mm towards the patient's right, front and top
    stored_slice  int [D], where each slice lies along its axis in the file
    stored_axes   [3,2], how the file's axes lie, as nibabel.orientations has it
    """

    path: Path
    voxels: np.ndarray
    scale: tuple[float, float] | None
    affine: np.ndarray
    stored_slice: np.ndarray
    stored_axes: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(row, column) spacing."""
        return float(np.linalg.norm(self.affine[:3, 1])), float(np.linalg.norm(self.affine[:3, 0]))

    @property
    def thickness_mm(self) -> float:
        """Distance of the slices along their normal: with a sheared affine less than the length of its column."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / np.prod(self.spacing_mm))


def read_volume(path: Path) -> Volume:
    """One NIfTI-1 or NIfTI-2 file, .nii or .nii.gz, in the canonical view.

    Raises StudyError for whatever is not one scan of plain numbers: an empty or truncated file, a header that does
    not fit the data, several volumes or colours in one file, an affine that is no grid in space.
    """
    try:
        with _unpacked(path) as file:
            header = _header(file.read(LONGEST_HEADER))
            shape, dtype, offset = _layout(header)
            affine, scale = _checked_affine(header, shape), header.get_slope_inter()
            length = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            file.seek(offset)
            content = file.read(length + 1)
        if len(content) != length:
            found = len(content) if len(content) < length else "more than that"
            raise ValueError(f"its header tells of {length} bytes of voxels and there are {found}")
    except DAMAGE as error:
        raise StudyError(
            f"{path} cannot be read as a NIfTI scan ({error}); export or download it again, or remove it."
        ) from error
    stored = np.frombuffer(content, dtype).reshape(shape, order="F")
    axes = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(axes, orientations.axcodes2ornt("LPS"))
    axis = int(np.flatnonzero(turn[:, 0] == 2)[0])
    return Volume(
        path=path,
        voxels=orientations.apply_orientation(stored, turn).transpose(2, 1, 0),
        scale=None if scale in ((None, None), (1.0, 0.0)) else scale,
        affine=affine @ orientations.inv_ornt_aff(turn, shape),
        stored_slice=np.arange(shape[axis])[:: int(turn[axis, 1])],
        stored_axes=axes,
    )


def _unpacked(path: Path) -> BinaryIO:
    """The file, packed or not: told by content, for browsers unpack .nii.gz and keep its name.

    Igzip checks every checksum that it passes, as gzip does, and unpacks no more than is asked for, in a third of the
    time.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return (igzip.open if packed else open)(path, "rb")


def mask_header(path: Path):
    """The header of a NIfTI file as that of a mask on the same grid: uint8, its geometry as it is."""
    with _unpacked(path) as file:
        header = _header(file.read(LONGEST_HEADER)).copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    return header


def hounsfield(volume: Volume) -> np.ndarray:
    """The voxels as Hounsfield units, int16 [D,H,W], rounded where the file holds fractions.

    Raises StudyError for NaN or infinite voxels, values beyond int16, and a span too small for Hounsfield units.
    """
    values = scaled(volume)
    if values.dtype.kind == "f":
        values = np.rint(values)
    low, high = float(values.min()), float(values.max())
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max or high - low < SMALLEST_SPAN_HU:
        raise StudyError(
            f"{volume.path} holds values from {low:g} to {high:g}, which are no Hounsfield units; export the scan "
            "without normalising it and with its own slope and intercept, or remove it."
        )
    return np.ascontiguousarray(values, dtype=np.int16)


def scaled(volume: Volume) -> np.ndarray:
    """The voxels' values [D,H,W], as stored where no scale is given, else floats; StudyError for NaN or infinity."""
    values = volume.voxels
    if volume.scale is not None:
        slope, intercept = volume.scale
        exact = values.dtype.itemsize <= 2 or values.dtype == np.float32
        with np.errstate(all="ignore"):
            values = values.astype(np.float32 if exact else np.float64) * slope + intercept
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise StudyError(
            f"{volume.path} holds voxels that are not numbers (NaN or infinite); export it again, or remove it."
        )
    return values


def _header(start: bytes):
    """The header at the beginning of a file; ValueError where it is none."""
    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(start):
            return kind(start[: kind.sizeof_hdr])
    raise ValueError("it does not begin like a NIfTI file")


def _layout(header) -> tuple[tuple[int, ...], np.dtype, int]:
    """((x, y, z), dtype, offset of the voxels); ValueError where it is not one volume of plain numbers."""
    shape = tuple(int(length) for length in header.get_data_shape())
    voxels = np.prod(shape, dtype=float)
    if len(shape) < 3 or min(shape) < 1 or max(shape[3:], default=1) > 1 or voxels > MOST_VOXELS:
        raise ValueError(f"it is {'x'.join(map(str, shape))}, not one volume of slices")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ValueError(f"its voxels are colours or complex numbers ({dtype}), not Hounsfield units")
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and header.sizeof_hdr <= offset < MOST_VOXELS):
        raise ValueError(f"its header says that the voxels begin at byte {offset:g}")
    return shape[:3], dtype, int(offset)


def _checked_affine(header, shape: tuple[int, int, int]) -> np.ndarray:
    """The header's affine in mm, 4x4; ValueError where its columns do not span space, no scanner has such voxels, or
    the header contradicts itself.
    """
    if (code := int(header["xyzt_units"]) & 7) not in UNITS_MM:
        raise ValueError(f"its unit of length has the code {code}, which is none")
    unit = UNITS_MM[code]
    with np.errstate(all="ignore"):
        affine = np.asarray(header.get_best_affine(), np.float64)
        affine[:3] *= unit
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        told = np.abs(np.asarray(header.get_zooms()[:3], np.float64)) * unit
    if not np.isfinite(affine).all() or not ((lengths >= SPACING_MM[0]) & (lengths <= SPACING_MM[1])).all():
        raise ValueError(f"its affine gives voxels of {_by(lengths)} mm")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 0.1:
        raise ValueError("two axes of its affine point the same way")
    if np.abs(lengths / np.maximum(told, 1e-9) - 1).max() > ZOOM_TOLERANCE:
        raise ValueError(f"its affine gives voxels of {_by(lengths)} mm and its pixdim {_by(told)} mm; correct one")
    if header["qform_code"] > 0 and header["sform_code"] in SCANNER_CODES:
        upright = np.asarray(header.get_qform(), np.float64)
        upright[:3] *= unit
        alike = (affine[:3, :3] * upright[:3, :3]).sum(axis=0) / lengths**2
        if alike.min() < SAME_AXIS_COSINE:
            raise ValueError("its sform and its qform turn it differently; correct one")
        # So dcm2niix writes a series under gantry tilt: both with the slices' distance along their normal.
        if alike[:2].min() > 1 - ZOOM_TOLERANCE and alike[2] < 1 - ZOOM_TOLERANCE / 10:
            affine = upright
    if (lengths == 1).all() and max(shape) > 4 * min(shape) and shape[2] == max(shape):
        raise ValueError(f"it is {_by(shape)} voxels of 1 mm, so its axes are swapped or its spacing was lost")
    return affine


def _by(values) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
