"""Small inputs that many tests share: a paired folder on disk and the store, split and Study made from it."""

from __future__ import annotations

import dataclasses
import os

import pytest
from helpers.folders import write_paired_folder

from sahlib.data import slices, splits
from sahlib.study import Study


@pytest.fixture
def paired_folder(tmp_path):
    return write_paired_folder(tmp_path / "paired")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """(study, store, split) of 36 slices of 12 patients at 32x32, in fp32."""
    root = tmp_path_factory.mktemp("small")
    folder = write_paired_folder(root / "paired")
    study = Study.of_profile("smoke", dataset="paired_folder", data_dir=str(folder), precision="fp32")
    store = slices.prepare(study, root / "processed")
    return study, store, splits.prepare(store, study)


@pytest.fixture(scope="session")
def travelling(small, tmp_path_factory):
    """(study, store, split) of the same slices, whose grey levels are HU, under augmentation "travels"."""
    study = dataclasses.replace(small[0], grey_window="127.5/255", augmentation="travels")
    store = slices.prepare(study, tmp_path_factory.mktemp("travelling"))
    return study, store, splits.prepare(store, study)


def pytest_configure(config):
    # Tests are many small runs in a process per core; more threads than cores would only make them wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Files that take minutes begin first, so that in the end no process waits for one of them.
LONG = ("test_workflow.py", "test_notebooks.py", "test_in_lab.py", "test_on_gpu.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
