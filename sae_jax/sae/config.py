# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a dictionary is and how it is trained, as numbers."""

import dataclasses
import itertools
import math

from sae_jax import errors

MATMUL_DTYPES = ("bfloat16", "float32")
# Any number of latents may be active in a row; how many, sparsity decides.
DENSE = ("jumprelu", "relu", "gated")
# k latents are active in a row, or in the average row of a batch.
SPARSE = ("topk", "batch_topk")
MULTI_TOPK = 4  # `multi_topk`'s reconstruction has so many times k
# Saturating int32 counters must be able to reach the threshold.
_MAX_DEAD_AFTER = 2**31 - 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaeConfig:
  """A TopK autoencoder with AuxK (Gao et al. 2024, arXiv:2406.04093).

  Or BatchTopK, where a batch of B rows shares k·B active latents (`batch_topk`;
  it is exported with a threshold, as JumpReLU), either with the losses of
  `nested`. Or one of `DENSE`, of which `dense_kinds` says what they are.
  """

  latents: int  # F
  k: int = 0  # active latents per row, K; 0 of the dense kinds
  # Or "batch_topk", "jumprelu", "relu" (with L1), "gated".
  activation: str = "topk"
  # Matryoshka: the loss is the mean over these many first latents' own
  # reconstructions; ascending, the last is all of them.
  prefixes: tuple[int, ...] = ()
  # Weight of a second reconstruction, by 4 k latents; usual is 1/8.
  multi_topk: float = 0.0
  # k falls linearly from here to `k` within the first `k_steps` steps.
  k_start: int | None = None
  k_steps: int = 0
  # The logarithm of the loss is made small: its gradient is divided by the
  # loss, and does not fade as that falls, which Adam's second moments would
  # remember as larger than it is. None: of `SPARSE` (FVU 0.138 where the loss
  # itself left 0.153, benchmarks/quality.md).
  log_loss: bool | None = None
  aux_k: int | None = None  # None: d_model // 2, at most F
  aux_coefficient: float = 1 / 32  # 0 turns AuxK off
  # Tokens without firing. None: 10 million, at most a fortieth of the run's,
  # but no fewer than a latent takes to turn (`objective.dead_after`).
  dead_after_tokens: int | None = None
  decoder_bias: str = "geometric_median"  # initial b_dec; or "mean"
  # How the dense products are multiplied; sums are float32 either way. bfloat16
  # nearly halves the encoder's time on CPUs too, and changes 0.4 % of the
  # selected latents (random rows; D=576, F=16384, K=32).
  matmul_dtype: str = "bfloat16"  # or "float32"
  # None: the exact top-k. Else an approximate one on TPUs, which expects to
  # find this share of it; `train/topk_recall` is what it did find.
  recall_target: float | None = None
  # Of the dense kinds: λ, relative to the unexplained part of the variance. L1
  # (relu, gated) is of values that are divided by √(total variance): 0.01 to
  # 0.06 are usual. Of JumpReLU it is L0's (1e-4 to 1e-2), or with a target the
  # weight of (L0 / target − 1)²; None: 1, which needs a target.
  sparsity: float | None = None
  sparsity_warmup_steps: int | None = None  # from 0; None: 1/20 of the run
  target_l0: float | None = None
  # JumpReLU's ε, for straight-through estimates, in the units of scaled rows,
  # which have D numbers of size 1. Where rows have norm 1 and D is 2304, it is
  # 1e-3 (Gemma Scope, arXiv:2408.05147).
  bandwidth: float = 0.05
  initial_threshold: float = 0.5  # of what random directions have at first
  pre_act: float = 3e-6  # pull on dead latents; 0 turns it off
  # Of a transcoder: a matrix from input to output beside the latents, zero at
  # first (Paulo et al. 2025, arXiv:2501.18823).
  skip: bool = False
  # Of a crosscoder, whose `sources` follow from the stores: the first latents,
  # with the same decoder for all sources; then some of one source alone each.
  sources: int = 1
  shared_latents: int = 0
  exclusive_latents: tuple[int, ...] = ()  # a number for each source
  # L1 of shared latents relative to that of the others; Anthropic's is 0.1.
  shared_sparsity: float = 1.0

  def __post_init__(self):
    if self.latents < 1:
      raise errors.InputError(f"sae.latents={self.latents}: need at least 1")
    if self.activation not in (*SPARSE, *DENSE):
      raise errors.InputError(
        f"sae.activation={self.activation!r}: choose one of"
        f" {', '.join((*SPARSE, *DENSE))}"
      )
    if self.activation in DENSE:
      _check_dense(self)
    elif self.sparsity is not None or self.target_l0 is not None:
      name = "target_l0" if self.sparsity is None else "sparsity"
      raise errors.InputError(
        f"sae.{name}={getattr(self, name)} is of {' and '.join(DENSE)}; leave"
        f" it out with activation={self.activation!r}, which has sae.k"
      )
    elif not 1 <= self.k <= self.latents:
      raise errors.InputError(
        f"sae.k={self.k}: need 1 <= k <= latents ({self.latents})"
      )
    _check_sparse(self)
    if self.aux_k is not None and not 1 <= self.aux_k <= self.latents:
      raise errors.InputError(
        f"sae.aux_k={self.aux_k}: need 1 <= aux_k <= latents"
        f" ({self.latents}), or None for half the model's width"
      )
    if not (math.isfinite(self.aux_coefficient) and self.aux_coefficient >= 0):
      raise errors.InputError(
        f"sae.aux_coefficient={self.aux_coefficient}: need a number >= 0"
      )
    dead_after = self.dead_after_tokens
    if dead_after is not None and not 1 <= dead_after <= _MAX_DEAD_AFTER:
      raise errors.InputError(
        f"sae.dead_after_tokens={dead_after}: need 1 to {_MAX_DEAD_AFTER}, or"
        " None for a part of the run"
      )
    if self.decoder_bias not in ("geometric_median", "mean"):
      raise errors.InputError(
        f"sae.decoder_bias={self.decoder_bias!r}: choose 'geometric_median' or"
        " 'mean'"
      )
    if self.matmul_dtype not in MATMUL_DTYPES:
      raise errors.InputError(
        f"sae.matmul_dtype={self.matmul_dtype!r}: choose one of {MATMUL_DTYPES}"
      )
    if self.recall_target is not None and not 0 < self.recall_target < 1:
      raise errors.InputError(
        f"sae.recall_target={self.recall_target}: need a number between 0 and"
        " 1, or None for the exact top-k"
      )
    if self.sources < 1:
      raise errors.InputError(f"sae.sources={self.sources}: need at least 1")
    _check_shared_sparsity(self)
    if min(self.shared_latents, *self.exclusive_latents, 0) < 0:
      raise errors.InputError(
        f"sae.shared_latents={self.shared_latents},"
        f" sae.exclusive_latents={self.exclusive_latents}: need 0 or more"
      )

  def resolve_sparsity(self) -> float:
    """λ after its warm-up; 0 of kinds that have none."""
    if self.sparsity is not None:
      return self.sparsity
    return 0.0 if self.target_l0 is None else 1.0

  def resolve_log_loss(self) -> bool:
    """As given, or what suits the kind."""
    return self.activation in SPARSE if self.log_loss is None else self.log_loss

  def resolve_aux_k(self, d_model: int) -> int:
    """AuxK's latents per row: half the model's width by default, at most F."""
    return min(self.aux_k or max(1, d_model // 2), self.latents)


def _check_sparse(config: SaeConfig) -> None:
  """What only TopK and BatchTopK have."""
  sparse = config.activation in SPARSE
  for name in ("prefixes", "multi_topk", "k_start", "k_steps"):
    if getattr(config, name) and not sparse:
      raise errors.InputError(
        f"sae.{name}={getattr(config, name)} is of {' and '.join(SPARSE)};"
        f" leave it out with activation={config.activation!r}"
      )
  ascending = all(a < b for a, b in itertools.pairwise(config.prefixes))
  if config.prefixes and not (
    ascending
    and config.prefixes[0] >= 1
    and config.prefixes[-1] == config.latents
  ):
    raise errors.InputError(
      f"sae.prefixes={config.prefixes}: give sizes that ascend, from at least"
      f" 1 to the number of latents ({config.latents})"
    )
  if not (math.isfinite(config.multi_topk) and config.multi_topk >= 0):
    raise errors.InputError(
      f"sae.multi_topk={config.multi_topk}: need a weight >= 0, such as 1/8"
    )
  if config.multi_topk and config.prefixes:
    raise errors.InputError(
      "sae.multi_topk and sae.prefixes are two ways to nest reconstructions;"
      " give one of them"
    )
  most = config.k * (MULTI_TOPK if config.multi_topk else 1)
  if sparse and most > config.latents:
    raise errors.InputError(
      f"sae.multi_topk={config.multi_topk}: {MULTI_TOPK} k = {most} latents"
      f" reconstruct a row, but there are {config.latents}"
    )
  _check_annealing(config)
  if config.activation == "batch_topk" and config.recall_target is not None:
    raise errors.InputError(
      f"sae.recall_target={config.recall_target}: BatchTopK is exact; leave it"
      " out, or use activation='topk'"
    )


def _check_annealing(config: SaeConfig) -> None:
  if (config.k_start is None) != (config.k_steps == 0):
    raise errors.InputError(
      f"sae.k_start={config.k_start}, sae.k_steps={config.k_steps}: give both,"
      " or neither"
    )
  if config.k_steps < 0:
    raise errors.InputError(f"sae.k_steps={config.k_steps}: need 0 or more")
  start = config.k_start
  times = MULTI_TOPK if config.multi_topk else 1
  if start is not None and not config.k <= start <= config.latents // times:
    raise errors.InputError(
      f"sae.k_start={start}: need k <= k_start <= {config.latents // times}"
    )


def _check_dense(config: SaeConfig) -> None:
  kind = config.activation
  if config.k or config.recall_target is not None:
    name, none = ("k", 0) if config.k else ("recall_target", None)
    raise errors.InputError(
      f"sae.{name}={getattr(config, name)}: {kind} dictionaries have no top-k;"
      f" set it to {none}, sae.sparsity decides how many latents are active"
    )
  if config.target_l0 is not None:
    if kind != "jumprelu":
      raise errors.InputError(
        f"sae.target_l0={config.target_l0}: only jumprelu can aim at an L0; set"
        f" sae.sparsity for {kind}"
      )
    if not 0 < config.target_l0 <= config.latents:
      raise errors.InputError(
        f"sae.target_l0={config.target_l0}: need a number above 0 and at most"
        f" latents ({config.latents})"
      )
  elif config.sparsity is None:
    usual = "0.03"
    if kind == "jumprelu":
      usual = "1e-3, or sae.target_l0, such as 32"
    raise errors.InputError(
      f"sae.activation={kind!r} needs sae.sparsity, such as {usual}"
    )
  warmup = config.sparsity_warmup_steps
  if warmup is not None and warmup < 0:
    raise errors.InputError(
      f"sae.sparsity_warmup_steps={warmup}: need 0 or more"
    )
  for name in ("sparsity", "initial_threshold", "pre_act"):
    value = getattr(config, name)
    if value is not None and not (math.isfinite(value) and value >= 0):
      raise errors.InputError(f"sae.{name}={value}: need a number >= 0")
  if not (math.isfinite(config.bandwidth) and config.bandwidth > 0):
    raise errors.InputError(
      f"sae.bandwidth={config.bandwidth}: need a number > 0"
    )


def _check_shared_sparsity(config: SaeConfig) -> None:
  weight = config.shared_sparsity
  if not (math.isfinite(weight) and weight >= 0):
    raise errors.InputError(f"sae.shared_sparsity={weight}: need a number >= 0")
  if weight != 1 and config.activation not in ("relu", "gated"):
    raise errors.InputError(
      f"sae.shared_sparsity={weight}: only L1 is of latents one by one; leave"
      f" it out for {config.activation}, or train relu or gated ones"
    )
