# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Text becomes contexts that lose, double and reorder nothing."""

import dataclasses
import gzip
import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers

from sae_jax import errors
from sae_jax.lm import records, text, tokenizer

PAD, BOS, EOS = 256, 257, 258
TEMPLATE = (
  "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + ';' }}"
  "{% endfor %}"
)


def byte_tokenizer(bos=False, template=TEMPLATE):
  """One token per byte, so that a token sequence can be read."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {c: i for i, c in enumerate(alphabet)}
  backend = tokenizers.Tokenizer(models.BPE(vocab, []))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(["<pad>", "<bos>", "<eos>"])
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    pad_token="<pad>",
    bos_token="<bos>",
    eos_token="<eos>",
    add_bos_token=bos,
    chat_template=template,
  )
  return tokenizer.Tokenizer(fast, "bytes")


@pytest.fixture(scope="module")
def plain():
  return byte_tokenizer()


@pytest.fixture(scope="module")
def with_bos():
  return byte_tokenizer(bos=True)


def jsonl(path, rows):
  path.write_text("".join(json.dumps(r) + "\n" for r in rows))
  return str(path)


def shown(config, tok, **lane):
  return [tok.decode(c.tokens) for c in text.contexts(config, tok, **lane)]


DOCS = ["alpha beta", "g", "delta epsilon zeta", "", "eta"]


@pytest.fixture
def corpus(tmp_path):
  return jsonl(tmp_path / "c.jsonl", [{"text": d} for d in DOCS])


def test_packed_contexts_run_on_with_eos_between(corpus, plain):
  config = text.TextConfig(path=corpus, context_length=8)
  got = shown(config, plain)
  stream = "alpha beta<eos>g<eos>delta epsilon zeta<eos>eta<eos>"
  assert "".join(got) == stream
  lengths = [len(c.tokens) for c in text.contexts(config, plain)]
  assert lengths[:-1] == [8] * (len(lengths) - 1) and 0 < lengths[-1] <= 8


def test_packed_contexts_begin_with_bos_where_it_is_wanted(corpus, with_bos):
  config = text.TextConfig(path=corpus, context_length=8)
  got = shown(config, with_bos)
  assert all(c.startswith("<bos>") for c in got)
  stream = "alpha beta<eos>g<eos>delta epsilon zeta<eos>eta<eos>"
  assert "".join(got).replace("<bos>", "") == stream
  assert {
    len(c.tokens) for c in list(text.contexts(config, with_bos))[:-1]
  } == {8}


def test_unpacked_contexts_hold_one_document(corpus, plain, with_bos):
  config = text.TextConfig(path=corpus, context_length=8, packed=False)
  assert shown(config, plain) == [
    "alpha be", "ta", "g", "delta ep", "silon ze", "ta", "eta",
  ]  # fmt: skip
  assert shown(config, with_bos) == [
    f"<bos>{piece}"
    for piece in ("alpha b", "eta", "g", "delta e", "psilon ", "zeta", "eta")
  ]


def test_a_template_that_writes_bos_does_not_get_a_second(tmp_path):
  tok = byte_tokenizer(bos=True, template="<bos>" + TEMPLATE)
  row = {"messages": [{"role": "user", "content": "hello"}]}
  path = jsonl(tmp_path / "c.jsonl", [row, row])
  for packed in (True, False):
    config = text.TextConfig(path=path, context_length=8, packed=packed)
    assert shown(config, tok)[0] == "<bos>u:hello"
  assert shown(config, tok) == ["<bos>u:hello", "<bos>;"] * 2


def test_chat_goes_through_the_template_without_eos(tmp_path, plain):
  path = jsonl(
    tmp_path / "c.jsonl",
    [
      {
        "messages": [
          {"role": "user", "content": "hi"},
          {"role": "assistant", "content": "yo"},
        ]
      },
      {"messages": []},
      {"text": "plain", "messages": [{"role": "user", "content": "x"}]},
    ],
  )
  config = text.TextConfig(path=path, context_length=100)
  assert shown(config, plain) == ["u:hi;a:yo;u:x;"]
  config = dataclasses.replace(config, field="text", path=path)
  with pytest.raises(errors.InputError, match=r"c\.jsonl:1.*'text' is missing"):
    shown(config, plain)


def test_a_named_field_may_hold_text_or_chat(tmp_path, plain):
  rows = [
    {"chosen": "abc", "text": "no"},
    {"chosen": [{"role": "user", "content": "q"}]},
  ]
  path = jsonl(tmp_path / "c.jsonl", rows)
  config = text.TextConfig(path=path, field="chosen", context_length=100)
  assert shown(config, plain) == ["abc<eos>u:q;"]


def test_text_files_are_one_document_unless_separated(tmp_path, plain):
  file = tmp_path / "a.txt"
  file.write_bytes("\ufeffone\ntwo\n\nthree\r\n\n\n\nfour".encode())
  config = text.TextConfig(path=str(file), context_length=50, packed=False)
  assert shown(config, plain) == ["one\ntwo\n\nthree\r\n\n\n\nfour"]
  config = dataclasses.replace(config, separator="\n\n")
  assert shown(config, plain) == ["one\ntwo", "three\r", "four"]
  places = [d.place for d in text.documents(config, plain)]
  assert places == [f"{file}:{n}" for n in (1, 4, 8)]


def test_long_texts_are_cut_at_line_ends(tmp_path, monkeypatch):
  monkeypatch.setattr(records, "_MAX_RECORD_CHARS", 20)
  file = tmp_path / "a.txt"
  whole = "".join(f"line {i}\n" for i in range(20_000)) + "x" * 50
  file.write_text(whole)
  pieces = [piece for _, piece in records.read(file, "text")]
  assert "".join(pieces) == whole
  assert max(map(len, pieces)) <= 20
  assert all(p.endswith("\n") for p in pieces[:-3])
  separated = [p for _, p in records.read(file, "text", separator="e 7\n")]
  assert "".join(separated) == whole.replace("e 7\n", "")


def test_directories_globs_and_gz_in_sorted_order(tmp_path, plain):
  (tmp_path / "sub").mkdir()
  (tmp_path / "b.txt").write_text("B")
  (tmp_path / "sub" / "c.md").write_text("C")
  (tmp_path / "notes.pdf").write_bytes(b"%PDF")
  with gzip.open(tmp_path / "a.jsonl.gz", "wt") as f:
    f.write('{"text": "A"}\n\n{"text": "A2"}\n')
  config = text.TextConfig(path=str(tmp_path), context_length=9, packed=False)
  assert shown(config, plain) == ["A", "A2", "B", "C"]
  texts = dataclasses.replace(config, kind="text")
  assert shown(texts, plain) == ["B", "C"]
  globs = (f"{tmp_path}/**/*.md", f"{tmp_path}/*.txt")
  assert shown(dataclasses.replace(config, path=globs), plain) == ["C", "B"]


def test_batches_have_one_shape_and_hold_every_token(corpus, plain):
  config = text.TextConfig(path=corpus, context_length=8, packed=False)
  got = list(text.batches(config, plain, 3))
  contexts = list(text.contexts(config, plain))
  assert len(got) == 3 and len(contexts) == 7
  for n, (tokens_BT, mask_BT) in enumerate(got):
    assert tokens_BT.shape == mask_BT.shape == (3, 8)
    assert tokens_BT.dtype == np.int32 and mask_BT.dtype == np.bool_
    assert np.all(tokens_BT[~mask_BT] == PAD)
    # masks are prefixes: padding is on the right only
    assert np.all(mask_BT[:, 1:] <= mask_BT[:, :-1])
    for row, context in enumerate(contexts[3 * n : 3 * n + 3]):
      np.testing.assert_array_equal(
        tokens_BT[row][mask_BT[row]], context.tokens
      )
  assert not got[-1][1][1:].any()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("lane", "lanes"), [(0, 1), (1, 2)])
def test_starting_late_gives_the_same_batches(
  corpus, with_bos, monkeypatch, packed, lane, lanes
):
  config = text.TextConfig(path=corpus, context_length=5, packed=packed)
  how = {"lane": lane, "lanes": lanes}
  whole = list(text.batches(config, with_bos, 2, **how))
  monkeypatch.setattr(text, "_GROUP_DOCUMENTS", 1)  # other tokenising groups
  for start in range(len(whole) + 2):
    rest = list(text.batches(config, with_bos, 2, start_batch=start, **how))
    assert len(rest) == max(len(whole) - start, 0)
    for a, b in zip(rest, whole[start:], strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("packed", [True, False])
def test_lanes_share_the_documents(corpus, plain, packed):
  config = text.TextConfig(path=corpus, context_length=6, packed=packed)
  whole = "".join(shown(config, plain))
  lanes = ["".join(shown(config, plain, lane=n, lanes=2)) for n in range(2)]
  assert sorted("".join(lanes)) == sorted(whole)
  assert lanes[1].startswith("g")  # document 1
  # Lane 9 of 10 has no document here, which is no error.
  assert shown(config, plain, lane=9, lanes=10) == []


def test_memory_does_not_grow_with_the_corpus(tmp_path, plain, monkeypatch):
  drawn = []
  real = records.read

  def counting(*args):
    for item in real(*args):
      drawn.append(item[0])
      yield item

  monkeypatch.setattr(records, "read", counting)
  path = jsonl(tmp_path / "c.jsonl", [{"text": "abc"}] * 5000)
  config = text.TextConfig(path=path, context_length=8)
  next(text.batches(config, plain, 2))
  assert len(drawn) <= 1024


def test_fingerprint_is_of_contents(tmp_path):
  one, two = tmp_path / "1.txt", tmp_path / "2.txt"
  one.write_text("same")
  two.write_text("same")

  def mark(**fields):
    return text.fingerprint(text.TextConfig(**{"path": str(one)} | fields))

  assert mark() == mark(path=str(two)) == mark(context_length=7, packed=False)
  others = {mark(), mark(separator="\n"), mark(path=(str(one), str(two)))}
  one.write_text("sane")
  assert mark() not in others and len(others) == 3


def test_fingerprint_of_a_large_file_sees_its_ends(tmp_path, monkeypatch):
  monkeypatch.setattr(text, "_HASH_WHOLE_BYTES", 1 << 20)
  file = tmp_path / "a.txt"
  config = text.TextConfig(path=str(file))
  data = bytearray(3 << 20)
  marks = set()
  for at in (0, 1 << 20, len(data) - 1):
    data[at] = 65
    file.write_bytes(data)
    marks.add(text.fingerprint(config))
  assert len(marks) == 3


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b'{"text": "a"}\n{"text": "b"\n', r"c\.jsonl:2.*not JSON"),
    (b'{"text": "a"}\n\n{"body": "b"}\n', r"c\.jsonl:3.*missing.*body"),
    (b'{"text": 5}\n', r"c\.jsonl:1.*'text' is 5"),
    (b'["a"]\n', r"c\.jsonl:1.*list where a JSON object"),
    (b'{"text": "a\xff"}\n', r"c\.jsonl:1.*0xff.*not UTF-8"),
    (b'{"messages": [{"role": "user"}]}\n', r"c\.jsonl:1.*messages.*role"),
    (b"", r"c\.jsonl: no text"),
    (b'{"text": ""}\n\n', r"c\.jsonl: no text"),
  ],
)
def test_bad_lines_are_named(tmp_path, plain, data, message):
  file = tmp_path / "c.jsonl"
  file.write_bytes(data)
  config = text.TextConfig(path=str(file))
  with pytest.raises(errors.InputError, match=f"(?s){message}"):
    list(text.batches(config, plain, 2))


def test_bad_files_are_named(tmp_path, plain):
  def run(path, **fields):
    list(text.contexts(text.TextConfig(path=str(path), **fields), plain))

  with pytest.raises(errors.InputError, match=r"none\.txt: no such file"):
    run(tmp_path / "none.txt")
  with pytest.raises(errors.InputError, match="no text files in there"):
    run(tmp_path)
  (tmp_path / "a.csv").write_text("x")
  with pytest.raises(errors.InputError, match=r"a\.csv.*text\.kind"):
    run(tmp_path / "a.csv")
  run(tmp_path / "a.csv", kind="text")
  (tmp_path / "a.txt").write_bytes(b"ok\nbad \xe9\n")
  with pytest.raises(errors.InputError, match=r"a\.txt:2.*0xe9"):
    run(tmp_path / "a.txt")
  whole = gzip.compress(b'{"text": "abc"}\n' * 99)
  for data in (whole[:-9], b"not gzip", whole[:30] + b"\0" + whole[31:]):
    (tmp_path / "z.jsonl.gz").write_bytes(data)
    with pytest.raises(errors.InputError, match=r"z\.jsonl\.gz"):
      run(tmp_path / "z.jsonl.gz")


def test_chat_without_a_template_names_the_line(tmp_path):
  tok = byte_tokenizer(template=None)
  row = {"messages": [{"role": "user", "content": "x"}]}
  config = text.TextConfig(path=jsonl(tmp_path / "c.jsonl", [row]))
  with pytest.raises(errors.InputError, match=r"c\.jsonl:1.*no chat template"):
    list(text.contexts(config, tok))


@pytest.mark.parametrize(
  "fields",
  [
    {"path": ""},
    {"path": ()},
    {"path": "a", "kind": "csv"},
    {"path": "a", "separator": ""},
    {"path": "a", "context_length": 1},
  ],
)
def test_config_is_checked(fields):
  with pytest.raises(errors.InputError, match=r"text\."):
    text.TextConfig(**fields)


def test_datasets_package_missing(plain, monkeypatch):
  monkeypatch.setitem(sys.modules, "datasets", None)
  config = text.TextConfig(path="hf:some/name")
  with pytest.raises(errors.InputError, match=r"sae-jax\[datasets\]"):
    list(text.contexts(config, plain))


@pytest.mark.slow
def test_a_hugging_face_dataset(tmp_path, plain):
  pytest.importorskip("datasets")
  jsonl(tmp_path / "train.jsonl", [{"text": d} for d in DOCS])
  config = text.TextConfig(
    path=f"hf:{tmp_path}", context_length=99, packed=False
  )
  assert shown(config, plain) == [d for d in DOCS if d]
  assert len(text.fingerprint(config)) == 64
  with pytest.raises(errors.InputError, match="'test'"):
    shown(dataclasses.replace(config, split="test"), plain)


def test_chitchat_script(tmp_path):
  if importlib.util.find_spec("chitchat_dataset") is None:
    pytest.skip("the chitchat-dataset wheel is not installed")
  script = pathlib.Path(__file__).parents[2] / "launch/chitchat_to_jsonl.py"
  out = tmp_path / "chat.jsonl"
  subprocess.run([sys.executable, script, out], check=True, capture_output=True)
  rows = [
    json.loads(line)["messages"] for line in out.read_bytes().splitlines()
  ]
  assert len(rows) > 7000
  assert [path.name for path in tmp_path.iterdir()] == ["chat.jsonl"]
  for messages in rows:
    roles = [m["role"] for m in messages]
    assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
    assert all(m["content"].strip() for m in messages)
