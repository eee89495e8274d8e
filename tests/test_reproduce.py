"""The command line and the headless run, mistakes and failures included."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup
from helpers.folders import write_paired_folder

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


@pytest.fixture
def elsewhere(tmp_path):
    return write_paired_folder(tmp_path / "elsewhere", seed=9)


def arguments(paired_folder, tmp_path, *more):
    places = ["--dataset", "paired_folder", "--data-dir", str(paired_folder), "--output", str(tmp_path / "out")]
    return ["run", "--profile", "smoke", "--anyway", *places, *more]  # these heads are no heads


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


def test_notebooks_that_do_not_build_on_each_other_share_the_cores(monkeypatch):
    """Two at a time on four cores, two threads of torch in each; one core takes them one by one."""
    at_once, seen, barrier = [], [], threading.Barrier(2, timeout=10)

    def do(notebook):
        at_once.append(os.environ["OMP_NUM_THREADS"])
        if len(at_once) <= 2:
            barrier.wait()  # until the other one runs too
        seen.append(notebook)
        return notebook != "b"

    monkeypatch.setattr(reproduce, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert reproduce.side_by_side(do, ["a", "b"]) == [True, False]
    assert at_once == ["2", "2"] and sorted(seen) == ["a", "b"] and os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.setattr(reproduce, "cores", lambda: 1)
    assert reproduce.side_by_side(do, ["a", "b", "c"]) == [True, False, True] and at_once[2:] == ["1"] * 3


INTERRUPTED = """
import sys
from pathlib import Path
from sahlib import reproduce
from sahlib.__main__ import main
reproduce.NOTEBOOKS = Path(sys.argv[1])
reproduce.cores = lambda: 2
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("names", [("01_a", "02_b"), ("03_a",)])
def test_ctrl_c_ends_the_kernels_and_says_how_to_go_on(paired_folder, tmp_path, names):
    """Side by side, where only threads wait for the kernels, and alone."""
    (tmp_path / "notebooks").mkdir()
    for name in names:
        notebook = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
        source = f"import os, time, pathlib; pathlib.Path({str(tmp_path)!r}, '{name}').write_text(str(os.getpid()))"
        parameters = nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]})
        notebook.cells = [parameters, nbformat.v4.new_code_cell(f"{source}; time.sleep(600)")]
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "notebooks"), *arguments(paired_folder, tmp_path)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    started = [tmp_path / name for name in names]
    while not all(path.exists() and path.read_text() for path in started):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    assert "interrupted; run the same command again" in run.communicate(timeout=60)[1] and run.returncode == 130
    assert not any(psutil.pid_exists(int(path.read_text())) for path in started)


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
        (["--set", "epoch=3"], "no parameter is called epoch; is it epochs?"),
        (["--set", "profile=quick"], "choose it by --profile"),
        (["--set", "seeds={}"], "seeds must be a list of int"),
        (["--set", "epochs"], "NAME=VALUE"),
        (["--set", "epochs=many"], "epochs=many"),
        (["--set", "epochs=2.5"], "epochs must be int"),
        (["--models", "unet", "swin"], "swin"),
        (["--set", "size=250"], "250"),
        (["--patient-pattern", "("], "not a regular expression"),
        (["--data-dir", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--data-dir", "~nobody99/x"], "~nobody99/x leads nowhere"),
        (["--external", "~nobody99/x"], "~nobody99/x leads nowhere"),
        (["--output", "~nobody99/x"], "~nobody99/x leads nowhere"),
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


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_a_sign_shows_the_rest(paired_folder, tmp_path, monkeypatch, encoding):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["check", str(paired_folder), "--to", str(tmp_path)]) == 0
    terminal.flush()
    assert b"? Will spoil results" in terminal.buffer.getvalue()


def test_what_is_grave_stops_a_run_before_training_and_names_the_way_past(
    one_notebook, paired_folder, tmp_path, capsys
):
    one_notebook("print('trained')")
    without = [word for word in arguments(paired_folder, tmp_path) if word != "--anyway"]
    assert main(without) == 2
    told = capsys.readouterr()
    assert "covers up to" in told.err and "--anyway" in told.err and "trained" not in told.out
    assert f"./run_all.sh check {paired_folder}" in told.err and not (tmp_path / "out").exists()
    assert main([*without, "--anyway"]) == 0 and "trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("target=any", "target was settled when the networks were trained"),
        ("size=64", "size was settled"),
        ("label-map=1=SAH", "no parameter is called label-map; is it label_map?"),
        ("grey_window=foo", "window 'foo' is neither"),
        ("label_map=1=blood", "label_map entry"),
    ],
)
def test_a_mistake_in_how_other_scans_are_read_costs_no_training(
    one_notebook, paired_folder, elsewhere, tmp_path, capsys, option, words
):
    one_notebook("print('trained')")
    more = ("--external", str(elsewhere), "--external-set", option)
    assert main(arguments(paired_folder, tmp_path, *more)) == 2
    told = capsys.readouterr()
    assert words in told.err and "--external-set NAME=VALUE" in told.err and "trained" not in told.out


