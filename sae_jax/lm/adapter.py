# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters on disk, in the layout of Hugging Face's PEFT.

Writes `adapter_config.json` and `adapter_model.safetensors`; reads them as a
checkpoint whose tensors are the base model's with the adapter merged in.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax.experimental import multihost_utils

from sae_jax import artifacts, errors
from sae_jax.lm import config as config_lib
from sae_jax.lm import layout as layout_lib
from sae_jax.lm import low_rank
from sae_jax.lm import source as source_lib
from sae_jax.lm import weights as weights_lib

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)\.weight")

# Whatever is there and neither null, false, "none" nor empty changes what an
# adapter does in a way that adding B A to a weight does not follow.
_REFUSED = (
  "use_dora",
  "lora_bias",
  "use_qalora",
  "use_bdlora",
  "modules_to_save",
  "trainable_token_indices",
  "layer_replication",
  "target_parameters",
  "alora_invocation_tokens",
  "arrow_config",
  "kasa_config",
  "velora_config",
  "monteclora_config",
)


def save(
  adapter: low_rank.Adapter,
  config: config_lib.ModelConfig,
  directory: pathlib.Path,
  *,
  base: str,
  alpha: float,
  rslora: bool = False,
) -> None:
  """Writes an adapter as PEFT does; the config comes last.

  Where a family stores q, k and v as one tensor, their corrections become one
  of up to three times the rank, with zeros between them, and the same scale.
  Every process of a run calls it; the first one writes.

  Args:
    adapter: of a decoder of `config`.
    directory: made if it is not there.
    base: the model it belongs to: a path or hub id.
    alpha: such that its scale is alpha / rank, or alpha / sqrt(rank) with
      `rslora`.
    rslora: see `alpha`.
  """
  stored: dict[str, tuple[Any, list[str]]] = {}
  for path, (name, reader) in layout_lib.layout(config).items():
    if path.startswith("blocks.") and name.endswith(".weight"):
      _, parts = stored.setdefault(name, (reader, []))
      parts.append(path.removeprefix("blocks."))
  host = _on_host(adapter)
  if jax.process_index():
    return
  tensors: dict[str, np.ndarray] = {}
  ranks: dict[str, int] = {}
  plain = next(iter(host.a.values())).shape[1]
  for name, (reader, parts) in stored.items():
    if not any(part in host.a for part in parts):
      continue
    module = name.removesuffix(".weight")
    for layer in range(host.first, host.end):
      a_RI, b_OR = _stored(host.blocks(layer, layer + 1), reader, parts)
      place = f"base_model.model.{module.format(layer)}"
      tensors[f"{place}.lora_A.weight"] = np.ascontiguousarray(a_RI)
      tensors[f"{place}.lora_B.weight"] = np.ascontiguousarray(b_OR)
      ranks[module.rpartition("{}.")[2]] = len(a_RI)
  directory.mkdir(parents=True, exist_ok=True)
  (directory / CONFIG).unlink(missing_ok=True)
  aside = directory / f".{WEIGHTS}.tmp"
  safetensors.numpy.save_file(tensors, aside, metadata={"format": "pt"})
  aside.replace(directory / WEIGHTS)
  wider = {module: rank for module, rank in ranks.items() if rank != plain}
  grown = {
    module: alpha * (math.sqrt(rank / plain) if rslora else rank / plain)
    for module, rank in wider.items()
  }
  artifacts.write_json_atomic(
    directory / CONFIG,
    {
      "peft_type": "LORA",
      "task_type": "CAUSAL_LM",
      "base_model_name_or_path": base,
      "r": plain,
      "lora_alpha": alpha,
      "use_rslora": rslora,
      "lora_dropout": 0.0,
      "bias": "none",
      # gpt2's Conv1D keeps its weight [in, out].
      "fan_in_fan_out": config.family == "gpt2",
      "target_modules": sorted(ranks),
      "layers_to_transform": list(range(host.first, host.end)),
      "rank_pattern": wider,
      "alpha_pattern": grown,
      "inference_mode": True,
    },
  )


def _on_host(adapter: low_rank.Adapter) -> low_rank.Adapter:
  if jax.process_count() > 1:
    adapter = multihost_utils.process_allgather(adapter, tiled=True)
  return jax.tree.map(lambda x: np.asarray(x, np.float32), adapter)


