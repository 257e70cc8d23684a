# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents of a crosscoder are one model's alone: Latent Scaling.

Works on sums over rows (`paired_sums`) and on the decoder; no activations.
"""

import dataclasses

import numpy as np

from sae_jax.diff import paired_sums

BASE, TUNED = 0, 1  # the order of the two sources
# Of Δnorm: a latent is the tuned model's from 0.9 on, the base's up to 0.1, and
# shared between 0.4 and 0.6 (Minder et al. 2025).
EXCLUSIVE, SHARED = 0.9, 0.6
# And exclusive only if the other model has little of it in its reconstruction,
# where latents may share it, and in its error, where sparsity may hide it.
NU_R, NU_E = 0.5, 0.2
LEAST_FIRES = 5  # rows; ν of fewer says little
_BLOCK = 1 << 22  # elements that are float64 at a time


@dataclasses.dataclass(frozen=True)
class Scaling:
  """How latents relate to both models; NaN where a latent never fires.

  Attributes:
    norm_MF: decoder norms, in units of the model's root mean square row norm.
    cos_F: cosine of the two decoder blocks; 0 where one of them is zero.
    apart_F: ‖d^tuned − d^base‖, in units of the tuned model's rows.
    side_F: the model whose block is the longer one, `BASE` where they are
      equal.
    beta_MF: for "activation", "reconstruction" and "error": by what factor the
      latent, with its own side's block, best fits that of the model.
  """

  norm_MF: np.ndarray
  cos_F: np.ndarray
  apart_F: np.ndarray
  side_F: np.ndarray
  beta_MF: dict[str, np.ndarray]

  @property
  def delta_norm_F(self) -> np.ndarray:
    """½ (1 + (‖d^tuned‖ − ‖d^base‖) / max): 0 base only, 1 tuned only."""
    base_F, tuned_F = self.norm_MF
    largest_F = np.maximum(base_F, tuned_F)
    return 0.5 * (1 + _ratio(tuned_F - base_F, largest_F, 0.0))

  def nu(self, target: str) -> np.ndarray:
    """β of the other model over β of the latent's own side.

    NaN where the latter is not above 0: a latent that does not even fit its own
    side, or never fires, is nobody's.
    """
    beta_MF, latent_F = self.beta_MF[target], np.arange(len(self.side_F))
    own_F = beta_MF[self.side_F, latent_F]
    other_F = beta_MF[1 - self.side_F, latent_F]
    return np.where(own_F > 0, _ratio(other_F, own_F, np.nan), np.nan)


def exclusive(
  delta_norm_F: np.ndarray,
  nu_r_F: np.ndarray,
  nu_e_F: np.ndarray,
  fires_F: np.ndarray,
) -> np.ndarray:
  """Latents of one model alone: by their norms, and by ν_r and ν_ε, too.

  A latent whose ν are NaN, or that hardly fires, is none.
  """
  small_F = (nu_r_F < NU_R) & (nu_e_F < NU_E)
  return by_norm(delta_norm_F) & small_F & (fires_F >= LEAST_FIRES)


def by_norm(delta_norm_F: np.ndarray) -> np.ndarray:
  """Latents that are one model's alone by their decoder norms."""
  return np.abs(2 * delta_norm_F - 1) >= 2 * EXCLUSIVE - 1


def shared(delta_norm_F: np.ndarray) -> np.ndarray:
  """Latents whose decoder norms are much the same in both models."""
  return np.abs(2 * delta_norm_F - 1) <= 2 * SHARED - 1


def scaling(
  found: paired_sums.Sums, w_dec_FD: np.ndarray, b_dec_D: np.ndarray, rows: int
) -> Scaling:
  """Latent Scaling (Minder et al. 2025, arXiv:2504.02922, eq. 4).

      β_j(y) = Σ f_j d_j·y / (‖d_j‖² Σ f_j²) = argmin_β Σ ‖β f_j d_j − y‖²

  d_j is the longer of the latent's two decoder blocks, as the model's rows are
  scaled; y is, for each model, its activations, its reconstruction, or its
  error with the latent's own part added back, x − x̂ + f_j d_j^m. All in units
  in which both models' rows have a mean square norm of 1.

  They take d_j from the tuned model throughout, which is the same for every
  latent with Δnorm > ½; the longer side makes the rule hold for the base's own
  latents as well. They give activations and reconstructions with and without
  the decoder's bias. With it, what all rows have in common drowns a latent;
  without it, one that is always on passes for exclusive where the other model
  says the same by its bias. So both are about one point, the mean of the two
  models' biases.

  Args:
    found: sums over the rows.
    w_dec_FD: the decoder for raw rows, the base's block first.
    b_dec_D: its bias.
    rows: how many rows the sums are over.
  """
  scale_M = 1 / np.sqrt(found.square_MG.sum(1) / rows)
  dot_FSM = products(w_dec_FD)
  square_FM = np.diagonal(dot_FSM, axis1=1, axis2=2)
  norm_MF = scale_M[:, None] * np.sqrt(square_FM.T)
  side_F = np.where(norm_MF[TUNED] > norm_MF[BASE], TUNED, BASE)
  own = side_F, np.arange(len(side_F))
  weight_F = square_FM.T[own] * found.square_F
  units_FM = scale_M[None, :] / scale_M[side_F][:, None]
  # Sums are about each model's own bias: the rest is the same for all rows.
  bias_Md = np.reshape(b_dec_D, (2, -1)).astype(np.float64)
  middle_d = np.mean(scale_M[:, None] * bias_Md, axis=0)
  rest_Md = bias_Md - middle_d[None, :] / scale_M[:, None]
  rest_SMF = found.value_F * np.stack(
    [products(w_dec_FD, rest_d).T for rest_d in rest_Md], axis=1
  )

  def beta(along_SMF):
    along_FM = along_SMF.swapaxes(1, 2)[own]
    return _ratio((along_FM * units_FM).T, weight_F[None, :], np.nan)

  size_F = np.sqrt(square_FM.prod(1))
  apart_F = square_FM.sum(1) - 2 * dot_FSM[:, BASE, TUNED]
  return Scaling(
    norm_MF=norm_MF,
    cos_F=_ratio(dot_FSM[:, BASE, TUNED], size_F, 0.0),
    apart_F=scale_M[TUNED] * np.sqrt(np.maximum(apart_F, 0)),
    side_F=side_F,
    beta_MF={
      "activation": beta(found.along_x_SMF + rest_SMF),
      "reconstruction": beta(found.along_r_SMF + rest_SMF),
      "error": beta(
        found.along_x_SMF
        - found.along_r_SMF
        + found.square_F * np.moveaxis(dot_FSM, 0, 2)
      ),
    },
  )


def products(
  w_dec_FD: np.ndarray, vector_d: np.ndarray | None = None
) -> np.ndarray:
  """Products of each row's two blocks with one another, float64 [F, 2, 2].

  With a vector: of the blocks with it, [F, 2].
  """
  step = max(1, _BLOCK // w_dec_FD.shape[1])
  found = []
  for start in range(0, len(w_dec_FD), step):
    part_FD = np.asarray(w_dec_FD[start : start + step], np.float64)
    blocks_FMd = part_FD.reshape(len(part_FD), 2, -1)
    if vector_d is None:
      found.append(blocks_FMd @ blocks_FMd.swapaxes(1, 2))
    else:
      found.append(blocks_FMd @ vector_d)
  return np.concatenate(found)


def _ratio(above, below, otherwise: float) -> np.ndarray:
  above, below = np.broadcast_arrays(above, below)
  return np.divide(
    above, below, out=np.full(above.shape, otherwise), where=below != 0
  )