def test_how_no_scans_are_read_is_refused(paired_folder, tmp_path, capsys):
    assert main(arguments(paired_folder, tmp_path, "--external-set", "label_map=1=SAH")) == 2
    assert "add --external DIR" in capsys.readouterr().err


def broken(folder):
    (folder / "images" / "07_2.png").write_bytes(b"\x89PNG")


def copied(folder):
    shutil.copy(folder.parent / "paired" / "images" / "03_0.png", folder / "images" / "01_0.png")


@pytest.mark.parametrize(("damage", "words"), [(broken, "07_2.png cannot be read"), (copied, "among the study's own")])
def test_other_scans_are_read_to_the_last_and_compared_before_training(
    one_notebook, paired_folder, elsewhere, tmp_path, capsys, damage, words
):
    one_notebook("print('trained')")
    damage(elsewhere)
    assert main(arguments(paired_folder, tmp_path, "--external", str(elsewhere))) == 2
    told = capsys.readouterr()
    assert words in told.err and "trained" not in told.out


def test_other_scans_are_checked_like_the_own(one_notebook, elsewhere, tmp_path, capsys):
    one_notebook("print('trained')")
    words = ["run", "--profile", "smoke", "--output", str(tmp_path / "out"), "--external", str(elsewhere)]
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: --external: The scans hold") and "covers up to" in told.err
    assert f"check {elsewhere} shows all; --anyway" in told.err and "trained" not in told.out


def test_other_scans_that_cannot_be_shown_in_the_windows_of_the_study_cost_no_training(
    one_notebook, paired_folder, tmp_path, capsys
):
    one_notebook("print('trained')")
    words = ["run", "--profile", "smoke", "--output", str(tmp_path / "out"), "--set", "windows=brain,bone"]
    assert main([*words, "--anyway", "--external", str(paired_folder)]) == 2
    told = capsys.readouterr()
    assert "holds grey levels of one window" in told.err and "trained" not in told.out


def test_what_cannot_be_read_is_not_to_be_trained_on_anyway(paired_folder, tmp_path, capsys):
    broken = sorted((paired_folder / "images").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    without = [word for word in arguments(paired_folder, tmp_path) if word != "--anyway"]
    assert main(without) == 2
    told = capsys.readouterr().err
    assert f"{broken} cannot be read" in told and "--anyway" not in told


def test_other_scans_may_be_accepted_without_patients(one_notebook, paired_folder, elsewhere, tmp_path, capsys):
    one_notebook("print('trained')")
    (elsewhere / "slices.csv").unlink()
    assert main(arguments(paired_folder, tmp_path, "--external", str(elsewhere))) == 2
    assert "trained" not in capsys.readouterr().out
    more = ("--external", str(elsewhere), "--external-set", "slices_are_patients=True")
    assert main(arguments(paired_folder, tmp_path, *more)) == 0 and "trained" in capsys.readouterr().out


def test_a_long_temporary_folder_and_a_foreign_kernel_do_not_matter(
    one_notebook, paired_folder, tmp_path, monkeypatch, capsys
):
    """The kernel is this very interpreter, whatever a "python3" on JUPYTER_PATH would start."""
    one_notebook("import sys; print('kernel', sys.executable)")
    foreign = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"argv": ["/nowhere/python"], "display_name": "foreign", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert main(arguments(paired_folder, tmp_path)) == 0
    assert f"kernel {sys.executable}" in capsys.readouterr().out


def test_a_user_without_name_and_home_can_import_what_is_needed():
    """A container started with --user 12345; os.getuid is made up because tests may run as root."""
    code = (
        "import os\n"
        "[os.environ.pop(name, None) for name in ('USER', 'LOGNAME', 'LNAME', 'USERNAME', 'HOME')]\n"
        "os.getuid = lambda: 54321\n"
        "import sahlib, getpass, pathlib\n"
        "print(getpass.getuser(), pathlib.Path.home().is_dir())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.split() == ["nobody", "True"], done.stderr


def test_an_external_folder_that_is_none_is_named_before_anything_runs(paired_folder, tmp_path, capsys):
    assert main(arguments(paired_folder, tmp_path, "--external", str(tmp_path / "nowhere"))) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_ends_with_the_report_and_its_command(paired_folder, elsewhere, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "NOTEBOOKS", tmp_path / "none")
    places = ["--data-dir", str(paired_folder), "--output", str(tmp_path / "out")]
    assert main(["run", "--profile", "smoke", "--anyway", *places, "--external", str(elsewhere)]) == 0
    found = tmp_path / "out" / "paper_figures" / "report.html"
    assert f"The report, verdict first: {found}\n" in capsys.readouterr().out
    command = BeautifulSoup(found.read_text(), "html.parser").pre.get_text()
    assert f"--data-dir {paired_folder}" in command and f"--external {elsewhere}" in command
    assert command.endswith(" --anyway")
