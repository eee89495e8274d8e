"""What made a file, without anything private."""

import getpass
import json
import socket

from sahlib import workspace as provenance


def test_it_says_what_made_a_file_and_nothing_private():
    facts = provenance.provenance()
    assert {"commit", "python", "libraries", "device", "system", "time"} == set(facts)
    assert facts["libraries"]["torch"] and facts["libraries"]["monai"]
    text = json.dumps(facts)
    assert socket.gethostname() not in text and f"/{getpass.getuser()}" not in text


def test_outside_a_checkout_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.git_commit() == "unknown"


def test_one_line_for_a_notebook():
    assert provenance.made_by().count("\n") == 0 and "torch" in provenance.made_by()