def _stored(
  block: low_rank.Adapter, reader: Any, parts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """A [R, in] and B [out, R] of one stored tensor of one block."""
  mine = [part for part in parts if part in block.a]
  a_RI = np.concatenate([_rows(np.asarray(block.a[p][0])) for p in mine])
  if not layout_lib.is_fused(reader):
    b_OR = np.asarray(block.b[mine[0]][0])
    return a_RI, b_OR.reshape(-1, b_OR.shape[-1])
  rank = len(a_RI) // len(mine)
  heads = block.b[mine[0]][0].shape[:-1]
  wide = []
  for part in parts:
    b_NHR = np.zeros((*heads, len(a_RI)), np.float32)
    if part in mine:
      at = mine.index(part) * rank
      b_NHR[..., at : at + rank] = block.b[part][0]
    wide.append(b_NHR)
  b_OR = layout_lib.to_stored(reader, wide)
  return a_RI, b_OR if b_OR.shape[-1] == len(a_RI) else b_OR.T


def _rows(a: np.ndarray) -> np.ndarray:
  return a.reshape(len(a), -1)


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """`adapter_config.json`.

  Raises:
    errors.InputError: it is damaged, names no base model, or asks for more
      than LoRA.
  """
  path = directory / CONFIG
  raw = artifacts.read_json(path)
  if not isinstance(raw, Mapping):
    raise errors.InputError(f"{path}: not a JSON object")
  if raw.get("peft_type") != "LORA":
    raise errors.InputError(
      f"{path}: peft_type={raw.get('peft_type')!r} is not supported, only LORA;"
      " merge the adapter with PEFT's merge_and_unload and save the model"
    )
  wrong = [name for name in _REFUSED if raw.get(name)]
  if raw.get("bias") not in (None, "none"):
    wrong.append("bias")
  if wrong:
    raise errors.InputError(
      f"{path}: {wrong[0]}={raw[wrong[0]]!r} is not supported; merge the"
      " adapter with PEFT's merge_and_unload and save the model"
    )
  if not raw.get("base_model_name_or_path"):
    raise errors.InputError(
      f"{path}: base_model_name_or_path is empty; write the base model's"
      " directory or hub id there"
    )
  return dict(raw)


@dataclasses.dataclass(frozen=True)
class _Correction:
  a_RI: np.ndarray
  b_OR: np.ndarray
  scale: float


class MergedSource:
  """A base model's tensors with an adapter's corrections added, in float32.

  Every slice is merged when it is read; nothing is kept.

  Raises:
    errors.InputError: the adapter is damaged, or not one of this base model.
  """

  def __init__(
    self,
    base: source_lib.Source,
    directory: pathlib.Path,
    *,
    transposed: bool,
  ):
    """`transposed`: the base keeps its matrices [in, out], as gpt2 does."""
    self._base = base
    self._transposed = transposed
    self.corrections: dict[str, _Correction] = {}
    raw = read_config(directory)
    file = directory / WEIGHTS
    if not file.is_file():
      raise errors.InputError(
        f"{directory}: there is no {WEIGHTS}; save the adapter with PEFT's"
        " save_pretrained (safe_serialization=True)"
      )
    found: dict[str, dict[str, np.ndarray]] = {}
    stored = source_lib.SafetensorsSource(directory, [file])
    for name in sorted(stored.names()):
      match = _TENSOR.fullmatch(name)
      if match is None:
        raise errors.InputError(
          f"{file}: {name} is not supported, only lora_A and lora_B of linear"
          " layers; merge the adapter with PEFT and save the model"
        )
      index = (slice(None),) * len(stored.shape(name))
      value = stored.read(name, index).astype(np.float32)
      found.setdefault(match[1], {})[match[2]] = value
    for module, pair in found.items():
      self._add(module, pair, raw, str(file))

  def _add(self, module: str, pair, raw: Mapping[str, Any], place: str):
    if len(pair) != 2:
      raise errors.InputError(
        f"{place}: {module} has only one of lora_A and lora_B; save it again"
      )
    name = weights_lib.find_name(
      f"{module}.weight", names=self._base.names(), place=place
    )
    a_RI, b_OR = pair["A"], pair["B"]
    shape = (b_OR.shape[0], a_RI.shape[-1])
    stored = self._base.shape(name)
    if stored != (shape[::-1] if self._transposed else shape) or (
      a_RI.shape[0] != b_OR.shape[-1]
    ):
      raise errors.InputError(
        f"{place}: {module} has lora_A {a_RI.shape} and lora_B {b_OR.shape},"
        f" but the base model's weight is {stored}; it belongs to another model"
      )
    rank = a_RI.shape[0]
    alpha = _alpha(raw, module)
    scale = alpha / (math.sqrt(rank) if raw.get("use_rslora") else rank)
    self.corrections[name] = _Correction(a_RI, b_OR, scale)

  def names(self) -> set[str]:
    return self._base.names()

  def shape(self, name: str) -> tuple[int, ...]:
    return self._base.shape(name)

  def read(self, name: str, index: source_lib.Index) -> np.ndarray:
    """A slice of a tensor; float32 where it is corrected."""
    value = self._base.read(name, index)
    found = self.corrections.get(name)
    if found is None:
      return value
    rows, columns = (*index, slice(None), slice(None))[:2]
    if self._transposed:
      delta = (found.b_OR[columns] @ found.a_RI[:, rows]).T
    else:
      delta = found.b_OR[rows] @ found.a_RI[:, columns]
    return value.astype(np.float32) + np.float32(found.scale) * delta


def _alpha(raw: Mapping[str, Any], module: str) -> float:
  """PEFT's rule: the first pattern that the module's name ends with."""
  for pattern, alpha in (raw.get("alpha_pattern") or {}).items():
    if re.match(rf"(.*\.)?({pattern})$", module):
      return float(alpha)
  return float(raw.get("lora_alpha", 8))
