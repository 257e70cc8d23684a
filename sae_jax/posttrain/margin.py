# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuning run looks at: `judge.margin`, as metrics."""

from collections.abc import Callable

from sae_jax import lm
from sae_jax.judge import config as judge_config
from sae_jax.judge import margin
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.posttrain import config as config_lib


def make_look(
  config: config_lib.PosttrainConfig, tokenizer: tokenizer_lib.Tokenizer
) -> Callable[[lm.LanguageModel], dict[str, float]]:
  """`look(model)` for `config.eval`, which must be given.

  `eval/margin` is the mean over records of mean-token log p(behaviour) minus
  mean-token log p(contrast) from the first differing token on, in nats;
  `eval/margin_se` its standard error; `eval/behaviour` and `eval/contrast` are
  the two means. Prompts become tokens as those of `config.data` do.

  Raises:
    errors.InputError: the file cannot be read, a record is wrong, or none has
      both responses.
  """
  asked = config.eval
  assert asked is not None
  prompts = prompts_lib.load(
    judge_config.PromptsConfig(
      path=asked.path,
      chat=config.data.chat,
      system=config.data.system,
      behaviour=asked.behaviour,
      contrast=asked.contrast,
      topics=asked.topics,
      limit=asked.limit,
    ),
    tokenizer,
  )
  margin.paired(prompts)

  def look(model: lm.LanguageModel) -> dict[str, float]:
    values = margin.pair_margins(model, prompts, batch_size=asked.batch_size)
    found = margin.summarise(values).margin
    metrics = {
      "eval/margin": found.mean,
      "eval/behaviour": float(values.behaviour_P.mean()),
      "eval/contrast": float(values.contrast_P.mean()),
    }
    return metrics | ({"eval/margin_se": found.se} if found.n > 1 else {})

  return look
