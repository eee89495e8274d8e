"""CT series in DICOM: one folder per series, at any depth and under any file names, each with its mask.

    my_scans/
        patient 1/head/IM0001 ...       the slices of a series
        patient 1/head.nii.gz           its mask, beside the folder (or mask.nii.gz, seg.nii.gz inside it)
        patient 2/series/1.dcm ...
        patient 2/segmentation/1.dcm    a DICOM-SEG, anywhere below my_scans; it names its series itself

The layout is this project's own; what the files hold is DICOM's (PS3.3). Every CT series needs a mask, also an empty
one. Localizers, pictures of the screen and whatever is no CT are left alone, with the reason in `ignored`. Two CT
series in one folder are refused, because a mask could not be told whose it is.

Patients: a series is named after its folder below the root, and so is its patient. Series with the same PatientID are
one patient, named after the first of their folders; PatientID and the person's name never leave the files.
patient_pattern is a regular expression over the series' name (`patient 1/head`) whose first group is the patient;
slices_are_patients takes every series for another patient's.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import Scan
from sahlib.data.sources.dicom_seg import NIFTI_ENDINGS, labels_of, number_map
from sahlib.data.sources.dicom_series import (
    Ignored,
    Segmentation,
    Slice,
    hounsfield,
    looks_like_dicom,
    ordered,
    read_header,
    spacing_mm,
)
from sahlib.data.sources.files import FolderSource, file_digest
from sahlib.data.sources.names import patient_by_pattern
from sahlib.study import StudyError

# What commonly lies beside slices and is none; anything else among them that is not DICOM is a damaged slice.
SIDE_ENDINGS = (
    *(
        ".txt",
        ".csv",
        ".tsv",
        ".json",
        ".xml",
        ".html",
        ".htm",
        ".pdf",
        ".md",
        ".rtf",
        ".doc",
        ".docx",
        ".xls",
        ".xlsx",
    ),
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".nii", ".gz", ".nrrd", ".mha", ".zip", ".rar", ".7z"),
    *(".ini", ".inf", ".exe", ".dll", ".db", ".log", ".py", ".sh", ".bat", ".lnk"),
)
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
PROBED_FILES = 5  # per folder, where a folder is only to be recognised


@dataclass(frozen=True)
class Series:
    """A CT series, its slices from the neck to the vertex, its patient and its mask."""

    name: str
    patient_id: str
    slices: tuple[Slice, ...]
    mask: Path


@dataclass(frozen=True)
class Dicom(FolderSource):
    """Checked series folders; every series is yielded as a Scan, patients in order.

    `ignored` says in one sentence per series or file what was left alone and why.
    """

    name = "dicom"

    root: Path
    series: tuple[Series, ...]
    label_map: tuple[str, ...]
    ignored: tuple[str, ...]

    @classmethod
    def open(
        cls,
        root: str | Path,
        patient_pattern: str = "",
        slices_are_patients: bool = False,
        label_map: tuple[str, ...] = (),
    ) -> Dicom:
        """Reads every header, orders the slices, finds masks and patients; pixels wait, but for slices found twice.

        Raises StudyError for a folder that is missing or holds no CT series, a file that is damaged or cannot be
        read here, a series that is incomplete or mixed with another, and one without a mask.
        """
        root = Path(root).expanduser()
        if not root.is_dir():
            raise StudyError(f"{root} is no folder; give the folder that holds one folder per DICOM series.")
        number_map(label_map)
        slices: dict[Path, list[Slice]] = {}
        segmentations: list[Segmentation] = []
        ignored: list[Ignored] = []
        for folder, files in _folders(root):
            headers = [read_header(path) for path in _dicom_files(files)]
            found = [h for h in headers if isinstance(h, Slice)]
            others = [h for h in headers if isinstance(h, Ignored)]
            segmentations += [h for h in headers if isinstance(h, Segmentation)]
            ignored += others
            if found:
                _check_folder(root, folder, found, others)
                slices[folder] = found
        if not slices:
            hint = f" ({ignored[0].path}: {ignored[0].reason})" if ignored else ""
            raise StudyError(f"{root} holds no CT series in DICOM{hint}; give the folder above the series' folders.")
        names = {folder: folder.relative_to(root).as_posix() for folder in slices}
        masks = _masks(root, slices, segmentations)
        identities = {names[folder]: found[0].patient for folder, found in slices.items()}
        patients = _patients(root, identities, patient_pattern, slices_are_patients)
        series = [
            Series(name, patients[name], ordered(str(folder), slices[folder]), masks[folder])
            for folder, name in names.items()
        ]
        series.sort(key=lambda s: (s.patient_id, s.name))
        used = {s.mask for s in series}
        ignored += [Ignored(s.path, "", "it refers to no series here") for s in segmentations if s.path not in used]
        return cls(root, tuple(series), tuple(label_map), _sentences(root, ignored))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the check page should know of files left alone."""
        return self.ignored

    def __len__(self) -> int:
        return len(self.series)

    def scan(self, index: int) -> Scan:
        """The Scan of one series; its sources are the series' folder and the mask."""
        series = self.series[index]
        labels = labels_of(series.mask, series.slices, self.label_map)
        row, column, between = spacing_mm(series.slices)
        return Scan(
            patient_id=series.patient_id,
            image=np.stack([hounsfield(s) for s in series.slices]),
            labels=labels,
            slice_ids=tuple(f"{series.name}_z{k:02d}" for k in range(len(series.slices))),
            unit="HU",
            spacing_mm=(row, column),
            thickness_mm=between,
            sources=(Path(series.name), series.mask.relative_to(self.root)),
        )

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, the series' names and patients, and the label map."""
        total = hashlib.sha256()
        for series in self.series:
            total.update(f"{series.name}\0{series.patient_id}\0{len(series.slices)}\0".encode())
            for path in (*(s.path for s in series.slices), series.mask):
                total.update(file_digest(path))
        return {
            "source": self.name,
            "scans": len(self),
            "slices": sum(len(s.slices) for s in self.series),
            "label_map": sorted(self.label_map),
            "sha256": total.hexdigest(),
        }


