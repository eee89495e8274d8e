"""The command line: `python -m sahlib run` is what ./run_all.sh calls once everything is installed.

`check` looks at a folder of scans before anything is trained; `data` tells where the public sets come from. `store`,
`train`, `predict` and `score` are the study's stages one by one, for a cluster to schedule (workflow/Snakefile), and
`overview` shows how far they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from sahlib.study import DATASETS, MODELS, OWN, PROFILES, RECIPES, TARGETS, StudyError

EPILOG = """\
profiles
  quick   a laptop without a GPU: minutes, small images, narrow networks
  verdict quick with three trainings of each network, under the paper's recipe and a fair one: an hour and a half
  paper   the paper's recipe as far as it is given (256x256, 50 epochs, batch 16, Adam at 1e-4), and fairer ones
          beside it; wants a GPU
  smoke   a minute or two; checks that everything runs, its numbers mean nothing
  auto    paper where a GPU is found, quick elsewhere (the default)

examples
  ./run_all.sh
      the whole study on the built-in phantom
  ./run_all.sh --data-dir ~/my_slices
      on your own slices: my_slices/images/ and my_slices/masks/, and my_slices/slices.csv with the columns
      file and patient_id
  ./run_all.sh --data-dir ~/my_slices --patient-pattern '^(\\d+)_'
      the patient is the number before the underscore of each file name
  ./run_all.sh --seeds 0 1 2 --set epochs=20 --set channels=8,16,32,64,128
      three seeds, and any other field of the Study (sahlib/study.py)

Finished work is found and not repeated; an interrupted training goes on after its last whole epoch.
"""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a notebook or scan failed, 2 a mistake in what was asked for, 130 interrupted."""
    chosen = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal or pipe without some sign gets a question mark
    try:
        return chosen.do(chosen) or 0
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        way = str(stopped) or "run the same command again to go on where it stopped."
        print(f"\ninterrupted; {way}", file=sys.stderr)
        return 130


# What the commands do: each imports what it needs, so that --help answers before anything is installed.


def _run(chosen: argparse.Namespace) -> int:
    from sahlib import reproduce

    changes, reading = reproduce.study_changes(chosen), reproduce.assigned(chosen.external_set)
    return reproduce.run(chosen.profile, chosen.output, changes, chosen.external, reading, chosen.anyway)


