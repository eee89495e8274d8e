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
from sahlib.study import StudyError
from sahlib.workspace import writing

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
    """Writes ro-crate-metadata.json into a study's output folder and returns its path.

    Raises StudyError where run.json is missing or damaged.
    """
    path = Path(folder) / NAME
    content = describe(Path(folder)).metadata.generate()
    with writing(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return path


def describe(folder: Path) -> ROCrate:
    """The crate of a folder: its files, the software, the data, and the run that made the one from the others."""
    record = _record(folder)
    study, made, store, split = (record[key] for key in ("study", "provenance", "store", "split"))
    words = published.record_in_words(record)
    split_digest = split.pop("digest")
    sides = "; ".join(f"{side}: {own['slices']} slices of {own['patients']} patients" for side, own in split.items())
    crate = ROCrate(version=VERSION)
    entities = {
        MIT: {"@type": "CreativeWork", "name": "MIT License", "description": "The licence of the project."},
        "#python": {
            "@type": "ComputerLanguage",
            "name": "Python",
            "version": made["python"],
            "url": "https://www.python.org/",
        },
        **{
            f"#{name}": {"@type": "SoftwareApplication", "name": name, "version": version}
            for name, version in made["libraries"].items()
        },
        "#sahlib": {
            "@type": ["SoftwareSourceCode", "SoftwareApplication"],
            "name": "sahlib",
            "description": "The library and the notebooks of the study; the version is the git commit.",
            "version": made["commit"],
            "license": {"@id": MIT},
            "programmingLanguage": {"@id": "#python"},
            "softwareRequirements": [{"@id": f"#{name}"} for name in made["libraries"]],
        },
        # By its digest; where the slices lie is nobody's business.
        f"#slices-{store['digest']}": {
            "@type": "Dataset",
            "name": f"Slices {store['digest']} of dataset {study['dataset']}",
            "description": f"Preprocessed slices of head CT, split {split_digest} ({sides}).",
            "identifier": store["digest"],
        },
        "#run": {
            "@type": "CreateAction",
            "name": f"Profile {study['profile']} on dataset {study['dataset']}",
            "description": f"{words} Figures and tables made on {made['device']}, {made['system']}.",
            "instrument": {"@id": "#sahlib"},
            "object": {"@id": f"#slices-{store['digest']}"},
            "result": _add_files(crate, folder),
            "endTime": made["time"],
        },
        **_pictures_licence(study["dataset"]),
        PROFILE: {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
    }
    for identifier, properties in entities.items():
        crate.add(ContextEntity(crate, identifier, properties))
    crate.name = f"U-Net against Attention U-Net on head CT: profile {study['profile']}, dataset {study['dataset']}"
    crate.description = f"Figures, tables and verdict of the study. {words}"
    crate.license = {"@id": "#licence" if "#licence" in entities else MIT}
    crate.datePublished = made["time"]
    crate.root_dataset["conformsTo"] = {"@id": PROFILE}
    crate.root_dataset["mentions"] = {"@id": "#run"}
    return crate


def _record(folder: Path) -> dict:
    path = folder / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise StudyError(f"{path} is missing or damaged ({error}); run notebook 06_figures.") from error


def _add_files(crate: ROCrate, folder: Path) -> list[File]:
    """Every file of the folder and its sub-folders, but hidden ones and the metadata."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name == Path(NAME) or any(part.startswith(".") for part in name.parts):
            continue
        kind, properties = Dataset, {"name": name.as_posix(), "description": _first_line(path / "summary.md")}
        if path.is_file():
            kind = File
            properties["description"] = _description(path)
            properties["encodingFormat"] = FORMATS.get(path.suffix, "application/octet-stream")
            properties["contentSize"] = str(path.stat().st_size)
        given = {key: text for key, text in properties.items() if text}
        found[name] = crate.add(kind(crate, path, name.as_posix(), properties=given))
        if name.parent in found:
            found[name.parent].append_to("hasPart", found[name])
    return [entity for entity in found.values() if isinstance(entity, File)]


def _description(path: Path) -> str:
    """What a file shows: its caption, which lies beside it as .txt, or is the first line of the .md."""
    if path.name in DESCRIPTIONS:
        return DESCRIPTIONS[path.name]
    caption = path.with_suffix(".txt")
    return caption.read_text(encoding="utf-8").strip() if caption.exists() else _first_line(path.with_suffix(".md"))


def _first_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    return text.partition("\n")[0].lstrip("# ").removeprefix("**").removesuffix("**")


def _pictures_licence(dataset: str) -> dict:
    """On other data than the phantom the figures show slices, which are under the licence of the scans."""
    if dataset == "phantom":
        return {}
    own = catalogue.find(dataset).licence
    terms = "as the owner of the scans states" if own == catalogue.OWN else own.text
    shown = f"Figures show slices of scans, whose licence holds for them: {terms}. The code is MIT."
    return {"#licence": {"@type": "CreativeWork", "name": "Licence of the scans", "description": shown}}
