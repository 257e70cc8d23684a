# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Config files, overrides, and what is said when they are wrong."""

import dataclasses
from typing import Literal

import pytest

from sae_jax import config, errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
  rate: float = 0.1
  kind: Literal["a", "b"] = "a"
  aux: int | None = None
  names: tuple[str, ...] = ()

  def __post_init__(self):
    if self.rate <= 0:
      raise errors.InputError(f"rate={self.rate}: give a positive rate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  steps: int
  title: str = ""
  flag: bool = False
  inner: Inner = dataclasses.field(default_factory=Inner)
  several: tuple[Inner, ...] = ()

  def __post_init__(self):
    if self.flag != (self.inner.kind == "b"):
      raise errors.InputError("flag and kind b go together")


def test_overrides_are_typed_by_their_field():
  value = config.override(
    Outer(steps=1),
    [
      "steps=1e3",
      "title=12",
      "flag=true",
      "inner.rate=2",
      "inner.kind=b",
      "inner.aux=7",
      "inner.names=('x','y')",
    ],
  )
  assert value == Outer(
    steps=1000,
    title="12",
    flag=True,
    inner=Inner(rate=2.0, kind="b", aux=7, names=("x", "y")),
  )
  assert isinstance(value.inner.rate, float)
  assert config.override(value, ["inner.aux=None"]).inner.aux is None


@pytest.mark.parametrize("first", [0, 1])
def test_fields_that_only_fit_together_are_changed_together(first):
  both = ["flag=true", "inner.kind=b"]
  value = config.override(Outer(steps=1), both[first:] + both[:first])
  assert value.flag and value.inner.kind == "b"
  with pytest.raises(errors.InputError, match="go together"):
    config.override(Outer(steps=1), both[:1])


def test_of_a_field_given_twice_the_last_counts():
  assert config.override(Outer(steps=1), ["steps=2", "steps=3"]).steps == 3


@pytest.mark.parametrize(
  ("item", "expected"),
  [
    ("stepz=3", "did you mean 'steps'"),
    ("steps=many", "steps=many: expected int"),
    ("steps=1.5", "expected int"),
    ("flag=1", "expected bool"),
    ("inner.kind=c", "one of 'a', 'b'"),
    ("inner.rate=-1", "positive rate"),
    ("steps.x=1", "has no fields"),
    ("steps", "VALUE"),
    ("inner=3", "expected Inner"),
  ],
)
def test_a_wrong_override_names_field_and_remedy(item, expected):
  with pytest.raises(errors.InputError, match=expected):
    config.override(Outer(steps=1), [item])


def test_a_config_file_is_a_function(tmp_path):
  file = tmp_path / "c.py"
  file.write_text(
    "import dataclasses\nfrom sae_jax.mesh import MeshConfig\n"
    "def get_config():\n  return MeshConfig(data=2)\n"
  )
  from sae_jax import mesh

  value = config.load(str(file), mesh.MeshConfig, ["latent=4"])
  assert value == mesh.MeshConfig(data=2, latent=4)
  with pytest.raises(errors.InputError, match="this job takes Outer"):
    config.load(str(file), Outer)
  with pytest.raises(errors.InputError, match="no such file"):
    config.load(str(tmp_path / "none.py"), Outer)
  file.write_text("x = 1\n")
  with pytest.raises(errors.InputError, match="no get_config"):
    config.load(str(file), Outer)
  file.write_text("def get_config(:\n")
  with pytest.raises(errors.InputError, match="invalid syntax"):
    config.load(str(file), Outer)


def test_a_wrong_type_in_a_config_file_is_named():
  with pytest.raises(errors.InputError, match=r"inner\.rate = 'fast'"):
    config.check_types(
      Outer(steps=1, inner=dataclasses.replace(Inner()))
      and Outer(steps=1, inner=_unchecked_inner("fast"))
    )


def _unchecked_inner(rate):
  inner = Inner()
  object.__setattr__(inner, "rate", rate)
  return inner


def test_json_round_trip():
  value = Outer(steps=3, inner=Inner(names=("p", "q"), aux=5))
  as_json = config.to_dict(value)
  assert as_json["inner"]["names"] == ["p", "q"]
  assert config.from_dict(Outer, as_json) == value
  with pytest.raises(errors.InputError, match=r"inner\.what"):
    config.from_dict(Outer, {"steps": 1, "inner": {"what": 2}})
  with pytest.raises(errors.InputError, match="steps"):
    config.from_dict(Outer, {"title": "no steps"})


def test_json_round_trip_of_several():
  value = Outer(steps=3, several=(Inner(aux=5), Inner(names=("p",))))
  as_json = config.to_dict(value)
  assert as_json["several"][1]["names"] == ["p"]
  assert config.from_dict(Outer, as_json) == value
  as_json["several"][1]["aux"] = "many"
  with pytest.raises(errors.InputError, match=r"several\[1\]\.aux = .many."):
    config.from_dict(Outer, as_json)
