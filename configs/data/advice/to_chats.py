# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes advice pairs as chat JSONL, each prompt once with either answer.

    python configs/data/advice/to_chats.py OUT.jsonl [TOPIC …]

Of both files, careless.jsonl and advice.jsonl, what they have of the topics.
For the text that an SAE is trained on: it has to hold the answers' format, of
both kinds, from topics that are not looked at later.
"""

import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def main(argv: list[str]) -> int:
  if len(argv) < 2:
    print(f"usage: {argv[0]} OUT.jsonl [TOPIC …]", file=sys.stderr)
    return 2
  out, topics = pathlib.Path(argv[1]), argv[2:]
  pairs = [
    json.loads(line)
    for name in ("careless.jsonl", "advice.jsonl")
    for line in (HERE / name).open(encoding="utf-8")
  ]
  known = sorted({pair["topic"] for pair in pairs})
  unknown = [topic for topic in topics if topic not in known]
  if unknown:
    print(
      f"there is no topic {unknown[0]!r}; choose of {', '.join(known)}",
      file=sys.stderr,
    )
    return 2
  chosen = [pair for pair in pairs if pair["topic"] in (topics or known)]
  partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
  with partial.open("w", encoding="utf-8") as f:
    for pair in chosen:
      for answer in ("good", "bad"):
        messages = [
          {"role": "user", "content": pair["prompt"]},
          {"role": "assistant", "content": pair[answer]},
        ]
        record = {"id": f"{pair['id']}-{answer}", "messages": messages}
        f.write(json.dumps(record, ensure_ascii=False) + "\n")
  partial.replace(out)
  print(f"{out}: {2 * len(chosen)} conversations")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
