# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the methods, arms and latents of a diff are called on the page."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sae_jax.report import diff_entry, latents, say
from sae_jax.report.diff_entry import Diff, Part

# Scopes as they stand after "mean activation over".
SCOPES = {
  "prompt": "the prompt's tokens",
  "prompt_last": "the last token of every prompt",
  "response": "the tokens of the shared responses",
  "all": "all tokens of prompts and responses",
}


@dataclasses.dataclass(frozen=True)
class Method:
  """How a method is named, what its score is, and how it is found."""

  title: str
  score: str  # heading of the score's column
  about: str
  signed: bool = True  # whether a low score means something


_METHODS = {
  "frozen": Method(
    "Frozen dictionary",
    "difference",
    "One dictionary, trained on the base model, reads every model on the same"
    " tokens; the score is the difference of mean activations, beyond the"
    " control's where there is one (Wang et al. 2025).",
  ),
  "frozen_plain": Method(
    "Frozen dictionary, no control",
    "difference",
    "The same difference from the base model, nothing subtracted: much of it is"
    " what any fine-tuning does.",
  ),
  "frozen_gradient": Method(
    "Frozen dictionary × gradient",
    "difference × gradient",
    "The difference times the effect that the latent's direction has on the"
    " margin between the two responses, to first order.",
  ),
  "attribution": Method(
    "Δ-attribution",
    "attribution",
    "One model only: gradient of the completion's loss times the latent's"
    " deviation from its mean, behaviour minus contrast completion (OpenAI,"
    " December 2025).",
  ),
  "linear": Method(
    "Linear baseline",
    "cosine",
    "Cosine of the decoder row and the difference of mean activations.",
  ),
  "lens": Method(
    "Activation-difference lens",
    "cosine",
    "Cosine of the decoder row and the mean difference on the first tokens of"
    " unrelated text (Minder et al. 2025).",
  ),
  "delta": Method(
    "Dictionary of differences",
    "mean activation",
    "A dictionary trained on tuned − base activations; its latents are its own,"
    " not those of the base's dictionary.",
    signed=False,
  ),
  "crosscoder": Method(
    "Crosscoder",
    "exclusiveness",
    "One dictionary of the base's and the arm's rows side by side: 1 for a"
    " latent of the arm alone, −1 for one of the base alone, 0 for one of both."
    " Relative decoder norms, lowered by Latent Scaling where the other model"
    " has the latent after all (Minder et al. 2025).",
  ),
  "stagewise": Method(
    "Stage-wise",
    "rotation",
    "The dictionary fine-tuned in both orders; the score is 1 − the larger"
    " cosine over the two model steps (Bricken et al. 2024).",
    signed=False,
  ),
  "match": Method(
    "Matching",
    "1 − best cosine",
    "The best partner in a dictionary trained apart; a high score has none.",
    signed=False,
  ),
}


def method(name: str) -> Method:
  return _METHODS.get(name, Method(name, "score", ""))


def arm(name: str) -> str:
  """The arm as it is named in running text."""
  if name == diff_entry.JOINT:
    return "all tuned arms together"
  if name == diff_entry.NULL:
    return "base, captured again"
  if name == diff_entry.PARTNER:
    return "the other dictionary"
  return name


def part(found: Part) -> str:
  """Method and arm of a part."""
  return f"{method(found.method).title}: {arm(found.arm)}"


def compared(diff: Diff, found: Part) -> str:
  """Which difference the part is about."""
  if found.arm == diff_entry.JOINT:
    names = [a.name for a in diff.arms if a.role == "tuned"]
    return f"mean of {', '.join(names)}, each − its control or the base"
  if found.arm == diff_entry.PARTNER:
    return "this dictionary against the other"
  if found.control:
    return f"({found.arm} − base) − ({found.control} − base)"
  return f"{found.arm} − base"


def reading(card: dict[str, Any] | None, tokens: int = 4) -> str:
  """What a latent seems to mean: its label, else the tokens it promotes."""
  if card is None:
    return ""
  if text := (card.get("label") or {}).get("text"):
    return text
  promoted = (card.get("logit_lens") or {}).get("promoted") or []
  return " · ".join(
    "".join(text for text, _ in visible(token))
    for token, _ in promoted[:tokens]
  )


def visible(token: str) -> list[tuple[str, bool]]:
  """A token that stands alone: see `latents.visible`; no space around it."""
  return latents.visible(token.strip(" ") or token)


def words(
  found: Sequence[tuple[str, float]], most: int
) -> list[tuple[list[tuple[str, bool]], str]]:
  """Tokens that stand in a row, each with its value."""
  return [(visible(token), signed(value)) for token, value in found[:most]]


def signed(value: float | None, digits: int = 3) -> str:
  """A difference: always with its sign."""
  text = say.number(value, digits)
  if value is None or value == 0:
    return text
  return f"+{text}" if value > 0 else text.replace("-", "−", 1)


def plural(count: int, noun: str) -> str:
  return f"{count:,} {noun}" + ("" if count == 1 else "s")
