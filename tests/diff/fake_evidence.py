# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Evidence and problems without stores or language models."""

import dataclasses
import pathlib
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from sae_jax import mesh as mesh_lib
from sae_jax import metrics, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import evidence as evidence_lib
from sae_jax.interpret import on_mesh


class FakeEvidence:
  """Arrays [N, D] per name in place of stores."""

  hook = "blocks.1.hook_resid_post"
  kind = "prompts"
  scope = "response"

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    group_N: np.ndarray,
    mesh: jax.sharding.Mesh,
    batch_rows: int = 64,
    groups: int | None = None,
  ):
    self._arrays = {
      name: np.asarray(x_ND).astype(ml_dtypes.bfloat16)
      for name, x_ND in arrays.items()
    }
    self._group_N = np.asarray(group_N, np.int32)
    self._mesh = mesh
    lanes = on_mesh.lanes(mesh)
    self._size = -(-batch_rows // lanes) * lanes
    self.groups = int(self._group_N.max()) + 1 if groups is None else groups
    inside_N = self._group_N[self._group_N >= 0]
    self.group_rows_G = np.bincount(inside_N, minlength=self.groups)
    self.group_names = [f"g{g}" for g in range(self.groups)]
    self.group_topics = [""] * self.groups

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self._arrays)

  @property
  def rows(self) -> int:
    return int(self.group_rows_G.sum())

  @property
  def d_model(self) -> int:
    return self._arrays["base"].shape[1]

  @property
  def num_batches(self) -> int:
    return -(-len(self._group_N) // self._size)

  def store(self, name):
    return types.SimpleNamespace(path=f"/stores/{name}")

  def batches(self, name, start=0):
    rows = jax.NamedSharding(self._mesh, jax.P(on_mesh.ROWS))
    for index in range(start, self.num_batches):
      span = slice(index * self._size, (index + 1) * self._size)
      x_ND, group_N = self._arrays[name][span], self._group_N[span]
      pad = self._size - len(group_N)
      # What is out of scope must not matter: padding that is not zero.
      x_BD = np.pad(x_ND, ((0, pad), (0, 0)), constant_values=3)
      group_B = np.pad(group_N, (0, pad), constant_values=-1)
      yield evidence_lib.Batch(
        index, jax.device_put(x_BD, rows), jax.device_put(group_B, rows)
      )


@dataclasses.dataclass
class FakeProblem:
  """What methods ask of a `Problem` when no model has to run."""

  config: config_lib.DiffConfig
  evidence: FakeEvidence
  dictionary: sae.Sae
  mesh: jax.sharding.Mesh
  work: pathlib.Path
  prompts: None = None

  def tuned(self):
    return self.config.tuned()

  def control_of(self, arm):
    return self.config.control_of(arm)

  def arm(self, name):
    return self.config.arm(name)

  def pairs(self):
    return ()

  def progress(self, total, unit):
    return metrics.Progress(total, unit, show=False)


def make_mesh(sae_axis=1, data=1, latent=1) -> jax.sharding.Mesh:
  count = sae_axis * data * latent
  return mesh_lib.make(
    mesh_lib.MeshConfig(sae=sae_axis, data=data, latent=latent),
    jax.devices()[:count],
  )


def make_dictionary(latents=24, d_model=8, k=4, seed=0) -> sae.Sae:
  rng = np.random.default_rng(seed)
  w_FD = rng.standard_normal((latents, d_model)).astype(np.float32)
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  return sae.make_sae(
    sae.Params(
      w_enc_FD=jnp.asarray(
        w_FD + 0.05 * rng.standard_normal(w_FD.shape)
      ).astype(jnp.float32),
      w_dec_FD=jnp.asarray(w_FD),
      b_enc_F=jnp.asarray(0.1 * rng.standard_normal(latents), jnp.float32),
      b_dec_D=jnp.asarray(0.1 * rng.standard_normal(d_model), jnp.float32),
    ),
    k,
  )


def make_config(*arms: config_lib.Arm, **fields) -> config_lib.DiffConfig:
  statistics = fields.pop("statistics", {})
  return config_lib.DiffConfig(
    base_store="/stores/base",
    arms=arms or (config_lib.Arm(name="bad", store="/stores/bad"),),
    sae="/sae",
    methods=("frozen",),
    statistics=config_lib.StatisticsConfig(
      **{"resamples": 200, "top": 5, **statistics}
    ),
    **fields,
  )


def make_problem(
  work,
  arrays,
  group_N,
  *,
  config=None,
  dictionary=None,
  mesh=None,
  batch_rows=64,
  groups=None,
) -> FakeProblem:
  mesh = mesh or make_mesh()
  work.mkdir(exist_ok=True)
  return FakeProblem(
    config or make_config(),
    FakeEvidence(arrays, group_N, mesh, batch_rows, groups),
    dictionary or make_dictionary(),
    mesh,
    work,
  )


def dense(dictionary: sae.Sae, x_ND: np.ndarray) -> np.ndarray:
  """ReLU(TopK(…)) in float64, ties to the lower latent: the oracle."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), dictionary.params)
  x_ND = np.asarray(x_ND).astype(ml_dtypes.bfloat16).astype(np.float64)
  pre_NF = (x_ND - p.b_dec_D) @ p.w_enc_FD.T + p.b_enc_F
  keep_NK = np.argsort(-pre_NF, axis=1, kind="stable")[:, : dictionary.k]
  out_NF = np.zeros_like(pre_NF)
  np.put_along_axis(
    out_NF, keep_NK, np.take_along_axis(pre_NF, keep_NK, 1).clip(0), 1
  )
  return out_NF


def group_sums(values_NX: np.ndarray, group_N, groups: int) -> np.ndarray:
  out_GX = np.zeros((groups, values_NX.shape[1]))
  inside_N = np.asarray(group_N) >= 0
  np.add.at(out_GX, np.asarray(group_N)[inside_N], values_NX[inside_N])
  return out_GX
