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

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sahlib.data.scan import Scan, ToLookAt
from sahlib.data.sources.dicom_seg import nifti_labels, segmentation_labels
from sahlib.data.sources.dicom_series import Other, Slice, hounsfield, ordered, read_header, spacing_mm, thickness_mm
from sahlib.data.sources.files import NIFTI_ENDINGS, READER, FolderSource, digest, has_ending, require_folder, walk
from sahlib.data.sources.names import natural, patient_by_pattern, plain
from sahlib.data.sources.volume_folder import value_classes
from sahlib.study import StudyError

# What commonly lies beside slices and is none; anything else among them that is not DICOM is a damaged slice.
SIDE_FILE = re.compile(
    r"\.(txt|csv|tsv|json|xml|html?|pdf|md|rtf|docx?|xlsx?|png|jpe?g|gif|bmp|tiff?|nii|gz|nrrd|mha|zip|rar|7z|ini|inf|"
    r"exe|dll|db|log|py|sh|bat|lnk)$|^DICOMDIR$",
    re.IGNORECASE,
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
    cases: tuple[Series, ...]
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
        root = require_folder(root)
        value_classes(label_map, {})
        slices, others = headers_below(root)
        if not slices:
            raise no_series(root, others)
        masks = _masks(slices, others)
        names = {folder.relative_to(root).as_posix(): folder for folder in slices}
        identities = {name: slices[folder][0].patient for name, folder in names.items()}
        series = [
            Series(name, patient, ordered(str(names[name]), slices[names[name]]), masks[names[name]])
            for name, patient in patients_of(root, identities, patient_pattern, slices_are_patients).items()
        ]
        ignored: dict[tuple[str, bool], list[str]] = defaultdict(list)
        for other in others:
            if other.path not in masks.values():
                ignored[other.reason, other.is_mask].append(str(other.path.relative_to(root)))
        for path in (folder / name for folder, names in walk(root) for name in names if has_ending(name)):
            if path not in masks.values():
                ignored["it is the mask of no series here", True].append(str(path.relative_to(root)))
        return cls(
            root,
            tuple(sorted(series, key=lambda s: (natural(s.patient_id), natural(s.name)))),
            tuple(label_map),
            tuple(
                (ToLookAt if is_mask else str)(f"{_and_more(paths)} ignored: {reason}.")
                for (reason, is_mask), paths in ignored.items()
            ),
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the check page should know of files left alone, of loss, and of volumes that are a guess."""
        lossy = [series.name for series in self.cases if any(s.lossy for s in series.slices)]
        untold = [series.name for series in self.cases if any(np.isnan(s.thickness_mm) for s in series.slices)]
        why = "compressed with loss: HU near those of the scanner, not the same"
        guess = "without SliceThickness: the way from slice to slice is taken for it, so volumes are a guess"
        told = [(lossy, why), (untold, guess)]
        return (*self.ignored, *(f"{_and_more(names)} read, but {what}." for names, what in told if names))

    def scan(self, index: int) -> Scan:
        """The Scan of one series; its sources are the series' folder and the mask."""
        series = self.cases[index]
        labels_of = nifti_labels if has_ending(series.mask.name) else segmentation_labels
        return Scan(
            patient_id=series.patient_id,
            image=np.stack([hounsfield(s) for s in series.slices]),
            labels=labels_of(series.mask, series.slices, value_classes(self.label_map, {})),
            slice_ids=tuple(f"{series.name}_z{k:02d}" for k in range(len(series.slices))),
            unit="HU",
            spacing_mm=spacing_mm(series.slices),
            thickness_mm=thickness_mm(series.slices),
            sources=(Path(series.name), series.mask.relative_to(self.root)),
        )

    def fingerprint(self) -> dict:
        """SHA-256 over the files' contents, the series' names and patients, and the label map."""
        parts = [(c.name, c.patient_id, len(c.slices), *(s.path for s in c.slices), c.mask) for c in self.cases]
        return {
            "source": self.name,
            "reader": READER,
            "scans": len(self),
            "slices": sum(len(c.slices) for c in self.cases),
            "label_map": sorted(self.label_map),
            "sha256": digest(part for case in parts for part in case),
        }


open_folder = Dicom.open


def headers_below(root: Path) -> tuple[dict[Path, list[Slice]], list[Other]]:
    """(folder -> the CT slices in it, one series each; what else there is in DICOM) below a folder.

    Raises StudyError for a file that is damaged, and for slices that lie in the folder itself, of two series in one
    folder, or among others.
    """
    slices: dict[Path, list[Slice]] = {}
    others: list[Other] = []
    for folder, files in _folders(root):
        headers = [read_header(path) for path in _dicom_files(files)]
        beside = [header for header in headers if isinstance(header, Other)]
        others += beside
        if found := [header for header in headers if isinstance(header, Slice)]:
            _check_folder(root, folder, found, beside)
            slices[folder] = found
    return slices, others


def no_series(root: Path, others: list[Other]) -> StudyError:
    found = f" ({others[0].path}: {others[0].reason})" if others else ""
    way = "add the original CT series" if others else "give the folder above the series' folders"
    return StudyError(f"{root} holds no CT series in DICOM{found}; {way}.")


def one_series(root: Path) -> tuple[Slice, ...]:
    """The slices of the one CT series below `root`, in order; StudyError where there is none or a second one."""
    headers = [read_header(path) for _, files in _folders(root) for path in _dicom_files(files)]
    slices = [header for header in headers if isinstance(header, Slice)]
    if len(uids := sorted({slice_.series_uid for slice_ in slices})) != 1:
        several = f"the CT series {uids[0]} and {uids[1]}" if uids else "no CT series in DICOM and no pictures"
        raise StudyError(f"{root} holds {several}; give a folder with one series.")
    return ordered(str(root), slices)


def recognises(root: Path) -> bool:
    """Whether a folder below `root` holds DICOM files, by the first bytes of a few files in each."""
    try:
        return any(_looks_like_dicom(path) for _, files in _folders(root) for path in files[:PROBED_FILES])
    except StudyError:
        return False


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """(folder, its files that may be DICOM), as `walk` goes; StudyError for a name or link that leads nowhere."""
    for folder, names in walk(root):
        paths = [folder / name for name in names]
        for path in paths:
            if path.is_symlink() and not path.exists():
                raise StudyError(f"{path} is a link to nowhere; copy the file itself or remove the link.")
        yield folder, [path for path in paths if path.is_file() and not SIDE_FILE.search(path.name)]


def _looks_like_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do: DICM after 128 bytes, or, in old exports, with a first element."""
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as error:
        raise StudyError(f"{path} cannot be opened ({error.strerror}); make it readable or remove it.") from error
    return head[128:] == b"DICM" or (head[:2] in (b"\x02\x00", b"\x08\x00") and len(head) == 132 and head[3] == 0)


def _dicom_files(files: list[Path]) -> list[Path]:
    """The DICOM files of a folder; StudyError for one among them that should be one and is not."""
    found = [path for path in files if _looks_like_dicom(path)]
    for path in files:
        if path not in found and (found or path.suffix.lower() in DICOM_ENDINGS):
            state = "is not a DICOM file" if path.stat().st_size else "is empty"
            raise StudyError(f"{path} {state}; copy or export it again, or remove it.")
    return found


def _check_folder(root: Path, folder: Path, found: list[Slice], others: list[Other]) -> None:
    """One series in a folder below the root, and all of that series CT slices."""
    if folder == root:
        raise StudyError(f"{root} holds CT slices itself; put each series into a folder of its own below it.")
    uid, *more = sorted({s.series_uid for s in found})
    if more:
        raise StudyError(f"{folder} holds the CT series {uid} and {more[0]}; give each a folder of its own.")
    for other in others:
        if other.series_uid == uid and not other.is_mask:
            raise StudyError(f"{other.path} belongs to a series of CT slices, but {other.reason}; remove it.")


def _masks(slices: dict[Path, list[Slice]], others: list[Other]) -> dict[Path, Path]:
    by_uid: dict[str, Path] = {}
    for folder, found in slices.items():
        if (other := by_uid.setdefault(found[0].series_uid, folder)) != folder:
            raise StudyError(f"{folder} and {other} hold the same series; merge or remove one of them.")
    candidates: dict[Path, list[Path]] = defaultdict(list)
    for path, uid in ((other.path, other.series_uid) for other in others if other.is_mask):
        if uid and uid not in by_uid and path.parent in slices:
            raise StudyError(
                f"{path} was drawn on the series {uid}, not on the one it lies with; add that or remove it."
            )
        candidates[by_uid.get(uid, path.parent)].append(path)
    for folder in slices:
        places = [Path(f"{at}{ending}") for at in (folder, folder / "mask", folder / "seg") for ending in NIFTI_ENDINGS]
        candidates[folder] += [path for path in places if path.is_file()]
        if not candidates[folder]:
            contours = next((f" ({o.path}: {o.reason})" for o in others if "RTSTRUCT" in o.reason), "")
            raise StudyError(
                f"{folder} has no mask: add {folder.name}.nii.gz beside it, mask.nii.gz in it or a DICOM-SEG (empty "
                f"where nothing bleeds), or remove the series{contours}."
            )
        if len(candidates[folder]) > 1:
            first, second = candidates[folder][:2]
            raise StudyError(f"{folder} has two masks, {first} and {second}; keep one of them.")
    return {folder: candidates[folder][0] for folder in slices}


def patients_of(root: Path, identities: dict[str, str], pattern: str, slices_are_patients: bool) -> dict[str, str]:
    """Series' name -> patient; `identities` are the series' PatientIDs, of which blank ones tell nothing."""
    identities = {name: plain(identity) for name, identity in identities.items()}
    if slices_are_patients or pattern:
        return {name: name if slices_are_patients else patient_by_pattern(name, pattern) for name in identities}
    told = [identity for identity in identities.values() if identity]
    if len(told) > 1 and len(set(told)) == 1:
        raise StudyError(
            f"All {len(told)} series in {root} with a PatientID carry the same PatientID, as anonymous exports do; "
            "give --patient-pattern (patient_pattern in a notebook), a regular expression over the folders' names, for "
            "example '^([^/]+)', or add --slices-are-patients if each is another patient's."
        )
    above: dict[str, str] = {}
    for name, identity in identities.items():
        other = above.setdefault(name.split("/")[0], name)
        if other != name and not (identity and identities[other]):
            raise StudyError(
                f"The series {name} and {other} in {root} share a folder and carry no PatientID, so nothing says "
                "whether they are one patient's; give --patient-pattern, say '^([^/]+)', or --slices-are-patients."
            )
    first: dict[str, str] = {}
    return {name: first.setdefault(identity, name) if identity else name for name, identity in identities.items()}


def _and_more(names: list[str]) -> str:
    """ "a", or "a and 2 more"."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
