"""Files appear whole or not at all, what a disk refuses is said in one sentence, and what made a file is known."""

import errno
import getpass
import json
import os
import platform
import socket
import subprocess
import sys

import pytest

from sahlib.study import Study, StudyError
from sahlib.workspace import PROJECT, Workspace, absolute, disk_errors_named, git_commit, made_by, provenance, writing


def test_a_file_is_replaced_by_a_whole_one_alone(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with writing(target) as part:
        part.write_text("old")
    with pytest.raises(RuntimeError), writing(target) as part:
        part.write_text("half of the n")
        raise RuntimeError("killed in the middle")
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]


def test_what_a_killed_process_left_half_written_is_removed_and_a_living_one_s_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = platform.node()
    left = [tmp_path / f".store.partial-{here}-{dead.pid}", tmp_path / f".other.partial-{here}-{dead.pid}"]
    living = tmp_path / f".store.partial-{here}-{os.getppid()}"
    elsewhere = tmp_path / f".store.partial-another-{dead.pid}"  # where a process of that number may live
    for folder in (*left, living, elsewhere):
        folder.mkdir()
    with writing(tmp_path / "store") as part:
        part.write_text("whole")
    assert not left[0].exists() and left[1].exists() and living.exists() and elsewhere.exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full.*Free some space"),
        (errno.EDQUOT, "disk is full"),
        (errno.EACCES, "No permission.*another folder"),
        (errno.EROFS, "No permission"),
        (errno.ENOTDIR, "counts.csv cannot be written.*refused.*another folder"),
        (errno.EEXIST, "cannot be written"),
        (errno.ENOENT, "cannot be written"),
    ],
)
def test_what_a_disk_refuses_becomes_one_sentence(tmp_path, number, words):
    with pytest.raises(StudyError, match=words) as error, disk_errors_named(tmp_path / "counts.csv"):
        raise OSError(number, "refused")
    assert "counts.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_path_is_whole_or_leads_nowhere_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute("~/scans/../new") == tmp_path / "new"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for lost, why in (("~nobody99/x", "home"), (tmp_path / "loop", "loop"), (tmp_path / ("n" * 300), "too long")):
        with pytest.raises(StudyError, match=f"leads nowhere .*{why}.*another folder"):
            absolute(lost)
        with pytest.raises(StudyError, match="leads nowhere"):
            _ = Workspace(str(lost)).root


def test_an_output_folder_holds_everything_and_profiles_do_not_overwrite_each_other(tmp_path):
    workspace = Workspace(str(tmp_path))
    places = [workspace.processed, workspace.runs]
    studies = [Study.of_profile(profile) for profile in ("quick", "paper", "smoke")]
    places += [where(study, {}) for study in studies for where in (workspace.figures, workspace.executed_notebooks)]
    assert all(place.is_relative_to(tmp_path) for place in places) and len(set(places)) == len(places)
    assert Workspace().root == PROJECT


def test_only_a_profile_as_it_is_gets_the_plain_folder_and_two_data_sets_never_share_one(tmp_path):
    workspace, quick = Workspace(str(tmp_path)), Study.of_profile("quick")
    assert workspace.figures(quick, {"sha256": "a"}).name == "phantom-quick"
    trial = Study.of_profile("quick", epochs=3)
    assert workspace.figures(trial, {"sha256": "a"}).name.startswith("phantom-quick-")
    own = [Study.of_profile("quick", dataset="paired_folder", data_dir=place) for place in ("/here", "/there")]
    names = [workspace.figures(own[0], {"sha256": content}).name for content in "ab"]
    assert len(set(names)) == 2 and workspace.figures(own[1], {"sha256": "a"}).name == names[0]


def test_provenance_says_what_made_a_file_and_nothing_private():
    facts = provenance()
    assert {"commit", "python", "libraries", "device", "system", "time"} == set(facts)
    assert facts["libraries"]["torch"] and facts["libraries"]["monai"]
    text = json.dumps(facts)
    assert socket.gethostname() not in text and f"/{getpass.getuser()}" not in text
    assert made_by().count("\n") == 0 and "torch" in made_by()


@pytest.mark.parametrize("ending", ["", "+changes"])
def test_a_shortened_commit_still_says_that_files_differed(monkeypatch, ending):
    monkeypatch.setattr("sahlib.workspace.git_commit", lambda: "0123456789abcdef" + ending)
    assert made_by().startswith(f"Commit 0123456789{ending}, Python ")


def test_outside_a_checkout_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr("sahlib.workspace.PROJECT", tmp_path)
    assert git_commit() == "unknown"
