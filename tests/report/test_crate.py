"""RO-Crate metadata: read back by the library that defines it, it names every file of the folder and nothing else."""

from __future__ import annotations

import json
import re
import socket
import warnings
from urllib.parse import unquote

import pytest
from rocrate.rocrate import ROCrate

from sahlib.report import crate
from sahlib.study import StudyError

DEVICE = "A processor, 2 cores"
MADE = {
    "commit": "0123456789abcdef",
    "python": "3.11.7",
    "libraries": {"torch": "2.6.0", "monai": "1.5.0"},
    "device": DEVICE,
    "system": "Linux x86_64",
    "time": "2026-01-02T03:04:05+00:00",
}
RECORD = {
    "study": {"profile": "smoke", "dataset": "phantom"},
    "store": {"digest": "aaaa"},
    "split": {"digest": "bbbb", "train": {"slices": 20, "patients": 2}, "test": {"slices": 10, "patients": 1}},
    "runs": {"unet": [{"seconds": 60.0, "provenance": MADE}, {"seconds": 30.0, "provenance": MADE}]},
    "provenance": MADE,
}
FILES = {
    "figure_1_workflow.png": "a picture",
    "figure_1_workflow.csv": "a,b\n",
    "figure_1_workflow.txt": "Figure 1. The workflow, in five steps.\n",
    "table_3.md": "**Table 3. Scores.**\n\n| a |\n",
    "table_3.tex": "% a table",
    "model_card_unet.md": "# Model card: U-Net\n\nFor research alone.\n",
    "verdict.md": "- A line.\n",
    "times.csv": "notebook,seconds\n",
    "a name with blanks, and ü.png": "a picture",
    "external-abc123/summary.md": "Tested on slices from elsewhere.\n\n- U-Net: good.\n",
    "external-abc123/figure_7_comparison.svg": "<svg/>",
    "external-abc123/figure_7_comparison.txt": "Figure 7. Elsewhere.",
    "unknown.bin": "?",
}


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "phantom-smoke")


def make(root, record=RECORD):
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "run.json").write_text(json.dumps(record))
    (root / ".times.csv.partial-1").write_text("half a file")
    return root


def read(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ROCrate(folder)


def test_every_file_is_named_and_every_name_is_a_file(folder):
    before = {path for path in folder.rglob("*") if path.is_file()}
    path = crate.write(folder)
    assert {p for p in folder.rglob("*") if p.is_file()} - before == {path} and path.name == "ro-crate-metadata.json"
    entities = read(folder).data_entities
    named = {unquote(entity.id) for entity in entities if entity.type == "File"}
    assert named == {*FILES, "run.json"}
    assert all((folder / name).is_file() for name in named)
    (elsewhere,) = [entity for entity in entities if entity.type == "Dataset"]
    assert {part.id for part in elsewhere["hasPart"]} == {name for name in FILES if name.startswith("external")}
    assert elsewhere["description"] == "Tested on slices from elsewhere."


def test_each_file_says_what_it_shows_and_how_it_is_encoded(folder):
    crate.write(folder)
    found = read(folder)
    for name, description, encoding in (
        ("figure_1_workflow.png", "Figure 1. The workflow, in five steps.", "image/png"),
        ("figure_1_workflow.csv", "Figure 1. The workflow, in five steps.", "text/csv"),
        ("table_3.tex", "Table 3. Scores.", "application/x-tex"),
        ("table_3.md", "Table 3. Scores.", "text/markdown"),
        ("model_card_unet.md", "Model card: U-Net", "text/markdown"),
        ("external-abc123/figure_7_comparison.svg", "Figure 7. Elsewhere.", "image/svg+xml"),
        ("verdict.md", "The verdict in a few lines.", "text/markdown"),
        ("unknown.bin", "", "application/octet-stream"),
    ):
        entity = found.get(name)
        assert entity.get("description", "") == description and entity["encodingFormat"] == encoding, name
        assert entity["contentSize"] == str((folder / name).stat().st_size)
    assert not [entity.id for entity in found.data_entities if entity.get("description") == ""]


def test_the_run_leads_from_the_slices_by_the_software_to_the_files(folder):
    crate.write(folder)
    found = read(folder)
    (action,) = found.get_by_type("CreateAction")
    assert found.root_dataset["mentions"] == action and found.root_dataset["datePublished"] == MADE["time"]
    software, data = action["instrument"], action["object"]
    assert software["version"] == MADE["commit"] and software["programmingLanguage"]["version"] == "3.11.7"
    assert {library["name"]: library["version"] for library in software["softwareRequirements"]} == MADE["libraries"]
    assert data["identifier"] == "aaaa" and "train: 20 slices of 2 patients; test: 10 slices" in data["description"]
    assert {entity.id for entity in action["result"]} == {e.id for e in found.get_by_type("File")}
    assert action["endTime"] == MADE["time"] and DEVICE in action["description"]
    assert "2 runs, trained in 1.5 minutes" in found.root_dataset["description"]
    assert found.root_dataset["license"]["name"] == "MIT License"


def test_every_reference_is_resolved_within_the_metadata(folder):
    graph = json.loads(crate.write(folder).read_text(encoding="utf-8"))["@graph"]
    known = [entity["@id"] for entity in graph]
    assert len(known) == len(set(known))

    def references(value):
        if isinstance(value, list):
            return [found for item in value for found in references(item)]
        return [value["@id"]] if isinstance(value, dict) else []

    pointed = {found for entity in graph for value in entity.values() for found in references(value)}
    assert pointed - set(known) == {"https://w3id.org/ro/crate/1.1"}, "the specification alone lies outside"


def test_equal_folders_give_equal_bytes_and_nothing_of_this_machine(folder, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", no_network)
    first = crate.write(folder).read_bytes()
    assert crate.write(folder).read_bytes() == first
    assert crate.write(make(tmp_path / "another place")).read_bytes() == first
    text = first.decode()
    assert str(tmp_path) not in text and not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text)


def test_figures_of_scans_are_under_the_licence_of_the_scans(tmp_path):
    def licence(dataset):
        record = RECORD | {"study": {"profile": "smoke", "dataset": dataset}}
        root = make(tmp_path / dataset, record)
        crate.write(root)
        return read(root).root_dataset["license"]["description"]

    assert "CC BY 4.0" in licence("rhuh_sah")
    assert "as the owner of the scans states" in licence("nifti")


@pytest.mark.parametrize("text", [None, "{"])
def test_without_a_record_the_way_out_is_named(folder, text):
    (folder / "run.json").unlink()
    if text:
        (folder / "run.json").write_text(text)
    with pytest.raises(StudyError, match="run.json.*run notebook 06_figures"):
        crate.write(folder)
    assert not (folder / "ro-crate-metadata.json").exists()
