# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the compile benchmarks do around a compiler: cases, failures, tables."""

import importlib
import json
import pathlib

import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
  monkeypatch.syspath_prepend(_FOLDER)
  return importlib.import_module


def test_a_case_may_have_its_own_shapes(module):
  parsed = module("aot")._parsed
  assert parsed("v5e:4x4/1x16") == {
    "topology": "v5e:4x4",
    "data": 1,
    "latent": 16,
  }
  assert parsed("v5p:8x8x8/2x256/1048576x8192") == {
    "topology": "v5p:8x8x8",
    "data": 2,
    "latent": 256,
    "latents": 1048576,
    "d_model": 8192,
  }


@pytest.mark.parametrize(
  "case", ["v5e:4x4", "v5e:4x4/16", "v5e:4x4/1x16/8", "8/1x8/1x2/3x4"]
)
def test_a_malformed_case_is_refused(module, case):
  with pytest.raises(SystemExit, match="TOPOLOGY/DATAxLATENT"):
    module("aot")._parsed(case)


def test_a_program_that_does_not_fit_is_a_row_not_the_end(module, tmp_path):
  child = module("child")
  script = tmp_path / "script.py"
  script.write_text(
    "import sys\n"
    "raise SystemExit('Ran out of memory in memory space hbm. Used 20.05G of"
    " 15.75G hbm. Exceeded hbm capacity by 4.30G.\\nlong report')\n"
  )
  case = {"topology": "v5e:4x4", "keep": None}
  (result,) = child.run(str(script), case)
  assert result == {
    "case": case,
    "error": "does not fit: 20.05G of 15.75G of memory",
  }


def test_a_child_looks_for_no_accelerator(module, tmp_path):
  script = tmp_path / "script.py"
  script.write_text(
    "import json, os\n"
    "print(json.dumps([{'platforms': os.environ['JAX_PLATFORMS']}]))\n"
  )
  (result,) = module("child").run(str(script), {})
  assert result["platforms"] == "cpu"
  assert result["wall_s"] >= 0


def test_a_child_answers_with_its_results_and_its_memory(
  module, capsys, monkeypatch
):
  child = module("child")
  monkeypatch.setenv("XLA_FLAGS", "--one")

  def compile_and_read(case, directory):
    (directory / "1.old.txt").write_text("program")
    return [{"case": case, "text": child.newest_dump(directory, "old.txt")}]

  child.answer({"keep": None}, compile_and_read)
  (result,) = json.loads(capsys.readouterr().out)
  assert result["text"] == "program"
  assert result["peak_rss"] > 1 << 20


def test_sizes_are_in_powers_of_two(module):
  size = module("aot_tables").size
  assert [size(1 << 24), size(131072), size(1000)] == ["16 M", "128 K", "1000"]


def test_a_pass_reads_its_weights_and_scores(module):
  harvest = module("aot_harvest")
  case = {"model": "8b", "data": 1, "latent": 1, "layers": 1, "batch": 1}
  short, long = (
    harvest.moved_bytes(case | {"context": n}) for n in (1024, 2048)
  )
  # Weights of one of Llama 3 8B's blocks, in bfloat16.
  block = 2 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
  assert short > block
  # Twice the tokens; the scores are squares.
  scores = 12 * 32 * 1024**2
  assert long - block == 2 * (short - block) + 2 * scores


def test_a_harvest_is_predicted_from_its_program(module):
  harvest = module("aot_harvest")
  case = {"model": "8b", "topology": "v5e:4x4", "data": 16, "latent": 1}
  case |= {"layers": 16, "batch": 64, "context": 1024}
  result = {"case": case, "flops": 197e12, "collectives": []}
  overlapped, serial = harvest.predicted_seconds(result)
  assert overlapped == 1
  assert serial == 1 + harvest.moved_bytes(case) / 820e9
