"""What a slice browser has to show: slices, who is on which side, what networks say, and Hounsfield units.

Nothing here draws; everything is read when a slice is asked for, so that a store of any length opens at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sahlib.chapters.results import Results
from sahlib.data import sources, splits
from sahlib.data.scan import CLASSES
from sahlib.data.slices import SliceStore, open_store
from sahlib.data.splits import Split
from sahlib.figures import drawing
from sahlib.networks import gates
from sahlib.scoring import metrics, prediction
from sahlib.study import WINDOWS, Study, StudyError, name_of
from sahlib.training.runs import Run

SCANS_KEPT = 4  # in Hounsfield units, a patient's scan each: about 20 MB of 512x512 slices


@dataclass(frozen=True)
class Network:
    """One trained network; `run` has its probabilities of the test slices, `weights` (the same run, or the one it was
    trained in) its weights; `lesion` is the output in question, `colour` its outlines' as in every figure."""

    label: str
    colour: str
    run: Run
    weights: Run
    lesion: str

    @property
    def model(self) -> str:
        return self.run.model

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """float16 [k,H,W] of the test slices, memory-mapped."""
        return self.run.probabilities_of(self.lesion)

    @functools.cached_property
    def counts(self) -> pd.DataFrame:
        return self.run.counts_of(self.lesion)

    @property
    def has_gates(self) -> bool:
        return self.model == "attention_unet"

    @functools.cached_property
    def _network(self):
        return prediction.load_network(self.weights)

    def gate_map(self, inputs: np.ndarray) -> np.ndarray:
        """Coefficients of the gate at full resolution, float32 [H,W], of one slice's inputs uint8 [1,C,H,W]."""
        return gates.gate_maps(self._network, inputs, self.weights.record["study"]["precision"])[0][0]


@dataclass(frozen=True)
class Content:
    """The slices of a store and, where networks were tested on them, what these say.

    sides     the side of each slice, str [N]; empty strings where there is no split
    study     where the scans are read from for their Hounsfield units; None where that is not known
    """

    store: SliceStore
    sides: np.ndarray
    networks: tuple[Network, ...] = ()
    study: Study | None = None

    @functools.cached_property
    def tested(self) -> np.ndarray:
        """Rows of the store that the networks were tested on, int [k], in the order of their probabilities."""
        return np.flatnonzero(self.sides == "test")

    def position(self, row: int) -> int | None:
        """Where a row of the store stands among the tested slices; None where the networks were not tested on it."""
        at = np.flatnonzero(self.tested == row)
        return int(at[0]) if len(at) else None

    @functools.cached_property
    def lesion_pixels(self) -> np.ndarray:
        """Pixels of the lesion in each slice, int [N]."""
        return self.store.lesion_pixels.to_numpy()

    @functools.cached_property
    def patients(self) -> np.ndarray:
        return self.store.slices["patient_id"].to_numpy()

    @property
    def lesions(self) -> tuple[str, ...]:
        """What the networks find, each by an output of its own."""
        return self.networks[0].run.lesions if self.networks else (self.store.lesion,)

    def for_lesion(self, lesion: str) -> Content:
        """The same with another of `lesions` in question."""
        networks = tuple(replace(network, lesion=lesion) for network in self.networks)
        return replace(self, store=self.store.of(lesion), networks=networks)

    def classes(self) -> dict[str, np.ndarray]:
        """The classes that occur -> the slices that show them, bool [N]."""
        found = {name: self.store.slices[f"pixels_{name}"].to_numpy() > 0 for name in CLASSES[1:]}
        return {name: has for name, has in found.items() if has.any()}

    def dice(self, network: Network) -> np.ndarray:
        """Dice of every slice at the threshold of the network's counts, float [N]: NaN where it was not tested, and
        where there is no lesion and nothing was found."""
        return pd.Series(metrics.dice(network.counts), index=self.tested).reindex(range(len(self.store))).to_numpy()

    @functools.cached_property
    def worst(self) -> int | None:
        """The row on which the first network did worst; None where it has no Dice at all."""
        dice = self.dice(self.networks[0])
        return None if np.isnan(dice).all() else int(np.nanargmin(dice))

    @functools.cached_property
    def largest(self) -> int | None:
        """The row of the largest lesion, on the test side where there are networks; None where there is no slice."""
        rows = self.tested if self.networks else np.arange(len(self.store))
        return int(rows[np.argmax(self.lesion_pixels[rows])]) if len(rows) else None

    @functools.cached_property
    def stored_windows(self) -> list[tuple[float, float]]:
        """(level, width) of each window the store holds, in the store's unit."""
        if self.store.unit == "grey":
            return [(127.5, 255.0)]
        return [tuple(window) for window in self.store.meta["recipe"]["windows"]]

    def windows(self) -> list[tuple[str, tuple[float, float]]]:
        """(name, window) of each window stored, and of the known ones that Hounsfield units can be shown in."""
        if self.store.unit == "grey":
            return [("grey levels as stored", self.stored_windows[0])]
        names = {window: name for name, window in WINDOWS.items()}
        named = [
            (f"{names.get(window, 'window')} {window[0]:g}/{window[1]:g}", window)
            for window in dict.fromkeys((*self.stored_windows, *WINDOWS.values()))
        ]
        return [(name + ", as stored" * (window in self.stored_windows), window) for name, window in named]

    def hounsfield(self, row: int) -> np.ndarray:
        """The slice in Hounsfield units, int16 [h,w], read from its scan.

        Raises StudyError, which says why, where scans cannot be read or are others than the store was made from.
        """
        if isinstance(self._scans, str):
            raise StudyError(self._scans)
        return self._scans(row)

    @functools.cached_property
    def _scans(self) -> Callable[[int], np.ndarray] | str:
        """`hounsfield`, or why there is none; found out once, because it takes reading all files."""
        try:
            return _hounsfield(self.store, self.study)
        except (StudyError, OSError) as error:
            return str(error)

    def stored(self, row: int) -> np.ndarray:
        """The slice in each of `stored_windows`, uint8 [windows,H,W]."""
        return np.stack([images[row] for images in (self.store.images, *self.store.further_images)])


