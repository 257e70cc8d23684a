# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The house has floors: a module imports only from lower ones."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "sae_jax"

# Low to high. Rooms of one layer do not import one another.
LAYERS = (
  ("errors", "version"),
  ("config", "artifacts", "interrupt", "mesh", "processes"),
  ("metrics", "endpoint"),
  ("ops",),
  ("sae", "store", "lm"),
  ("formats",),
  ("stream", "checkpoint", "judge", "interpret"),
  ("harvest", "train", "evaluate", "diff", "intervene", "posttrain", "monitor"),
  ("report", "submit"),
  ("jobs",),
  ("__main__",),
  ("__init__",),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
FORBIDDEN = {"launch", "configs", "tests", "benchmarks", "torch", "pickle"}


def room_of(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST):
  """Yields (line, top-level package, room of ours or None)."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        parts = alias.name.split(".")
        room = parts[1] if parts[0] == "sae_jax" and len(parts) > 1 else None
        yield node.lineno, parts[0], room
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"line {node.lineno}: relative import"
      parts = (node.module or "").split(".")
      if parts == ["sae_jax"]:
        for alias in node.names:
          yield node.lineno, "sae_jax", alias.name
      else:
        room = parts[1] if parts[0] == "sae_jax" else None
        yield node.lineno, parts[0], room


def modules():
  return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.name))
def test_a_module_imports_only_lower_layers(path):
  room = room_of(path)
  assert room in RANK, f"{room} is in no layer of the design"
  for line, package, target in imported(ast.parse(path.read_text())):
    assert package not in FORBIDDEN, f"{path}:{line} imports {package}"
    if package == "sae_jax" and target is not None and target != room:
      assert target in RANK, f"{path}:{line} imports unknown room {target}"
      assert RANK[target] < RANK[room], (
        f"{path}:{line}: {room} imports {target}, which is not below it"
      )


def test_no_module_has_a_name_that_says_nothing():
  names = {path.stem for path in modules()}
  assert not names & {"utils", "util", "common", "helpers", "base", "misc"}


def test_only_one_file_imports_orbax():
  users = {
    path.name
    for path in modules()
    for _, package, _ in imported(ast.parse(path.read_text()))
    if package == "orbax"
  }
  assert users <= {"checkpoint.py"}
