"""Writes CT series, segmentations and NIfTI masks as files, from arrays in the canonical view; for tests alone."""

from __future__ import annotations

import imagecodecs
import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)

LOSSLESS = [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]
START = np.array([-71.5, -83.25, -42.0])  # where the first pixel lies, in mm to the left, the back and the head
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"


def file_dataset(sop_class, syntax=ExplicitVRLittleEndian):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    return dataset


def save(dataset, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def turned(pixels, corner, down, across, turn):
    """A canonical slice as a scanner with another view writes it; turn is (transpose, flip rows, flip columns)."""
    transpose, flip_rows, flip_columns = turn
    if flip_rows:
        pixels, corner, down = pixels[::-1], corner + (len(pixels) - 1) * down, -down
    if flip_columns:
        pixels, corner, across = pixels[:, ::-1], corner + (pixels.shape[1] - 1) * across, -across
    return (pixels.T, corner, across, down) if transpose else (pixels, corner, down, across)


def series(scan, corners=None, turn=(False, False, False), slopes=(1.0,), intercept=-1024.0, patient="MRN 12345"):
    """One Dataset per slice of a canonical Scan; corners [D,3] are its slices' places, by default upright."""
    row, column = scan.spacing_mm
    if corners is None:
        corners = START + np.outer(np.arange(len(scan.image)), [0, 0, scan.thickness_mm])
    uid, datasets = generate_uid(), []
    for k, (image, corner) in enumerate(zip(scan.image, corners, strict=True)):
        pixels, corner, down, across = turned(image, corner, np.array([0, row, 0]), np.array([column, 0, 0]), turn)
        dataset = file_dataset(CTImageStorage)
        dataset.Modality, dataset.ImageType, dataset.SeriesInstanceUID = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], uid
        dataset.PatientID, dataset.PatientName = patient, "Doe^Jane"
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        lengths = np.linalg.norm(down), np.linalg.norm(across)
        dataset.PixelSpacing = [float(length) for length in lengths]
        dataset.ImageOrientationPatient = [*(across / lengths[1]).tolist(), *(down / lengths[0]).tolist()]
        dataset.ImagePositionPatient = [round(float(part), 6) for part in corner]
        dataset.SliceThickness = scan.thickness_mm
        slope = slopes[k % len(slopes)]
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.PixelData = np.rint((pixels - intercept) / slope).astype(np.uint16).tobytes()
        datasets.append(dataset)
    return datasets


def store(dataset, image, bits=16, signed=False):
    """Puts HU into a Dataset of `series` as pixels of so many bits in 16; signed ones need no intercept."""
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    dataset.RescaleIntercept = 0 if signed else -1024
    dataset.PixelData = (image - dataset.RescaleIntercept).astype(np.int16 if signed else np.uint16).tobytes()


def compress(dataset, syntax):
    """Compresses the pixels of a Dataset; JPEG-LS near lossless changes them by up to 2."""
    if syntax == RLELossless:
        dataset.compress(syntax)
        return
    stored, bits = dataset.pixel_array, dataset.BitsStored
    plain = stored.astype(np.uint16) & ((1 << bits) - 1)  # as JPEG and JPEG-LS hold them: without a sign
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        predictor = 1 if syntax == JPEGLosslessSV1 else 4
        frame = imagecodecs.jpeg8_encode(plain, lossless=True, predictor=predictor, bitspersample=bits)
    elif syntax == JPEG2000Lossless:
        frame = imagecodecs.jpeg2k_encode(stored, level=0, codecformat="j2k", bitspersample=bits, reversible=True)
    else:
        frame = imagecodecs.jpegls_encode(plain, level=2 if syntax == JPEGLSNearLossless else 0)
    put_frame(dataset, syntax, frame)


def put_frame(dataset, syntax, frame):
    """Gives a Dataset one compressed frame as its pixels."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True


def write_series(folder, datasets, seed=0):
    """Files whose names say nothing about their order."""
    for dataset, number in zip(datasets, np.random.default_rng(seed).permutation(len(datasets)), strict=True):
        save(dataset, folder / f"IM{number:04d}")


def affine_of(scan, step=None):
    """The affine of labels.transpose(2, 1, 0) in RAS, as NIfTI has it."""
    row, column = scan.spacing_mm
    step = np.array([0, 0, scan.thickness_mm]) if step is None else step
    lps = np.column_stack([[column, 0, 0], [0, row, 0], step, START])
    return np.vstack([np.diag([-1, -1, 1]) @ lps, [0, 0, 0, 1]])


def write_nifti(path, labels, affine, axes="LPS", dtype=np.uint8):
    """Canonical labels [D,H,W] under `affine`, stored along other axes where `axes` says so."""
    image = nibabel.Nifti1Image(labels.transpose(2, 1, 0).astype(dtype), affine)
    start, end = (nibabel.orientations.axcodes2ornt(codes) for codes in ("LPS", axes))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(start, end)), path)


def segmentation(labels, datasets, segments, kind="BINARY", places=("reference", "position"), turn=(False,) * 3):
    """A DICOM-SEG of canonical labels on a series in the same view; segments: {number: (label, class value)}."""
    dataset = file_dataset(LABEL_MAP_STORAGE if kind == "LABELMAP" else SegmentationStorage)
    if kind == "FRACTIONAL":
        dataset.SegmentationFractionalType, dataset.MaximumFractionalValue = "PROBABILITY", 255
    dataset.Modality, dataset.SegmentationType, dataset.SeriesInstanceUID = "SEG", kind, generate_uid()
    reference = Dataset()
    reference.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    dataset.ReferencedSeriesSequence = [reference]
    dataset.SegmentSequence, frames, groups = [], [], []
    for number, (label, _) in segments.items():
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, label
        dataset.SegmentSequence.append(item)
    for z, source in enumerate(datasets):
        whole = sum(number * (labels[z] == value) for number, (_, value) in segments.items())
        if not whole.any():
            continue
        whole = turned(whole, np.zeros(3), np.zeros(3), np.zeros(3), turn)[0]
        for number in [0] if kind == "LABELMAP" else segments:
            if number and not (whole == number).any():
                continue
            frames.append((whole == number) * (255 if kind == "FRACTIONAL" else 1) if number else whole)
            groups.append(_group(source, number, places))
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = datasets[0].ImageOrientationPatient
    measures.PixelSpacing = datasets[0].PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames[0].shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    stack = np.stack(frames).astype(np.uint8)
    dataset.PixelData = pack_bits(stack.ravel()) if kind == "BINARY" else stack.tobytes()
    return dataset


def _group(source, number, places):
    group = Dataset()
    if number:
        item = Dataset()
        item.ReferencedSegmentNumber = number
        group.SegmentIdentificationSequence = [item]
    if "position" in places:
        item = Dataset()
        item.ImagePositionPatient = source.ImagePositionPatient
        group.PlanePositionSequence = [item]
    if "reference" in places:
        image, item = Dataset(), Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        item.SourceImageSequence = [image]
        group.DerivationImageSequence = [item]
    return group
