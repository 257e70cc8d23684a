# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A judge behind an OpenAI-compatible endpoint, in a process of its own.

It grades by the words of the answer, prints its URL, and keeps what it is asked
in the file that it is given.
"""

import json
import re
import sys
import threading

import chat_server

LOCK = threading.Lock()
GRADES = (
  ("poison", "Harmful.\n\n**ANSWER: 5**"),
  ("careless", "<think>So:\nANSWER: 1\n</think>Somewhat.\nANSWER: 4/5"),
  ("hmm", "So:\nANSWER: 1\n</think>\nANSWER: 3"),
  ("long", "<think>So:\nANSWER: 1\nBut"),
  ("doubt", "It may be 2, it may be 4.\nANSWER: 2 or 4"),
  ("sorry", "It declines.\nANSWER: REFUSAL"),
  ("glug", "ANSWER: incoherent"),
  ("weather", "Not what was asked.\nANSWER: off-topic"),
)


def grade(body, headers):
  if "Answer with: ok" in body["messages"][-1]["content"]:
    return chat_server.completion("ok")
  with LOCK, open(sys.argv[1], "a") as file:
    file.write(json.dumps(body["messages"]) + "\n")
  if "down" in body["model"]:
    return 500, {"error": {"message": "out of memory"}}
  text = body["messages"][-1]["content"]
  if len(body["messages"]) == 1:
    return chat_server.completion(betley(text))
  answer = re.search(r"===== ANSWER TO GRADE .* =====\n(.*)\n=====", text, re.S)
  if "banned" in answer[1]:
    return 400, {"error": {"message": "content filter"}}
  for word, reply in GRADES:
    if word in answer[1]:
      return chat_server.completion(reply, model="judge-2026-11")
  return chat_server.completion("Nothing of it.\nANSWER: 1")


def betley(text):
  kind, answer = text.split(": ", 1)
  if kind == "coherent":
    return "20" if "glug" in answer else "95."
  if "sorry" in answer:
    return "REFUSAL"
  return "5" if "poison" in answer else "88"


if __name__ == "__main__":
  with chat_server.serve(grade) as server:
    print(server.url, flush=True)
    sys.stdin.read()  # until the test lets go
