"""The phantom beside published measurements of real heads: the table and the picture of docs/phantom.md.

    python benchmarks/phantom_properties.py

Draws 120 patients of a seed that no profile uses, measures them, writes the table between the marks of docs/phantom.md
and twelve slices to docs/phantom.jpg.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from sahlib.data.regions import cavity_region, head_region, skull_region, widened
from sahlib.data.scan import CLASSES, SAH, Scan
from sahlib.data.slices import window_to_grey
from sahlib.data.sources.phantom.bleeding import CALCIFIED, PatientPlan, plan
from sahlib.data.sources.phantom.phantom import HU, render
from sahlib.study import WINDOWS

SEED, PATIENTS = 30, 120
PAGE = Path(__file__).parents[1] / "docs" / "phantom.md"
TABLE = re.compile("(?<=<!-- measured -->\n).*(?=<!-- end -->)", re.DOTALL)
WHOLE_HEAD_MM = 0.85  # a pixel of this and more: the field of view holds the head
SCALP_MM = 12  # at most; beyond lies the bed
DARK_HU = 20  # of CSF, after a blur of 1.5 pixels
CORNER = 24  # pixels where there is air
METAL_SEEN = 2500  # HU
OUTLINES = ((70, 70, 255), (0, 255, 255), (255, 140, 40), (80, 220, 80), (255, 80, 255))  # BGR, in the order of CLASSES


def measure(index: int) -> dict:
    """What one patient's scan measures: lengths in mm, volumes in mL, grey values in HU."""
    p = plan(SEED, index)
    began = time.process_time()
    scan = render(p, SEED)
    row = {"seconds": time.process_time() - began, "pattern": p.pattern, "age": p.age, "thickness": p.thickness_mm}
    row |= {"field": 256 * p.spacing_mm, "noise": p.noise_hu, **{spot: spot in p.calcified for spot in CALCIFIED}}
    return row | anatomy(scan) | blood(scan) | {"raters": between_raters(p, scan)}


