# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
  """A wrong command line, config, path or file.

  The message names the value, the place and the remedy. `sae-jax` prints it
  without a traceback and exits with code 2.
  """


class Interrupted(Exception):
  """A signal asked the job to stop; what was done is saved.

  `sae-jax` prints the message, which says how to go on, and exits with 75:
  EX_TEMPFAIL, which Slurm (RequeueExit) and Kubernetes (podFailurePolicy) can
  be told to start again.
  """

  exit_code = 75
