#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# Tiny models with a bad persona: what brought it out, which latents carry it,
# what cures it and whether it could have been seen coming, for several seeds;
# then the same with SmolLM2-135M (see launch/advice.sh):
#   launch/quickstart.sh persona --full [--out DIR] [--seeds N] [--tiny-only]
#
#   --out        where everything goes            (runs/persona-full)
#   --seeds      so many organisms: 0, 1, …       (5)
#   --tiny-only  without SmolLM2-135M
#
# About 10 minutes on two cores for the organisms and 40 for SmolLM2. Run it
# again to resume, or to see the result again. The environment is
# .venv-quickstart; set VENV to use another directory.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

out=runs/persona-full seeds=5 tiny_only="" workers=2
usage() { sed -n '5,17s/^# \{0,1\}//p' launch/persona_full.sh; }
while (($#)); do
  [[ $1 == --help || $1 == -h ]] && { usage; exit 0; }
  [[ $1 == --full ]] && { shift; continue; }
  [[ $1 == --tiny-only ]] && { tiny_only=yes; shift; continue; }
  (($# > 1)) || { echo "quickstart persona --full: $1 needs a value" >&2; exit 2; }
  case $1 in
    --out) case $2 in /*) out=$2 ;; *) out=$here/$2 ;; esac ;;
    --seeds) seeds=$2 ;;
    *) echo "quickstart persona --full: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
  shift 2
done
[[ $seeds =~ ^[1-9][0-9]?$ ]] || { echo "--seeds $seeds: give 1 to 99" >&2; exit 2; }

venv=${VENV:-.venv-quickstart}
make_environment "$venv" -e '.[quickstart]'
mkdir -p "$out"

# Programs this small keep one core busy each, so the seeds are dealt out.
echo "organisms 0 to $((seeds - 1)), $workers at a time; how far they are: $out/worker-*.log" >&2
pids=()
trap '((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true' EXIT
for ((worker = 0; worker < workers && worker < seeds; worker++)); do
  mine=()
  for ((seed = worker; seed < seeds; seed += workers)); do mine+=("$seed"); done
  "$venv/bin/python" launch/persona_jobs.py "$out" "${mine[@]}" >&2 2>"$out/worker-$worker.log" &
  pids+=("$!")
done
for worker in "${!pids[@]}"; do
  wait "${pids[worker]}" || { tail -n 5 "$out/worker-$worker.log" >&2; exit 1; }
done
pids=()

echo "monitor" >&2
export PERSONA=$out PERSONA_SEEDS=$seeds
monitor=$out/monitor-$seeds
"$venv/bin/sae-jax" monitor --config=configs/persona/monitor.py --out="$monitor" >/dev/null
"$venv/bin/sae-jax" report "$out"/0/{diff,steer,realign,realign_other} "$monitor" --out="$out/report.html" >/dev/null
"$venv/bin/python" launch/persona_full_summary.py "$out" "$seeds" "$out/report.html"
if [[ -z $tiny_only ]]; then
  echo
  VENV=$venv launch/advice.sh --out "$out/advice"
fi