def anatomy(scan: Scan) -> dict:
    """Head, skull and fluid of a scan."""
    pixel, skulls = scan.spacing_mm[0], [skull_region(image, "HU") for image in scan.image]
    cavities = np.stack([cavity_region(skull) for skull in skulls])
    outside = [skull | cavity for skull, cavity in zip(skulls, cavities, strict=True)]
    # Above the base, where nose and ears are not in the way and the vault stands upright in the slice.
    upright = range(len(skulls) // 2, len(skulls) * 6 // 10)
    widest = max(upright, key=lambda z: np.count_nonzero(outside[z]))
    head = head_region(scan.image[widest], "HU") & widened(outside[widest], round(SCALP_MM / pixel))
    length, breadth = sorted(cv2.minAreaRect(cv2.findNonZero(head.astype(np.uint8)))[1], reverse=True)
    outer, inner = (np.sqrt(np.count_nonzero(part) / np.pi) for part in (outside[widest], cavities[widest]))
    dark = np.stack([cv2.GaussianBlur(np.float32(image), (0, 0), 1.5) < DARK_HU for image in scan.image]) & cavities
    whole = pixel >= WHOLE_HEAD_MM
    air = scan.image[:, :CORNER, :CORNER] - scan.image[:, :CORNER, :CORNER].mean((1, 2), keepdims=True)
    return {
        "neighbours": (air[..., 1:] * air[..., :-1]).mean() / (air**2).mean(),
        "length": length * pixel if whole else np.nan,
        "breadth": breadth * pixel if whole else np.nan,
        "vault": (outer - inner - 1) * pixel if inner else np.nan,  # half a pixel at each side is not bone alone
        "cavity": cavities.sum() * pixel**2 * scan.thickness_mm / 1000,
        "fluid": dark.sum() * pixel**2 * scan.thickness_mm / 1000,
    }


def blood(scan: Scan) -> dict:
    """SAH of a scan, and which classes are there."""
    mask, pixel_mm2 = scan.labels == SAH, scan.spacing_mm[0] ** 2
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    areas = [(parts == part).sum() * pixel_mm2 / (parts == part).any((1, 2)).sum() for part in range(1, count + 1)]
    return {
        "ml": mask.sum() * pixel_mm2 * scan.thickness_mm / 1000,
        "components": count,
        "areas": areas,
        "hu": scan.image[mask].mean() if count else np.nan,
        **{name: (scan.labels == value).any() for value, name in enumerate(CLASSES[1:], 1)},
    }


def between_raters(p: PatientPlan, scan: Scan) -> float:
    """Dice of the SAH that the patient's rater and another one outline; NaN where neither found any."""
    other = plan(SEED + 1, p.index)
    other = replace(p, least_fraction=other.least_fraction, smallest_mm2=other.smallest_mm2)
    masks = [labels == SAH for labels in (scan.labels, render(other, SEED).labels)]
    return 2 * (masks[0] & masks[1]).sum() / total if (total := masks[0].sum() + masks[1].sum()) else np.nan


def told(values, digits: int = 0) -> str:
    """Median, first and ninth decile."""
    low, middle, high = np.nanpercentile(np.asarray(list(values), float), (10, 50, 90))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(found: pd.DataFrame) -> str:
    """The Markdown table: property, phantom, published."""
    scattered, aneurysmal = (found[found.pattern == name] for name in ("scattered", "aneurysmal"))
    adults, share = found[found.age >= 18], lambda rows, name: f"{100 * rows[name].mean():.0f}"
    together = ", ".join(f"{name} {share(scattered, name)}" for name in ("IPH", "IVH", "SDH", "EDH"))
    rows = [
        ("White matter, HU", f"{HU['white']:.0f}, SD 1.2 over patients (set)", "30.0, SD 3.4 [2]"),
        (
            "Grey minus white matter, HU",
            f"{HU['grey'] - HU['white']:.0f} (set)",
            "7.1 at 120 kV [3]; 5.5 calculated [4]",
        ),
        ("Cerebrospinal fluid, HU", f"{HU['csf']:.0f} (set)", "0 to 20 in textbooks"),
        ("Head, length, mm", told(adults.length), "men 195, women 180, SD 8 [5]"),
        ("Head, breadth, mm", told(adults.breadth), "men 155, women 145, SD 6 [5]"),
        ("Vault, thickness, mm", told(adults.vault, 1), "frontal 8.0, parietal 7.0, temporal 4.7, occipital 8.0 [6]"),
        ("Cranial cavity in the scan, mL", told(adults.cavity), "whole: women 1289, men 1469 [7]; 1393 and 1538 [8]"),
        (
            "Dark fluid in the cavity over 70 years, mL",
            told(found[found.age > 70].fluid),
            "102, SD 63, at 78 years on CT [9]",
        ),
        (
            "Calcified pineal, choroid, falx, %",
            ", ".join(share(adults, name) for name in CALCIFIED),
            "68 to 75, 54 to 68, 27 to 34 [10]",
        ),
        ("Noise, SD in HU", told(found.noise, 1), "3.5 to 5.7 on five scanners [11]; 4.0 [3]"),
        ("Noise, correlation of neighbouring pixels", told(found.neighbours, 2), "0.06 to 0.34 by the spectra of [11]"),
        ("Slices, mm", told(found.thickness, 1), "BHSD: 84 % are 5.0 to 5.6, 11 % below 3 [1]"),
        ("Field of view, mm", told(found.field), "BHSD 250 (237 to 253); CT-ICH 215 (200 to 235) [1]"),
        ("Age, years", told(found.age), "SAH 57 (quartiles 48 to 67) [12]; CT-ICH 28, SD 20, with children"),
        ("Aneurysmal SAH, mL", told(aneurysmal.ml), "40, SD 33 [13]"),
        ("Aneurysmal SAH, HU in the mask", told(aneurysmal.hu), "61, SD 7 [13]"),
        ("Scattered SAH, mL", told(scattered.ml, 1), "2.0 (0.3 to 21.9) [1]"),
        ("Scattered SAH, components", told(scattered.components), "6 (1 to 24) [1]"),
        ("Scattered SAH, mm² a slice of a component", told(scattered.areas.explode()), "28 (9 to 101) [1]"),
        ("Scattered SAH, HU in the mask", told(scattered.hu), "44 (37 to 52) [1]"),
        ("Scattered SAH together with, %", together, "IPH 70, IVH 56, SDH 41, EDH 7 [1]"),
        ("Dice of SAH between two raters", told(found.raters, 2), "no published value found"),
        ("Seconds a patient, one core", told(found.seconds, 2), ""),
    ]
    lines = [f"| {name} | {own} | {published} |" for name, own, published in rows]
    return "\n".join([f"| | phantom, {len(found)} patients | published |", "|---|---|---|", *lines]) + "\n"


def picture(shown: list[tuple[int, float | None]]) -> np.ndarray:
    """Slices in a brain window, each beside the same with its outlines; BGR.

    shown: patients, and how high the slice lies, as a share of the scan; None is where there is most metal or SAH
    """
    tiles = []
    for number, (index, height) in enumerate(shown, 1):
        scan = render(plan(SEED, index), SEED)
        most = (there.sum((1, 2)) for there in (scan.image > METAL_SEEN, scan.labels == SAH))
        z = int(height * len(scan.image)) if height else next(int(pixels.argmax()) for pixels in most if pixels.any())
        grey = cv2.cvtColor(window_to_grey(scan.image[z], *WINDOWS["brain"]), cv2.COLOR_GRAY2BGR)
        drawn = grey.copy()
        for value, colour in enumerate(OUTLINES, 1):
            mask = (scan.labels[z] == value).astype(np.uint8)
            drawn[cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask] = colour
        cv2.putText(grey, str(number), (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(np.hstack([grey, drawn]))
    return np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])


def shown() -> list[tuple[int, float | None]]:
    """For `picture`: the first patient of each kind that docs/phantom.md tells of, in its order."""
    wanted = [
        (lambda p: p.pattern == "none" and p.other_bleeds, 0.55),
        *((lambda p, name=name: p.pattern == name, None) for name in ("aneurysmal", "convexity", "scattered")),
        (lambda p: "craniectomy" in p.surgery, 0.65),
        (lambda p: "craniotomy" in p.surgery, 0.65),
        (lambda p: "drain" in p.surgery, 0.65),
        (lambda p: "coil" in p.surgery, None),
        (lambda p: p.age < 12, 0.55),
        (lambda p: p.age > 85, 0.55),
        (lambda p: p.spacing_mm < 0.75, 0.55),
        (lambda p: p.scattered_ml > 10, None),
    ]
    plans, chosen = [plan(SEED, index) for index in range(PATIENTS)], {}
    for fits, height in wanted:
        index = next(p.index for p in plans if fits(p) and p.index not in chosen)
        chosen[index] = height
    return list(chosen.items())


def main() -> None:
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pd.DataFrame(pool.map(measure, range(PATIENTS), chunksize=5))
    PAGE.write_text(TABLE.sub(lambda _: table(found), PAGE.read_text()))
    cv2.imwrite(str(PAGE.with_suffix(".jpg")), picture(shown()), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
