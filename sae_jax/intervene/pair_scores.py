# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of paired responses under many interventions.

Of each prompt, log p(behaviour) and log p(contrast) are means per token from
the first token on in which the two responses differ. What interventions share
is computed once: the blocks below the first edit, the prompt, the beginning
that both responses have in common.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, lm
from sae_jax.interpret import on_mesh
from sae_jax.intervene import edits as edits_lib
from sae_jax.intervene import packing
from sae_jax.judge import likelihood
from sae_jax.judge import pairs as pairs_lib
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import batch as batch_lib


@dataclasses.dataclass(frozen=True)
class PairScores:
  """Mean log p per scored token of N interventions and P pairs, in nats."""

  behaviour_NP: np.ndarray  # float64
  contrast_NP: np.ndarray  # float64
  behaviour_tokens_P: np.ndarray  # how many tokens were scored
  contrast_tokens_P: np.ndarray

  @property
  def margin_NP(self) -> np.ndarray:
    return self.behaviour_NP - self.contrast_NP

  @property
  def p_behaviour_NP(self) -> np.ndarray:
    """The geometric mean of the tokens' probabilities."""
    return np.exp(self.behaviour_NP)

  @property
  def p_contrast_NP(self) -> np.ndarray:
    return np.exp(self.contrast_NP)

  @property
  def mass_NP(self) -> np.ndarray:
    """log(p(behaviour) + p(contrast)): what steering costs shows here."""
    return np.logaddexp(self.behaviour_NP, self.contrast_NP)


