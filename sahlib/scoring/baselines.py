"""The predictors that know nothing: what a score is worth is what it adds to theirs.

"Background everywhere" is `metrics.background_everywhere`; it needs no images. Here is the second: fresh blood is
brighter than brain and darker than bone, so call every pixel a lesion whose grey level lies in a band. The band is the
one with the best pooled Dice on training slices. Edges of the skull pass through it and are kept: it stays trivial.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

BACKGROUND = "Background everywhere"
THRESHOLD = "Brain-window threshold"


@dataclass(frozen=True)
class Band:
    """Grey levels low..high, both included, of the stored 8-bit slices.

    Neither 0 nor 255 is ever in it: 0 is air around the head, 255 is all that is at or above the window (bone).
    """

    low: int
    high: int


def fit_band(images: np.ndarray, truth: np.ndarray | Iterable[np.ndarray]) -> Band:
    """The band of grey levels with the highest pooled Dice, of all bands there are.

    images: [n,H,W] uint8, TRAINING slices only, never test; truth: [n,H,W] bool. Both are read slice by slice, so they
    may be memory-mapped or iterables of [H,W]
    returns: of bands with equal Dice the narrowest, of these the darkest
    raises: ValueError where the two do not fit, or no training slice shows a lesion between grey levels 1 and 254

    Every Dice is exact: with the histograms of all pixels and of lesion pixels, a band's counts are differences of
    cumulative sums.
    """
    everywhere, lesion = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    for image, mask in zip(images, truth, strict=True):
        of_image, of_lesion = grey_levels(np.asarray(image)[None], np.asarray(mask)[None])
        everywhere += of_image[0]
        lesion += of_lesion[0]
    return best_band(everywhere, lesion)


def grey_levels(images: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each grey level occurs on a slice, and within its lesion: int64 [k,256] each.

    images: [k,H,W] uint8; truth: [k,H,W] bool. Raises ValueError where the two do not fit.
    """
    if images.dtype != np.uint8 or truth.dtype != bool or images.shape != truth.shape:
        found = f"{images.dtype} {images.shape} and {truth.dtype} {truth.shape}"
        raise ValueError(f"images must be uint8 and truth bool of the same shape; they are {found}")
    everywhere = [np.bincount(image.ravel(), minlength=256) for image in images]
    lesion = [np.bincount(image[mask], minlength=256) for image, mask in zip(images, truth, strict=True)]
    return np.array(everywhere).reshape(-1, 256), np.array(lesion).reshape(-1, 256)


def best_band(everywhere: np.ndarray, lesion: np.ndarray) -> Band:
    """The band with the highest Dice, from how often grey levels occur [256] on all pixels and on those of lesions.

    returns: of bands with equal Dice the narrowest, of these the darkest
    raises: ValueError where no lesion has a grey level between 1 and 254
    """
    if not lesion[1:255].any():
        raise ValueError("no slice to fit on shows a lesion between grey levels 1 and 254, so there is no band")
    below_all, below_lesion = (np.concatenate([[0], np.cumsum(h)]) for h in (everywhere, lesion))
    low, high = (end + 1 for end in np.triu_indices(254))
    tp = below_lesion[high + 1] - below_lesion[low]
    predicted = below_all[high + 1] - below_all[low]
    dice = 2 * tp / (predicted + lesion.sum())
    best = np.lexsort((low, high - low, -dice))[0]
    return Band(int(low[best]), int(high[best]))


def cross_fitted(everywhere: np.ndarray, lesion: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    """The counts of slices on which each patient's band was fitted on all other patients.

    everywhere, lesion: [k,256] of `grey_levels`; patients: [k]
    returns: columns tp, fp, fn, tn, a row per slice
    raises: ValueError where the others of some patient show no lesion
    """
    rows = np.zeros((len(patients), 4), np.int64)
    for patient in np.unique(patients):
        own = patients == patient
        band = best_band(everywhere[~own].sum(0), lesion[~own].sum(0))
        levels = slice(band.low, band.high + 1)
        tp, predicted = lesion[own, levels].sum(1), everywhere[own, levels].sum(1)
        missed = lesion[own].sum(1) - tp
        rows[own] = np.stack([tp, predicted - tp, missed, everywhere[own].sum(1) - predicted - missed], axis=1)
    return pd.DataFrame(rows, columns=["tp", "fp", "fn", "tn"])


def band_masks(images: np.ndarray, band: Band) -> np.ndarray:
    """Where the grey level lies in the band, bool [k,H,W] of images [k,H,W] uint8."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 grey levels, as stored; they are {images.dtype}")
    return (images >= band.low) & (images <= band.high)


def head(images: np.ndarray) -> np.ndarray:
    """Where there is not air, bool of the shape of images uint8: grey level above 0.

    Fluid and fat at or below the lower end of a brain window are black like air, and left out with it.
    """
    return np.asarray(images) > 0
