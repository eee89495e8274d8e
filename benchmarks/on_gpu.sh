#!/usr/bin/env bash
# All that waits for a GPU, within a budget of time, from a checkout whose environment is complete:
#
#   OUT=FOLDER BUDGET=540 STEPS="tests throughput study" benchmarks/on_gpu.sh
#
# OUT      folder for what comes out: summary.txt, and of the study report.html and missing.md; all else (logs,
#          throughput tables, figures, tables, histories, counts; no weights) in results.tar.gz.00, .01 and so on, each
#          under 16 MiB: cat results.tar.gz.* | tar -xz
# BUDGET   seconds in all: a step that would pass it is ended, and what then no longer fits is left out
# STEPS    of tests, throughput and study, in that order (default: all)
# PROFILE  of the study (default: paper); smoke rehearses everything in small, on a processor too
# WORK     folder for slices, trainings and figures (default: on_gpu.work); a second call goes on with it
set -uo pipefail
: "${OUT:?folder for what comes out}" "${BUDGET:=540}" "${STEPS:=tests throughput study}" "${PROFILE:=paper}"
: "${PYTHON:=python3}" "${WORK:=on_gpu.work}"
began=$(date +%s)
mkdir -p "$OUT" "$WORK/logs" || exit 2
PYTHON="$(command -v "$PYTHON")" || exit 2
case "$PYTHON" in /*) ;; *) PYTHON="$PWD/$PYTHON" ;; esac
OUT="$(cd "$OUT" && pwd -P)" WORK="$(cd "$WORK" && pwd -P)"
cd "$(dirname "$0")/.." || exit 2
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# Where packages lie in a folder of their own, nbconvert's templates lie there too, and it does not look for them.
templates="$("$PYTHON" -c 'import nbconvert; from pathlib import Path; print(Path(nbconvert.__file__).parents[1])')/share/jupyter"
export JUPYTER_PATH="$templates${JUPYTER_PATH:+:$JUPYTER_PATH}"

left() { echo $((BUDGET - $(date +%s) + began)); }
failed=0

step() { # step NAME MOST_SECONDS COMMAND...: a line in summary.txt, whatever becomes of it
  local name=$1 most=$2 room=$(($(left) - 15)) started status
  shift 2
  if [ "$room" -lt 10 ]; then echo "$name: left out, $(left) s remain" | tee -a "$OUT/summary.txt"; return; fi
  [ "$most" -lt "$room" ] || most=$room
  started=$(date +%s)
  timeout -k 10 "$most" "$@" >"$WORK/logs/$name.log" 2>&1
  status=$?
  [ $status = 0 ] || failed=1
  echo "$name: exit $status after $(($(date +%s) - started)) s; $(grep -v '^ *$' "$WORK/logs/$name.log" | tail -1 | cut -c1-200)" |
    tee -a "$OUT/summary.txt"
}

{ nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"; } >"$OUT/summary.txt"
"$PYTHON" -c 'from sahlib.workspace import made_by; print(made_by())' 2>&1 | tail -1 | tee -a "$OUT/summary.txt"

tests=(tests/training)
networks=(attention_unet unet unet_resnet34)
sizes=(--batch-sizes 16 64 128 --slices 768 --epochs 2)
if [ "$PROFILE" = smoke ]; then
  tests=(tests/training/test_graph.py)
  networks=(unet)
  sizes=(--size 32 --channels 4 8 8 8 8 --batch-sizes 16 --slices 32 --epochs 1)
fi
for wanted in tests throughput study; do
  case " $STEPS " in *" $wanted "*) ;; *) continue ;; esac
  case $wanted in
    # In one process, for whatever shares the GPU slows the other down.
    tests) step tests 240 "$PYTHON" -m pytest -p no:cacheprovider -o addopts="-q --import-mode=importlib" "${tests[@]}" ;;
    throughput)
      # One network a call, so that one that is ended does not take the others' numbers with it.
      for network in "${networks[@]}"; do
        step "throughput-$network" 300 "$PYTHON" benchmarks/train_throughput.py --models "$network" "${sizes[@]}" \
          --output "$WORK/throughput/$network"
      done
      ;;
    study)
      step study "$BUDGET" "$PYTHON" benchmarks/study_within.py --profile "$PROFILE" --seconds $(($(left) - 20)) \
        --output "$WORK" --missing "$OUT/missing.md"
      cp "$WORK/paper_figures/report.html" "$OUT" 2>/dev/null
      ;;
  esac
done
(cd "$WORK" && find . \( -path './paper_figures/*' -o -path './throughput/*' -o -path './logs/*' -o -name run.json -o -name history.csv \
  -o -name 'counts*.csv' \) -type f -print0 | tar -cz --null -T - | split -b 15M -d - "$OUT/results.tar.gz.")
cat "$OUT/summary.txt"
exit $failed
