"""CITATION.cff says what the package and the licence say."""

from __future__ import annotations

import tomllib

import pytest
import yaml

import sahlib
from sahlib.workspace import PROJECT


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_holds_what_the_format_requires(citation):
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(citation[key] for key in ("message", "title", "authors", "abstract", "keywords"))


def test_version_licence_and_holder_are_the_package_s(citation):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == sahlib.__version__
    assert citation["license"] == project["license"]["text"]
    (holder,) = citation["authors"]
    licence = (PROJECT / "LICENSE").read_text()
    assert licence.startswith(f"{citation['license']} License") and f" {holder['name']}\n" in licence


def test_each_reference_has_what_the_format_requires_and_the_papers_a_year(citation):
    assert len(citation["references"]) == 4
    for reference in citation["references"]:
        assert reference["type"] and reference["title"] and reference["authors"]
        assert reference["type"] == "software" or reference["year"] in (2015, 2017, 2018)
