"""The study without a person: papermill runs the notebooks in order, and leaves executed copies and HTML."""

from __future__ import annotations

import argparse
import ast
import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import psutil

from sahlib.chapters import external_validation
from sahlib.chapters.results import is_complete, load
from sahlib.data import slices
from sahlib.data.check.examine import examine
from sahlib.data.check.findings import SPOILS
from sahlib.data.sources import open_source, recognise
from sahlib.progress import environment, over, unattended
from sahlib.report import notebook_page
from sahlib.study import Study, StudyError
from sahlib.workspace import NOTEBOOKS, PROJECT, Workspace, absolute, cores, disk_errors_named, writing

TRACEBACK_LINES = 12
KERNEL = "sahlib"
LONGEST_SOCKET_FOLDER = 80  # of the 107 bytes that a socket's path may have, less the names below it
# The notebooks that leave on disk what those after them find there, and keep all cores busy: by training and testing.
ALONE = ("03", "04", "05")
NAMED = 8  # grave findings that a refusal lists
# Fields of a Study that have an option of their own, besides dataset and data_dir; --set takes all others.
OPTIONS = ("patient_pattern", "slices_are_patients", "label_map", "target", "models", "seeds")


def study_changes(chosen: argparse.Namespace) -> dict:
    """The Study fields that a command line sets, as literals for a notebook's parameters cell."""
    folder = absolute(chosen.data_dir) if chosen.data_dir else None
    changes = {"dataset": chosen.dataset or (recognise(folder) if folder else "phantom")}
    if folder:
        changes["data_dir"] = str(folder)
    changes |= {name: getattr(chosen, name) for name in OPTIONS if getattr(chosen, name, None)}
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


def command_line(study: Study, external: str = "", reading: dict | None = None, anyway: bool = False) -> str:
    """The ./run_all.sh line that gives this very Study, quoted for a shell.

    A folder is named from the project's or from the home folder where it lies in one of them, so that the line can be
    published. The precision is always named, because a profile leaves it to the hardware.

    external, reading, anyway  as for run
    """
    profile = Study.of_profile(study.profile)
    parts = ["./run_all.sh", f"--profile {study.profile}", f"--dataset {study.dataset}"]
    for name, value in vars(study).items():
        if name == "dataset" or (value == getattr(profile, name) and name != "precision"):
            continue
        if name == "data_dir":
            parts.append(f"--data-dir {_shown(value)}")
        elif name == "slices_are_patients":
            parts.append("--slices-are-patients")
        elif name in OPTIONS:
            parts.append(_option(name, *([value] if isinstance(value, str) else value)))
        else:
            parts.append(_option("set", f"{name}={_text(value)}"))
    if external:
        parts.append(f"--external {_shown(external)}")
    parts += [_option("external_set", f"{name}={_text(value)}") for name, value in (reading or {}).items()]
    return " ".join([*parts, *(["--anyway"] if anyway else [])])


