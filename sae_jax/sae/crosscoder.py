# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders: one dictionary over M sources, models or layers (Lindsey et al.
2024, transformer-circuits.pub/2024/crosscoders).

A crosscoder is a dictionary of the sources' rows side by side: an encoder row
reads all sources, a decoder row writes to all, its M blocks being d^1 … d^M,
and f = act(Σ_m w^m·x^m + b). So every kernel, loss, mesh and checkpoint is that
of a dictionary of width D. A row has norm 1 as a whole, Σ_m ‖d^m‖² = 1, which
is no restriction: a latent's scale may lie in its encoder row.

With TopK and BatchTopK latents are ranked by f, hence by f · sqrt(Σ_m ‖d^m‖²),
the size of what they add to the joined row: of latents that are orthogonal to
the others, the ones kept are those that lower the squared error most. Minder et
al. (2025, arXiv:2504.02922) rank by f · Σ_m ‖d^m‖. The two agree but for a
factor in [1, √M], which is 1 for a latent of one source and √M for one with
blocks of equal norm: with theirs a latent of one model has to add √M times as
much to be kept. It is not offered: what it prefers is what a diff is about.

The first latents may be bound to a form, see `Partition`. Both forms are linear
subspaces in which the initial rows lie and onto which gradients are projected
before Adam, which works element by element: what is equal stays equal and what
is zero stays zero, to the bit.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import errors
from sae_jax.sae import config as config_lib
from sae_jax.sae import dictionary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
  """Which latents are bound to a form; latents count from 0 in this order.

  `shared` latents have decoder blocks that are the same for all sources
  (Anthropic 2025, transformer-circuits.pub/2025/crosscoder-diffing-update).
  `exclusive[m]` latents read and write source m alone, encoder and decoder
  being zero elsewhere (Jiralerspong & Bricken 2026, arXiv:2602.11729). All
  others are free.
  """

  sources: int  # M
  shared: int = 0
  exclusive: tuple[int, ...] = ()

  @property
  def bound(self) -> int:
    """How many latents are not free."""
    return self.shared + sum(self.exclusive)


def partition_of(config: config_lib.SaeConfig) -> Partition:
  """What a config says; of one source nothing is bound."""
  return Partition(
    sources=config.sources,
    shared=config.shared_latents,
    exclusive=config.exclusive_latents,
  )


def check(partition: Partition, latents: int, d_model: int) -> None:
  """Refuses a partition that these sources cannot have.

  Raises:
    errors.InputError: see the messages.
  """
  sources, exclusive = partition.sources, partition.exclusive
  if partition.bound and sources < 2:
    raise errors.InputError(
      f"sae.shared_latents={partition.shared},"
      f" sae.exclusive_latents={exclusive}: only a crosscoder has them; give"
      " stores in paired, or further hooks"
    )
  if exclusive and len(exclusive) != sources:
    raise errors.InputError(
      f"sae.exclusive_latents={exclusive}: there are {sources} sources; give a"
      " number for each, 0 where a source has none"
    )
  if partition.bound > latents:
    raise errors.InputError(
      f"sae.shared_latents={partition.shared} and"
      f" sae.exclusive_latents={exclusive} are {partition.bound} latents, but"
      f" sae.latents={latents}"
    )
  if d_model % sources:
    raise errors.InputError(
      f"sae.sources={sources} does not divide the width {d_model}"
    )


def initial_rows(
  rows_FD: jax.Array, partition: Partition, first: jax.Array | int
) -> jax.Array:
  """Unit rows with equal blocks for all sources, or zero where they have to be.

  Latents begin as shared ones, as in Minder et al. (2025; one initial decoder
  for both models): that a block differs from the others is then something that
  the data have said.

  Args:
    rows_FD: random unit rows, of latents `first` and on.
    partition: the form.
    first: number of the first latent.
  """
  blocks_FMd = _blocks(rows_FD, partition.sources)
  mean_F1d = jnp.mean(blocks_FMd, axis=1, keepdims=True)
  allowed_FM1 = _allowed(partition, first, len(rows_FD))
  rows_FD = jnp.where(allowed_FM1, mean_F1d, 0).reshape(rows_FD.shape)
  return rows_FD / jnp.linalg.norm(rows_FD, axis=1, keepdims=True)


