#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# One sae-jax job on Cloud TPU VMs: asks for a slice (a queued resource), waits
# for it, installs this checkout, runs the job on every host and follows its
# log. A preempted slice is asked for anew and the job goes on from its last
# checkpoint; so does the same command, called again after anything else.
#   launch/tpu_vm.sh OPTIONS JOB --config=FILE.py --out=DIR [--config.field=value ...]
#
#   --zone=ZONE         where, such as us-east5-b                      (required)
#   --accelerator=TYPE  such as v6e-16, v5litepod-64 or v5p-128        (required)
#   --name=NAME         of the queued resource                  (sae-jax-JOB)
#   --project=PROJECT   (the one gcloud is set to)
#   --runtime=VERSION   TPU software version            (what TYPE asks for)
#   --slices=N          slices of this type, joined over the network      (1)
#   --spot              cheaper, and may be taken away at any time
#   --setup=COMMAND     runs on every host first: mount there what --out lies on
#   --source=DIR        the checkout to install                (this script's)
#   --keep              leave the slice (and its bill) when the job has ended
#   --dry_run           print the commands, run none
#
# After a crash it starts again from its last checkpoint, at most RESTARTS times
# (3). DIR is a directory that all hosts share. Ctrl-C ends the following, not the
# job. Exit codes are those of sae-jax: 0 done, 2 wrong input, 1 else.
# shellcheck disable=SC2016  # the hosts expand what they are told to run
set -euo pipefail

usage() { sed -n '5,25s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; }
die() { # CODE MESSAGE
  local code=$1
  shift
  echo "tpu_vm.sh: $*" >&2
  exit "$code"
}
say() { echo "tpu_vm.sh: $*" >&2; }

zone="" accelerator="" name="" project="" runtime="" slices=1 setup="" config=""
spot="" keep="" dry="" job=()
# templates/ of the package lies three levels below a checkout.
source=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)
for word in "$@"; do
  case $word in
    --help | -h) usage; exit 0 ;;
    --zone=*) zone=${word#*=} ;;
    --accelerator=*) accelerator=${word#*=} ;;
    --name=*) name=${word#*=} ;;
    --project=*) project=${word#*=} ;;
    --runtime=*) runtime=${word#*=} ;;
    --slices=*) slices=${word#*=} ;;
    --setup=*) setup=${word#*=} ;;
    --source=*) source=${word#*=} ;;
    --spot) spot=yes ;;
    --keep) keep=yes ;;
    --dry_run | --dry-run) dry=yes ;;
    --config=*) config=${word#*=} ;;
    *) job+=("$word") ;;
  esac
done
[[ -n $zone ]] || { usage; die 2 "--zone=ZONE is missing"; }
[[ -n $accelerator ]] || { usage; die 2 "--accelerator=TYPE is missing"; }
((${#job[@]})) || { usage; die 2 "no job is named"; }
[[ -f $config ]] || die 2 "--config=$config: there is no such file"
[[ -f $source/pyproject.toml ]] || die 2 "--source=$source holds no pyproject.toml;" \
  "give the directory of a checkout of sae_jax"
[[ $slices =~ ^[1-9][0-9]*$ ]] || die 2 "--slices=$slices: give a number >= 1"
[[ -n $dry ]] || command -v gcloud >/dev/null ||
  die 2 "no gcloud on the PATH; install it from https://cloud.google.com/sdk/docs/install"
name=${name:-sae-jax-${job[0]}}
if [[ -z $runtime ]]; then
  case $accelerator in
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    *) runtime=tpu-ubuntu2204-base ;;
  esac
fi

# Prints a command instead of running it, if asked to.
run() {
  if [[ -n $dry ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
tpus() { # VERB ARGUMENTS...
  run gcloud compute tpus queued-resources "$@" --zone="$zone" ${project:+"--project=$project"}
}
on_all() { tpus ssh "$name" --node=all --worker=all --command="$1"; }
on_first() { tpus ssh "$name" --node=0 --worker=0 --command="$1"; }

state() { # ACTIVE, ..., or nothing where there is no such queued resource
  gcloud compute tpus queued-resources list --zone="$zone" ${project:+"--project=$project"} \
    --filter="name~/queuedResources/$name\$" --format='value(state.state)'
}

create() {
  local nodes=(--node-id="$name")
  ((slices == 1)) || nodes=(--node-count="$slices" --node-prefix="$name")
  say "asking for $slices x $accelerator in $zone"
  tpus create "$name" "${nodes[@]}" --accelerator-type="$accelerator" \
    --runtime-version="$runtime" ${spot:+--spot}
}

remove() { tpus delete "$name" --force --quiet; }

ready() { # returns when the slice is there
  if [[ -n $dry ]]; then
    create
    return
  fi
  local now before=""
  while :; do
    now=$(state)
    [[ $now == "$before" ]] || say "$name is ${now:-not there}"
    before=$now
    case $now in
      ACTIVE) return ;;
      "") create ;;
      SUSPENDED) remove ;; # preempted: it never comes back by itself
      FAILED)
        tpus describe "$name" >&2
        die 1 "$name could not be had (above); remove it with:" \
          "gcloud compute tpus queued-resources delete $name --zone=$zone --force"
        ;;
      *) sleep "${POLL_SECONDS:-30}" ;;
    esac
  done
}

