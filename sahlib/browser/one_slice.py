"""One slice in a slice browser: truth, predictions at a threshold, their scores in words, and the panels drawn."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from sahlib.browser import pictures
from sahlib.browser.contents import Content
from sahlib.scoring import metrics

AREA, OUTLINE, PROBABILITY, ERRORS, GATES = "area", "outline", "probability", "errors", "gate"


@dataclass(frozen=True)
class OneSlice:
    """The slice at `row` of the store, with predictions above `threshold`."""

    content: Content
    row: int
    threshold: float

    @functools.cached_property
    def truth(self) -> np.ndarray:
        """bool [H,W]"""
        return self.content.store.masks(np.array([self.row]))[0]

    @functools.cached_property
    def probabilities(self) -> list[np.ndarray] | None:
        """One float16 [H,W] per network; None where the networks were not tested on this slice."""
        at = self.content.position(self.row)
        return None if at is None else [network.probabilities[at] for network in self.content.networks]

    @functools.cached_property
    def predicted(self) -> np.ndarray | None:
        """bool [networks,H,W]"""
        return None if self.probabilities is None else np.stack(self.probabilities) > self.threshold

    @functools.cached_property
    def identity(self) -> str:
        """ "slice P0011_z10 of patient P0011, test side" """
        side = self.content.sides[self.row]
        return f"slice {self._facts['slice_id']} of patient {self._facts['patient_id']}" + f", {side} side" * bool(side)

    @property
    def titles(self) -> list[str]:
        """The panels' headings: the CT's, and each network's."""
        return ["CT and ground truth", *(network.label for network in self.content.networks)]

    @functools.cached_property
    def notes(self) -> list[tuple[str, str, str]]:
        """What stands under each panel: what counts most, a remark beside it, and a second line."""
        name = "lesion" if self.content.store.lesion == "any" else self.content.store.lesion
        first = (self._area(int(self.truth.sum())), name, "") if self.truth.any() else (f"no {name}", "", "")
        if not self.content.networks:
            return [first]
        if self.predicted is None:
            none = ("no prediction", f"this slice is on the {self.content.sides[self.row]} side", "")
            return [first, *[none] * len(self.content.networks)]
        counts = metrics.pixel_counts(self.predicted, np.broadcast_to(self.truth, self.predicted.shape))
        found = (counts["tp"] + counts["fp"]).tolist()
        return [
            first,
            *(
                (f"Dice {dice:.3f}", f"IoU {iou:.3f}", f"{self._area(pixels)} found")
                if pixels or self.truth.any()
                else ("nothing found", f"and there is no {name}", "Dice 0/0")
                for dice, iou, pixels in zip(metrics.dice(counts), metrics.iou(counts), found, strict=True)
            ),
        ]

    def panel(self, number: int, grey: np.ndarray, overlay: str, opacity: float, with_truth: bool) -> np.ndarray:
        """The CT (0), or a network (from 1) as what the overlay's name says over it; grey levels uint8 [h,w]."""
        panel = pictures.enlarged(grey)
        network = self.content.networks[number - 1] if number else None
        if network and overlay == GATES and network.has_gates:
            gate = network.gate_map(self.content.store.inputs(np.array([self.row])))
            panel = pictures.with_heat(panel, gate, opacity, everywhere=True)
        elif network and overlay != GATES and self.predicted is not None:
            predicted, colour = self.predicted[number - 1], network.colour
            if overlay == ERRORS:
                return pictures.with_errors(panel, predicted, self.truth, opacity)
            if overlay == PROBABILITY:
                panel = pictures.with_heat(panel, self.probabilities[number - 1], opacity)
            elif overlay == AREA:
                panel = pictures.with_area(panel, predicted, pictures.rgb(colour), opacity)
            else:
                panel = pictures.with_outline(panel, predicted, colour, width=3)
        return pictures.with_outline(panel, self.truth, pictures.TRUTH) if with_truth else panel

    @functools.cached_property
    def _facts(self) -> dict:
        return self.content.store.slices.iloc[self.row].to_dict()

    def _area(self, pixels: int) -> str:
        square = self._facts["row_mm"] * self._facts["column_mm"] * pixels / 100
        return f"{pixels:,} px" if np.isnan(square) else f"{square:.2f} cm²"