def project(
  params: dictionary.Params, partition: Partition, first: jax.Array | int
) -> dictionary.Params:
  """The nearest parameters, or gradient, that keep to the partition.

  Args:
    params: of latents `first` and on: a shard's.
    partition: the form.
    first: number of the first latent.
  """
  if not partition.bound:
    return params
  latents = params.latents
  allowed_FM1 = _allowed(partition, first, latents)

  def own(w_FD):
    blocks_FMd = _blocks(w_FD, partition.sources)
    return jnp.where(allowed_FM1, blocks_FMd, 0)

  dec_FMd = own(params.w_dec_FD)
  if partition.shared:
    tied_F = first + jnp.arange(latents) < partition.shared
    mean_F1d = jnp.mean(dec_FMd, axis=1, keepdims=True)
    dec_FMd = jnp.where(tied_F[:, None, None], mean_F1d, dec_FMd)
  changed: dict[str, Any] = {"w_dec_FD": dec_FMd.reshape(params.w_dec_FD.shape)}
  if any(partition.exclusive):
    enc_FMd = own(params.w_enc_FD)
    changed["w_enc_FD"] = enc_FMd.reshape(params.w_enc_FD.shape)
  return dataclasses.replace(params, **changed)


def keeps_to(params: dictionary.Params, partition: Partition) -> bool:
  """Whether whole parameters on the host have the form, to the bit.

  Decoder blocks of shared latents that were scaled apart, because the sources'
  activations were, count as the same if they are parallel to 1e-5.
  """
  for first, stop, source in _spans(partition):
    dec_FMd = _host_blocks(params.w_dec_FD, first, stop, partition.sources)
    if source is None:
      unit_FMd = dec_FMd / np.linalg.norm(dec_FMd, axis=2, keepdims=True)
      if not np.allclose(unit_FMd, unit_FMd[:, :1], rtol=0, atol=1e-5):
        return False
      continue
    others = [m for m in range(partition.sources) if m != source]
    enc_FMd = _host_blocks(params.w_enc_FD, first, stop, partition.sources)
    if dec_FMd[:, others].any() or enc_FMd[:, others].any():
      return False
  return True


def block_norms(w_FD: jax.Array, sources: int) -> jax.Array:
  """‖d^m‖ of every row's blocks, [F, M]."""
  return jnp.linalg.norm(_blocks(w_FD, sources), axis=2)


def largest_blocks(w_FD: np.ndarray, sources: int) -> np.ndarray:
  """The longest block of every row, [F, D/M]; the first of equally long."""
  blocks_FMd = np.asarray(w_FD).reshape(len(w_FD), sources, -1)
  source_F = np.linalg.norm(blocks_FMd, axis=2).argmax(axis=1)
  return blocks_FMd[np.arange(len(w_FD)), source_F]


def fvu_by_source(
  x_BD: jax.Array, error_BD: jax.Array, sources: int, axis_name: str | None
) -> jax.Array | None:
  """Σ‖e^m‖² / Σ‖x^m − x̄^m‖² for every source m, [M], over the rows of a batch.

  None where there is one source.

  Args:
    x_BD: a shard's rows.
    error_BD: x̂ − x of all latents.
    sources: M.
    axis_name: the mesh axis that rows are split over; None: they are not.
  """
  if sources == 1:
    return None

  def total(tree):
    return tree if axis_name is None else lax.psum(tree, axis_name)

  def by_source(square_BD):
    return jnp.sum(jnp.sum(square_BD, axis=0).reshape(sources, -1), axis=1)

  rows, sum_D = total((x_BD.shape[0], jnp.sum(x_BD, axis=0)))
  spread_M, square_M = total(
    (
      by_source(jnp.square(x_BD - (sum_D / rows)[None, :])),
      by_source(jnp.square(error_BD)),
    )
  )
  return square_M / spread_M


def _blocks(w_FD, sources):
  return w_FD.reshape(w_FD.shape[0], sources, -1)


def _host_blocks(w_FD, first, stop, sources):
  part_FD = np.asarray(w_FD[first:stop], np.float32)
  return part_FD.reshape(stop - first, sources, -1)


def _spans(partition: Partition):
  """(first, stop, source) of each kind of bound latents; None: shared."""
  stop = partition.shared
  if stop:
    yield 0, stop, None
  for source, count in enumerate(partition.exclusive):
    if count:
      yield stop, stop + count, source
    stop += count


def _allowed(partition, first, latents):
  """Which blocks of the latents may be other than zero, [F, M, 1]."""
  latent_F1 = (first + jnp.arange(latents))[:, None]
  source_1M = jnp.arange(partition.sources)[None, :]
  allowed_FM = jnp.ones((latents, partition.sources), bool)
  for start, stop, source in _spans(partition):
    if source is not None:
      inside_F1 = (latent_F1 >= start) & (latent_F1 < stop)
      allowed_FM &= ~(inside_F1 & (source_1M != source))
  return allowed_FM[:, :, None]
