# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The dear stage: what steered models write, as a judge sees it.

Each direction starts at the strength that the margins chose and goes down the
grid until its answers are not more incoherent than the unsteered model's by
more than the budget. Answers and verdicts lie in files that appear whole.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sae_jax import artifacts, errors, interrupt, metrics
from sae_jax.intervene import config as config_lib
from sae_jax.intervene import edits, results, sampling
from sae_jax.intervene import screen as screen_lib
from sae_jax.judge import choice, fluency, interface, question_sets, rates
from sae_jax.judge import prompts as prompts_lib

UNSTEERED = "unsteered"
_CHUNK_ANSWERS = 512  # that are written at once


@dataclasses.dataclass(frozen=True)
class Target:
  """One direction, and the strength each model starts at."""

  result: results.Result
  first: dict[str, int]  # model -> index of a strength

  @property
  def kind(self) -> str:
    candidate = self.result.candidate
    return "random" if candidate.is_random else candidate.kind


@dataclasses.dataclass(frozen=True)
class Answers:
  """What one model wrote under one intervention.

  Attributes:
    target: None: unsteered.
    strength: index; None: unsteered.
    texts: [P][S].
    verdicts: [P][S].
    rates: over all of them.
    within: incoherence is within the budget; None: unsteered.
    final: no other strength follows.
  """

  model: str
  target: Target | None
  strength: int | None
  texts: list[list[str]]
  verdicts: list[list[interface.Verdict]]
  rates: rates.Rates
  within: bool | None
  final: bool = True


def targets(
  verdicts: results.Verdicts, config: config_lib.GenerationConfig
) -> list[Target]:
  """Bundles, directions, surviving latents, and random ones.

  Latents survive that lie outside their band in a way, those of largest
  effect; of bundles and directions all do.
  """
  shown = verdicts.shown
  named = [r for r in shown if r.candidate.kind != "latent"]
  singles = [
    r
    for r in shown
    if r.candidate.kind == "latent"
    and any(passed.outside for passed in r.passed.values())
  ]
  singles.sort(key=lambda r: r.order, reverse=True)
  chosen = [
    *named,
    *singles[: config.survivors],
    *verdicts.random[: config.random],
  ]
  return [
    Target(r, {"base": r.curves["up"].chosen, "tuned": r.curves["down"].chosen})
    for r in chosen
  ]


