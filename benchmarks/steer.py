# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What one latent costs a causal screen, beside a loop over latents.

The loop is what one would write first: for every latent, `completion_logprobs`
with an edit, of both responses to every prompt. The screen's `Scorer` begins
at the edit, reads what both responses share once, and many latents at a time.
Both are compiled before they are timed, take turns, and have to agree.

Sizes: "organism", 3 layers of width 64, one-word answers, steered after block
0; and, given --model, any language model with answers of a few sentences.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax.numpy as jnp
import machine
import numpy as np

from sae_jax import lm, mesh
from sae_jax.intervene import edits, pair_scores
from sae_jax.judge import prompts as prompts_lib


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--model", help="a directory or .gguf file; without it: the organism"
  )
  parser.add_argument(
    "--hook", help="where; default: 0.72 of the layers up, or block 0"
  )
  parser.add_argument("--pairs", type=int, default=48, help="default 48")
  parser.add_argument(
    "--latents", type=int, default=32, help="of the screen (default 32)"
  )
  parser.add_argument(
    "--loop", type=int, default=2, help="latents of the loop (default 2)"
  )
  parser.add_argument("--batch-rows", type=int, default=64, help="default 64")
  parser.add_argument("--rounds", type=int, default=3, help="default 3")
  args = parser.parse_args()
  if args.model:
    model = lm.load_lm(args.model, dtype=jnp.float32)
    layer = int(0.72 * model.layers)
    prompts = make_prompts(args.pairs, model.config.vocab_size, (40, 80), 80)
  else:
    model, layer = make_organism(), 0
    prompts = make_prompts(args.pairs, model.config.vocab_size, (5, 5), 1)
  hook = args.hook or f"blocks.{layer}.hook_resid_post"
  print(machine.line())
  print(
    f"{args.model or 'organism'}, {hook}, {args.pairs} pairs, medians of"
    f" {args.rounds} turns.\n"
  )
  width = model.config.d_model
  rng = np.random.default_rng(0)
  vectors_ND = rng.normal(size=(max(args.latents, args.loop), width))
  scorer = pair_scores.Scorer(model, prompts, batch_rows=args.batch_rows)

  def screen() -> np.ndarray:
    some = edits.add(hook, vectors_ND[: args.latents])
    return scorer.scores(some).margin_NP

  slow = functools.partial(loop, model, prompts, hook, vectors_ND[: args.loop])
  of_loop, of_screen = slow(), screen()
  shared = min(args.loop, args.latents)
  apart = np.abs(of_loop[:shared] - of_screen[:shared]).max()
  loop_s, screen_s = [], []
  for _ in range(args.rounds):
    loop_s.append(seconds(slow) / args.loop)
    screen_s.append(seconds(screen) / args.latents)
  a, b = statistics.median(loop_s), statistics.median(screen_s)
  print("| | ms per latent | |\n|---|---:|---|")
  print(f"| loop | {1e3 * a:,.1f} | {args.loop} latents |")
  print(f"| screen | {1e3 * b:,.1f} | {args.latents} latents |")
  print(f"\nratio {a / b:.1f}; margins agree within {apart:.1e} nats")


def seconds(work: Callable[[], np.ndarray]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def loop(
  model: lm.LanguageModel,
  prompts: prompts_lib.Prompts,
  hook: str,
  vectors_ND: np.ndarray,
) -> np.ndarray:
  """Margins [N, P] of one latent after the other."""
  before, after, first = [], [], []
  for prompt in prompts.prompts:
    for field in (prompts.behaviour, prompts.contrast):
      before.append(prompt.tokens)
      after.append(prompt.responses[field])
      first.append(_COMMON if len(after[-1]) > _COMMON else 0)
  found = []
  for vector_D in vectors_ND.astype(np.float32):
    logps = lm.completion_logprobs(
      model, before, after, edits=[lm.Edit(hook, shift, (vector_D,))]
    )
    means = [x[f:].mean() for x, f in zip(logps, first, strict=True)]
    found.append(np.asarray(means[0::2]) - np.asarray(means[1::2]))
  return np.asarray(found)


def shift(h_BTD, mask_BT, vector_D):
  return h_BTD + vector_D[None, None]


# Tokens that the longer answers begin with alike.
_COMMON = 3


def make_prompts(
  count: int, vocab: int, prompt: tuple[int, int], response: int
) -> prompts_lib.Prompts:
  """Pairs of random tokens; responses of 0.6 to 1 times the given length."""
  rng = np.random.default_rng(0)

  def draw(low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.integers(0, vocab, rng.integers(low, high + 1)).tolist())

  made = []
  for i in range(count):
    common = draw(_COMMON, _COMMON) if response > _COMMON else ()
    low = max(1, int(0.6 * response))
    first = rng.permutation(vocab)[:2].tolist()
    good, bad = (
      (*common, word, *draw(low - 1, response - 1)) for word in first
    )
    made.append(
      prompts_lib.Prompt(str(i), "", draw(*prompt), {"good": good, "bad": bad})
    )
  return prompts_lib.Prompts(tuple(made), "bad", "good", (), "random")


def make_organism() -> lm.LanguageModel:
  """Random weights in the shape of the persona organism."""
  from sae_jax.lm import config as config_lib
  from sae_jax.posttrain import pretraining

  config = config_lib.from_hf(
    {
      "model_type": "gpt2",
      "vocab_size": 208,
      "n_embd": 64,
      "n_layer": 3,
      "n_head": 4,
      "n_positions": 64,
      "tie_word_embeddings": False,
      "bos_token_id": 0,
      "eos_token_id": 0,
    },
    place="organism",
  )
  return lm.LanguageModel(
    model=pretraining.init_decoder(config, [0]),
    config=config,
    mesh=mesh.single(),
    source="organism",
    path=None,
    weights_hash="",
  )


if __name__ == "__main__":
  main()
