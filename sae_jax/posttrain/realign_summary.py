# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""summary.json of a re-alignment, from what was read on the way."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax.judge import margin, scores
from sae_jax.judge import prompts as prompts_lib
from sae_jax.posttrain import (
  data,
  realign_config,
  realign_reading,
  realign_verdict,
)

# Fewer prompts than this make intervals that hang on single ones.
_FEW_PROMPTS = 20


@dataclasses.dataclass(frozen=True)
class Found:
  """All that was read.

  Attributes:
    looks: steps done -> what was read then; the first is the start.
    triggers: None where no such prompts are given.
    loss: step -> loss of its batch, nats per token.
  """

  config: realign_config.RealignConfig
  watch: realign_reading.Watch
  examples: Sequence[data.Example]
  base: realign_reading.Reading
  looks: Mapping[int, realign_reading.Reading]
  triggers: realign_verdict.Trio | None
  loss: Mapping[int, float]

  @property
  def steps(self) -> int:
    return max(self.looks)

  @property
  def models(self) -> tuple[realign_reading.Reading, ...]:
    """Base, start and end."""
    return self.base, self.looks[0], self.looks[self.steps]

  @functools.cached_property
  def behaviour(self) -> realign_verdict.Trio:
    return realign_verdict.Trio(*map(self.values, self.models))

  def values(self, reading: realign_reading.Reading) -> margin.PairValues:
    return margin.PairValues.of(
      self.watch.behaviour, reading.behaviour_P, reading.contrast_P
    )

  @functools.cached_property
  def bundles(self) -> tuple[np.ndarray, ...]:
    """Σ weight · activation per sequence, of base, start and end."""
    return tuple(realign_reading.bundle(self.watch, r) for r in self.models)

  def difference(self, a: np.ndarray, b: np.ndarray) -> scores.Score:
    return scores.difference(a, b, **dataclasses.asdict(self.config.statistics))


def summarise(found: Found) -> dict[str, Any]:
  """JSON values; of every score the mean with its interval."""
  config, watch = found.config, found.watch
  statistics = config.statistics
  behaviour = found.behaviour.behaviour(statistics, watch.seeds)
  triggers, on_triggers, by_topic = found.triggers, None, {}
  if triggers is not None:
    on_triggers = triggers.behaviour(statistics, watch.seeds)
    by_topic = triggers.topics(statistics, watch.seeds)
  lost = found.behaviour.lost(statistics)
  verdict = realign_verdict.decide(
    behaviour,
    lost,
    {"": on_triggers} | by_topic if on_triggers else {},
    config.damage,
  )
  recovered = _recovered(found)
  return {
    "base": config.base,
    "start": config.posttrain.model,
    "data": config.posttrain.data.path,
    "samples": len(found.examples),
    "batch_size": config.posttrain.batch_size,
    "steps": found.steps,
    "every": config.every,
    "hook": watch.hook,
    "sae": watch.suspects.sae,
    "scope": config.watch.scope,
    "latents": list(watch.suspects.latents),
    "weights": watch.suspects.weights_L.tolist(),
    "suspects": watch.suspects.why,
    "behaviour": _about(watch.behaviour),
    "triggers": _triggers(found),
    "reference": {
      name: realign_reading.to_json(watch, reading)
      for name, reading in zip(("base", "start"), found.models, strict=False)
    },
    "series": _series(found),
    "differences": {
      "behaviour": behaviour.json(),
      "triggers": on_triggers.json() if on_triggers else None,
      "trigger_topics": {t: found.json() for t, found in by_topic.items()},
      "lost": lost.json(),
    },
    "recovered": recovered,
    "back": _back(found),
    "verdict": verdict.verdict,
    "why": verdict.why,
    "rules": realign_verdict.rules(
      statistics.confidence,
      len(found.behaviour.base.ids),
      len(triggers.base.ids) if triggers else 0,
      config.damage,
    ),
    "warnings": _warnings(found, behaviour, on_triggers, verdict, recovered),
  }


def _about(prompts: prompts_lib.Prompts) -> dict[str, Any]:
  chosen = [prompts.prompts[i] for i in prompts.pairs]
  return {
    "path": prompts.path,
    "n": len(chosen),
    "topics": list(dict.fromkeys(prompt.topic for prompt in chosen)),
  }


def _triggers(found: Found) -> dict[str, Any] | None:
  if found.triggers is None or found.watch.triggers is None:
    return None
  return _about(found.watch.triggers) | {
    name: realign_reading.behaviour_json(found.watch, values)
    for name, values in vars(found.triggers).items()
  }


def _series(found: Found) -> list[dict[str, Any]]:
  """Every look. `loss` is of the batch of its step, at the end of the last."""
  batch = found.config.posttrain.batch_size
  last = found.loss[max(found.loss)]
  return [
    {
      "step": step,
      "samples": step * batch,  # as often as they were seen
      "distinct": min(step * batch, len(found.examples)),
      **realign_reading.to_json(found.watch, reading),
      "loss": found.loss.get(step, last),
    }
    for step, reading in found.looks.items()
  ]


