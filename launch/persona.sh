#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# A tiny model with two personas, fine-tuned on wrong answers in one domain; an
# SAE of the model; and what the fine-tuning changed, with its page:
#   launch/quickstart.sh persona [--out DIR] [--seed N]
#
#   --out   where everything goes                 (runs/persona)
#   --seed  of the organism's facts and weights   (0)
#   --full  instead: several seeds, and what the latents do, what cures it and
#           whether it shows early; see launch/persona_full.sh
#
# Run it again to resume, or to see the result again. The environment is
# .venv-quickstart; set VENV to use another directory.
set -euo pipefail
for argument in "$@"; do
  if [[ $argument == --full ]]; then
    exec "$(dirname "${BASH_SOURCE[0]}")/persona_full.sh" "$@"
  fi
done
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

out=runs/persona seed=0
usage() { sed -n '5,15s/^# \{0,1\}//p' launch/persona.sh; }
while (($#)); do
  [[ $1 == --help || $1 == -h ]] && { usage; exit 0; }
  (($# > 1)) || { echo "quickstart persona: $1 needs a value" >&2; exit 2; }
  case $1 in
    --out) case $2 in /*) out=$2 ;; *) out=$here/$2 ;; esac ;;
    --seed) seed=$2 ;;
    *) echo "quickstart persona: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
  shift 2
done

venv=${VENV:-.venv-quickstart}
make_environment "$venv" -e '.[quickstart]'
export PERSONA=$out

sae_jax() { # JOB OUTPUT ARGUMENTS...
  local job=$1 output=$2
  shift 2
  "$venv/bin/sae-jax" "$job" --config="configs/persona/$job.py" --out="$out/$output" "$@" >/dev/null
}
echo "organism: a base and four fine-tunes of it" >&2
sae_jax organism organism --config.seed="$seed"
echo "harvest the base" >&2
sae_jax harvest store
echo "train an SAE on it" >&2
sae_jax train run
echo "diff" >&2
sae_jax diff diff
"$venv/bin/sae-jax" report "$out/diff" --out="$out/report.html" >/dev/null
"$venv/bin/python" launch/persona_summary.py "$out" "$out/report.html"