def run(
    profile: str,
    output: str,
    changes: dict,
    external: str = "",
    reading: dict | None = None,
    anyway: bool = False,
) -> int:
    """Runs every notebook; 0 when all went through, 1 when one failed.

    external  folder of scans for notebook 08; empty: a fresh phantom
    reading   Study fields that say how that folder is to be read
    anyway    goes on where a check of the scans finds what will spoil results

    The Study and the data folders are checked first, so that a mistake costs seconds and not a training.
    """
    from sahlib.browser import embedded
    from sahlib.report import crate, report_page

    study = Study.of_profile(profile, **changes)
    workspace = Workspace(output)
    source = open_source(study)
    if reading and not external:
        raise StudyError("--external-set belongs to --external; add --external DIR or leave it out.")
    if external:
        try:
            external = str(absolute(external))
            there = external_validation.study_elsewhere(study, external, **(reading or {}))
            if not anyway:
                require_sound(open_source(there), there, workspace)
            others = slices.prepare(there, workspace.processed, over("scans from elsewhere"))
        except StudyError as error:
            raise StudyError(f"--external: {error} (Its options are given as --external-set NAME=VALUE.)") from error
    if not anyway:
        require_sound(source, study, workspace)
    if external:
        external_validation.require_testable(slices.prepare(study, workspace.processed, over("scans")), others)
    parameters = {"profile": study.profile, "output": str(workspace.root), "changes": changes}
    fingerprint = source.fingerprint()
    results = workspace.figures(study, fingerprint)
    print(f"{study.dataset}, {len(source)} scans, profile {study.profile}; results in {results}")
    executed_notebooks = workspace.executed_notebooks(study, fingerprint)
    with disk_errors_named(executed_notebooks):
        executed_notebooks.mkdir(parents=True, exist_ok=True)

    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    begun = time.perf_counter()
    # One notebook becomes HTML while the next one runs.
    with ThreadPoolExecutor(1) as pool, unattended(), own_kernel():
        pages, seconds = [], {}

        def executes(notebook: Path) -> bool:
            print(f"[{notebooks.index(notebook) + 1}/{len(notebooks)}] {notebook.stem}", flush=True)
            started = time.perf_counter()
            executed = executed_notebooks / notebook.name
            more = {"external": external, "reading": reading or {}} if notebook.stem.startswith("08") else {}
            if not _execute(notebook, executed, parameters | more):
                return False
            pages.append(pool.submit(_write_html, executed))
            seconds[notebook.stem] = round(time.perf_counter() - started, 1)
            print(f"      {notebook.stem} done in {_minutes(seconds[notebook.stem])}", flush=True)
            return True

        if is_complete(study, workspace):
            groups = [(False, notebooks[::-1])]  # those that take longest are among the last
        else:
            by_turns = itertools.groupby(notebooks, key=lambda notebook: notebook.stem.startswith(ALONE))
            groups = [(alone, list(group)) for alone, group in by_turns]
        for alone, group in groups:
            if not all(map(executes, group) if alone else side_by_side(executes, group)):
                return 1
        for page in pages:
            page.result()
    # What a run found finished took no time in it; how long each training took stands in its own record.
    with writing(results / "times.csv") as file:
        pd.Series(seconds, name="seconds").sort_index().to_csv(file, index_label="notebook")
    command = command_line(study, external, reading, anyway)
    embed = partial(embedded.of_results, load(study, workspace))
    page = report_page.write(results, results / "report.html", command, embed)
    # The newest study's report lies in sight, one level up.
    with writing(results.parent / page.name) as newest:
        shutil.copyfile(page, newest)
    if (results / "run.json").exists():
        crate.write(results)
    summaries = [results / "verdict.md"]
    if external:
        summaries += sorted(results.glob("external-*/summary.md"), key=lambda path: path.stat().st_mtime)[-1:]
    for summary in summaries:
        if summary.exists():
            print(f"\n{summary.read_text()}")
    print(f"The report, verdict first: {results.parent / page.name}")
    print(f"All figures and tables are in {results} ({_minutes(time.perf_counter() - begun)}).")
    return 0


def require_sound(source, study: Study, workspace: Workspace) -> None:
    """StudyError where the scans hold what will spoil results; scans that have become slices are not checked again."""
    if study.dataset == "phantom" or slices.store_path(study, source, workspace.processed).exists():
        return
    found = examine(source, over("scans to check"), study).findings
    grave = [finding.sentence for finding in found if finding.gravity == SPOILS]
    if grave:
        more = [f"and {len(grave) - NAMED} more"] if len(grave) > NAMED else []
        # What cannot be read cannot be trained on either.
        way = "" if any(finding.kind == "unreadable" for finding in found) else "; --anyway goes on all the same"
        raise StudyError(
            "\n- ".join(["The scans hold what will spoil results:", *grave[:NAMED], *more])
            + f"\n./run_all.sh check {_shown(study.data_dir)} shows all{way}."
        )


