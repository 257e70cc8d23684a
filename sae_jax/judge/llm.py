# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A chat model as a judge.

Its replies are kept as they came, beside the verdicts and (by what was asked)
in the endpoint's cache, so that a job that is run again asks nothing twice.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from sae_jax import endpoint as endpoint_lib
from sae_jax import errors
from sae_jax.endpoint import transport
from sae_jax.judge import config as config_lib
from sae_jax.judge import interface, question_prompts, question_sets, rubric

_VERSION = 1
_AT_ONCE = 16  # requests per thread between two reports of progress

Reply = endpoint_lib.Reply | endpoint_lib.EndpointError


class Llm:
  """Asks a chat model about every answer, with our rubric or the question's."""

  def __init__(
    self, config: config_lib.JudgeConfig, endpoint: endpoint_lib.Endpoint
  ) -> None:
    self._config = config
    self._endpoint = endpoint
    self._by_question = config.rubric == "question"

  def identity(self) -> dict[str, Any]:
    asked = self._endpoint.config
    told: dict[str, Any] = {
      "rubric": "question",
      "limits": "Betley et al. 2025",
    }
    if not self._by_question:
      told = {
        "rubric": rubric.fingerprint(self._config.behaviour),
        "behaviour": self._config.behaviour,
        "threshold": self._config.threshold,
      }
    return {
      "name": "llm",
      "version": _VERSION,
      "model": asked.model,
      "endpoint": asked.base_url,
      "temperature": asked.temperature,
      "max_tokens": asked.max_tokens,
      **told,
    }

  def check(self) -> None:
    """Asks for one word.

    Raises:
      errors.InputError: the endpoint does not answer.
    """
    self._endpoint.check()

  def judge(
    self,
    questions: Sequence[question_sets.Question],
    answers: Sequence[str],
    *,
    progress: interface.Progress = lambda done: None,
  ) -> list[interface.Verdict]:
    """See `interface.Judge`.

    A reply that did not come after all retries, or that says nothing clear, is
    a verdict "error".

    Raises:
      errors.InputError: the endpoint cannot be reached any more; replies until
        then are in its cache.
    """
    interface.same_length(questions, answers)
    asks = [
      self._asked(question, answer)
      for question, answer in zip(questions, answers, strict=True)
    ]
    replies = self._replies(list(itertools.chain(*asks)))
    found = []
    for answer, conversations in zip(answers, asks, strict=True):
      said = list(itertools.islice(replies, len(conversations)))
      found.append(self._verdict(answer, said))
      progress(len(found))
    return found

  def _asked(
    self, question: question_sets.Question, answer: str
  ) -> list[list[endpoint_lib.Message]]:
    """What is asked about one answer: nothing of an empty one."""
    if not answer.strip():
      return []
    if self._by_question:
      return question_prompts.conversations(question, answer)
    text = rubric.user(question.text, answer, question.system)
    return [
      [
        {"role": "system", "content": rubric.system(self._config.behaviour)},
        {"role": "user", "content": text},
      ]
    ]

  def _replies(
    self, conversations: list[list[endpoint_lib.Message]]
  ) -> Iterator[Reply]:
    size = _AT_ONCE * self._endpoint.config.concurrency
    for first in range(0, len(conversations), size):
      some = self._endpoint.ask_all(conversations[first : first + size])
      failed = [r for r in some if isinstance(r, transport.Transient)]
      if failed and (self._endpoint.down or len(failed) == len(some)):
        raise errors.InputError(
          f"the judge {self._endpoint.config.model} is not to be reached:"
          f" {failed[0]}; start the server or wait, and run the job again: what"
          " it said is kept"
        )
      yield from some

  def _verdict(
    self, answer: str, replies: Sequence[Reply]
  ) -> interface.Verdict:
    if not replies:
      return interface.Verdict("incoherent", None, {"reason": "empty answer"})
    raw: dict[str, Any] = {
      "replies": [_shown(reply) for reply in replies],
      "model": next(
        (r.model for r in replies if isinstance(r, endpoint_lib.Reply)), None
      ),
    }
    texts = []
    for reply in replies:
      if isinstance(reply, endpoint_lib.EndpointError):
        return interface.Verdict("error", None, raw | {"reason": str(reply)})
      texts.append(reply.answer)
    try:
      if self._by_question:
        label, score = question_prompts.parse(*texts)
        return interface.Verdict(label, score, raw)
      said = rubric.parse(texts[0])
    except rubric.Unclear as error:
      return interface.Verdict("error", None, raw | {"reason": str(error)})
    if not isinstance(said, int):
      return interface.Verdict(said, None, raw)
    shows = said >= self._config.threshold
    return interface.Verdict(
      "behaviour" if shows else "contrast", float(said), raw
    )


def _shown(reply: Reply) -> str | None:
  return reply.text if isinstance(reply, endpoint_lib.Reply) else None