# On the hosts: ~/sae_jax_source, ~/sae_jax_venv, ~/sae_jax_config.py, and of
# the job ~/sae_jax_job.log, .pid and .exit (its code, once it has ended).
install() {
  local packed
  packed=$(mktemp -d)/sae_jax.tar.gz
  say "installing $source on every host"
  run tar -czf "$packed" -C "$source" --exclude=__pycache__ \
    pyproject.toml README.md LICENSE sae_jax
  tpus scp "$packed" "$name:sae_jax.tar.gz" --node=all --worker=all
  tpus scp "$config" "$name:sae_jax_config.py" --node=all --worker=all
  rm -rf "$(dirname "$packed")"
  # The Python of these machines is older than 3.11.
  on_all 'set -e
mkdir -p ~/sae_jax_source && tar -xzf ~/sae_jax.tar.gz -C ~/sae_jax_source
python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/sae_jax_venv
cd ~/sae_jax_source && ~/.local/bin/uv pip install --quiet --python ~/sae_jax_venv/bin/python ".[tpu,gcs]"'
  [[ -z $setup ]] || on_all "$setup"
}

running() { on_first 'kill -0 $(cat ~/sae_jax_job.pid)' >/dev/null 2>&1; }

settle() { # the other hosts end when they miss the first one
  [[ -n $dry ]] && return
  on_all 'for _ in {1..240}; do
kill -0 $(cat ~/sae_jax_job.pid) 2>/dev/null || exit 0
sleep 0.5
done
kill -KILL -- -$(cat ~/sae_jax_job.pid)'
}

start() {
  local words
  words=$(printf '%q ' "${job[@]}")
  on_all "rm -f ~/sae_jax_job.exit
nohup setsid bash -c '~/sae_jax_venv/bin/sae-jax \"\$@\" --config=\$HOME/sae_jax_config.py --distributed
echo \$? >~/sae_jax_job.exit' sae-jax $words >>~/sae_jax_job.log 2>&1 </dev/null &
echo \$! >~/sae_jax_job.pid"
}

follow() { # until the job has ended on the first host, or it is out of reach
  on_first 'tail -n 50 -s 0.5 -F ~/sae_jax_job.log --pid=$(cat ~/sae_jax_job.pid)' || true
}

restarts=0
while :; do
  ready
  if [[ -n $dry ]] || ! running; then
    settle
    install
    start
  fi
  follow
  if [[ -n $dry ]]; then
    [[ -n $keep ]] || remove
    exit 0
  fi
  code=$(on_first 'cat ~/sae_jax_job.exit' 2>/dev/null || true)
  case $code in
    "")
      say "the first host is out of reach, or the job still runs; looking again"
      sleep "${POLL_SECONDS:-30}"
      continue
      ;;
    0 | 2) break ;;
    75) say "the job was stopped and has saved; it goes on" ;;
    *)
      restarts=$((restarts + 1))
      ((restarts <= ${RESTARTS:-3})) || break
      say "the job ended with $code; it starts again from its last checkpoint ($restarts of ${RESTARTS:-3} times)"
      ;;
  esac
done
if [[ -z $keep ]]; then
  say "the job has ended with $code; the slice is given back"
  remove
else
  say "the job has ended with $code; the slice is kept, and paid for, until:" \
    "gcloud compute tpus queued-resources delete $name --zone=$zone --force"
fi
exit "$code"