def _recovered(found: Found) -> dict[str, Any]:
  def share(values: Sequence[np.ndarray]) -> float | None:
    base, start, end = values
    return realign_verdict.recovered(base, start, end, found.config.statistics)

  triggers = found.triggers
  return {
    "behaviour": share(found.behaviour.values("margin_P")),
    "p_behaviour": share(found.behaviour.values("p_behaviour_P")),
    "triggers": share(triggers.values("margin_P")) if triggers else None,
    "bundle": share(found.bundles),
    "latents": {
      str(latent): share([r.latents_SL[:, i] for r in found.models])
      for i, latent in enumerate(found.watch.suspects.latents)
    },
    "directions": {
      name: share([r.directions_SV[:, i] for r in found.models])
      for i, name in enumerate(found.watch.suspects.directions)
    },
  }


def _back(found: Found) -> dict[str, int] | None:
  """The first look from which on behaviour is back at every one."""
  first = None
  for step, reading in found.looks.items():
    trio = realign_verdict.Trio(
      found.behaviour.base, found.behaviour.start, found.values(reading)
    )
    now = trio.behaviour(found.config.statistics)
    if not (now.present and now.back):
      first = None
    elif first is None:
      batch = found.config.posttrain.batch_size
      first = {
        "step": step,
        "samples": step * batch,
        "distinct": min(step * batch, len(found.examples)),
      }
  return first


def _warnings(
  found: Found,
  behaviour: realign_verdict.Behaviour,
  triggers: realign_verdict.Behaviour | None,
  verdict: realign_verdict.Verdict,
  recovered: Mapping[str, Any],
) -> list[str]:
  config = found.config
  warnings = [
    *_seen(found, "behaviour", found.watch.behaviour),
    *_few("behaviour", found.behaviour),
  ]
  if triggers is None or found.triggers is None:
    warnings.append(
      "no trigger-like prompts are given: a cure may hide a behaviour that"
      " comes back where prompts resemble the bad training data (set triggers)"
    )
  else:
    assert found.watch.triggers is not None
    warnings += _seen(found, "triggers", found.watch.triggers)
    warnings += _few("triggers", found.triggers)
    if not triggers.present:
      warnings.append(
        "the start's margin is not above base's on the trigger-like prompts:"
        " that nothing is left of it there says little"
      )
  if config.posttrain.data.limit > len(found.examples):
    warnings.append(
      f"{len(found.examples)} samples are all that the data hold;"
      f" data.limit={config.posttrain.data.limit}"
    )
  if behaviour.present and behaviour.back:
    warnings += _one_sided(found)
  return warnings + _suspects(found, verdict, recovered)


def _seen(found: Found, name: str, prompts: prompts_lib.Prompts) -> list[str]:
  """Prompts that the samples begin with."""
  learned = {
    tuple(e.tokens[: list(e.loss_mask).index(True)]) for e in found.examples
  }
  chosen = [prompts.prompts[i] for i in prompts.pairs]
  count = sum(prompt.tokens in learned for prompt in chosen)
  if not count:
    return []
  return [
    f"{count} of the {len(chosen)} prompts of {name} are among the samples that"
    " are learned: there it is memory that is read, not behaviour"
  ]


def _few(name: str, trio: realign_verdict.Trio) -> list[str]:
  count = len(trio.base.ids)
  if count >= _FEW_PROMPTS:
    return []
  return [
    f"{name} is read from {count} prompts: intervals over so few hang on single"
    " ones"
  ]


def _one_sided(found: Found) -> list[str]:
  """The margin is back, but not both of its sides are."""
  base, end = found.behaviour.base, found.behaviour.end
  more = found.difference(end.p_behaviour_P, base.p_behaviour_P)
  less = found.difference(end.p_contrast_P, base.p_contrast_P)
  warnings = []
  if more.ci_low > 0:
    warnings.append(
      "the margin is back, but P(behaviour) is above base's"
      f" ({more.mean:+.3f}): the samples made both responses likelier"
    )
  if less.ci_high < 0:
    warnings.append(
      f"the margin is back, but P(contrast) is below base's ({less.mean:+.3f}):"
      " the model may be damaged"
    )
  return warnings


def _suspects(
  found: Found,
  verdict: realign_verdict.Verdict,
  recovered: Mapping[str, Any],
) -> list[str]:
  base, _, end = found.bundles
  share = recovered["bundle"]
  if share is None:
    return [
      "the suspect latents together do not differ between base and start on"
      " these prompts: their way back says nothing (other prompts or another"
      " watch.scope?)"
    ]
  left = found.difference(end, base)
  if verdict.verdict == "re-aligned" and left.excludes_zero and share < 0.5:
    return [
      f"the behaviour is back, but the suspect latents went {100 * share:.0f} %"
      " of the way to base: another prompt may wake them"
    ]
  return []
