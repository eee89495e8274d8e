"""The command line and the headless run, mistakes and failures included."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from sahlib import reproduce
from sahlib.__main__ import main
from sahlib.workspace import PROJECT, Workspace


@pytest.fixture
def one_notebook(tmp_path, monkeypatch):
    """A folder with one notebook whose last cell is given by the test."""

    def make(source):
        notebook = nbformat.v4.new_notebook()
        notebook.metadata = {"language_info": {"name": "python"}}
        parameters = nbformat.v4.new_code_cell('profile = ""\noutput = ""\nchanges = {}')
        parameters.metadata["tags"] = ["parameters"]
        notebook.cells = [parameters, nbformat.v4.new_code_cell(source)]
        (tmp_path / "notebooks").mkdir()
        nbformat.write(notebook, tmp_path / "notebooks" / "01_only.ipynb")
        monkeypatch.setattr(reproduce, "NOTEBOOKS", tmp_path / "notebooks")

    return make


def arguments(paired_folder, tmp_path, *more):
    places = ["--dataset", "paired_folder", "--data-dir", str(paired_folder), "--output", str(tmp_path / "out")]
    return ["run", "--profile", "smoke", *places, *more]


def test_parameters_reach_the_notebook_and_html_is_left(one_notebook, paired_folder, tmp_path, capsys):
    one_notebook(
        "print('epoch', profile, changes['data_dir'], changes['seeds'], changes['channels'], changes['epochs'])"
    )
    assert (
        main(
            arguments(paired_folder, tmp_path, "--seeds", "3", "4", "--set", "channels=2,2,2,2,2", "--set", "epochs=7")
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert f"epoch smoke {paired_folder} [3, 4] [2, 2, 2, 2, 2] 7" in printed and "[1/1] 01_only" in printed
    (executed,) = (Workspace(str(tmp_path / "out")).runs / "notebooks").iterdir()
    assert {path.name for path in executed.iterdir()} == {"01_only.ipynb", "01_only.html"}


def test_a_failing_cell_is_named_with_the_end_of_its_traceback(one_notebook, paired_folder, tmp_path, capsys):
    one_notebook("def inner():\n    return {}['no such key']\ninner()")
    assert main(arguments(paired_folder, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "01_only.ipynb failed in cell" in said and "KeyError: 'no such key'" in said and "inner()" in said
    assert "\x1b" not in said


def test_a_user_s_mistake_inside_a_notebook_is_one_sentence(one_notebook, paired_folder, tmp_path, capsys):
    one_notebook("from sahlib.study import StudyError\nraise StudyError('Seven masks are missing; add them.')")
    assert main(arguments(paired_folder, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "    Seven masks are missing; add them.\n" in said and "Traceback" not in said


def test_a_dead_kernel_is_told_from_an_error(one_notebook, paired_folder, tmp_path, capsys):
    one_notebook("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert main(arguments(paired_folder, tmp_path)) == 1
    assert "its kernel died" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "epoch=3"], "no parameter is called epoch"),
        (["--set", "epochs"], "NAME=VALUE"),
        (["--set", "epochs=many"], "epochs=many"),
        (["--set", "epochs=2.5"], "epochs must be int"),
        (["--models", "unet", "swin"], "swin"),
        (["--set", "size=250"], "250"),
        (["--patient-pattern", "("], "not a regular expression"),
        (["--data-dir", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_a_mistake_costs_one_sentence_and_no_notebook(paired_folder, tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.setattr(reproduce, "_execute", None)
    assert main(arguments(paired_folder, tmp_path, *more)) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_needs_nothing_installed():
    """With an interpreter that sees no site-packages at all."""
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}); "
         "from sahlib.__main__ import main; main(['run', '--help'])"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "examples" in done.stdout, done.stderr


def test_run_all_takes_the_active_environment_and_passes_the_exit_status_on(tmp_path):
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(
        [PROJECT / "run_all.sh", "--profile", "fast", "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "profile 'fast' is not known" in done.stderr, done.stderr
    assert not (PROJECT / "fast").exists() and not (tmp_path / "out").exists()


def test_a_data_folder_means_that_the_phantom_is_not_meant(paired_folder):
    chosen = argparse.Namespace(
        dataset="",
        data_dir=str(paired_folder),
        patient_pattern="",
        slices_are_patients=False,
        label_map=None,
        models=None,
        seeds=None,
        set=[],
    )
    assert reproduce.study_changes(chosen) == {"dataset": "paired_folder", "data_dir": str(paired_folder)}


def test_an_unknown_command_is_told_the_known_ones():
    done = subprocess.run([PROJECT / "run_all.sh", "foo"], capture_output=True, text=True)
    assert done.returncode == 2 and "no command 'foo'; use run, test, lab, check, data, store" in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_run_all_is_valid_shell():
    assert subprocess.run(["bash", "-n", PROJECT / "run_all.sh"]).returncode == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("windows", "brain, 80/200", ["brain", "80/200"]),
        ("label_map", "1=SAH,#00ffff=IVH", ["1=SAH", "#00ffff=IVH"]),
        ("channels", "8,16", [8, 16]),
        ("learning_rates", "1e-3", [0.001]),
        ("deterministic", "True", True),
        ("precision", "fp32", "fp32"),
    ],
)
def test_a_field_is_read_by_the_type_of_its_default(name, text, value):
    assert reproduce._typed(name, text) == value


def test_check_and_data_are_commands(paired_folder, tmp_path, capsys):
    assert main(["check", str(paired_folder), "--to", str(tmp_path / "page")]) == 0
    assert "Patients          12" in capsys.readouterr().out and (tmp_path / "page" / "check.html").exists()
    assert main(["data"]) == 0 and "rhuh_sah" in capsys.readouterr().out
    assert main(["data", "kaggle"]) == 2 and "kaggle" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "nowhere")]) == 2 and "nowhere" in capsys.readouterr().err


def test_an_external_folder_that_is_none_is_named_before_anything_runs(paired_folder, tmp_path, capsys):
    assert main(arguments(paired_folder, tmp_path, "--external", str(tmp_path / "nowhere"))) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "out").exists()
