"""environment.yml, pyproject.toml and constraints.txt name the same packages."""

from __future__ import annotations

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sahlib.workspace import PROJECT

# The same package under its name on conda-forge.
CONDA_NAMES = {"opencv-python": "py-opencv", "torch": "pytorch", "isal": "python-isal"}


def pyproject():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["test"]]


def conda():
    listed = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    by_conda = [entry for entry in listed if isinstance(entry, str)]
    return {text for text in by_conda if not re.match("(python|pip)([^-]|$)", text)} | set(by_pip)


def pins():
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_conda_and_pip_ask_for_the_same_packages_and_ranges():
    assert conda() == {f"{CONDA_NAMES.get(r.name, r.name)}{r.specifier}" for r in pyproject()}


def test_every_requirement_is_pinned_inside_its_range():
    pinned = pins()
    for requirement in pyproject():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_ranges_admit_the_older_torch_of_a_gpu_image():
    torch = next(r for r in pyproject() if r.name == "torch")
    assert "2.11.0" in torch.specifier and pins()["torch"] == "2.13.0"
