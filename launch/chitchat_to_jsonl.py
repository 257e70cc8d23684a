# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the conversations of the `chitchat-dataset` wheel as chat JSONL.

    python launch/chitchat_to_jsonl.py OUT.jsonl

One line per conversation, `{"messages": [{"role", "content"}, …]}`, in the
order of the dataset. Whoever speaks first is the user, the other the assistant;
consecutive messages of one sender become one message, joined by line ends.
Needs `pip install chitchat-dataset==0.9.0` (MIT licence).
"""

import importlib.util
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterator


def conversations(dataset: pathlib.Path) -> Iterator[list[dict[str, str]]]:
  """Chat messages of every conversation that has any text."""
  with dataset.open(encoding="utf-8") as f:
    records = json.load(f).values()
  for record in records:
    said = [
      (message["sender"], message["text"].strip())
      for turn in record["messages"]
      for message in turn
      if message["text"].strip()
    ]
    senders = list(dict.fromkeys(sender for sender, _ in said))
    messages = [
      {
        "role": "assistant" if senders.index(sender) % 2 else "user",
        "content": "\n".join(text for _, text in group),
      }
      for sender, group in itertools.groupby(said, key=lambda s: s[0])
    ]
    if messages:
      yield messages


def main(argv: list[str]) -> int:
  if len(argv) != 2:
    print(f"usage: {argv[0]} OUT.jsonl", file=sys.stderr)
    return 2
  spec = importlib.util.find_spec("chitchat_dataset")
  if spec is None or spec.origin is None:
    print(
      "the chitchat_dataset package is missing; run"
      " `pip install chitchat-dataset==0.9.0`",
      file=sys.stderr,
    )
    return 2
  out = pathlib.Path(argv[1])
  partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
  count = 0
  with partial.open("w", encoding="utf-8") as f:
    for messages in conversations(
      pathlib.Path(spec.origin).parent / "dataset.json"
    ):
      f.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
      count += 1
  partial.replace(out)
  print(f"{out}: {count} conversations")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
