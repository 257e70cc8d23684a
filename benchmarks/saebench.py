# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SAEBench's core evaluation of a trained dictionary, without the network.

Loads the dictionary with SAELens, checks what sae-bench asks of one, gives
TransformerLens the weights of a local model (a Hugging Face directory or .gguf
file, of Llama's kind), and runs sae_bench.evals.core on a local text. Prints a
markdown table. What needs the network is replaced: the model by its name, and
the text (Skylion007/openwebtext).

    pip install sae-bench gguf          # in an environment of its own
    python benchmarks/saebench.py --sae=RUN/sae --model=MODEL --text=FILE.jsonl

Exits with 1 where the dictionary does not meet the interface.
"""

import argparse
import pathlib
import time


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--sae", required=True, help="SAELens directory")
  parser.add_argument("--model", required=True, help="directory or .gguf file")
  parser.add_argument("--text", required=True, help="JSONL: text or messages")
  parser.add_argument("--batches", type=int, default=4, help="default 4")
  parser.add_argument("--prompts", type=int, default=4, help="in a batch")
  parser.add_argument("--context", type=int, default=128, help="default 128")
  args = parser.parse_args()
  # Only now, so that --help needs none of its dependencies.
  import saebench_core

  sae = saebench_core.open_sae(args.sae)
  failed = saebench_core.check_interface(sae)
  language_model = saebench_core.load(pathlib.Path(args.model))
  started = time.perf_counter()
  found = saebench_core.evaluate(sae, language_model, args)
  print(f"\ncore: {time.perf_counter() - started:.0f} s\n")
  print("| | |\n|---|---|")
  for group, values in found.items():
    for name, value in values.items():
      if isinstance(value, int | float):
        print(f"| {group}: {name} | {value:.5g} |")
  if failed:
    raise SystemExit(1)


if __name__ == "__main__":
  main()
