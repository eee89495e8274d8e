"""The script: its environment, and that it finds its project and hands on what it is told."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

from sahlib.workspace import PROJECT


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


STAND_IN = """#!/bin/bash
# A Python whose pip only shows what it may install, and in which something is missing until it has been called.
if [ "$1 $2" = "-m pip" ]; then cat "${@: -3:1}" > "$0.pins"; exit; fi
if [ "$1 $2" = "- cv2" ]; then [ -e "$0.pins" ]; exit; fi
if [ "$1 $2" = "-m sahlib" ]; then exit; fi
PYTHONPATH="$FOUND" exec REAL "$@"
"""


@pytest.mark.parametrize(
    ("there", "pinned"), [("2.11.0+cu128", "2.11.0+cu128"), ("1.13.1", "constraints"), ("", "constraints")]
)
def test_a_torch_within_the_range_is_left_as_it_is(tmp_path, there, pinned):
    python, found = tmp_path / "bin" / "python", tmp_path / "torch-0.dist-info"
    python.parent.mkdir()
    # With -S the interpreter knows of no other torch.
    python.write_text(STAND_IN.replace("REAL", f"{sys.executable} -S"))
    python.chmod(0o755)
    if there:
        found.mkdir()
        (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {there}\n")
    pip = tmp_path / "pip"
    pip.symlink_to(os.path.dirname(importlib.util.find_spec("pip").origin))
    environment = {**os.environ, "VIRTUAL_ENV": str(tmp_path), "FOUND": str(tmp_path)}
    subprocess.run([PROJECT / "run_all.sh"], check=True, env=environment, capture_output=True)
    pins, usual = (path.read_text().split() for path in (tmp_path / "bin" / "python.pins", PROJECT / "constraints.txt"))
    (usual_torch,) = (line for line in usual if line.startswith("torch=="))
    expected = usual_torch if pinned == "constraints" else f"torch=={pinned}"
    assert pins == [expected if line == usual_torch else line for line in usual]


def test_an_unknown_command_is_told_the_known_ones():
    done = subprocess.run([PROJECT / "run_all.sh", "foo"], capture_output=True, text=True)
    assert done.returncode == 2 and "no command 'foo'; use run, test, lab, check, apply, judge, book" in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_run_all_is_valid_shell():
    assert subprocess.run(["bash", "-n", PROJECT / "run_all.sh"]).returncode == 0


@pytest.mark.parametrize("way", ["link", "CDPATH"])
def test_run_all_finds_its_project(tmp_path, way):
    environment = {**os.environ, "CDPATH": str(PROJECT.parent)} if way == "CDPATH" else dict(os.environ)
    script, cwd = PROJECT / "run_all.sh", tmp_path
    if way == "link":
        script = tmp_path / "linked.sh"
        script.symlink_to(PROJECT / "run_all.sh")
    else:
        script, cwd = "./run_all.sh", PROJECT
    done = subprocess.run([script, "data"], capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0 and "rhuh_sah" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "linked.sh"])
