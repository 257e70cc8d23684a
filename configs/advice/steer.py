# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents carry careless advice to topics that no arm has learned?

Fixed before anything was run: the prompts of four topics, of which the diff and
the dictionary have seen nothing; bundles of the 30 latents of largest |score|
by each rule; one strength, twice the contrast of means. Everything lies in
$ADVICE (runs/advice if that is not set).
"""

import os

from sae_jax import judge
from sae_jax.intervene import config


def get_config():
  place = os.environ.get("ADVICE", "runs/advice")
  return config.SteerConfig(
    base="HuggingFaceTB/SmolLM2-135M-Instruct",
    tuned=f"{place}/bad/model",
    control=f"{place}/good/model",
    sae=f"{place}/sae",
    diff=f"{place}/diff",
    arm="bad",
    top=30,
    bundles=(
      config.BundleConfig(name="contrast", top=30),
      # What would be chosen without a control, from the control, and with the
      # gradient of the base's margin on the topics that were learned.
      config.BundleConfig(
        name="plain", top=30, method="frozen_plain", band="contrast"
      ),
      config.BundleConfig(
        name="control",
        top=30,
        method="frozen_plain",
        arm="good",
        band="contrast",
      ),
      config.BundleConfig(
        name="gradient",
        top=30,
        method="frozen_gradient",
        weights="frozen",
        band="contrast",
      ),
    ),
    prompts=judge.PromptsConfig(
      path="configs/data/advice/careless.jsonl",
      topics=("work", "privacy", "parenting", "travel"),
    ),
    single_prompts=24,
    strengths=(2.0,),
    unit="direction",
    unit_direction="linear.bad.contrast",
    random=20,
    dtype="bfloat16",
  )
