"""Folders of masks that were made elsewhere, paired by name and read on their own grid; nothing is resampled.

    folders = pair([Path("truth")], {"nnU-Net": Path("nnunet")}, images=Path("scans"))
    for case in folders.cases: folders.read(case)

The truth says what there is: a NIfTI file is a scan, a picture is a slice, and a DICOM-SEG is of the series that it was
drawn on (mask_series.py). What else is given has the same names, words such as `_mask`, `_pred` or `_0000` at their end
left aside, in the same folders below. Masks of a scan lie on the truth's grid, in whatever orientation they are stored.
Values between 0 and 1 are probabilities: NIfTI in floats, or `.npy`, [rows, columns] of a picture and for scans in
nibabel's order.

A scan is its own patient unless a table or a pattern says more. Pictures need one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from nibabel import orientations

from sahlib.data import mask_series
from sahlib.data.mask_cases import Case, MaskFolders, Read
from sahlib.data.scan import CLASSES, to_classes
from sahlib.data.slices import SIDES, window_to_grey
from sahlib.data.sources import nifti_file
from sahlib.data.sources.files import (
    IMAGE_WORDS,
    MASK_WORDS,
    NIFTI_ENDINGS,
    PICTURE_ENDINGS,
    has_ending,
    require_folder,
    unread,
    walk,
    without_word,
)
from sahlib.data.sources.masks import Meaning, meaning
from sahlib.data.sources.names import natural, patient_by_pattern, plain, read_table, without_ending
from sahlib.data.sources.nifti_file import Volume, read_volume
from sahlib.data.sources.pictures import read_grey
from sahlib.data.sources.volume_folder import require_same_grid, value_classes, whole
from sahlib.study import WINDOWS, StudyError

ARRAY_ENDINGS = (".npy",)
PREDICTION_WORDS = (*MASK_WORDS, "pred", "preds", "prediction", "predictions", "output", "prob", "probs", "probability")


def pair(
    truths: Mapping[str, Path],
    masks: Mapping[str, Path],
    images: Path | None = None,
    patients: Path | None = None,
    patient_pattern: str = "",
    slices_are_patients: bool = False,
    label_map: tuple[str, ...] = (),
) -> MaskFolders:
    """The cases of the first truth's folder with what else there is of each, patients in order.

    truths    rater -> folder
    masks     competitor -> folder
    patients  a CSV with the columns file and patient_id and, where the sides of a voxel are to be told, SIDES

    Raises StudyError for a folder that is empty or of another kind, two files of one name, a file that belongs to no
    case, a rater or an image that is missing, and a case without a patient.
    """
    (first, folder), *others = truths.items()
    known, kind = _files(folder)
    if not known and (series := mask_series.find(folder, images)):
        cases = mask_series.cases(series, truths, masks, patient_pattern, slices_are_patients)
        return _folders(cases, truths, masks, images, partial(mask_series.read, classes=value_classes(label_map, {})))
    if not known:
        raise StudyError(f"{folder} holds no masks; expected NIfTI files, or pictures of slices ({', '.join(kind)}).")
    raters = {first: known} | {rater: _like(own, known, folder, kind) for rater, own in others}
    found = {name: _like(own, known, folder, (*kind, *ARRAY_ENDINGS)) for name, own in masks.items()}
    shown = _like(images, known, folder, kind) if images else {}
    for what, own in [*((f"rater {rater}", own) for rater, own in raters.items()), ("images", shown)]:
        if own and (lacking := [name for name in known if name not in own]):
            way = (
                "an empty mask where nothing is to be seen" if what != "images" else "the image, or leave --images out"
            )
            raise StudyError(f"{known[lacking[0]]} has no counterpart among the {what}; add {way}.")
    told = read_table(patients, ("file", "patient_id")) if patients else []
    table = {_bare(plain(row["file"]).replace("\\", "/"), (*kind, *ARRAY_ENDINGS)): row for row in told}
    is_scan = kind == NIFTI_ENDINGS
    cases = [
        Case(
            name,
            _patient(name, path, table, patients, patient_pattern, slices_are_patients or (is_scan and not told)),
            tuple(own[name] for own in raters.values()),
            {competitor: own.get(name) for competitor, own in found.items()},
            shown.get(name),
            _sides(table.get(name, {}), patients),
        )
        for name, path in known.items()
    ]
    if is_scan and not (told or patient_pattern or slices_are_patients):
        _require_one_scan_each(cases)
    if is_scan:
        read = partial(_read_scan, classes=value_classes(label_map, {1: CLASSES.index("SAH")}))
    else:
        read = partial(_read_picture, meanings=_meanings(cases, tuple(masks), label_map))
    return _folders(cases, truths, masks, images, read)


def _folders(
    cases: Sequence[Case],
    truths: Mapping[str, Path],
    masks: Mapping[str, Path],
    images: Path | None,
    read: Callable[[Case], Read],
) -> MaskFolders:
    ordered = sorted(cases, key=lambda case: (natural(case.patient_id), natural(case.name)))
    lacking = {competitor: [case.name for case in ordered if case.masks[competitor] is None] for competitor in masks}
    missing = {competitor: names for competitor, names in lacking.items() if names}
    known = [path for case in cases for path in case.paths]
    roots = dict.fromkeys(root for root in (*truths.values(), *masks.values(), images) if root)
    remarks = tuple(str(remark) for root in roots for remark in unread(root, known))
    return MaskFolders(tuple(ordered), tuple(truths), read, missing, remarks)


def _files(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """(the masks of a folder by their bare names, the endings of their kind), NIfTI before pictures."""
    root = require_folder(folder)
    for kind in (NIFTI_ENDINGS, PICTURE_ENDINGS):
        if found := _named(root, kind):
            return found, kind
    return {}, PICTURE_ENDINGS


def _like(folder: Path, known: Mapping[str, Path], truth: Path, kind: tuple[str, ...]) -> dict[str, Path]:
    """The files of a folder by the names of `known`; StudyError for one that has no counterpart there."""
    found = _named(require_folder(folder), kind)
    if not found:
        raise StudyError(f"{folder} holds no {' or '.join(kind)} files, as {truth} does.")
    if strange := [path for name, path in found.items() if name not in known]:
        more = f" ({len(strange) - 1} more are like it)" if len(strange) > 1 else ""
        raise StudyError(
            f"{strange[0]} has no truth of that name in {truth} (which has, for example, "
            f"{next(iter(known.values())).name}){more}; rename it, add the truth, or remove it."
        )
    return found


def _named(root: Path, kind: tuple[str, ...]) -> dict[str, Path]:
    """The files of a kind at any depth by their bare names; StudyError where two have one name."""
    found: dict[str, Path] = {}
    for place, names in walk(root):
        for path in (place / name for name in names if has_ending(name, kind)):
            name = _bare(path.relative_to(root).as_posix(), kind)
            if (other := found.setdefault(name, path)) is not path:
                raise StudyError(f"{path} and {other} have one name ({name}); keep one of them.")
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def _bare(place: str, kind: tuple[str, ...]) -> str:
    """A place below a folder without the file's ending and the words that end its name."""
    *folders, name = place.split("/")
    name = without_ending(name, kind)
    while (shorter := without_word(name, (*PREDICTION_WORDS, *IMAGE_WORDS))) != name:
        name = shorter
    return plain("/".join(filter(None, (*folders, name)))) or plain(without_ending(place, kind))


