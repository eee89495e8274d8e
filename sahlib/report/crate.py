"""RO-Crate: the output folder of a study described for machines, in ro-crate-metadata.json beside its files.

Follows RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) and, for what made the files, the profile Process Run Crate 0.5.
All is taken from run.json and the captions, so the same folder gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from rocrate.model import ContextEntity, Dataset, File
from rocrate.rocrate import ROCrate

from sahlib.chapters import published
from sahlib.data import catalogue
from sahlib.figures.drawing import save_text
from sahlib.report.report_parts import text_of
from sahlib.study import StudyError

NAME = "ro-crate-metadata.json"
VERSION = "1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
MIT = "https://spdx.org/licenses/MIT"
# By hand, because mimetypes answers differently from machine to machine.
FORMATS = {
    ".csv": "text/csv", ".html": "text/html", ".json": "application/json", ".md": "text/markdown", ".png": "image/png",
    ".svg": "image/svg+xml", ".tex": "application/x-tex", ".txt": "text/plain",
}  # fmt: skip
DESCRIPTIONS = {
    "run.json": "The Study, the slices, the split and every training behind the figures and tables.",
    "times.csv": "Seconds that each notebook took.",
    "report.html": "The whole study in one file.",
    "verdict.md": "The verdict in a few lines.",
    "summary.md": "Scores on scans from elsewhere in a few lines.",
}


def write(folder: Path) -> Path:
    """Writes ro-crate-metadata.json into a study's output folder and returns its path; StudyError as `describe`."""
    content = describe(folder).metadata.generate()
    return save_text(folder / NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def describe(folder: Path) -> ROCrate:
    """The crate of a folder: its files, the software, the data, and the run that made the one from the others.

    Raises StudyError where run.json is missing or damaged.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"{folder} holds no run.json; run notebook 06_figures first.") from error
    except ValueError as error:
        raise StudyError(f"{folder / 'run.json'} is damaged ({error}); run notebook 06_figures again.") from error
    study, made = record["study"], record["provenance"]
    crate = ROCrate(version=VERSION)
    results = _add_files(crate, folder)
    code_licence = _add(crate, MIT, "CreativeWork", name="MIT License", description="The licence of the project.")
    words = published.record_in_words(record)
    action = _add(
        crate,
        "#run",
        "CreateAction",
        name=f"Profile {study['profile']} on dataset {study['dataset']}",
        description=f"{words} Figures and tables made on {made['device']}, {made['system']}.",
        instrument=_software(crate, made, code_licence),
        object=_data(crate, record),
        result=results,
        endTime=made["time"],
    )
    crate.name = f"U-Net against Attention U-Net on head CT: profile {study['profile']}, dataset {study['dataset']}"
    crate.description = f"Figures, tables and verdict of the study. {words}"
    crate.license = code_licence
    if study["dataset"] != "phantom":  # then the figures show slices, which are under the licence of the scans
        own = catalogue.find(study["dataset"]).licence
        terms = "as the owner of the scans states" if own == catalogue.OWN else own.text
        words = f"Figures show slices of scans, whose licence holds for them: {terms}. The code is MIT."
        crate.license = _add(crate, "#licence", "CreativeWork", name="Licence of the scans", description=words)
    crate.datePublished = made["time"]
    profile = _add(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    crate.root_dataset["conformsTo"] = profile
    crate.root_dataset["mentions"] = action
    return crate


def _add(crate: ROCrate, identifier: str, kind: str | list[str], /, **properties: object) -> ContextEntity:
    return crate.add(ContextEntity(crate, identifier, {"@type": kind, **properties}))


def _add_files(crate: ROCrate, folder: Path) -> list[File]:
    """Every file of the folder and its sub-folders, but hidden ones and the metadata."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    visible = [name for name in names if not any(part.startswith(".") for part in name.parts) and name != Path(NAME)]
    found = {}
    for name in visible:
        path, kind, properties = folder / name, Dataset, {"name": name.as_posix()}
        if description := _description(path):
            properties["description"] = description
        if path.is_file():
            kind, size = File, str(path.stat().st_size)
            properties |= {"encodingFormat": FORMATS.get(path.suffix, "application/octet-stream"), "contentSize": size}
        found[name] = crate.add(kind(crate, path, name.as_posix(), properties=properties))
        if name.parent in found:
            found[name.parent].append_to("hasPart", found[name])
    return [entity for entity in found.values() if isinstance(entity, File)]


def _description(path: Path) -> str:
    """What a file shows: its caption, which lies beside it as .txt, or is the first line of the .md; of a folder that
    of its summary."""
    if path.name in DESCRIPTIONS:
        return DESCRIPTIONS[path.name]
    if (caption := path.with_suffix(".txt")).exists():
        return caption.read_text(encoding="utf-8").strip()
    text = text_of(path / "summary.md" if path.is_dir() else path.with_suffix(".md")).strip()
    return text.partition("\n")[0].lstrip("# ").removeprefix("**").removesuffix("**")


def _software(crate: ROCrate, made: dict, licence: ContextEntity) -> ContextEntity:
    home = "https://www.python.org/"
    language = _add(crate, "#python", "ComputerLanguage", name="Python", version=made["python"], url=home)
    libraries = [
        _add(crate, f"#{name}", "SoftwareApplication", name=name, version=version)
        for name, version in made["libraries"].items()
    ]
    return _add(
        crate,
        "#sahlib",
        ["SoftwareSourceCode", "SoftwareApplication"],
        name="sahlib",
        description="The library and the notebooks of the study; the version is the git commit.",
        version=made["commit"],
        license=licence,
        programmingLanguage=language,
        softwareRequirements=libraries,
    )


def _data(crate: ROCrate, record: dict) -> ContextEntity:
    """The preprocessed slices, by their digest; where they lie is nobody's business."""
    split, store = dict(record["split"]), record["store"]["digest"]
    digest = split.pop("digest")
    sides = "; ".join(f"{side}: {own['slices']} slices of {own['patients']} patients" for side, own in split.items())
    name = f"Slices {store} of dataset {record['study']['dataset']}"
    description = f"Preprocessed slices of head CT, split {digest} ({sides})."
    return _add(crate, f"#slices-{store}", "Dataset", name=name, description=description, identifier=store)
