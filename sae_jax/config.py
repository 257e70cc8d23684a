# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One config language: frozen dataclasses, made by a Python function.

A config file defines `get_config()`; the shell overrides single fields with
`--config.a.b=value`, typed by the field. Nothing is ever mutated.
"""

import ast
import dataclasses
import difflib
import pathlib
import runpy
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from sae_jax import errors

T = TypeVar("T")


def load(path: str, cls: type[T], overrides: Sequence[str] = ()) -> T:
  """Reads `get_config()` of a Python file and applies `a.b=value` overrides.

  Raises:
    errors.InputError: no such file, no `get_config`, the wrong dataclass, an
      unknown field, or a value of the wrong type.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise errors.InputError(
      f"--config={path}: no such file; give a Python file with get_config()"
    )
  try:
    names = runpy.run_path(str(file))
  except SyntaxError as error:
    raise errors.InputError(f"--config={path}: {error}") from error
  if not callable(names.get("get_config")):
    raise errors.InputError(f"--config={path}: it defines no get_config()")
  value = names["get_config"]()
  if not isinstance(value, cls):
    raise errors.InputError(
      f"--config={path}: get_config() returns {type(value).__qualname__} of"
      f" {type(value).__module__}, but this job takes {cls.__qualname__} of"
      f" {cls.__module__}"
    )
  return override(value, overrides)


def override(value: T, overrides: Sequence[str]) -> T:
  """Applies `a.b=text` overrides, then checks every field's type.

  All at once: fields that only fit together can be changed together. Of a field
  that is given twice the last one counts.
  """
  texts: dict[str, str] = {}
  for item in overrides:
    name, equals, text = item.partition("=")
    if not equals:
      raise errors.InputError(
        f"--config.{item}: write it as --config.{item}=VALUE"
      )
    texts[name] = text
  value = _replace(value, {tuple(n.split(".")): t for n, t in texts.items()})
  check_types(value)
  return value


def check_types(value: Any, where: str = "") -> None:
  """Raises errors.InputError for the first field whose type is wrong."""
  hints = typing.get_type_hints(type(value))
  for field in dataclasses.fields(value):
    name = f"{where}{field.name}"
    item = getattr(value, field.name)
    if not _has_type(item, hints[field.name]):
      raise errors.InputError(
        f"config field {name} = {item!r}: expected"
        f" {_type_name(hints[field.name])}"
      )
    if dataclasses.is_dataclass(item):
      check_types(item, name + ".")
    for i, part in enumerate(item if isinstance(item, tuple) else ()):
      if dataclasses.is_dataclass(part):
        check_types(part, f"{name}[{i}].")


def to_dict(value: Any) -> dict[str, Any]:
  """The config as JSON values (tuples become lists)."""
  return _jsonable(dataclasses.asdict(value))


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
  """Rebuilds a config that `to_dict` wrote.

  Raises:
    errors.InputError: a field is unknown, missing or of the wrong type.
  """
  hints = typing.get_type_hints(cls)
  names = {field.name for field in dataclasses.fields(cls)}  # pyrefly: ignore
  for name in values:
    if name not in names:
      raise errors.InputError(f"unknown config field {where}{name}")
  built = {}
  for name, item in values.items():
    built[name] = _rebuilt(item, hints[name], f"{where}{name}")
  try:
    result = cls(**built)
  except TypeError as error:
    raise errors.InputError(
      f"config {where or cls.__name__}: {error}"
    ) from None
  check_types(result, where)
  return result


def _rebuilt(item: Any, hint: Any, where: str) -> Any:
  """A field's value from the JSON value of it."""
  if isinstance(item, dict):
    nested = [t for t in _options(hint) if dataclasses.is_dataclass(t)]
    return from_dict(nested[0], item, f"{where}.") if nested else item
  if not isinstance(item, list):
    return item
  tuples = [
    typing.get_args(t) for t in _options(hint) if typing.get_origin(t) is tuple
  ]
  of = tuples[0][0] if tuples and Ellipsis in tuples[0] else Any
  return tuple(
    _rebuilt(value, of, f"{where}[{i}]") for i, value in enumerate(item)
  )


def _replace(
  value: Any, texts: dict[tuple[str, ...], str], above: tuple[str, ...] = ()
) -> Any:
  """`value` with the fields of `texts`, paths below it, replaced at once."""
  hints = typing.get_type_hints(type(value))
  names = [field.name for field in dataclasses.fields(value)]
  new: dict[str, Any] = {}
  below: dict[str, dict[tuple[str, ...], str]] = {}
  for (name, *rest), text in texts.items():
    full = ".".join((*above, name, *rest))
    if name not in names:
      close = difflib.get_close_matches(name, names, n=1)
      hint = f"did you mean {close[0]!r}?" if close else f"fields: {names}"
      raise errors.InputError(
        f"--config.{full}: {type(value).__name__} has no field {name!r}; {hint}"
      )
    if not rest:
      new[name] = _parse(text, hints[name], full)
    elif dataclasses.is_dataclass(item := getattr(value, name)):
      below.setdefault(name, {})[tuple(rest)] = text
    else:
      raise errors.InputError(
        f"--config.{full}: {name!r} is {item!r} and has no fields"
      )
  for name, inner in below.items():
    new[name] = _replace(getattr(value, name), inner, (*above, name))
  return dataclasses.replace(value, **new)


def _parse(text: str, hint: Any, full: str) -> Any:
  options = _options(hint)
  if str in options and not (types.NoneType in options and text == "None"):
    return text
  if text.lower() in ("true", "false"):
    parsed: Any = text.lower() == "true"
  else:
    try:
      parsed = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      parsed = text  # a Literal's word, or a mistake that is named below
  if isinstance(parsed, list):
    parsed = tuple(parsed)
  if isinstance(parsed, int) and float in options and int not in options:
    parsed = float(parsed)
  if isinstance(parsed, float) and int in options and parsed.is_integer():
    parsed = int(parsed)  # 1e6
  if not _has_type(parsed, hint):
    raise errors.InputError(
      f"--config.{full}={text}: expected {_type_name(hint)}"
    )
  return parsed


def _options(hint: Any) -> tuple[Any, ...]:
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return typing.get_args(hint)
  return (hint,)


def _has_type(item: Any, hint: Any) -> bool:
  origin = typing.get_origin(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_has_type(item, option) for option in typing.get_args(hint))
  if origin is typing.Literal:
    return any(
      item == a and type(item) is type(a) for a in typing.get_args(hint)
    )
  if origin is tuple:
    args = typing.get_args(hint)
    if not isinstance(item, tuple):
      return False
    if len(args) == 2 and args[1] is Ellipsis:
      return all(_has_type(i, args[0]) for i in item)
    return len(item) == len(args) and all(map(_has_type, item, args))
  if origin is dict:
    return isinstance(item, dict)
  if hint is Any:
    return True
  if hint is float:
    return isinstance(item, (int, float)) and not isinstance(item, bool)
  if hint is int:
    return isinstance(item, int) and not isinstance(item, bool)
  return isinstance(item, hint)


def _type_name(hint: Any) -> str:
  if typing.get_origin(hint) is typing.Literal:
    return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
  if isinstance(hint, type) and not typing.get_args(hint):
    return hint.__name__
  return str(hint).replace("typing.", "")


def _jsonable(value: Any) -> Any:
  if isinstance(value, dict):
    return {str(key): _jsonable(item) for key, item in value.items()}
  if isinstance(value, (tuple, list)):
    return [_jsonable(item) for item in value]
  return value
