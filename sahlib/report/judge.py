"""Masks that were made elsewhere, judged as the study's own are: figures, tables and a page to look at.

    ./run_all.sh judge --truth truth/ --masks "nnU-Net=nnunet/" --masks "second reader=reader/" --to judged

chapters/judging.py measures, chapters/own_masks.py draws and tabulates.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sahlib.browser import embedded
from sahlib.chapters import judging, own_masks
from sahlib.data import mask_folders
from sahlib.data.scan import CLASSES
from sahlib.figures.drawing import save_text
from sahlib.figures.ledger_page import HEADINGS, SIGNS
from sahlib.paper.claims import read
from sahlib.progress import over
from sahlib.report import report_parts
from sahlib.report.rendering import ENVIRONMENT
from sahlib.report.report_page import CONTENTS, HOME, items_of, ledgers_of
from sahlib.report.report_parts import text_of
from sahlib.report.slices_part import PLACE, with_slices
from sahlib.scoring import baselines
from sahlib.study import StudyError
from sahlib.workspace import absolute, provenance

PAGE = "judged.html"
TRUTH = "truth"  # what a single rater is called who was not named
CONTENT = {"table_raters": ["Against each rater"]} | {
    stem: shown for section in HOME for stem, shown in CONTENTS[section].items()
}


def write(
    truths: Sequence[str],
    masks: Sequence[str],
    folder: Path,
    images: str = "",
    target: str = "SAH",
    claims: str = "",
    **naming: object,
) -> str:
    """Figures, tables, counts and PAGE in `folder`, which is new, empty or of an earlier call; returns what to print.

    truths  FOLDER, or NAME=FOLDER of each rater; masks: NAME=FOLDER of each competitor
    target  of study.TARGETS; claims: a file for paper.claims; naming: further arguments of mask_folders.pair

    StudyError where the folder is another, whose files are not touched, and for what the masks are refused for.
    """
    folder = absolute(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PAGE).exists():
        raise StudyError(f"{folder} is not empty, and nothing in it is overwritten; name a new folder with --to.")
    raters = {"": truths[0]} if len(truths) == 1 and "=" not in truths[0] else _named(truths, "--truth")
    raters = {name or TRUTH: absolute(place) for name, place in raters.items()}
    competitors = {name: absolute(place) for name, place in _named(masks, "--masks").items()}
    if both := sorted({*raters} & {*competitors}):
        raise StudyError(f"{both[0]!r} is the name of a rater and of a competitor; give one of them another.")
    if taken := sorted({*raters, *competitors} & {baselines.BACKGROUND, baselines.THRESHOLD, judging.MAJORITY}):
        raise StudyError(f"{taken[0]!r} is what the page calls a predictor of its own; give the masks another name.")
    files = [own_masks.file_name(name) for name in competitors]
    if twice := [name for name, file in zip(competitors, files, strict=True) if files.count(file) > 1]:
        raise StudyError(f"{twice[0]!r} and {twice[1]!r} make one file name; give one of them another name.")
    paper = read(absolute(claims)) if claims else None
    paired = mask_folders.pair(raters, competitors, absolute(images) if images else None, **naming)
    lesions = tuple(CLASSES[1:]) if target == "all" else (target,)
    _clear(folder)
    save_text(folder / PAGE, "Not finished: run the same command again.\n")
    judged = judging.judge(paired, lesions, folder, over("scans"), paper)
    summary = own_masks.write(judged)
    asked = {"truth": truths, "masks": masks, "images": images, "target": target, "claims": claims, **naming}
    record = {"judged": {name: value for name, value in asked.items() if value}, "provenance": provenance()}
    save_text(folder / "run.json", json.dumps(record, indent=1, default=str) + "\n")
    shown = items_of(folder, CONTENT)
    page = ENVIRONMENT.get_template("judged.html.j2").render(
        name=folder.name,
        summary=summary,
        shown=shown,
        notes=report_parts.shared_notes(shown),
        ledgers=ledgers_of(folder),
        rule="".join(text_of(folder / "ledger.md").partition("**How a verdict")[1:]),
        counts=[report_parts.attached(folder, path.name) for path in sorted(folder.glob("counts_*.csv"))],
        record=text_of(folder / "run.json"),
        command=command_line(record["judged"]),
        signs=SIGNS,
        headings=HEADINGS,
        slices=PLACE,
    )
    save_text(folder / PAGE, with_slices(page, partial(embedded.of_masks, judged)))
    return f"{summary}\nThe page: {folder / PAGE}"


def _clear(folder: Path) -> None:
    """Removes what an earlier call left in the folder, so that nothing of other masks stands on the page."""
    made = {*CONTENT, *(Path(name).stem for name in (PAGE, "judged.md", "run.json"))}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and (path.stem in made or path.stem.startswith(("counts_", "ledger"))):
            path.unlink()


def command_line(asked: dict) -> str:
    """The line that judges again."""
    parts = ["./run_all.sh", "judge"]
    for name, value in asked.items():
        option = f"--{name.replace('_', '-')}"
        if name in ("truth", "masks"):
            parts += [part for one in value for part in (option, one)]
        else:
            parts += [
                option,
                *(map(str, value) if isinstance(value, tuple | list) else [] if value is True else [str(value)]),
            ]
    return shlex.join(parts)


def _named(assignments: Sequence[str], option: str) -> dict[str, str]:
    """{name: folder} of NAME=FOLDER."""
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, place = assignment.partition("=")
        if not (equals and name.strip() and place):
            raise StudyError(
                f'{option} {assignment!r} must have the form NAME=FOLDER, as in {option} "nnU-Net=masks/".'
            )
        if found.setdefault(name.strip(), place) != place:
            raise StudyError(f"{option} names {name.strip()!r} twice; give each its own name.")
    return found
