# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What `saebench.py` does with sae-bench, once that is imported."""

import json
import pathlib
import tempfile
import warnings
from typing import Any

import sae_lens
import torch
import transformer_lens
import transformers
from sae_bench.evals.core import main as core
from sae_bench.sae_bench_utils import general_utils
from transformer_lens.pretrained.weight_conversions import llama

TOLERANCE = 1e-5  # of sae-bench's, for lengths of decoder rows in float32


def open_sae(path: str) -> Any:
  """The dictionary as SAELens has it."""
  return sae_lens.SAE.load_from_disk(path)


def check_interface(sae: Any) -> list[str]:
  """Names what sae_bench/custom_saes/README.md asks for and `sae` has not."""
  _, sae, _ = general_utils.load_and_format_sae("local", sae, "cpu")
  d, f = sae.cfg.d_in, sae.cfg.d_sae
  x_BLD = torch.randn(2, 3, d, generator=torch.Generator().manual_seed(0))
  with torch.no_grad():
    acts_BLF = sae.encode(x_BLD)
    out_BLD = sae.decode(acts_BLF)
    whole_BD = sae(x_BLD.reshape(-1, d))
  norms_F = sae.W_dec.norm(dim=1)
  asked = {
    "W_enc is [d_in, d_sae]": sae.W_enc.shape == (d, f),
    "W_dec is [d_sae, d_in]": sae.W_dec.shape == (f, d),
    "b_enc is [d_sae]": sae.b_enc.shape == (f,),
    "b_dec is [d_in]": sae.b_dec.shape == (d,),
    "decoder rows are of length 1": bool(
      ((norms_F - 1).abs() < TOLERANCE).all()
    ),
    "encode gives [B, L, d_sae]": acts_BLF.shape == (2, 3, f),
    "activations are >= 0": bool((acts_BLF >= 0).all()),
    "forward is decode of encode": torch.allclose(
      whole_BD, out_BLD.reshape(-1, d), atol=1e-5 * float(out_BLD.abs().max())
    ),
    "device and dtype": sae.device.type == "cpu" and sae.dtype == torch.float32,
    "cfg names model, hook, layer": all(
      getattr(sae.cfg, name) is not None
      for name in ("model_name", "hook_name", "hook_layer", "prepend_bos")
    ),
    "cfg.to_dict()": sae.cfg.to_dict()["d_sae"] == f,
  }
  for name, met in asked.items():
    print(f"{'ok' if met else 'NOT MET'}  {name}")
  return [name for name, met in asked.items() if not met]


def load(path: pathlib.Path) -> transformer_lens.HookedTransformer:
  """TransformerLens's model of local weights, nothing folded, float32."""
  place = {"pretrained_model_name_or_path": path}
  if path.suffix == ".gguf":
    place = {"pretrained_model_name_or_path": path.parent}
    place["gguf_file"] = path.name
  transformers.utils.logging.disable_progress_bar()
  tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    **place, dtype=torch.float32
  ).eval()
  c = theirs.config
  config = transformer_lens.HookedTransformerConfig(
    n_layers=c.num_hidden_layers,
    d_model=c.hidden_size,
    d_head=c.hidden_size // c.num_attention_heads,
    n_heads=c.num_attention_heads,
    n_key_value_heads=c.num_key_value_heads,
    d_mlp=c.intermediate_size,
    d_vocab=c.vocab_size,
    n_ctx=2048,
    act_fn="silu",
    eps=c.rms_norm_eps,
    normalization_type="RMS",
    final_rms=True,
    gated_mlp=True,
    positional_embedding_type="rotary",
    rotary_adjacent_pairs=False,
    rotary_dim=c.hidden_size // c.num_attention_heads,
    rotary_base=int(c.rope_parameters["rope_theta"]),
    model_name=path.name,
    device="cpu",
  )
  ours = transformer_lens.HookedTransformer(config, tokenizer)
  ours.load_and_process_state_dict(
    llama.convert_llama_weights(theirs, config),
    fold_ln=False,
    center_writing_weights=False,
    center_unembed=False,
    fold_value_biases=False,
  )
  tokens_BT = torch.arange(2, 34).reshape(2, 16) * 97 % c.vocab_size
  with torch.no_grad():
    apart = (ours(tokens_BT) - theirs(tokens_BT).logits).abs().max()
  print(f"logits of TransformerLens and transformers differ by {apart:.1e}")
  if apart > 1e-2:
    raise SystemExit("TransformerLens has another model of these weights")
  return ours


def as_text(document: dict[str, Any], tokenizer: Any) -> str:
  """A document of the text file, a conversation in the model's own template."""
  if "text" in document:
    return document["text"]
  return tokenizer.apply_chat_template(document["messages"], tokenize=False)


def evaluate(sae, language_model, args) -> dict[str, dict[str, float]]:
  """`multiple_evals`, with the model at hand for the one it would fetch."""
  transformer_lens.HookedTransformer.from_pretrained_no_processing = (
    lambda *_, **__: language_model
  )
  with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    text = pathlib.Path(out) / "text"
    text.mkdir()
    with open(args.text) as lines, open(text / "train.jsonl", "w") as written:
      for line in lines:
        shown = as_text(json.loads(line), language_model.tokenizer)
        written.write(json.dumps({"text": shown}) + "\n")
    results = core.multiple_evals(
      selected_saes=[("local", sae)],
      n_eval_reconstruction_batches=args.batches,
      n_eval_sparsity_variance_batches=args.batches,
      eval_batch_size_prompts=args.prompts,
      compute_featurewise_density_statistics=True,
      compute_featurewise_weight_based_metrics=True,
      exclude_special_tokens_from_reconstruction=True,
      dataset=str(text),
      context_size=args.context,
      output_folder=f"{out}/results",
      dtype="float32",
      device="cpu",
      verbose=True,
    )
    if not results or not list(pathlib.Path(out, "results").glob("*.json")):
      raise SystemExit("sae-bench gave no result: see what it logged above")
  return {
    group: values
    for group, values in results[0]["metrics"].items()
    if isinstance(values, dict)
  }
