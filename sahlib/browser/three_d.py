"""A scan in three planes with masks on it, by ipyniivue: pip install -e '.[browse3d]'.

browse3d("head.nii.gz", {"truth": "truth.nii.gz", "nnU-Net": "nnunet/head.nii.gz"})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sahlib.study import WINDOWS, StudyError

COLOURS = ("red", "green", "blue", "violet")  # of NiiVue's colour maps: one for each mask


def browse3d(scan: str | Path, masks: Mapping[str, str | Path] | None = None):
    """A NiiVue widget of a NIfTI file in the brain window, masks over it in the order of COLOURS by name.

    Every file lies where its own affine puts it, so a mask on another grid shows beside what it marks.
    Raises StudyError where ipyniivue or a file is missing, and for more masks than colours.
    """
    try:
        from ipyniivue import NiiVue
    except ImportError as error:
        raise StudyError("ipyniivue is not installed; run pip install -e '.[browse3d]'.") from error
    masks = {name: Path(path) for name, path in (masks or {}).items()}
    if missing := [path for path in (Path(scan), *masks.values()) if not path.is_file()]:
        raise StudyError(f"There is no file {missing[0]}; name a NIfTI file.")
    if len(masks) > len(COLOURS):
        raise StudyError(f"{len(masks)} masks are more than there are colours ({len(COLOURS)}); show fewer at a time.")
    level, width = WINDOWS["brain"]
    volumes = [{"path": str(scan), "cal_min": level - width / 2, "cal_max": level + width / 2}]
    volumes += [
        {"path": str(path), "name": f"{name}.nii.gz", "colormap": colour, "opacity": 0.5, "cal_min": 0, "cal_max": 1}
        for (name, path), colour in zip(masks.items(), COLOURS, strict=False)
    ]
    shown = NiiVue(height=500)
    shown.load_volumes(volumes)
    return shown
