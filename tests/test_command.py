"""The command that gives a Study again: what a report names must, typed into a shell, be that very Study."""

from __future__ import annotations

import dataclasses
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahlib import reproduce
from sahlib.__main__ import _parser
from sahlib.study import MODELS, ORIENTATIONS, Study
from sahlib.workspace import PROJECT


def again(command):
    """(Study, external, reading) of what a shell passes on when the command is typed."""
    program, *words = shlex.split(command)
    assert program == "./run_all.sh"
    chosen = _parser().parse_args(["run", *words])
    study = Study.of_profile(chosen.profile, **reproduce.study_changes(chosen))
    return study, chosen.external, reproduce.assigned(chosen.external_set)


@pytest.mark.parametrize("profile", ["quick", "paper", "smoke"])
def test_a_profile_as_it_is_needs_no_more_than_its_precision(profile):
    study = Study.of_profile(profile, precision="bf16")
    assert reproduce.command_line(study) == (f"./run_all.sh --profile {profile} --dataset phantom --set precision=bf16")
    assert again(reproduce.command_line(study))[0] == study


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
shares = st.floats(0.05, 0.29)
positive = st.floats(1e-8, 1e3)
fields = st.fixed_dictionaries(
    {"precision": st.sampled_from(["fp32", "bf16"]), "size": st.sampled_from([64, 96, 256])},  # for any of the models
    optional={
        "target": st.sampled_from(["SAH", "any", "all"]),
        "raters": words,
        "phantom_patients": st.integers(1, 500),
        "phantom_seed": st.integers(0, 10**6),
        "windows": st.lists(st.sampled_from(["brain", "subdural", "40/80", "-600/1500.5"]), min_size=1, max_size=3),
        "grey_window": st.sampled_from(["127.5/255", "-600/1500", "bone"]),
        "train_share": shares,
        "validation_share": shares,
        "models": st.permutations(tuple(MODELS)).map(lambda own: [*own]),
        "channels": st.lists(st.integers(1, 64), min_size=5, max_size=5),
        "prior_bias": st.booleans(),
        "epochs": st.integers(1, 99),
        "learning_rate": positive,
        "flip_probability": st.floats(0, 1),
        "rotation_degrees": st.floats(-90, 90),
        "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
        "deterministic": st.booleans(),
        "further_recipes": st.lists(st.sampled_from(["paper", "prior"]), max_size=2, unique=True),
        "learning_rates": st.lists(positive, min_size=1, max_size=3),
    },
)
from_disk = st.fixed_dictionaries(
    {"dataset": st.sampled_from(["paired_folder", "nifti", "ct_ich"])},
    optional={
        "patient_pattern": st.one_of(words, st.sampled_from([r"^(\d+)_", "-([a-z]+)", "--set", 'it\'s (a) "$HOME"'])),
        "slices_are_patients": st.booleans(),
        "orientation": st.sampled_from(ORIENTATIONS),
        "label_map": st.lists(st.sampled_from(["4=SAH", "#00ffff=SAH", "1=IVH", " 2 = IPH"]), max_size=3, unique=True),
    },
)


@settings(max_examples=100, deadline=None)
@given(profile=st.sampled_from(["quick", "paper", "smoke"]), changes=fields)
def test_the_command_gives_the_same_phantom_study(profile, changes):
    study = Study.of_profile(profile, **changes)
    assert again(reproduce.command_line(study)) == (study, "", {})


@settings(max_examples=100, deadline=None)
@given(
    profile=st.sampled_from(["quick", "smoke"]),
    changes=fields,
    own=from_disk,
    place=words.filter(lambda name: "/" not in name and name not in (".", "..")),
)
def test_the_command_gives_the_same_study_of_own_data(profile, changes, own, place):
    study = Study.of_profile(profile, **changes, **own, data_dir=f"/scans/{place}")
    assert again(reproduce.command_line(study))[0] == study


def test_a_folder_at_home_or_in_the_project_is_named_from_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(PROJECT)
    reading = {"label_map": ["4=SAH", "#00ffff=IVH"], "grey_window": "127.5/255", "slices_are_patients": True}
    study = Study.of_profile("quick", dataset="nifti", data_dir=str(tmp_path / "my scans"), precision="fp32")
    command = reproduce.command_line(study, str(PROJECT / "data" / "theirs"), reading)
    assert str(tmp_path) not in command and str(PROJECT) not in command
    assert "--data-dir ~/'my scans'" in command and "--external data/theirs" in command
    found, external, read = again(command)
    assert found == study and external == "data/theirs" and read == reading


def test_every_field_of_a_study_can_be_told():
    """A field that the command could not carry would make it give another study."""
    base = Study.of_profile("quick", dataset="nifti", data_dir="/scans", precision="fp32")
    other = {
        "phantom_patients": 7, "phantom_test_patients": 5, "phantom_seed": 3, "split_seed": 5, "batch_size": 2,
        "raters": "union",
        "patient_pattern": "(a)", "slices_are_patients": True, "label_map": ("4=SAH",), "target": "any", "size": 64,
        "windows": ("40/80", "bone"), "grey_window": "auto", "orientation": "rot90",
        "train_share": 0.5, "validation_share": 0.2,
        "models": tuple(MODELS), "channels": (1, 2, 3, 4, 5), "prior_bias": False, "epochs": 3,
        "learning_rate": 0.5, "augmentation": "travels",
        "flip_probability": 0.1, "rotation_degrees": 3.0, "seeds": (4, 5), "precision": "bf16", "deterministic": True,
        "capture": "never", "further_recipes": ("prior",), "learning_rates": (0.1,), "dataset": "ct_ich",
        "data_dir": "/other", "profile": "smoke", "folds": 5,
    }  # fmt: skip
    assert {*other, "fold"} == {field.name for field in dataclasses.fields(Study)}
    for name, value in other.items():
        study = dataclasses.replace(base, **{name: value})
        assert again(reproduce.command_line(study))[0] == study, name
    one_fold = dataclasses.replace(base, folds=5, fold=3)
    assert again(reproduce.command_line(one_fold))[0] == one_fold
