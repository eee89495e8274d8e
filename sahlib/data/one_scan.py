"""One scan without a mask: read from wherever it lies, and a mask of it written back in its own geometry.

    opened = read(Path("head.nii.gz"))
    opened.save(labels, ("SAH",), Path("out"))

- a NIfTI file: the mask is NIfTI with the file's own shape and affine
- a folder with one CT series in DICOM: the mask is a DICOM-SEG that refers to the series
- a picture, or a folder of them, one patient's slices: masks are PNG of the same size and orientation

Masks of NIfTI and PNG hold 0 and, from 1 on, the number of the lesion; a PNG of a single lesion holds 0 and 255.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import io_orientation, ornt_transform

from sahlib import __version__
from sahlib.data.orientation import AS_STORED, TURNS, turn_of, turned
from sahlib.data.scan import Scan
from sahlib.data.sources import dicom_series
from sahlib.data.sources.dicom import one_series, recognises
from sahlib.data.sources.files import PICTURE_ENDINGS, by_stem, has_ending, stem, within
from sahlib.data.sources.nifti_file import hounsfield, mask_header, read_volume
from sahlib.data.sources.pictures import read_grey
from sahlib.study import StudyError
from sahlib.workspace import absolute, writing

INVERSE = {"rot90": "rot270", "rot270": "rot90"}  # every other turn undoes itself
# SNOMED CT; what else is found is told by its label.
CODES = {"SAH": ("21454007", "Subarachnoid intracranial hemorrhage")}
HEMORRHAGE = ("50960005", "Hemorrhage")
TAKEN_OVER_UIDS = ("StudyInstanceUID", "FrameOfReferenceUID")
TAKEN_OVER = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)


@dataclass(frozen=True)
class Opened:
    """A scan in the canonical view, its labels empty, and what writes labels uint8 [D,H,W] of it into a folder.

    save    (labels, names of the lesions that they number from 1 on, folder) -> the file or folder written
    remark  what a user should know of how it was read
    """

    name: str
    scan: Scan
    save: Callable[[np.ndarray, Sequence[str], Path], Path]
    remark: str = ""


def read(path: Path, orientation: str = AS_STORED) -> Opened:
    """The scan at `path`; `orientation` as in a Study, for pictures alone: others know theirs.

    Raises StudyError for whatever is no scan, and for what the readers refuse.
    """
    given, path = Path(path), absolute(path)  # what a link is called counts, and not what it leads to
    name = stem(given) or path.name
    is_series = path.is_dir() and recognises(path)
    if path.is_dir() and not is_series and (pictures := within(path, PICTURE_ENDINGS)):
        return _pictures(name, path, pictures, orientation)
    if path.is_file() and has_ending(given.name, PICTURE_ENDINGS):
        return _pictures(name, path, [path], orientation)
    if path.is_dir():
        return _series(name, path)
    if path.is_file():
        return _nifti(name, path)
    raise StudyError(f"{path} is not there; give a NIfTI file, a folder with one DICOM series, or pictures.")


def _volume(name: str, path: Path, image: np.ndarray, save: Callable, **known) -> Opened:
    ids = tuple(f"{name}_z{z:02d}" for z in range(len(image)))
    return Opened(name, Scan(name, image, np.zeros_like(image, np.uint8), ids, "HU", **known, sources=(path,)), save)


def _nifti(name: str, path: Path) -> Opened:
    volume = read_volume(path)

    def save(labels: np.ndarray, lesions: Sequence[str], folder: Path) -> Path:
        canonical = nibabel.Nifti1Image(labels.transpose(2, 1, 0), volume.affine)
        back = ornt_transform(io_orientation(volume.affine), volume.stored_axes)
        target = folder / f"{name}_mask.nii.gz"
        with writing(target) as part:
            header = mask_header(path)
            kind = nibabel.Nifti1Image if header.sizeof_hdr == nibabel.Nifti1Header.sizeof_hdr else nibabel.Nifti2Image
            voxels = np.asarray(canonical.as_reoriented(back).dataobj).reshape(header.get_data_shape())
            part.write_bytes(gzip.compress(kind(voxels, None, header).to_bytes(), mtime=0))
        return target

    known = {"spacing_mm": volume.spacing_mm, "thickness_mm": volume.thickness_mm}
    return _volume(name, path, hounsfield(volume), save, **known)


def _series(name: str, path: Path) -> Opened:
    ordered = one_series(path)

    def save(labels: np.ndarray, lesions: Sequence[str], folder: Path) -> Path:
        target, content = folder / f"{name}_mask.dcm", io.BytesIO()
        _segmentation(path, labels, lesions, ordered).save_as(content)
        with writing(target) as part:
            part.write_bytes(content.getvalue())
        return target

    image = np.stack([dicom_series.hounsfield(slice_) for slice_ in ordered])
    known = {"spacing_mm": dicom_series.spacing_mm(ordered), "thickness_mm": dicom_series.thickness_mm(ordered)}
    return _volume(name, path, image, save, **known)


def _segmentation(path: Path, labels: np.ndarray, lesions: Sequence[str], slices: Sequence[dicom_series.Slice]):
    """A DICOM-SEG of labels on the slices of the series at `path`, one segment per lesion.

    What a segmentation takes over from its series is made up where an anonymous export lacks it or holds nonsense.
    StudyError where none can be made.
    """
    import highdicom
    from pydicom import dcmread, uid
    from pydicom.sr.coding import Code

    algorithm = highdicom.AlgorithmIdentificationSequence(
        "sahlib", Code("123109", "DCM", "Artificial Intelligence"), version=__version__
    )
    segments = [
        highdicom.seg.SegmentDescription(
            number,
            lesion,
            segmented_property_category=Code("49755003", "SCT", "Morphologically Altered Structure"),
            segmented_property_type=Code(code, "SCT", meaning),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, lesion in enumerate(lesions, 1)
        for code, meaning in [CODES.get(lesion, HEMORRHAGE)]
    ]
    sources = [dcmread(slice_.path, force=True, stop_before_pixels=True) for slice_ in slices]
    for source, thickness in zip(sources, dicom_series.thickness_mm(slices), strict=True):
        for keyword in TAKEN_OVER_UIDS:
            setattr(source, keyword, sources[0].get(keyword) or uid.generate_uid())
        source.SOPInstanceUID = source.get("SOPInstanceUID") or uid.generate_uid()
        source.SliceThickness = source.get("SliceThickness") or round(float(np.nan_to_num(thickness)), 6)
    pixels = np.stack([slice_.plane.stored(plane) for slice_, plane in zip(slices, labels, strict=True)])
    for blank in ((), TAKEN_OVER):
        for source in sources:
            for keyword in TAKEN_OVER:
                if keyword in blank or keyword not in source:
                    setattr(source, keyword, "")
        try:
            return highdicom.seg.Segmentation(
                sources,
                pixels,
                "BINARY",
                segments,
                series_instance_uid=uid.generate_uid(),
                series_number=9000,
                sop_instance_uid=uid.generate_uid(),
                instance_number=1,
                manufacturer="sahlib",
                manufacturer_model_name="sahlib",
                software_versions=__version__,
                device_serial_number="0",
                omit_empty_frames=bool(pixels.any()),  # of a mask that is empty all must stay
                series_description="Research segmentation, not for clinical use",
            )
        except Exception as error:  # of a header that is damaged, which may raise almost anything
            why = f"{type(error).__name__}: {str(error).splitlines()[-1] if str(error) else ''}"
    raise StudyError(f"{path} is a series of which no DICOM-SEG can be made ({why}); convert it to NIfTI.")


def _pictures(name: str, path: Path, files: Sequence[Path], orientation: str) -> Opened:
    images = [read_grey(file) for file in files]
    if len({image.shape for image in images}) > 1:
        raise StudyError(f"{files[0].parent} holds pictures of several sizes; give one patient's slices of one size.")
    files_by_stem = by_stem(list(files))
    found = turn_of(orientation, images)
    turn, remark = found or AS_STORED, "" if found else f"{name}: which way up it lies is in doubt; left as stored."

    def save(labels: np.ndarray, lesions: Sequence[str], folder: Path) -> Path:
        import cv2

        back = TURNS[INVERSE.get(turn, turn)].of(labels) * np.uint8(255 if len(lesions) == 1 else 1)
        for own, mask in zip(files_by_stem, back, strict=True):
            with writing(folder / f"{name}_mask" / f"{own}.png") as part:
                part.write_bytes(cv2.imencode(".png", np.ascontiguousarray(mask))[1].tobytes())
        return folder / f"{name}_mask"

    image = np.stack(images)
    scan = Scan(name, image, np.zeros_like(image), tuple(files_by_stem), "grey", sources=(path,))
    return Opened(name, turned(scan, turn), save, remark)