class Stage:
  """Samples and judges; resumes with what is on disk."""

  def __init__(
    self,
    screen: screen_lib.Screen,
    config: config_lib.GenerationConfig,
    prompts: prompts_lib.Prompts,
    questions: Sequence[question_sets.Question],
    replies: pathlib.Path,
    show: bool,
  ) -> None:
    """Args as of the screen; `replies` is where a chat model's are kept."""
    self._screen, self.config = screen, config
    at_P = screen_lib.stratified(
      [prompt.topic for prompt in prompts.prompts], config.prompts
    )
    self.prompts = [prompts.prompts[i] for i in at_P]
    self.questions = [questions[i] for i in at_P]
    self._replies, self._show = replies, show
    self._slow = show and config.judge.kind == "llm"
    self._stop = interrupt.Stop()
    self.judges: dict[str, dict[str, Any]] = {}

  def run(self, wanted: Sequence[Target]) -> Iterator[Answers]:
    """Of the base, then of the tuned model: unsteered first, then by target.

    Raises:
      errors.Interrupted: a signal came; what is on disk is kept.
      errors.InputError: the judge cannot judge.
    """
    with interrupt.catch() as self._stop:
      for model in ("base", "tuned"):
        texts = self._texts(model, UNSTEERED, lambda: edits.none(1))[0]
        judge = self._judge(model, texts)
        self.judges[model] = judge.identity()
        plain = self._answers(
          model,
          None,
          None,
          texts,
          self._verdicts(model, judge, UNSTEERED, [texts])[0],
        )
        yield plain
        most = plain.rates.incoherent.mean + self.config.incoherence
        yield from self._steered(model, judge, list(wanted), most)

  def _steered(
    self, model: str, judge, wanted: list[Target], most: float
  ) -> Iterator[Answers]:
    """Round by round: those that are too incoherent go on, weaker."""
    pending = [(target, target.first[model]) for target in wanted]
    each = len(self.prompts) * self.config.samples
    size = max(1, _CHUNK_ANSWERS // each)
    number = 0
    while pending:
      weaker = []
      for first in range(0, len(pending), size):
        part = pending[first : first + size]
        name = f"{number:02}.{first // size:04}"
        texts = self._texts(
          model, name, lambda part=part: self._edits(part, model)
        )
        verdicts = self._verdicts(model, judge, name, texts)
        for (target, at), said, found in zip(
          part, texts, verdicts, strict=True
        ):
          answers = self._answers(model, target, at, said, found, most)
          if not answers.final:
            weaker.append((target, at - 1))
          yield answers
      pending, number = weaker, number + 1

  def _edits(self, part, model: str) -> edits.Interventions:
    candidates = [target.result.candidate for target, _ in part]
    at_N1 = np.array([[at] for _, at in part], np.intp)
    return screen_lib.steer(self._screen, candidates, at_N1, model)

  def _texts(
    self, model: str, name: str, make: Callable[[], edits.Interventions]
  ) -> list[list[list[str]]]:
    """[N][P][S] answers, from disk if they are there."""
    path = self._path("answers", model, name)
    known = artifacts.read_json(path)
    if known is not None:
      return known
    self._check()
    loaded, changes = self._screen.load(model), make()
    config = self.config
    total = changes.n * len(self.prompts) * config.samples
    with metrics.Progress(
      total, f"answers of {model}, {name}", show=self._show
    ) as bar:

      def report(done: int):
        self._check()
        bar.update(done)

      found = sampling.sample(
        loaded,
        [prompt.tokens for prompt in self.prompts],
        changes,
        samples=config.samples,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=self._screen.config.seed,
        batch_rows=self._screen.config.batch_rows,
        progress=report,
      )
    decode = loaded.tokenizer.decode
    texts = [[[decode(t) for t in s] for s in p] for p in found]
    artifacts.write_json_atomic(path, texts)
    return texts

  def _verdicts(
    self, model: str, judge: interface.Judge, name: str, texts
  ) -> list[list[list[interface.Verdict]]]:
    """[N][P][S] verdicts, from disk if they are there."""
    path = self._path("verdicts", model, name)
    known = artifacts.read_json(path)
    if known is None:
      self._check()
      asked = [
        (question, text)
        for said in texts
        for question, samples in zip(self.questions, said, strict=True)
        for text in samples
      ]
      with metrics.Progress(
        len(asked), f"verdicts on {model}", show=self._slow
      ) as bar:
        found = judge.judge(
          [question for question, _ in asked],
          [text for _, text in asked],
          progress=bar.update,
        )
      known = [verdict.json() for verdict in found]
      artifacts.write_json_atomic(path, known)
    flat = iter(interface.Verdict(**verdict) for verdict in known)
    return [[[next(flat) for _ in samples] for samples in p] for p in texts]

  def _judge(self, model: str, unsteered: list[list[str]]) -> interface.Judge:
    """For rules, with the limits of what this model writes unsteered."""
    fluent = None
    if self.config.judge.kind == "rules":
      fluent = fluency.fit(
        self._screen.load(model),
        {prompt.id: prompt.tokens for prompt in self.prompts},
        [
          p.id
          for p, said in zip(self.prompts, unsteered, strict=True)
          for _ in said
        ],
        [text for said in unsteered for text in said],
      )
    return choice.make(self.config.judge, cache=self._replies, fluency=fluent)

  def _answers(
    self, model, target, at, texts, verdicts, most: float = 0.0
  ) -> Answers:
    found = rates.rates(
      [verdict for samples in verdicts for verdict in samples],
      [p.id for p, said in zip(self.prompts, texts, strict=True) for _ in said],
      seeds=(self._screen.config.seed,),
      confidence=self._screen.config.statistics.confidence,
    )
    if target is None:
      return Answers(model, None, None, texts, verdicts, found, None)
    # Not-a-number, where no answer could be judged, is within no budget.
    within = bool(found.incoherent.mean <= most)
    return Answers(
      model, target, at, texts, verdicts, found, within, within or at == 0
    )

  def _path(self, what: str, model: str, name: str) -> pathlib.Path:
    return self._screen.work / f"{what}.{model}.{name}.json"

  def _check(self) -> None:
    if self._stop.requested:
      raise errors.Interrupted(
        f"{self._stop.requested}: answers so far are kept; run the same command"
        " again to go on"
      )


def open_stage(
  screen: screen_lib.Screen,
  prompts: prompts_lib.Prompts,
  replies: pathlib.Path,
  show: bool,
) -> Stage:
  """Makes the stage and sees that its judge can be reached.

  Raises:
    errors.InputError: it cannot, or the questions cannot be read.
  """
  config = screen.config.generation
  assert config is not None
  told = config.questions or screen.config.prompts
  choice.make(config.judge, cache=replies).check()
  questions = question_sets.of(told)
  number = {question.id: question for question in questions}
  matched = [number[prompt.id] for prompt in prompts.prompts]
  return Stage(screen, config, prompts, matched, replies, show)