def side_by_side(do: Callable[[Path], bool], notebooks: list[Path]) -> list[bool]:
    """do(notebook) of several, on the cores there are; torch takes its share of them in each.

    Threads of torch that outnumber the cores wait for each other at full speed, many times as long as they work.
    """
    at_once = min(cores(), len(notebooks))
    with environment("OMP_NUM_THREADS", str(cores() // at_once)), ThreadPoolExecutor(at_once) as pool:
        try:
            return list(pool.map(do, notebooks))
        except KeyboardInterrupt:
            # Only the main thread hears of it, and kernels are in process groups of their own.
            for kernel in psutil.Process().children():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(kernel.pid, signal.SIGINT)
            raise


def _execute(notebook: Path, executed: Path, parameters: dict) -> bool:
    """Runs one notebook into an executed copy; on failure prints the cell and the end of its traceback."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    try:
        with disk_errors_named(executed), tempfile.TemporaryDirectory() as sockets:
            # Socket files instead of open ports, in a folder that no other run shares, where its path is short enough.
            short = len(sockets) < LONGEST_SOCKET_FOLDER
            place = {"transport": "ipc", "ip": f"{sockets}/kernel"} if short else {"ip": "127.0.0.1"}
            papermill.execute_notebook(
                notebook,
                executed,
                parameters,
                kernel_name=KERNEL,
                cwd=notebook.parent,
                progress_bar=False,
                # A still picture stands for each widget; its state would only make the file large.
                store_widget_state=False,
                stdout_file=_Indented(),
                # Kernels log their shutdown to the terminal; what matters comes as an exception.
                extra_arguments=["--log-level=50"],
                config=Config({"KernelManager": place}),
            )
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            return False
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))  # without terminal colours
        lines = [line for line in text.splitlines() if line.strip()]
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


@contextlib.contextmanager
def own_kernel() -> Iterator[None]:
    """Within the block Jupyter knows a kernel KERNEL, this very interpreter; a foreign "python3" may lie anywhere."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "kernels" / KERNEL / "kernel.json"
        spec.parent.mkdir(parents=True)
        start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": start, "display_name": "Python 3", "language": "python"}))
        with environment("JUPYTER_PATH", os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))):
            yield


class _Indented:
    """A text stream that prints what cells print, indented under the notebook's name."""

    def write(self, text: str) -> None:
        print("".join(f"      {line}\n" for line in text.strip().splitlines()), end="", flush=True)

    def flush(self) -> None:
        sys.stdout.flush()


def _write_html(executed: Path) -> None:
    with writing(executed.with_suffix(".html")) as path:
        path.write_text(notebook_page.html(executed), encoding="utf-8", newline="\n")


def _typed(name: str, text: str) -> object:
    """`text` as the type of the Study's field `name`; lists are comma-separated."""
    default = getattr(Study, name, "")  # an unknown name is named by Study.of_profile
    if isinstance(default, tuple) and all(isinstance(value, str) for value in default):
        return [part.strip() for part in text.split(",") if part.strip()]
    if not isinstance(default, (tuple, int, float)):
        return text
    try:
        return ast.literal_eval(f"[{text}]" if isinstance(default, tuple) else text)
    except (ValueError, SyntaxError) as error:
        raise StudyError(f"--set {name}={text} cannot be read; the default is {default!r}.") from error


def _text(value: object) -> str:
    """A field's value as --set takes it; `_typed` reads it back."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _option(name: str, *values: object) -> str:
    """An option of the command line with its values, quoted for a shell."""
    option, words = f"--{name.replace('_', '-')}", [str(value) for value in values]
    if len(words) == 1 and words[0].startswith("-"):  # by itself it would be taken for an option
        return shlex.quote(f"{option}={words[0]}")
    return " ".join([option, *map(shlex.quote, words)])


def _shown(folder: str) -> str:
    """A folder for a shell, from the project's folder or from home (~) where it lies in one of them."""
    path = absolute(folder)
    for root, name in ((PROJECT, ""), (Path.home(), "~/")):
        if path.is_relative_to(root):
            return name + shlex.quote(str(path.relative_to(root)))
    return shlex.quote(str(path))


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