open_folder = Dicom.open


def recognises(root: Path) -> bool:
    """Whether a folder below `root` holds DICOM files, by the first bytes of a few files in each."""
    try:
        for _, files in _folders(root):
            candidates = [path for path in files if path.suffix.lower() not in SIDE_ENDINGS]
            if any(looks_like_dicom(path) for path in candidates[:PROBED_FILES]):
                return True
    except StudyError:
        return False
    return False


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """(folder, its plain files) at any depth, in order of name; links are followed, each real folder once."""

    def refuse(error: OSError):
        raise StudyError(f"{error.filename} cannot be opened ({error.strerror}); make it readable or remove it.")

    visited: set[str] = set()
    for at, below, names in os.walk(root, followlinks=True, onerror=refuse):
        folder = Path(at)
        if (real := os.path.realpath(at)) in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = [folder / name for name in sorted(names) if not name.startswith(".")]
        for path in paths:
            if not _is_text(path):
                raise StudyError(f"{str(path)!r} has a name that is not UTF-8; rename it.")
            if path.is_symlink() and not path.exists():
                raise StudyError(f"{path} is a link to nowhere; copy the file itself or remove the link.")
        yield folder, [path for path in paths if path.is_file()]


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _dicom_files(files: list[Path]) -> list[Path]:
    """The DICOM files of a folder; StudyError for one among them that should be one and is not."""
    candidates = [p for p in files if p.suffix.lower() not in SIDE_ENDINGS and p.name.upper() != "DICOMDIR"]
    found = [path for path in candidates if looks_like_dicom(path)]
    for path in sorted(set(candidates) - set(found)):
        if found or path.suffix.lower() in DICOM_ENDINGS:
            state = "is not a DICOM file" if path.stat().st_size else "is empty"
            raise StudyError(f"{path} {state}; copy or export it again, or remove it.")
    return found


def _check_folder(root: Path, folder: Path, found: list[Slice], others: list[Ignored]) -> None:
    """One series in a folder below the root, and all of that series CT slices."""
    if folder == root:
        raise StudyError(f"{root} holds CT slices itself; put each series into a folder of its own below it.")
    uids = sorted({s.series_uid for s in found})
    if len(uids) > 1:
        raise StudyError(f"{folder} holds the CT series {uids[0]} and {uids[1]}; give each a folder of its own.")
    for other in others:
        if other.series_uid == uids[0]:
            raise StudyError(f"{other.path} belongs to a series of CT slices, but {other.reason}; remove it.")


def _masks(root: Path, slices: dict[Path, list[Slice]], segmentations: list[Segmentation]) -> dict[Path, Path]:
    """Series folder -> its one mask."""
    by_series: dict[str, Path] = {}
    for folder, found in slices.items():
        if (uid := found[0].series_uid) in by_series:
            raise StudyError(f"{folder} and {by_series[uid]} hold the same series {uid}; merge or remove one of them.")
        by_series[uid] = folder
    candidates: dict[Path, list[Path]] = defaultdict(list)
    for segmentation in segmentations:
        own = segmentation.path.parent
        folder = by_series.get(segmentation.refers_to) if segmentation.refers_to else own
        if folder is None and own in slices:
            raise StudyError(
                f"{segmentation.path} was drawn on the series {segmentation.refers_to}, not on the one it lies with; "
                "add that series or remove the segmentation."
            )
        if folder in slices:
            candidates[folder].append(segmentation.path)
    for folder in slices:
        places = [folder.with_name(folder.name + ending) for ending in NIFTI_ENDINGS]
        places += [folder / (stem + ending) for stem in ("mask", "seg") for ending in NIFTI_ENDINGS]
        candidates[folder] += [path for path in places if path.is_file()]
        if not candidates[folder]:
            raise StudyError(
                f"{folder} has no mask: add {folder.name}.nii.gz beside it, mask.nii.gz in it or a DICOM-SEG (empty "
                "where nothing bleeds), or remove the series."
            )
        if len(candidates[folder]) > 1:
            first, second = candidates[folder][:2]
            raise StudyError(f"{folder} has two masks, {first} and {second}; keep one of them.")
    return {folder: candidates[folder][0] for folder in slices}


def _patients(root: Path, identities: dict[str, str], pattern: str, slices_are_patients: bool) -> dict[str, str]:
    """Series' name -> patient; `identities` are the series' PatientIDs."""
    if slices_are_patients:
        return {name: name for name in identities}
    if pattern:
        return {name: patient_by_pattern(name, pattern) for name in identities}
    if len(identities) > 1 and len(set(identities.values())) == 1 and any(identities.values()):
        raise StudyError(
            f"All {len(identities)} series in {root} carry the same PatientID, as anonymised exports do; give "
            "--patient-pattern (patient_pattern in a notebook), a regular expression over the folders' names, for "
            "example '^([^/]+)', or add --slices-are-patients if each is another patient's."
        )
    first: dict[str, str] = {}
    return {name: first.setdefault(identity, name) if identity else name for name, identity in identities.items()}


def _sentences(root: Path, ignored: list[Ignored]) -> tuple[str, ...]:
    """One sentence per folder and reason."""
    grouped: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for entry in ignored:
        grouped[entry.path.parent, entry.reason].append(entry.path.relative_to(root))
    return tuple(
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''} ignored: {reason}."
        for (_, reason), paths in grouped.items()
    )
