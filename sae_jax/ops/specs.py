# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Named shapes and inputs that tests and benchmarks of the operations share."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Spec:
  """One problem; `case` says what is special about its numbers."""

  batch: int
  d_model: int
  latents: int
  k: int
  case: str = "normal"


TEST = {
  "odd": Spec(13, 7, 37, 5),
  "two_level": Spec(37, 16, 1024, 8),
  "padded_groups": Spec(5, 9, 1001, 3),
  "many_rows": Spec(1037, 4, 96, 2),
  "one_row_one_latent": Spec(1, 3, 1, 1),
  "k_is_1": Spec(19, 8, 640, 1),
  "k_is_f": Spec(11, 6, 33, 33),
  "ties": Spec(29, 8, 640, 6, "ties"),
  "all_equal": Spec(9, 8, 640, 6, "zero"),
  "duplicates": Spec(24, 8, 320, 6, "duplicates"),
  "negative": Spec(17, 8, 320, 6, "negative"),
  "one_latent_wins": Spec(300, 8, 320, 4, "winner"),
}

BENCHMARK = {
  "small": Spec(256, 64, 1024, 8),
  "smollm2_135m": Spec(2048, 576, 16384, 32),
  "smollm2_135m_wide": Spec(2048, 576, 65536, 32),
  "gemma_2_2b": Spec(2048, 2304, 16384, 64),
}


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Float64 arrays; cast them to what is to be tried."""

  x_BD: np.ndarray
  w_enc_FD: np.ndarray
  w_dec_FD: np.ndarray
  b_enc_F: np.ndarray
  b_dec_D: np.ndarray
  dead_F: np.ndarray


def make_inputs(spec: Spec, seed: int = 0) -> Inputs:
  """Inputs of a spec; those of "ties" and "zero" are exact in bfloat16."""
  rng = np.random.default_rng(seed)
  b, d, f = spec.batch, spec.d_model, spec.latents
  x_BD = rng.normal(size=(b, d))
  w_enc_FD = rng.normal(size=(f, d)) / np.sqrt(d)
  w_dec_FD = rng.normal(size=(f, d))
  w_dec_FD /= np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
  b_enc_F = 0.1 * rng.normal(size=f)
  b_dec_D = 0.1 * rng.normal(size=d)
  match spec.case:
    case "ties":
      x_BD = rng.integers(-1, 2, size=(b, d)).astype(float)
      w_enc_FD = rng.integers(-1, 2, size=(f, d)).astype(float)
      b_enc_F, b_dec_D = np.zeros(f), np.zeros(d)
    case "zero":
      w_enc_FD, b_enc_F = np.zeros((f, d)), np.ones(f)
    case "duplicates":
      x_BD[1::2] = x_BD[::2]
      w_enc_FD[1::2], b_enc_F[1::2] = w_enc_FD[::2], b_enc_F[::2]
    case "negative":
      b_enc_F -= 100
    case "winner":
      b_enc_F[3] += 100
  dead_F = rng.random(f) < 0.4
  return Inputs(x_BD, w_enc_FD, w_dec_FD, b_enc_F, b_dec_D, dead_F)
