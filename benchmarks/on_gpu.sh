#!/usr/bin/env bash
# All that waits for a GPU, within a budget of time, from a checkout whose environment is complete:
#
#   OUT=FOLDER BUDGET=440 STEPS="tests throughput study" benchmarks/on_gpu.sh
#
# OUT      folder for what comes out: summary.txt, a log per step, throughput tables, and of the study report.html,
#          missing.md and results.tar.gz in parts under 16 MiB (figures, tables, histories, counts; no weights)
# BUDGET   seconds in all: a step that would pass it is ended, and what then no longer fits is left out
# STEPS    of tests, throughput and study, in that order (default: all)
# PROFILE  of the study (default: paper); smoke rehearses everything in small, on a processor too
# WORK     folder for slices, trainings and figures (default: on_gpu.work); a second call goes on with it
set -uo pipefail
: "${OUT:?folder for what comes out}" "${BUDGET:=840}" "${STEPS:=tests throughput study}" "${PROFILE:=paper}"
: "${PYTHON:=python3}" "${WORK:=on_gpu.work}"
began=$(date +%s)
mkdir -p "$OUT" "$WORK" || exit 2
OUT="$(cd "$OUT" && pwd -P)" WORK="$(cd "$WORK" && pwd -P)"
cd "$(dirname "$0")/.." || exit 2
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

left() { echo $((BUDGET - $(date +%s) + began)); }
failed=0

step() { # step NAME SECONDS_KEPT_BACK COMMAND...: a line in summary.txt, whatever becomes of it
  local name=$1 most=$(($(left) - $2)) started status
  shift 2
  if [ "$most" -lt 10 ]; then echo "$name: left out, $(left) s remain" | tee -a "$OUT/summary.txt"; return; fi
  started=$(date +%s)
  timeout -k 10 "$most" "$@" >"$OUT/$name.log" 2>&1
  status=$?
  [ $status = 0 ] || failed=1
  echo "$name: exit $status after $(($(date +%s) - started)) s; $(grep -v '^ *$' "$OUT/$name.log" | tail -1 | cut -c1-200)" |
    tee -a "$OUT/summary.txt"
}

{ nvidia-smi 2>/dev/null || echo "no nvidia-smi"; "$PYTHON" -c 'from sahlib.workspace import made_by; print(made_by())'; } >"$OUT/device.txt"
tail -1 "$OUT/device.txt"

tests=(tests/training tests/networks tests/test_device.py)
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
    tests) step tests 5 "$PYTHON" -m pytest -p no:cacheprovider -o addopts="-q --import-mode=importlib" "${tests[@]}" ;;
    throughput)
      # One network a call, so that one that is ended does not take the others' numbers with it.
      for network in "${networks[@]}"; do
        step "throughput-$network" 5 "$PYTHON" benchmarks/train_throughput.py --models "$network" "${sizes[@]}" \
          --output "$OUT/throughput-$network"
      done
      ;;
    study)
      step study 15 "$PYTHON" benchmarks/study_within.py --profile "$PROFILE" --seconds $(($(left) - 20)) \
        --output "$WORK" --missing "$OUT/missing.md"
      cp "$WORK/paper_figures/report.html" "$OUT" 2>/dev/null
      (cd "$WORK" && find . \( -path './paper_figures/*' -o -name run.json -o -name history.csv -o -name 'counts*.csv' \) -type f -print0 |
        tar -cz --null -T - | split -b 15M -d - "$OUT/results.tar.gz.")
      ;;
  esac
done
cat "$OUT/summary.txt"
exit $failed
