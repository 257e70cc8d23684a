# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Puts a job on an engine that people already run: one file per engine.

What is submitted are the files of templates/, with the request's values filled
in; launch/ links to them, as they can be used by hand.
"""

from sae_jax.submit.engines import ENGINES as ENGINES
from sae_jax.submit.engines import usage as usage
from sae_jax.submit.plan import carry_out as carry_out
from sae_jax.submit.plan import described as described
from sae_jax.submit.plan import show as show
from sae_jax.submit.request import Request as Request
from sae_jax.submit.request import read as read
