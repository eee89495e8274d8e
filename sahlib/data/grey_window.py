"""In which window 8-bit slices were exported: two grey levels of the brain are compared with their Hounsfield units.

Within the skull, smoothed, half of a phantom's brain lies below 32.4 HU and a tenth (CSF beside brain) 4.5 HU lower;
patients differ in the first by 1.3 HU and in the second by a factor of 1.3. Real heads differ more, so that 2.5 HU and
a factor of 1.4 are taken for one unit of misfit. The more patients, the surer: by 24 phantoms together each of ten
windows is told rightly; of these 240 scans alone 205 are, 24 are in doubt and 11 taken for a window near theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sahlib.data.regions import head_region
from sahlib.study import WINDOWS, StudyError

# (level, width) of what scripts and viewers offer besides WINDOWS, the first for HU taken as grey.
KNOWN = (*WINDOWS.values(), (127.5, 255.0), (40.0, 400.0), (50.0, 350.0), (50.0, 150.0), (35.0, 100.0), (32.0, 64.0))
MEDIAN_HU, MEDIAN_SPREAD = 32.4, 2.5
CONTRAST_HU, CONTRAST_SPREAD = 4.5, 1.4
MOST_MISFIT = 9.0  # beyond which no known window fits
LEAST_LEAD = 1.0  # of the best window's misfit before the next one's: with less it is not told
SMALLEST = 0.15  # of the picture: a smaller head is cut near the top or the base
RIM = 0.3  # of the way from a head's outline to its middle: scalp and skull


def brain_levels(grey: np.ndarray) -> np.ndarray:
    """(first decile, median) of smoothed grey levels within the skull of a slice [H,W] uint8; NaN without a head."""
    head = head_region(grey, "grey")
    if head.mean() < SMALLEST:
        return np.full(2, np.nan)
    depth = cv2.distanceTransform(head.astype(np.uint8), cv2.DIST_L2, 5)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), min(cv2.boundingRect(head.astype(np.uint8))[2:]) / 55)
    return np.quantile(smooth[depth > RIM * depth.max()], (0.1, 0.5))


def fits(levels: np.ndarray, windows: Sequence[tuple] = KNOWN) -> list[tuple[float, tuple[float, float]]]:
    """(misfit, (level, width)) of each window, best first, by the brain levels [N,2] of a set's slices.

    Misfits are squared, in the units above. Empty where no slice shows a head.
    """
    if np.isnan(levels).all():
        return []
    decile, median = np.nanmedian(levels, axis=0)
    return sorted(
        (
            ((level - width / 2 + median * width / 255 - MEDIAN_HU) / MEDIAN_SPREAD) ** 2
            + (np.log(max((median - decile) * width / 255, 1e-3) / CONTRAST_HU) / np.log(CONTRAST_SPREAD)) ** 2,
            (level, width),
        )
        for level, width in windows
    )


def told(levels: np.ndarray, windows: Sequence[tuple] = KNOWN) -> list[tuple[float, float]]:
    """The windows that the brain levels [N,2] of a set's slices speak for: one, several in doubt, or none that fits."""
    fitting = fits(levels, windows)
    return [window for misfit, window in fitting if misfit < min(MOST_MISFIT, fitting[0][0] + LEAST_LEAD)]


def estimated(source, whose: str = "these grey levels") -> tuple[float, float]:
    """(level, width) in HU of the window that the pictures of a source were exported in; StudyError in doubt."""
    levels = np.array([brain_levels(grey) for scan in source if scan.unit == "grey" for grey in scan.image])
    windows = told(levels.reshape(-1, 2))
    if len(windows) != 1:
        what = f"may be {' or '.join(map(written, windows))}" if windows else "is none that is known"
        raise StudyError(f"grey_window=auto: the window of {whose} {what}; name it, as in grey_window=40/80.")
    return windows[0]


def written(window: tuple[float, float]) -> str:
    """A window as --set takes it: "40/80"."""
    return "{:g}/{:g}".format(*window)
