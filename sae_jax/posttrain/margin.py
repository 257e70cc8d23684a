# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How much likelier a model finds one kind of response than another."""

from collections.abc import Callable

import numpy as np

from sae_jax import lm
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import records


def make_look(
  config: config_lib.PosttrainConfig, tokenizer: tokenizer_lib.Tokenizer
) -> Callable[[lm.LanguageModel], dict[str, float]]:
  """`look(model)` for `config.eval`, which must be given.

  `eval/margin` is the mean over records of mean-token log p(behaviour) minus
  mean-token log p(contrast), in nats; `eval/margin_se` its standard error;
  `eval/behaviour` and `eval/contrast` are the two means. Only differences
  between models on one file mean something: the level depends on the length
  and wording of the responses.

  Raises:
    errors.InputError: see `records.pairs`.
  """
  assert config.eval is not None
  pairs = records.pairs(config.eval, config.data, tokenizer)
  batch_size = config.eval.batch_size
  prompts = [pair.prompt for pair in pairs for _ in range(2)]
  responses = [
    response for pair in pairs for response in (pair.behaviour, pair.contrast)
  ]

  def look(model: lm.LanguageModel) -> dict[str, float]:
    logps = lm.completion_logprobs(
      model, prompts, responses, batch_size=batch_size
    )
    mean_N2 = np.asarray([logp.mean() for logp in logps]).reshape(-1, 2)
    margin_N = (mean_N2[:, 0] - mean_N2[:, 1]).astype(np.float64)
    found = {
      "eval/margin": float(margin_N.mean()),
      "eval/behaviour": float(mean_N2[:, 0].mean()),
      "eval/contrast": float(mean_N2[:, 1].mean()),
    }
    if len(margin_N) > 1:
      spread = margin_N.std(ddof=1) / np.sqrt(len(margin_N))
      found["eval/margin_se"] = float(spread)
    return found

  return look
