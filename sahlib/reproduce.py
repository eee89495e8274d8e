"""The study without a person: papermill runs the notebooks in order, and leaves executed copies and HTML."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from .datasets import open_source, recognise
from .paths import NOTEBOOKS, Workspace, disk_errors_named, writing
from .study import Study, StudyError

TRACEBACK_LINES = 12


def study_changes(chosen: argparse.Namespace) -> dict:
    """The Study fields that a command line sets, as literals for a notebook's parameters cell."""
    found = recognise(Path(chosen.data_dir).expanduser()) if chosen.data_dir and not chosen.dataset else "phantom"
    changes = {"dataset": chosen.dataset or found}
    if chosen.patient_pattern:
        changes["patient_pattern"] = chosen.patient_pattern
    if chosen.data_dir:
        changes["data_dir"] = str(Path(chosen.data_dir).expanduser().resolve())
    if chosen.slices_are_patients:
        changes["slices_are_patients"] = True
    if chosen.label_map:
        changes["label_map"] = chosen.label_map
    changes |= {name: getattr(chosen, name) for name in ("models", "seeds", "target") if getattr(chosen, name, None)}
    return changes | assigned(chosen.set)


def assigned(assignments: list[str]) -> dict:
    """{name: value} of NAME=VALUE, each value of the type that the Study's field has."""
    fields = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise StudyError(f"--set {assignment!r} must have the form NAME=VALUE.")
        fields[name] = _typed(name, text)
    return fields


def run(profile: str, output: str, changes: dict, external: str = "", reading: dict | None = None) -> int:
    """Runs every notebook; 0 when all went through, 1 when one failed.

    external  folder of scans for notebook 08; empty: a fresh phantom
    reading   Study fields that say how that folder is to be read

    The Study and the data folder are checked first, so that a mistake costs seconds and not a training.
    """
    study = Study.of_profile(profile, **changes)
    workspace = Workspace(output)
    source = open_source(study)
    if external:
        external = str(Path(external).expanduser().resolve())
        recognise(Path(external))
    parameters = {"profile": study.profile, "output": str(workspace.root), "changes": changes}
    results = workspace.figures(study, source.fingerprint())
    print(f"{study.dataset}, {len(source)} scans, profile {study.profile}; results in {results}")
    with disk_errors_named(workspace.executed_notebooks):
        workspace.executed_notebooks.mkdir(parents=True, exist_ok=True)

    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    begun = time.perf_counter()
    # One notebook becomes HTML while the next one runs.
    with ThreadPoolExecutor(1) as pool:
        pages, seconds = [], {}
        for number, notebook in enumerate(notebooks, 1):
            print(f"[{number}/{len(notebooks)}] {notebook.stem}", flush=True)
            started = time.perf_counter()
            executed = workspace.executed_notebooks / notebook.name
            more = {"external": external, "reading": reading or {}} if notebook.stem.startswith("08") else {}
            if not _execute(notebook, executed, parameters | more):
                return 1
            pages.append(pool.submit(_write_html, executed))
            seconds[notebook.stem] = round(time.perf_counter() - started, 1)
            print(f"      done in {_minutes(seconds[notebook.stem])}", flush=True)
        for page in pages:
            page.result()
    # What a run found finished took no time in it; how long each training took stands in its own record.
    with writing(results / "times.csv") as file:
        pd.Series(seconds, name="seconds").to_csv(file, index_label="notebook")
    if (results / "verdict.md").exists():
        print("\n" + (results / "verdict.md").read_text())
    print(f"All figures and tables are in {results} ({_minutes(time.perf_counter() - begun)}).")
    return 0


def _execute(notebook: Path, executed: Path, parameters: dict) -> bool:
    """Runs one notebook into an executed copy; on failure prints the cell and the end of its traceback."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    try:
        with disk_errors_named(executed):
            papermill.execute_notebook(
                notebook,
                executed,
                parameters,
                kernel_name="python3",
                cwd=notebook.parent,
                progress_bar=False,
                stdout_file=_Indented(),
                # Kernels log their shutdown to the terminal; what matters comes as an exception.
                extra_arguments=["--log-level=50"],
                # A socket file instead of an open port.
                config=Config({"KernelManager": {"transport": "ipc"}}),
            )
    except PapermillExecutionError as error:
        lines = [line for line in _plain("\n".join(error.traceback)).splitlines() if line.strip()]
        if error.ename == "StudyError":
            lines = [error.evalue]
        print(f"\n{notebook.name} failed in cell {error.exec_count}:", file=sys.stderr)
        print("\n".join(f"    {line}" for line in lines[-TRACEBACK_LINES:]), file=sys.stderr)
        print(f"The notebook as far as it came: {executed}", file=sys.stderr)
        return False
    except DeadKernelError:
        print(
            f"\n{notebook.name} failed: its kernel died, most often for lack of memory; "
            "set a smaller batch_size or size, then run again.",
            file=sys.stderr,
        )
        return False
    return True


class _Indented:
    """A text stream that prints what cells print, indented under the notebook's name."""

    def write(self, text: str) -> None:
        print("".join(f"      {line}\n" for line in text.strip().splitlines()), end="", flush=True)

    def flush(self) -> None:
        sys.stdout.flush()


def _write_html(executed: Path) -> None:
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter(embed_images=True).from_filename(str(executed))
    with writing(executed.with_suffix(".html")) as path:
        path.write_text(html)


def _typed(name: str, text: str) -> object:
    """`text` as the type of the Study's field `name`; lists are comma-separated."""
    defaults = {field.name: field.default for field in dataclasses.fields(Study)}
    default = defaults.get(name)  # an unknown name is named by Study.of_profile
    if not isinstance(default, (tuple, bool, int, float)):
        return text
    if isinstance(default, tuple) and all(isinstance(value, str) for value in default):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        value = ast.literal_eval(f"[{text}]" if isinstance(default, tuple) else text)
    except (ValueError, SyntaxError) as error:
        raise StudyError(f"--set {name}={text} cannot be read; the default is {default!r}.") from error
    return value


def _plain(text: str) -> str:
    """Without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
