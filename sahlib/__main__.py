"""The command line: `python -m sahlib run` is what ./run_all.sh calls once everything is installed."""

from __future__ import annotations

import argparse
import sys

from .study import DATASETS, MODELS, PROFILES, StudyError

EPILOG = """\
profiles
  quick   a laptop without a GPU: minutes, small images, narrow networks
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
    """Exit status: 0 done, 1 a notebook failed, 2 a mistake in what was asked for, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="run_all.sh", description="Reproduce the study from scans to figures.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        prog="run_all.sh",
        usage="./run_all.sh [run | test | lab] [options]",
        description="run (the default) reproduces every figure and table; test runs the test suite; "
        "lab opens JupyterLab on the notebooks. The options below are those of run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--profile", default="auto", help=f"auto, {', '.join(PROFILES)} (default: auto)")
    run.add_argument(
        "--dataset",
        default="",
        help=f"{' or '.join(DATASETS)} (default: paired_folder where --data-dir is given, else phantom)",
    )
    run.add_argument("--data-dir", default="", metavar="DIR", help="folder of a dataset read from disk")
    run.add_argument("--patient-pattern", default="", metavar="REGEX", help="first group = patient, in a file's stem")
    run.add_argument(
        "--slices-are-patients",
        action="store_true",
        help="accept slices without a patient; every table then says that scores may be too good",
    )
    run.add_argument("--models", nargs="+", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    run.add_argument("--seeds", nargs="+", type=int, metavar="K", help="one training of each network per seed")
    run.add_argument("--output", default="", metavar="DIR", help="where data/, runs/ and paper_figures/ go")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other field of the Study")
    chosen = parser.parse_args(arguments)

    from . import reproduce

    try:
        return reproduce.run(chosen.profile, chosen.output, reproduce.study_changes(chosen))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on after the last whole epoch.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
