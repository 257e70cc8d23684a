#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# One sae-jax job on this host, on all its devices (TPUs, NVIDIA GPUs or CPU):
#   launch/local.sh JOB --config=FILE.py --out=DIR [--config.field=value ...]
#
# A crash is answered by starting again from the last checkpoint, at most
# RESTARTS times (3). Ctrl-C and SIGTERM make the job save and stop. Exit codes
# are those of sae-jax: 0 done, 2 wrong input, 75 stopped and can go on, 1 else.
# VENV is the virtual environment to use; without it, sae-jax is looked up on the
# PATH.
set -uo pipefail

if (($# == 0)) || [[ $1 == --help || $1 == -h ]]; then
  sed -n '5,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  (($#)) && exit 0
  exit 2
fi
[[ -z ${VENV:-} ]] || PATH=$VENV/bin:$PATH
command -v sae-jax >/dev/null || {
  echo "local.sh: no sae-jax on the PATH; activate its environment, or install it:" \
    "pip install '.[tpu]' on a TPU VM, '.[cuda]' for NVIDIA GPUs, '.' for a CPU" >&2
  exit 2
}

# Huge pages take an eighth off a CPU step of XLA; glibc 2.35 and later.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
crashes=0 child="" stopped=""
# Bash runs a trap only between commands and while it waits: hence a background
# process, which is told of both signals as SIGTERM. A second one ends it.
# shellcheck disable=SC2317  # the trap calls it
stop() {
  stopped=yes
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null
}
trap stop INT TERM
while [[ -z $stopped ]]; do
  sae-jax "$@" &
  child=$!
  # A signal ends `wait` early: wait until the process is gone.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
  done
  wait "$child"
  code=$?
  case $code in 0 | 2 | 75) exit "$code" ;; esac
  [[ -z $stopped ]] || exit "$code"
  crashes=$((crashes + 1))
  ((crashes <= ${RESTARTS:-3})) || exit "$code"
  echo "local.sh: sae-jax ended with $code; it starts again from its last" \
    "checkpoint ($crashes of ${RESTARTS:-3} times)" >&2
done
exit 75
