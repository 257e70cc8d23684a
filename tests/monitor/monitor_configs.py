# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs of the job on the models that the tests write."""

import dataclasses

from sae_jax import judge
from sae_jax.monitor import config


def whole(place):
  """Both groups of `conftest.place`."""
  run, one, two = config.RunConfig, place / "one", place / "two"
  prompts = judge.PromptsConfig(path=str(place / "prompts.jsonl"))
  positive = dataclasses.replace(prompts, path=str(place / "positive.jsonl"))
  runs = [
    run(name="bad", models=(str(one / "bad"),), steps=(30,), dose=1.0),
    run(name="good", models=(str(one / "good"),), role="benign"),
    *(
      run(
        name=f"calm {i}",
        series=str(one / "series" / f"calm {i}"),
        role="benign",
      )
      for i in range(3)
    ),
    *(
      run(name=f"bad {i}", series=str(one / "series" / f"bad {i}"))
      for i in range(2)
    ),
    *(
      run(
        name=f"dose_{d:02d}",
        models=(str(one / f"dose_{d:02d}"),),
        steps=(30,),
        dose=d / 100,
      )
      for d in (5, 25, 50)
    ),
  ]
  groups = (
    config.GroupConfig(
      name="one",
      base=str(one / "base"),
      diff=str(one / "diff"),
      prompts=prompts,
      runs=tuple(runs),
      selection=("bad", "good"),
      persona=config.PersonaConfig(positive=positive, negative=prompts),
    ),
    config.GroupConfig(
      name="two",
      base=str(two / "base"),
      diff=str(two / "diff"),
      prompts=prompts,
      runs=(
        run(
          name="calm", models=(str(two / "calm"),), steps=(30,), role="benign"
        ),
        run(name="odd", models=(str(two / "odd"),), steps=(30,), role="benign"),
        run(name="bad 2", models=(str(two / "bad 2"),), steps=(30,)),
      ),
    ),
  )
  return config.MonitorConfig(
    groups=groups,
    behaviour=config.BehaviourConfig(threshold=0.2),
    false_alarm_rate=0.2,
    statistics=config.StatisticsConfig(resamples=200, shuffles=5),
    mesh=config.mesh_lib.MeshConfig(data=2, latent=4),
  )


def small(config_of_both, **changes):
  """Group one, two runs of it."""
  group = config_of_both.groups[0]
  kept = tuple(r for r in group.runs if r.name in ("calm 0", "bad 0"))
  group = dataclasses.replace(group, runs=kept, selection=(), **changes)
  return dataclasses.replace(config_of_both, groups=(group,))