def _patient(name: str, path: Path, table: Mapping[str, dict], told: Path | None, pattern: str, own: bool) -> str:
    if pattern:
        return patient_by_pattern(name, pattern)
    if told and not (patient := plain(table.get(name, {}).get("patient_id", ""))):
        raise StudyError(f"{told} names no patient for {name}; add a row with its file and patient_id.")
    if told:
        return patient
    if not own:
        raise StudyError(
            f"Nothing says whose slice {path} is: give --patients CSV with the columns file and patient_id, or "
            "--patient-pattern, a regular expression over the names whose first group is the patient, for example "
            "'^([^_]+)_', or --slices-are-patients if every slice is another patient's."
        )
    return name


def _sides(row: Mapping[str, str], table: Path | None) -> tuple[float, float, float]:
    """What a table says of a voxel's sides; StudyError where that is no length."""
    sides = []
    for column in SIDES:
        text = row.get(column, "").strip()
        try:
            side = float(text) if text else np.nan
        except ValueError:
            side = -1.0
        if side <= 0 or np.isinf(side):
            raise StudyError(
                f"{table} gives {row['file']} the {column} {text!r}; write a length in mm, or leave it empty."
            )
        sides.append(side)
    return tuple(sides)


def _require_one_scan_each(cases: Sequence[Case]) -> None:
    """StudyError where a folder directly below the truth's holds several scans: they may be one patient's, or not."""
    seen: dict[str, Case] = {}
    for case in cases:
        top, *below = case.name.split("/")
        if (other := seen.setdefault(top, case)) is not case and (below or "/" in other.name):
            raise StudyError(
                f"{case.truths[0]} and {other.truths[0]} share the folder {top}, and nothing says whether they are one "
                "patient's; give --patient-pattern, for example '^([^/]+)', or --patients CSV."
            )


