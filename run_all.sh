#!/usr/bin/env bash
# Set-up and headless reproduction: ./run_all.sh [COMMAND] [options]; ./run_all.sh --help tells all.
set -euo pipefail
# Called through a link, the project is where the link leads; with CDPATH set, cd would print where it went.
unset CDPATH
script="${BASH_SOURCE[0]}"
while [ -L "$script" ]; do
  target="$(readlink "$script")"
  case "$target" in /*) script="$target" ;; *) script="$(dirname "$script")/$target" ;; esac
done
project="$(cd "$(dirname "$script")" && pwd -P)"
# The kernels that papermill starts find sahlib here, even where nothing may be installed.
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"

fail() {
  echo "error: $1" >&2
  exit 2
}

# Every module the command needs; one that is missing means that the environment is not complete.
modules="cv2 anywidget einops filelock imagecodecs imagehash ipykernel ipywidgets isal jinja2 latex2mathml matplotlib monai nbclient nbconvert nibabel nilearn numpy pandas papermill PIL
  psutil pydicom rarfile requests rocrate safetensors scipy sklearn torch tqdm yaml"
complete() { # complete PYTHON MODULE...
  "$1" - "${@:2}" <<'PY' >/dev/null 2>&1
import sys
from importlib.util import find_spec
sys.exit(sys.version_info < (3, 11) or any(find_spec(name) is None for name in sys.argv[1:]))
PY
}

# Where pip is told to take torch from: the constraints, less torch where one within the range is there already. On
# clusters and notebook services it is the build that fits the driver, and another one would be gigabytes.
constraints() { # constraints PYTHON
  "$1" - "$project" <<'PY'
import re, sys, tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pip._vendor.packaging.requirements import Requirement
project = Path(sys.argv[1])
pins = (project / "constraints.txt").read_text()
wanted = map(Requirement, tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"])
allowed = next(one.specifier for one in wanted if one.name == "torch")
try:
    if allowed.contains(version("torch"), prereleases=True):
        pins = re.sub("^torch==.*", f"torch=={version('torch')}", pins, flags=re.M)
except PackageNotFoundError:
    pass
print(pins)
PY
}

command="run"
case "${1:-}" in
  run | test | lab | check | apply | judge | book | data | store | train | predict | score | overview) command="$1"; shift ;;
  "" | -*) ;;
  *) fail "there is no command '$1'; use run, test, lab, check, apply, judge, book, data, store, train, predict, score or overview, or ./run_all.sh --help." ;;
esac
case " $* " in
  *" --help "* | *" -h "*)
    # Help installs nothing; pytest and JupyterLab have their own.
    if [ "$command" != test ] && [ "$command" != lab ]; then
      any="$(command -v python3 || command -v python)" || fail "Python 3.11 or newer is not installed."
      exec "$any" -m sahlib "$command" --help
    fi
    ;;
esac
[ "$command" = test ] && modules="$modules hypothesis nbval pytest xdist"
[ "$command" = lab ] && modules="$modules jupyterlab"
extras=test
[ "$command" = book ] && modules="$modules myst_nb sphinx_book_theme" && extras=test,book
# JupyterLab refuses to run as root, as one is in most containers, unless told so.
[ "$command" = lab ] && [ "$(id -u)" = 0 ] && set -- --allow-root "$@"

# An active environment first, then the project's own, then a system Python that already has everything.
if [ -n "${VIRTUAL_ENV:-}" ]; then
  python="$VIRTUAL_ENV/bin/python"
elif [ -n "${CONDA_PREFIX:-}" ] && [ -x "$CONDA_PREFIX/bin/python" ]; then
  python="$CONDA_PREFIX/bin/python"
elif [ -x "$project/.venv/bin/python" ]; then
  python="$project/.venv/bin/python"
elif command -v python3 >/dev/null && complete python3 $modules; then
  python="$(command -v python3)"
else
  command -v python3 >/dev/null || fail "Python 3.11 or newer is not installed."
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1)."
  echo "Making $project/.venv"
  # A system's own torch is taken over.
  complete python3 torch && shared=--system-site-packages
  python3 -m venv ${shared:-} "$project/.venv" || fail "python3 -m venv failed; on Debian, install python3-venv."
  python="$project/.venv/bin/python"
fi

if ! complete "$python" $modules; then
  echo "Installing what the study needs; this takes minutes, once."
  pins="$(mktemp)"
  constraints "$python" >"$pins"
  "$python" -m pip install --quiet --constraint "$pins" --editable "$project[$extras]" \
    || fail "The installation failed; the lines above say why. ./run_all.sh goes on from here."
  rm "$pins"
  complete "$python" $modules || fail "The installation is not complete; remove $project/.venv and run again."
fi

case "$command" in
  test) cd "$project" && exec "$python" -m pytest "$@" ;;
  lab) cd "$project" && exec "$python" -m jupyterlab --notebook-dir="$project" "$project/notebooks/01_data_exploration.ipynb" "$@" ;;
  *) exec "$python" -m sahlib "$command" "$@" ;;
esac
