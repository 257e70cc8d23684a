#!/usr/bin/env bash
# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
#
# Makes an environment and runs the tests:  launch/test.sh [--slow] [PYTEST ARGUMENTS]
#   (default) everything that is not marked slow
#   --slow    the long tests too
# The environment is .venv-test; set VENV to use another directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

parts=("not slow")
case "${1:-}" in
  --slow) parts+=(slow); shift ;;
  --help | -h) sed -n '5,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac

venv=${VENV:-.venv-test}
# torch first and pinned: another package's open range would take a larger build.
make_environment "$venv" torch==2.13.0 -e '.[test,quickstart]'
install_quickstart_model "$venv"
failed=0
for part in "${parts[@]}"; do
  code=0
  "$venv/bin/python" -m pytest -q -n 2 --dist=worksteal --durations=10 -m "$part" "$@" || code=$?
  # 5: the arguments select no test of this part.
  ((code == 0 || code == 5)) || failed=$code
done
exit "$failed"
