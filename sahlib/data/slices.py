"""SliceStore: the preprocessed slices on disk, memory-mapped (section 2.2 of the paper).

A store is a folder `<dataset>-<digest>/` with images.npy and labels.npy (uint8 [N,H,W]), slices.csv (one row per
slice) and meta.json. It is written under a temporary name and renamed when whole, so half a store is never taken
for a store; the digest covers the source's pixels and all that was done to them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sahlib.data.grey_window import estimated
from sahlib.data.scan import CLASSES, Scan
from sahlib.study import Study, StudyError, digest
from sahlib.workspace import alone_in, disk_errors_named, provenance, read_csv

# Raise when the same Study would give other pixels, so that old stores are not mistaken for new ones.
STORE_VERSION = 2
SIDES = ("row_mm", "column_mm", "thickness_mm")  # columns of slices.csv: of a voxel, NaN where unknown
NPY_HEADER_BYTES = 128
# Level and width that hold every window of augmentation "travels", from -185 to 325 HU. Its 2 HU a step blur a picture
# by 0.7 HU, where a scan's own noise is 3 to 6.
WIDE = (70.0, 510.0)


@dataclass(frozen=True)
class SliceStore:
    """The slices of one dataset; row i of `slices`, `images` and `labels` is the same slice, patients in one piece.

    images  uint8 [N,H,W], window or grey levels scaled to 0..255; the first window where there are several
    labels  uint8 [N,H,W], indices into CLASSES
    slices  slice_id, patient_id, z, row_mm, column_mm, thickness_mm (after resizing; NaN where unknown),
            pixels_<class> for each lesion class, source
    lesion  what counts as lesion: a class, or "any" of them
    further_images  the same slices in the other windows, each like images
    """

    path: Path
    images: np.ndarray
    labels: np.ndarray
    slices: pd.DataFrame
    meta: dict
    lesion: str = "SAH"
    further_images: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def digest(self) -> str:
        return self.meta["digest"]

    @property
    def unit(self) -> str:
        """What images were made of: "HU", or "grey" levels of a window that nobody has told."""
        return self.meta.get("unit", "HU")  # stores of grey levels never lack it

    def of(self, lesion: str) -> SliceStore:
        """The same slices with another lesion in question."""
        return replace(self, lesion=lesion)

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """What a network is given of the slices, one channel per window, uint8 [k,C,H,W]."""
        return np.stack([images[rows] for images in (self.images, *self.further_images)], 1)

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Where the slices show the lesion, bool [k,H,W]."""
        return self.labels[rows] > 0 if self.lesion == "any" else self.labels[rows] == CLASSES.index(self.lesion)

    @property
    def lesion_pixels(self) -> pd.Series:
        """Pixels of the lesion in each slice."""
        classes = CLASSES[1:] if self.lesion == "any" else (self.lesion,)
        return self.slices[[f"pixels_{name}" for name in classes]].sum(axis=1)


def prepare(study: Study, processed: Path, progress: Callable[[Iterable], Iterable] = iter) -> SliceStore:
    """The store of a Study under the folder `processed`: found when it is there, built from the scans when not.

    `progress` wraps the iteration over scans, for example tqdm.
    """
    from sahlib.data.sources import open_source

    source = open_source(study)
    path = store_path(study, source, processed)
    if not path.exists():
        _build(path, progress(source), _recipe(study, source), grey_window(study, source))
    return open_store(path).of(study.lesion)


def wide(store: SliceStore, study: Study, progress: Callable[[Iterable], Iterable] = iter) -> SliceStore:
    """The slices of a Study's store in the window WIDE, row by row; a store beside it, built when it is not there.

    StudyError for grey levels of a window that nobody has told.
    """
    from sahlib.data.sources import open_source

    if store.unit == "grey":
        raise StudyError(
            "'travels' draws windows from Hounsfield units, and these scans are grey levels; say --set "
            "grey_window=LEVEL/WIDTH, the window of their export, or grey_window=auto."
        )
    recipe = store.meta["recipe"] | {"windows": [WIDE]}
    path = store.path.with_name(f"{study.dataset}-{digest(recipe)}")
    if not path.exists():
        _build(path, progress(open_source(study)), recipe, store.meta["grey_window"])
    return open_store(path).of(store.lesion)


def store_path(study: Study, source, processed: Path) -> Path:
    """Where the store of a Study lies, or will lie, under the folder `processed`."""
    return processed / f"{study.dataset}-{digest(_recipe(study, source))}"


def _recipe(study: Study, source) -> dict:
    """All that decides the bytes of a store."""
    return {
        "version": STORE_VERSION,
        "source": source.fingerprint(),
        "size": study.size,
        "windows": study.window_values,
    } | ({"grey_window": study.grey_window_values or study.grey_window} if study.grey_window else {})


def grey_window(study: Study, source) -> tuple[float, float] | None:
    """(level, width) in HU that a Study names for 8-bit slices, or finds with "auto"; None where it takes them as they
    are.
    """
    return estimated(source) if study.grey_window == "auto" else study.grey_window_values


