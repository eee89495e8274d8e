"""The SAH set of Hospital Rio Hortega, Valladolid (Zenodo 10.5281/zenodo.8228847, CC-BY-4.0).

Documented on Zenodo: one archive, subarachnoid_hemorrhage_rhuh.rar, of preprocessed non-contrast CT scans in NIfTI,
each with an expert's segmentation of the hemorrhage. The names inside the archive are not published, so scans find
their masks by any rule of `nifti`. Assumed: masks hold 0 and 1, and 1 is SAH; every scan is another patient's. Whether
"preprocessed" kept Hounsfield units is not said; a scan that was normalised to a span below 20 is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sahlib.data.sources import nifti
from sahlib.data.sources.volume_folder import VolumeFolder


def recognises(root: Path) -> bool:
    """Whether this is the folder that the archive unpacks to: its name is all that is known of it."""
    return "rhuh" in root.resolve().name.lower() and nifti.recognises(root)


def open_folder(root: str | Path, patient_pattern: str = "", label_map: tuple[str, ...] = ()) -> VolumeFolder:
    """The source of the unpacked archive; `nifti` tells how scans find their masks and what raises StudyError."""
    return replace(nifti.open_folder(root, patient_pattern, label_map), name="rhuh_sah")