def _meanings(cases: Sequence[Case], competitors: Sequence[str], label_map: tuple[str, ...]) -> dict[str, Meaning]:
    """What the pictures of each folder mean, the truth's under ""; each folder must agree with itself alone."""
    of_truth = [path for case in cases for path in case.truths]
    drawn = {
        name: [path for case in cases if (path := case.masks[name]) and not has_ending(path.name, ARRAY_ENDINGS)]
        for name in competitors
    }
    return {name: meaning(paths, label_map) for name, paths in {"": of_truth, **drawn}.items()}


def _read_scan(case: Case, classes: Mapping[int, int]) -> Read:
    grid = read_volume(case.truths[0])
    truths = []
    for path in case.truths:
        volume = grid if path == case.truths[0] else read_volume(path)
        require_same_grid(volume, grid)
        truths.append(to_classes(whole(volume), classes, path))
    masks = {name: _predicted_volume(path, grid, classes) for name, path in case.masks.items()}
    image = None
    if case.image:
        volume = read_volume(case.image)
        require_same_grid(volume, grid)
        image = window_to_grey(nifti_file.hounsfield(volume), *WINDOWS["brain"])
    sides = (*grid.spacing_mm, grid.thickness_mm)
    ids = tuple(f"{case.name}_z{z:02d}" for z in range(len(grid.voxels)))
    return Read(ids, truths, masks, image, sides)


def _predicted_volume(path: Path | None, grid: Volume, classes: Mapping[int, int]) -> np.ndarray:
    """A competitor's volume on the truth's grid: classes uint8, or probabilities where it holds fractions."""
    if path is None:
        return np.zeros(grid.voxels.shape, np.uint8)
    if has_ending(path.name, ARRAY_ENDINGS):
        stored = _array(path)
        axes = orientations.ornt_transform(grid.stored_axes, orientations.axcodes2ornt("LPS"))
        shape = tuple(grid.voxels.shape[::-1][int(axis)] for axis in axes[:, 0])
        if stored.shape != shape:
            raise StudyError(
                f"{path} has the shape {stored.shape}; its truth {grid.path}, as nibabel reads it, has {shape}."
            )
        return _probabilities(orientations.apply_orientation(stored, axes).transpose(2, 1, 0), path)
    volume = read_volume(path)
    require_same_grid(volume, grid)
    values = nifti_file.scaled(volume)
    if values.dtype.kind == "f" and (values != np.rint(values)).any() and volume.scale is None:
        return _probabilities(values, path)
    return to_classes(whole(volume), classes, path)


def _read_picture(case: Case, meanings: Mapping[str, Meaning]) -> Read:
    first = case.truths[0]
    truths = [meanings[""].labels(path)[None] for path in case.truths]
    masks = {}
    for name, path in case.masks.items():
        if path is None:
            masks[name] = np.zeros_like(truths[0])
        elif has_ending(path.name, ARRAY_ENDINGS):
            masks[name] = _probabilities(_array(path)[None], path)
        else:
            masks[name] = meanings[name].labels(path)[None]
    image = read_grey(case.image)[None] if case.image else None
    others = [*zip(case.truths, truths, strict=True), *((case.masks[name], own) for name, own in masks.items())]
    for path, own in (*others, (case.image, image)):
        if own is not None and own.shape != truths[0].shape:
            sizes = " and ".join("x".join(map(str, shape[1:])) for shape in (own.shape, truths[0].shape))
            raise StudyError(f"{path} and {first} are of {sizes} rows and columns; export both at one size.")
    return Read((case.name,), truths, masks, image, case.sides_mm)


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StudyError(f"{path} cannot be read as an array ({error}); save it with numpy.save.") from error
    if values.dtype.kind not in "fbui":
        raise StudyError(f"{path} holds {values.dtype}, not numbers; save probabilities as floats.")
    return values


def _probabilities(values: np.ndarray, path: Path) -> np.ndarray:
    """`values` as floats; StudyError where one is no probability."""
    values = values if values.dtype.kind == "f" else values.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # also False for NaN
        raise StudyError(
            f"{path} holds values from {values.min():g} to {values.max():g}; probabilities lie between 0 and 1, and a "
            "mask holds whole numbers: save the sigmoid of logits, or the mask."
        )
    return values