def open_store(path: Path) -> SliceStore:
    """Maps a finished store; StudyError where a file of it is missing, truncated or does not fit the others."""
    try:
        meta = json.loads((path / "meta.json").read_text())
        slices = read_csv(path / "slices.csv")
        arrays = [np.load(path / f"{name}.npy", mmap_mode="r") for name in _array_names(meta["recipe"]["windows"])]
        if {array.shape for array in arrays} != {(len(slices), meta["size"], meta["size"])}:
            raise ValueError("its files differ in length")
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(f"The slice store {path} is damaged ({error}); delete it and run again.") from error
    labels, images, *further = arrays
    return SliceStore(path, images, labels, slices, meta, further_images=tuple(further))


def preprocess(
    scan: Scan, size: int, windows: Sequence[tuple[float, float]], grey_window: tuple[float, float] | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """(images, one uint8 [D,size,size] per window; labels uint8 [D,size,size]) of one scan.

    Hounsfield units are windowed to 8 bits; grey levels are taken as they are, or, where `grey_window` names the window
    they were exported in, turned back into Hounsfield units first. Then images are resized bilinearly and
    labels by nearest neighbour (section 2.2). Raises StudyError where grey levels shall be shown in several windows.
    """
    import cv2

    if scan.unit == "grey" and grey_window:
        level, width = grey_window
        hounsfield = np.rint(level - width / 2 + scan.image * np.float32(width / 255)).astype(np.int16)
        scan = replace(scan, image=hounsfield, unit="HU")
    if scan.unit == "grey" and len(windows) > 1:
        raise StudyError(
            f"{scan.sources[0] if scan.sources else scan.patient_id} holds grey levels of one window, not Hounsfield "
            f"units; several windows need NIfTI or DICOM, or grey_window, the window of the export."
        )
    # INTER_NEAREST would sample half a pixel beside where INTER_LINEAR does; the EXACT variant is centred like it.
    images = []
    for level, width in windows:
        # Slice by slice, which stays in the processor's cache, as a whole scan would not.
        grey = scan.image if scan.unit == "grey" else (window_to_grey(image, level, width) for image in scan.image)
        images.append(np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR) for image in grey]))
    labels = [cv2.resize(label, (size, size), interpolation=cv2.INTER_NEAREST_EXACT) for label in scan.labels]
    return images, np.stack(labels)


def window_to_grey(hounsfield: np.ndarray, level: float, width: float) -> np.ndarray:
    """Grey levels uint8 of a window: level - width/2 HU and below are 0, level + width/2 HU and above 255."""
    share = (hounsfield.astype(np.float32) - (level - width / 2)) / width
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _build(path: Path, scans: Iterable[Scan], recipe: dict, grey_window: tuple[float, float] | None) -> None:
    """Streams scans into a new store, one at a time, so that memory stays at a few scans whatever the dataset.

    Where another process builds the same one, on whatever machine, waits for it and leaves it at that.
    """
    # Stays, with the lock that another process may be waiting for.
    site = path.with_name(f".{path.name}.building")
    with alone_in(site), disk_errors_named(path):
        if path.exists():
            return
        partial = site / "store"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        try:
            _write(partial, scans, recipe, grey_window)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, scans: Iterable[Scan], recipe: dict, grey_window: tuple[float, float] | None) -> None:
    size, windows = recipe["size"], recipe["windows"]
    folder.mkdir()
    rows, units = [], set()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"{name}.npy", "wb")) for name in _array_names(windows)]
        for file in files:
            file.write(bytes(NPY_HEADER_BYTES))
        for scan in scans:
            images, labels = preprocess(scan, size, windows, grey_window)
            for file, array in zip(files, (labels, *images), strict=True):
                file.write(array)
            rows += _slice_rows(scan, labels, size)
            units.add("HU" if grey_window else scan.unit)
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), size, size)}
        for file in files:
            file.seek(0)  # the number of slices was not known when the file was begun
            np.lib.format.write_array_header_1_0(file, header)
            assert file.tell() == NPY_HEADER_BYTES
    slices = pd.DataFrame(rows)
    # A patient may come in several scans; z counts through all slices of the patient.
    slices.insert(2, "z", slices.groupby("patient_id").cumcount())
    slices.to_csv(folder / "slices.csv", index=False)
    meta = {"digest": digest(recipe), "size": size, "classes": CLASSES, "slices": len(rows)}
    meta |= {
        "unit": min(units, default="HU"),
        "grey_window": grey_window,
        "recipe": recipe,
        "provenance": provenance(),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _array_names(windows: Sequence) -> list[str]:
    return ["labels", "images", *(f"images_{number}" for number in range(2, len(windows) + 1))]


def _slice_rows(scan: Scan, labels: np.ndarray, size: int) -> list[dict]:
    _, height, width = scan.image.shape
    # Most slices show nothing, and need no counting.
    counts = [np.bincount(label.ravel() if label.any() else [], minlength=len(CLASSES)) for label in labels]
    return [
        {
            "slice_id": slice_id,
            "patient_id": scan.patient_id,
            "row_mm": scan.spacing_mm[0] * height / size,
            "column_mm": scan.spacing_mm[1] * width / size,
            "thickness_mm": thickness,
            **{f"pixels_{name}": int(pixels[k]) for k, name in enumerate(CLASSES[1:], 1)},
            "source": "; ".join(map(str, scan.sources)),
        }
        for slice_id, pixels, thickness in zip(scan.slice_ids, counts, scan.thicknesses_mm, strict=True)
    ]
