# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The verdict of a screen: what the latents do, beside what random ones do."""

from sae_jax.report import (
  diff_words,
  page,
  say,
  scores,
  steer_beside,
  steer_words,
  verdict_section,
)
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

_BUNDLES = 3  # lines of the verdict


def section(finding: Finding) -> page.Section:
  return verdict_section.make(finding, _blocks, "What they do")


def _blocks(finding: Finding) -> list[page.Block]:
  return [
    {
      "kind": "verdict",
      "lines": lines(finding),
      "controls": _random(finding),
    },
    *steer_beside.blocks(finding),
    page.text(limits(finding)),
  ]


def lines(finding: Finding) -> list[dict[str, str]]:
  """One sentence on the single latents, one on each bundle."""
  singles = steer_words.kind(finding, "latent")
  found = [_singles(finding, singles)] if singles else []
  bundles = steer_words.strongest(steer_words.kind(finding, "bundle"))
  if not found and not bundles:
    bundles = steer_words.strongest(steer_words.kind(finding, "direction"))
  return found + [_sentence(finding, row) for row in bundles[:_BUNDLES]]


def _singles(finding: Finding, singles: list[Row]) -> dict[str, str]:
  counts = steer_words.counts(finding)
  one_way = sum(row.get("ways") in ("up", "down") for row in singles)
  base, tuned = steer_words.base(finding), steer_words.tuned(finding)
  number = counts["causal"]
  total = diff_words.plural(sum(counts.values()), "latent")
  if number:
    words = f"{number:,} of {total} {'is' if number == 1 else 'are'} causal:"
    words += f" added to {base}, the behaviour appears;"
    words += f" {steer_words.removed(finding)} {tuned}, it fades."
  else:
    words = f"none of {total} is causal by itself."
  if one_way:
    words += f" {one_way:,} more {'works' if one_way == 1 else 'work'} one way"
    words += " only."
  words += f" {counts['correlated']:,} changed without being causal"
  words += f" (correlated), {counts['inert']:,} did neither (inert)."
  best = steer_words.strongest(singles)[0]
  return {
    "arm": "one latent at a time",
    "text": words,
    "behaviour": f"Strongest, {steer_words.title(best)}: "
    f"{_effects(finding, best)}",
  }


def _sentence(finding: Finding, row: Row) -> dict[str, str]:
  verdict = row.get("verdict") or "without a verdict"
  words = f"{verdict}, works {steer_words.ways(row)}."
  shares = []
  for way, verb in (("up", "makes up"), ("down", "takes back")):
    share = steer_words.share(finding, row, way)
    if share is None:
      continue
    where = steer_words.act(finding, way)
    does = f"{verb} {scores.percent(share)}"
    if share < 0:
      does = f"moves the other way by {scores.percent(-share)}"
    shares.append(f"{where} it {does}")
  if shares:
    known = "; ".join(shares)
    words += f" {_capital(known)} of the whole shift."
  return {
    "arm": steer_words.title(row),
    "text": words,
    "behaviour": _capital(_effects(finding, row)),
  }


def _capital(words: str) -> str:
  return words[:1].upper() + words[1:]


def _effects(finding: Finding, row: Row) -> str:
  """Margins, then both probabilities: a margin can rise by one dying."""
  words = []
  for way in steer_words.WAYS:
    found = row.get(way)
    if not found:
      continue
    start = (finding.found.get("unsteered") or {}).get(
      "base" if way == "up" else "tuned"
    ) or {}
    words.append(
      f"{steer_words.act(finding, way)}: margin"
      f" {scores.with_bounds(found.get('effect'))}, P(behaviour)"
      f" {scores.chance(start.get('p_behaviour'))} →"
      f" {scores.chance(found.get('p_behaviour'))}, P(contrast)"
      f" {scores.chance(start.get('p_contrast'))} →"
      f" {scores.chance(found.get('p_contrast'))}"
    )
  if not words:
    return "not measured."
  return f"{'; '.join(words)}."


def _random(finding: Finding) -> str:
  """What interventions do that should do nothing."""
  words = []
  for name, found in list(steer_words.chance(finding).items())[:2]:
    ends = [
      f"{diff_words.signed(low, 2)} to {diff_words.signed(high, 2)}"
      f" {steer_words.verb(finding, way)}"
      for way in steer_words.WAYS
      for low, high in [steer_words.reach(found, way)]
    ]
    words.append(f"{found['n']:,} {name}: {', '.join(ends)}")
  if not words:
    return (
      "No random interventions were run, so nothing here can be called outside"
      " of chance: set config.random above 0."
    )
  said = f"What chance does, at the same norm. {'; '.join(words)}."
  called = (finding.found.get("counts") or {}).get("random_called_causal")
  if called is not None:
    said += f" The same rule calls {sum(called.values()):,} of the random ones"
    said += " causal."
  return said


def limits(finding: Finding) -> str:
  """What the figures rest on, and what they do not show."""
  found = finding.found
  prompts = found.get("prompts") or {}
  topics = prompts.get("topics") or ()
  words = f"{diff_words.plural(prompts.get('n') or 0, 'pair')} of responses"
  if (single := prompts.get("single")) and single != prompts.get("n"):
    words += f" (single latents: {single:,})"
  if topics:
    words += f" on {diff_words.plural(len(topics), 'topic')}"
  words += scores.seeds(found.get("seeds"))
  words += ". The margin is log P(behaviour) − log P(contrast) per token, from"
  words += " the first token in which the two differ"
  words += f"; a strength of 1 is {steer_words.unit(finding)}, applied to"
  where = found.get("where") or "all"
  words += f" {where} tokens"
  if hook := found.get("hook"):
    words += f" at {', '.join(found.get('hooks') or [hook])}"
  words += ". Of each the strength is chosen that moves the margin most while"
  words += " the two answers together lose no more than"
  budget = found.get("damage", finding.settings.get("damage"))
  words += f" {say.number(budget)} nats per token." if budget else " allowed."
  words += " Chosen on the same pairs as measured, for random ones alike. How"
  words += " likely given answers are says little about what is said freely:"
  words += (
    " see the sampled answers."
    if found.get("generation")
    else " no answers were sampled."
  )
  return words