def of(*shown: SliceStore | Run | Results, study: Study | None = None) -> Content:
    """The Content of what `browse` is given; arguments and errors as there."""
    kinds, first = {type(one) for one in shown}, shown[0] if shown else None
    if len(shown) == 1 and kinds == {SliceStore}:
        return Content(first, np.full(len(first), ""), study=study)
    if len(shown) == 1 and kinds == {Results}:
        store, split = first.store, first.split
        tested = [own[0] for own in first.runs.values()]
        # With slices from elsewhere, weights and the study's scans lie with those of the training.
        trained = [Run(run.path.parent, run.record) for run in tested] if first.origin else tested
        study = study or (None if first.origin else first.study)
    elif kinds == {Run}:
        if len({(run.record["recipe"]["store"], run.record["recipe"]["split"], run.lesions) for run in shown}) > 1:
            raise StudyError("These runs were not tested on the same slices for the same lesions; show each by itself.")
        if not all(run.file("counts", run.lesions[0], "csv").exists() for run in shown):
            raise StudyError("A run has no predictions yet; run notebook 05, which tests it.")
        store, split = _beside(first)
        tested = trained = shown
        # A run does not keep where its scans were; a phantom's need no folder.
        if first.record["study"]["dataset"] == "phantom":
            study = study or Study(**first.record["study"])
    else:
        raise StudyError("Give browse() one SliceStore, one Results, or one or several Runs.")
    seeds = len({run.model for run in tested}) < len(tested)
    looks = drawing.looks(run.model for run in tested)
    networks = [
        Network(
            name_of(run.model) + f", seed {run.seed}" * seeds, looks[run.model].colour, run, weights, run.lesions[0]
        )
        for run, weights in zip(tested, trained, strict=True)
    ]
    sides = store.slices["patient_id"].map(split.sides).fillna("").to_numpy(str)
    return Content(store, sides, tuple(networks), study)


def _beside(run: Run) -> tuple[SliceStore, Split]:
    """The slices and the split a run was trained on, found in the workspace that holds it."""
    processed = run.path.joinpath(*[".."] * 4).resolve() / "data" / "processed"
    recipe = run.record["recipe"]
    path = processed / f"{run.record['study']['dataset']}-{recipe['store']}"
    if not path.exists():
        raise StudyError(f"The slices of {run.path} are not in {processed}; run notebook 02, or copy them there.")
    for split in map(splits.read, sorted(path.glob("splits/*.csv"))):
        if split.digest == recipe["split"]:
            return open_store(path).of(run.lesions[0]), split
    raise StudyError(f"The split of {run.path} is not in {path / 'splits'}; run notebook 02.")


def _hounsfield(store: SliceStore, study: Study | None) -> Callable[[int], np.ndarray]:
    if study is None:
        raise StudyError("where the scans lie is not known; give browse() the Study.")
    source = sources.open_source(study)
    if source.fingerprint() != store.meta["recipe"]["source"]:
        raise StudyError("the scans are others than these slices were made from.")
    # A scan's slices lie together; the next scan begins where patient or files change.
    keys = store.slices["patient_id"] + "\n" + store.slices["source"].fillna("")
    first = np.flatnonzero(keys != keys.shift())
    if len(first) != len(source):
        raise StudyError("which scan a slice came from cannot be told.")

    @functools.lru_cache(SCANS_KEPT)
    def image(index: int) -> np.ndarray:
        scan = source.scan(index)
        own = tuple(store.slices["slice_id"].iloc[first[index] : first[index] + len(scan.slice_ids)])
        if scan.unit != "HU" or own != scan.slice_ids:
            raise StudyError("the source has 8-bit grey levels only." if scan.unit != "HU" else "slices do not match.")
        return scan.image

    def hounsfield(row: int) -> np.ndarray:
        index = int(np.searchsorted(first, row, "right")) - 1
        return image(index)[row - first[index]]

    return hounsfield
