"""How every notebook begins: its study, where it works, and what its numbers are made by."""

from __future__ import annotations

from collections.abc import Mapping

from IPython import get_ipython

from sahlib.study import Study
from sahlib.workspace import Workspace, made_by


def begin(profile: str, output: str, changes: Mapping) -> tuple[Study, Workspace]:
    """The Study of a profile with some fields changed and the workspace in `output` ("": the project's own); prints
    commit, versions and device. Raises StudyError for values that a study cannot have."""
    if shell := get_ipython():
        shell.run_line_magic("matplotlib", "inline")
    print(made_by())
    return Study.of_profile(profile, **changes), Workspace(output)
