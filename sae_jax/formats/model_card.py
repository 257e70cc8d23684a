# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A dictionary's README.md for the Hugging Face hub: facts, figures, loading.

Reads a dictionary, and what was measured of it: an [eval] that was made of this
very file of weights, or else the last look of its training run.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import yaml

from sae_jax import artifacts, errors, metrics, sae
from sae_jax.formats import api, provenance, saelens, saelens_config

_METRICS = {
  "fvu": "fraction of variance unexplained, Σ‖x−x̂‖² / Σ‖x−mean‖²",
  "l0": "mean number of active latents per row",
  "dead_frac": "share of latents that never fired",
  "cosine": "mean cosine of a row and its reconstruction",
  "loss_recovered": "(zero-ablated − spliced) / (zero-ablated − clean) loss",
  "ce_clean": "cross-entropy of the language model, nats per token",
  "ce_spliced": "the same, reading reconstructions at the hook",
  "kl": "KL(clean ‖ spliced) of the next token, nats",
}
_KINDS = {"topk": "TopK", "relu": "ReLU", "jumprelu": "JumpReLU"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Measured:
  """Figures by name, without `eval/`, and what they were measured on."""

  figures: Mapping[str, float]
  rows: str


def measured(
  path: str | os.PathLike[str], evaluation: str | os.PathLike[str] = ""
) -> Measured | None:
  """What is known of how good the dictionary at `path` is.

  Args:
    path: see `api.load_sae`.
    evaluation: the output of `sae-jax evaluate`; empty: `eval` beside the run
      or in it, or what the run measured last.

  Raises:
    errors.InputError: `evaluation` is none, or one of another dictionary.
  """
  _, place = api.find(path)
  if evaluation:
    where = pathlib.Path(evaluation).expanduser()
    # Of a converted dictionary, one of what it was before is one as well.
    origin = api.map_sae(place).metadata.get(provenance.ORIGIN, {})
    if _weights_of(where) not in (api.hash_sae(place), origin.get("sha256")):
      raise errors.InputError(
        f"{where} is not an evaluation of {place}: its config.json names other"
        " weights, or there is none; give the --out of sae-jax evaluate"
      )
    return _from_evaluation(where)
  # In its run, of which it is sae or sae/I, or beside that.
  near = [above / "eval" for above in place.absolute().parents[:3]]
  known = {where: _weights_of(where) for where in near if _weights_of(where)}
  if known:
    weights = api.hash_sae(place)
    for where, of in known.items():
      if of == weights:
        return _from_evaluation(where)
  return _last_look(place.parent / "metrics.jsonl")


def text(
  dictionary: sae.Sae,
  *,
  form: str = saelens.NAME,
  found: Measured | None = None,
  repo: str = "",
  folder: str = ".",
) -> str:
  """The whole README.md.

  Args:
    dictionary: what it is about.
    form: the name of the format that is uploaded.
    found: see `measured`.
    repo: `user/name` on the hub; empty: a place-holder to be filled in.
    folder: where in the repository the files are.
  """
  parts = [
    _front(dictionary, form),
    f"# {_title(dictionary)}",
    _facts(dictionary, form),
  ]
  if found is not None and found.figures:
    parts += ["## Measured", _figures(found)]
  parts += ["## Load", _loading(dictionary, form, repo or "USER/NAME", folder)]
  return "\n\n".join(parts) + "\n"


def _weights_of(where: pathlib.Path) -> str:
  """The hash of what was evaluated; empty where that is not said."""
  recorded = artifacts.read_json(where / "config.json")
  if not isinstance(recorded, dict) or recorded.get("job") != "evaluate":
    return ""
  if not (where / "metrics.json").is_file():
    return ""
  return str(recorded.get("inputs", {}).get("sae", ""))


def _from_evaluation(where: pathlib.Path) -> Measured:
  found = artifacts.read_json(where / "metrics.json")
  rows = f"{found['rows']:,} held-out rows of {found['hook']}"
  if "lm_tokens" in found:
    rows += f"; the language model's loss on {found['lm_tokens']:,} tokens"
  return Measured(_known(found), rows)


def _last_look(path: pathlib.Path) -> Measured | None:
  for line in reversed(metrics.read(path)):
    if found := _known(line):
      return Measured(found, f"held-out rows, after step {line['step']:,}")
  return None


def _known(found: Mapping[str, Any]) -> dict[str, float]:
  named = {name: found.get(f"eval/{name}") for name in _METRICS}
  return {n: v for n, v in named.items() if isinstance(v, int | float)}


def _front(dictionary: sae.Sae, form: str) -> str:
  """What the hub searches by."""
  front: dict[str, Any] = {
    "library_name": "saelens" if _in_saelens(dictionary, form) else "sae_jax",
    "tags": [
      "sparse-autoencoder",
      "mechanistic-interpretability",
      *(["saelens"] if _in_saelens(dictionary, form) else []),
      "sae_jax",
      dictionary.activation,
    ],
  }
  model = str(dictionary.metadata.get("model_name"))
  if _HUB_ID.fullmatch(model):
    front["base_model"] = model
  return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _in_saelens(dictionary: sae.Sae, form: str) -> bool:
  return form == saelens.NAME and saelens_config.opens_in_saelens(dictionary)


def _title(dictionary: sae.Sae) -> str:
  thing = "sparse autoencoder"
  if dictionary.sources > 1:
    thing = f"crosscoder of {dictionary.sources} sources"
  elif _reads_and_writes(dictionary):
    skip = dictionary.params.w_skip_DE is not None
    thing = "skip transcoder" if skip else "transcoder"
  name = _KINDS.get(dictionary.activation, dictionary.activation.capitalize())
  where = [
    _cell(dictionary.metadata[key])
    for key in ("model_name", "hook_name")
    if dictionary.metadata.get(key)
  ]
  return f"{name} {thing}" + (f" of {', '.join(where)}" if where else "")


def _reads_and_writes(dictionary: sae.Sae) -> bool:
  hook_out = dictionary.metadata.get("hook_name_out")
  return (
    dictionary.d_out != dictionary.d_model
    or dictionary.params.w_skip_DE is not None
    or (bool(hook_out) and hook_out != dictionary.metadata.get("hook_name"))
  )


def _facts(dictionary: sae.Sae, form: str) -> str:
  about = dictionary.metadata
  width = f"{dictionary.d_model:,}"
  if dictionary.d_out != dictionary.d_model:
    width += f" to {dictionary.d_out:,}"
  facts = {
    "Language model": about.get("model_name"),
    "Hook": about.get("hook_name"),
    "Hook that is written": about.get("hook_name_out"),
    "Text": _text_source(about.get("dataset_path")),
    "Context": _count(about.get("context_size"), "tokens"),
    "Trained on": _count(about.get("training_tokens"), "rows"),
    "Latents": f"{dictionary.latents:,}",
    "Width": width,
    "Active latents": _active(dictionary),
    "Input": _input(dictionary),
    "Decoder rows": _norms(about.get(provenance.NORMS)),
    "Format": form,
    "Made with": _made(about.get("sae_jax_version")),
  }
  lines = ["| | |", "|---|---|"]
  lines += [f"| {k} | {_cell(v)} |" for k, v in facts.items() if v]
  return "\n".join(lines)


def _text_source(path: Any) -> Any:
  """Of a local path, which is nobody else's, the end."""
  if isinstance(path, str) and pathlib.PurePath(path).is_absolute():
    return pathlib.PurePath(path).name
  return path


def _count(number: Any, unit: str) -> str:
  return f"{number:,} {unit}" if isinstance(number, int) else ""


def _active(dictionary: sae.Sae) -> str:
  match dictionary.activation:
    case "topk":
      return f"the {dictionary.k} largest pre-activations, if above 0"
    case "jumprelu":
      return "pre-activations above their latent's threshold"
    case "gated":
      return "where the gate's pre-activation is above 0"
  return "pre-activations above 0"


def _input(dictionary: sae.Sae) -> str:
  steps = ["raw activations"]
  if dictionary.sources > 1:
    steps[0] += f" of {dictionary.sources} sources, side by side"
  if dictionary.layer_norm:
    steps.append("each row brought to mean 0 and deviation 1, the output back")
  if dictionary.centred:
    steps.append("minus b_dec")
  return "; ".join(steps)


def _norms(norms: Any) -> str:
  if not isinstance(norms, list) or len(norms) != 3:
    return ""
  least, mean, most = norms
  if least == most:
    return f"of length {mean:g}"
  return f"of length {least:g} to {most:g}, {mean:g} on average"


def _made(release: Any) -> str:
  return f"sae_jax {release}" if release else ""


def _cell(value: Any) -> str:
  """In one line, and in one cell of a table."""
  return " ".join(str(value).split()).replace("|", "\\|")


def _figures(found: Measured) -> str:
  lines = [f"On {_cell(found.rows)}.", "", "| | | |", "|---|---|---|"]
  for name, meaning in _METRICS.items():
    if name in found.figures:
      lines.append(f"| {name} | {found.figures[name]:.4g} | {meaning} |")
  return "\n".join(lines)


def _loading(dictionary: sae.Sae, form: str, repo: str, folder: str) -> str:
  parts = []
  if _in_saelens(dictionary, form):
    parts.append(
      "With [SAELens](https://github.com/decoderesearch/SAELens):\n\n"
      "```python\nfrom sae_lens import SAE\n\n"
      f'sae = SAE.from_pretrained("{repo}", "{folder}")\n```'
    )
  inside = "" if folder == "." else f' + "/{folder}"'
  parts.append(
    "With sae_jax, on JAX:\n\n"
    "```python\nimport huggingface_hub\nimport sae_jax\n\n"
    f'path = huggingface_hub.snapshot_download("{repo}"){inside}\n'
    "sae = sae_jax.load_sae(path)\n"
    "values_BK, indices_BK = sae_jax.encode(sae, x_BD)\n"
    f"x_hat_BD = sae_jax.decode(sae, values_BK, indices_BK{_rows(dictionary)})"
    "\n```"
  )
  return "\n\n".join(parts)


def _rows(dictionary: sae.Sae) -> str:
  needed = dictionary.layer_norm or dictionary.params.w_skip_DE is not None
  return ", x_BD" if needed else ""