def _check(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sahlib import reproduce
    from sahlib.data.check.examine import examine
    from sahlib.data.sources import open_source
    from sahlib.report import check_page
    from sahlib.study import Study
    from sahlib.workspace import absolute

    study, folder = Study.of_profile("quick", **reproduce.study_changes(chosen)), absolute(chosen.to)
    source = open_source(study)
    found = examine(source, lambda scans: tqdm(scans, total=len(source), unit="scan"), study)
    print(check_page.write(found, folder))
    return 0 if len(found.scans) else 1  # not one scan can be read


def _apply(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sahlib import reproduce
    from sahlib.report import apply
    from sahlib.workspace import Workspace, absolute

    run, why = (apply.named_run(chosen.run), []) if chosen.run else apply.best_run(Workspace(chosen.output))
    scans = tqdm if len(chosen.scans) > 1 else iter
    told, failed = apply.write(chosen.scans, run, absolute(chosen.to), reproduce.assigned(chosen.set), scans, why)
    print(told)
    return 1 if failed else 0


def _judge(chosen: argparse.Namespace) -> None:
    from sahlib.report import judge

    named = ("images", "target", "claims", "patients", "patient_pattern", "slices_are_patients", "label_map")
    given = {name: getattr(chosen, name) for name in named if getattr(chosen, name)}
    print(judge.write(chosen.truth, chosen.masks, chosen.to, **given))


def _data(chosen: argparse.Namespace) -> None:
    from sahlib.data import fetch

    print(fetch.data(chosen.name, chosen.to))


def _stage(chosen: argparse.Namespace) -> None:
    from sahlib import reproduce
    from sahlib.chapters import results
    from sahlib.study import Study
    from sahlib.sweep import stages
    from sahlib.training import gpus
    from sahlib.workspace import Workspace

    study = Study.of_profile(chosen.profile, **reproduce.study_changes(chosen))
    workspace = Workspace(chosen.output)
    if chosen.command == "store":
        slices, split = results.load_data(study, workspace)
        print(f"{slices.path}, split {split.digest}")
        return
    seed = study.seeds[0] if chosen.seed is None else chosen.seed
    with gpus.own_gpu():
        done = getattr(stages, chosen.command)(stages.Arm(study, chosen.model, seed, chosen.recipe), workspace)
        print(done.path if chosen.command != "score" else done)


def _book(chosen: argparse.Namespace) -> None:
    from sahlib.report import book
    from sahlib.workspace import Workspace, absolute

    workspace = Workspace(chosen.output)
    print(book.write(workspace, absolute(chosen.to) if chosen.to else workspace.runs / "book"))


def _overview(chosen: argparse.Namespace) -> None:
    from sahlib.sweep import overview
    from sahlib.workspace import Workspace

    print(overview.write(Workspace(chosen.output)).read_text())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sahlib", description="Reproduce the study from scans to figures.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, do: Callable, description: str, **more) -> argparse.ArgumentParser:
        own = commands.add_parser(name, description=description, **{"prog": f"./run_all.sh {name}"} | more)
        own.set_defaults(do=do)
        return own

    run = command(
        "run",
        _run,
        "run (the default) reproduces every figure and table; test runs the test suite; lab opens JupyterLab on the "
        "notebooks; check looks at a folder of scans, apply segments scans, judge judges masks made elsewhere and data "
        "tells where the public sets come from; store, train, predict and score are the stages one by one and overview "
        "shows all runs (each has a --help). The options below are those of run.",
        prog="run_all.sh",
        usage="./run_all.sh [run | test | lab | check | apply | judge | data | store | train | predict | score | overview]",  # noqa: E501
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_study_options(run)
    run.add_argument("--external", default="", metavar="DIR", help="scans with masks on which notebook 08 tests")
    how = "how those are to be read: label_map=..."
    run.add_argument("--external-set", action="append", default=[], metavar="NAME=VALUE", help=how)
    anyway = "train also where the check of the scans finds what will spoil results"
    run.add_argument("--anyway", action="store_true", help=anyway)

    check = command("check", _check, "One page on a folder of scans, printed and written as check.html.")
    check.add_argument("data_dir", metavar="FOLDER", help="the folder that holds the scans")
    _add_reading_options(check)
    check.add_argument("--to", type=Path, default=Path(), metavar="DIR", help="where check.html goes (default: here)")

    own = command("apply", _apply, "Segments your own scans with a trained network; for research alone.")
    own.add_argument("scans", nargs="+", type=Path, metavar="SCAN", help="a NIfTI file, a DICOM folder, or pictures")
    best = "folder of a finished training (default: of the newest study the one with the best validation Dice)"
    own.add_argument("--run", default="", metavar="RUN", help=best)
    own.add_argument("--to", type=Path, default=Path("segmented"), metavar="DIR", help="where masks and page go")
    own.add_argument("--output", default="", metavar="DIR", help="the --output that the runs were given")
    pictures = "how pictures are to be read: grey_window=... orientation=..."
    own.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=pictures)

    judge = command("judge", _judge, "Judges masks that were made elsewhere; for research alone.")
    named = "folder of the truth; several raters as NAME=FOLDER each"
    judge.add_argument("--truth", action="append", required=True, metavar="FOLDER", help=named)
    judge.add_argument("--masks", action="append", required=True, metavar="NAME=FOLDER", help="whose masks, and where")
    judge.add_argument("--images", metavar="FOLDER", help="the scans, for what is said of the head alone")
    claims = "what a paper printed and claims of them, as YAML (docs/claims.md)"
    judge.add_argument("--claims", metavar="FILE", help=claims)
    judge.add_argument("--patients", metavar="CSV", help="a table with the columns file and patient_id")
    _add_naming_options(judge)
    judge.add_argument("--to", type=Path, default=Path("judged"), metavar="DIR", help="where all goes")

    data = command("data", _data, "Where the public datasets come from; fetches the open ones.")
    data.add_argument("name", nargs="?", default="", help="a dataset; without one all are listed")
    data.add_argument("--to", type=Path, metavar="DIR", help="new or empty folder to fetch and unpack it into")

    _add_study_options(command("store", _stage, "Make the slices and the split."))
    recipe = f"{OWN}: the Study's own fields (the default); the others are told in sahlib/study.py"
    for name, text in {
        "train": "Train one network.",
        "predict": "Test one network; train it first where that is not done.",
        "score": "Score one network; test it first where that is not done.",
    }.items():
        stage = command(name, _stage, text)
        _add_study_options(stage)
        stage.add_argument("--model", required=True, help=f"one of {', '.join(MODELS)}")
        stage.add_argument("--seed", type=int, metavar="K", help="one of the Study's seeds (default: its first)")
        stage.add_argument("--recipe", default=OWN, choices=(OWN, *RECIPES), help=recipe)

    book = command("book", _book, "The newest study's executed notebooks as a site of linked chapters.")
    book.add_argument("--output", default="", metavar="DIR", help="the --output that the study was given")
    book.add_argument("--to", default="", metavar="DIR", help="folder of the site (default: runs/book)")

    overview = command("overview", _overview, "One table and figure over all runs, finished or not.")
    overview.add_argument("--output", default="", metavar="DIR", help="the --output that the runs were given")
    return parser


def _add_study_options(parser: argparse.ArgumentParser) -> None:
    """What decides a Study, and where its files go."""
    parser.add_argument("--profile", default="auto", help=f"auto, {', '.join(PROFILES)} (default: auto)")
    parser.add_argument("--data-dir", default="", metavar="DIR", help="folder of a dataset read from disk")
    _add_reading_options(parser)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="K", help="one training of each network per seed")
    parser.add_argument("--output", default="", metavar="DIR", help="where data/, runs/ and paper_figures/ go")


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How a folder of scans is to be read."""
    sets = f"{', '.join(DATASETS)} (default: recognised by the folder's layout; without a folder, phantom)"
    parser.add_argument("--dataset", default="", help=sets)
    _add_naming_options(parser)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other field of the Study")


def _add_naming_options(parser: argparse.ArgumentParser) -> None:
    """Whose the slices of a folder are, and what its masks mean."""
    patients = "first group = patient, in a scan's name: the folders and stem of its file, or its DICOM folder"
    single = "accept slices without a patient; every table then says that scores may be too good"
    labels = "what a mask's values or colours mean: 4=SAH #00ffff=SAH"
    parser.add_argument("--patient-pattern", default="", metavar="REGEX", help=patients)
    parser.add_argument("--slices-are-patients", action="store_true", help=single)
    parser.add_argument("--label-map", nargs="+", metavar="VALUE=CLASS", help=labels)
    parser.add_argument("--target", choices=TARGETS, help="SAH (the default), any hemorrhage, or all classes")


if __name__ == "__main__":
    sys.exit(main())