class Scorer:
  """Scores the pairs of a prompt set under interventions on one model.

  `pairs` are indices in `prompts.prompts`, `ids` and `topics` theirs. The
  streams that the last call began with are kept on the devices for the next.
  """

  def __init__(
    self,
    model: lm.LanguageModel,
    prompts: prompts_lib.Prompts,
    *,
    batch_rows: int = 64,
    first_difference: bool = True,
  ):
    """Packs the pairs and puts them on the model's mesh.

    Args:
      model: loaded whole.
      prompts: at least one with both kinds of response.
      batch_rows: pairs times interventions in one pass, rounded up to the
        mesh; changes memory and speed only.
      first_difference: score from the first token on in which the responses
        differ (`judge.pairs`), or else whole responses.

    Raises:
      errors.InputError: no pairs, two equal responses, tokens that the model
        does not have, or no head loaded.
    """
    if batch_rows < 1:
      raise errors.InputError(f"batch_rows={batch_rows}: give 1 or more")
    self.model = model
    self.pairs = prompts.pairs
    if not self.pairs:
      raise errors.InputError(
        f"{prompts.path}: no prompt has both {prompts.behaviour!r} and"
        f" {prompts.contrast!r}; steering is scored on such pairs"
      )
    chosen = [prompts.prompts[i] for i in self.pairs]
    self.ids = tuple(prompt.id for prompt in chosen)
    self.topics = tuple(prompt.topic for prompt in chosen)
    packed = [_pack(model, prompts, p, first_difference) for p in chosen]
    scored_PR = np.stack(
      [np.bincount(p.response_S, minlength=2) for p in packed]
    )
    self._tokens = scored_PR[:, 0], scored_PR[:, 1]
    lanes = on_mesh.lanes(model.mesh)
    # About as many pairs as interventions, so that neither has to be many to
    # fill a batch; whole lanes of pairs, so that no row moves between devices.
    size = -(-math.isqrt(batch_rows) // lanes) * lanes
    size = min(size, -(-len(packed) // lanes) * lanes)
    self._at_once = max(1, batch_rows // size)
    self._batches = packing.batches(packed, size, model.mesh)
    self._streams: tuple[str, list[jax.Array]] = ("", [])

  def scores(
    self,
    interventions: edits_lib.Interventions,
    progress: Callable[[int], None] | None = None,
  ) -> PairScores:
    """Scores every pair under every intervention.

    Args:
      interventions: N of them, of this model's width.
      progress: is told how many interventions are done.

    Raises:
      errors.InputError: they do not fit the model, or a score is not finite.
    """
    interventions = interventions.on(self.model)
    n = interventions.n
    if not interventions.parts:  # nothing to tell them apart
      found_NP2 = np.repeat(self._scores(interventions.take([0])), n, axis=0)
      return PairScores(found_NP2[..., 0], found_NP2[..., 1], *self._tokens)
    # Chunks of equal size, so that there is one program per group of lengths.
    size = -(-n // -(-n // self._at_once))
    found_NP2 = np.zeros((n, len(self.pairs), 2))
    for first in range(0, n, size):
      # The last chunk repeats the last intervention.
      index_M = np.minimum(np.arange(first, first + size), n - 1)
      found_NP2[index_M] = self._scores(interventions.take(index_M))
      if progress is not None:
        progress(int(index_M[-1]) + 1)
    bad = np.argwhere(~np.isfinite(found_NP2))
    if len(bad):
      raise errors.InputError(
        f"{self.model.source}: intervention {bad[0][0]} makes the score of"
        f" prompt {self.ids[bad[0][1]]!r} {found_NP2[tuple(bad[0])]}; lower its"
        " strength, or load the model with dtype=float32"
      )
    return PairScores(found_NP2[..., 0], found_NP2[..., 1], *self._tokens)

  def _scores(self, interventions: edits_lib.Interventions) -> np.ndarray:
    """Of one chunk of interventions, float64 [M, P, 2]."""
    hook = _entry(self.model, interventions)
    if self._streams[0] != hook:
      streams: list[jax.Array] = [
        _stream(self.model.model, batch, hook=hook, mesh=self.model.mesh)
        for _, batch in self._batches
      ]
      self._streams = (hook, streams)
    parts = [
      _score(
        self.model.model,
        batch,
        stream_PTD,
        interventions,
        hook=hook,
        mesh=self.model.mesh,
      )
      for (_, batch), stream_PTD in zip(
        self._batches, self._streams[1], strict=True
      )
    ]
    found_MP2 = np.zeros((interventions.n, len(self.pairs), 2))
    for (index, _), part_PM2 in zip(self._batches, parts, strict=True):
      part_MP2 = np.swapaxes(np.asarray(part_PM2), 0, 1)
      found_MP2[:, index] = part_MP2[:, : len(index)]
    return found_MP2


def _pack(
  model: lm.LanguageModel,
  prompts: prompts_lib.Prompts,
  prompt: prompts_lib.Prompt,
  first_difference: bool,
) -> packing.Packed:
  """Raises errors.InputError for a pair that cannot be scored."""
  responses = [
    prompt.responses[field] for field in (prompts.behaviour, prompts.contrast)
  ]
  place = f"{prompts.path}, prompt {prompt.id!r}"
  try:
    first = pairs_lib.first_difference(*responses)
  except errors.InputError as error:
    raise errors.InputError(f"{place}: {error}") from error
  longest = len(prompt.tokens) + max(map(len, responses))
  if not prompt.tokens:
    raise errors.InputError(
      f"{place}: it has no tokens; start it with text or the BOS token"
    )
  batch_lib.check_length(model, longest)
  highest = max(max(tokens) for tokens in (prompt.tokens, *responses))
  if highest >= model.config.vocab_size:
    raise errors.InputError(
      f"{place}: token {highest}, but {model.source} has 0 to"
      f" {model.config.vocab_size - 1}; tokenise it with this model's tokenizer"
    )
  return packing.pack(
    prompt.tokens, *responses, first=first if first_difference else 0
  )


def _entry(
  model: lm.LanguageModel, interventions: edits_lib.Interventions
) -> str:
  """The last hook between blocks that nothing is edited before."""
  if not interventions.parts:
    return f"blocks.{model.layers - 1}.hook_resid_post"
  first = lm.parse_hook(interventions.hooks[0])
  if first.site == "resid_post":
    return first.canonical
  return f"blocks.{first.layer}.hook_resid_pre"


@functools.partial(jax.jit, static_argnames=("hook", "mesh"))
def _stream(model, batch: packing.Batch, *, hook, mesh) -> jax.Array:
  """The unedited stream at `hook`, [P, T, D]."""
  out = lm.forward(
    model,
    batch.tokens_PT,
    batch.mask_PT,
    taps=(hook,),
    branch_BT=batch.branch_PT,
    want_logits=False,
    mesh=mesh,
  )
  return out.taps[hook]


@functools.partial(jax.jit, static_argnames=("hook", "mesh"))
def _score(
  model,
  batch: packing.Batch,
  stream_PTD: jax.Array,
  interventions: edits_lib.Interventions,
  *,
  hook,
  mesh,
) -> jax.Array:
  """Mean log p of both responses, f32 [P, M, 2], under M interventions."""
  p, m = len(batch.tokens_PT), interventions.n
  rows = jax.tree.map(lambda x: jnp.repeat(x, m, axis=0), batch)
  edits = interventions.lm_edits(jnp.tile(jnp.arange(m), p), rows.prompt_end_P)
  out = lm.forward(
    model,
    rows.tokens_PT,
    rows.mask_PT,
    edits=edits,
    entry=lm.Entry(hook, jnp.repeat(stream_PTD, m, axis=0)),
    branch_BT=rows.branch_PT,
    want_logits=False,
    mesh=mesh,
  )

  def part(xs):
    before_BsD, target_Bs, weight_BsR = xs
    logits_BsV = model.unembed(before_BsD)
    chosen_Bs1 = jnp.take_along_axis(logits_BsV, target_Bs[..., None], axis=-1)
    logp_Bs = chosen_Bs1[..., 0] - jax.nn.logsumexp(logits_BsV, axis=-1)
    return jnp.sum(logp_Bs[..., None] * weight_BsR, axis=1)

  blocks = likelihood.position_blocks(
    (
      likelihood.picked(out.resid_BTD, rows.at_PS),
      rows.target_PS,
      rows.weight_PSR,
    ),
    model.config.vocab_size,
  )
  found_BR = jnp.sum(jax.lax.map(part, blocks), axis=0)
  return on_mesh.everywhere(found_BR.reshape(p, m, 2), mesh)
