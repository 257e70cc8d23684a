# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Examples: their order, padding, and files with mistakes in them."""

import json

import numpy as np
import pytest
import sft_model

from sae_jax import errors, mesh
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import data, records


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
  """One with a chat template, one without."""
  made = {}
  for chat in (True, False):
    path = tmp_path_factory.mktemp("tokenizer")
    sft_model.write(path, chat=chat, layers=1)
    made[chat] = tokenizer_lib.load(path)
  return made


@pytest.fixture
def write(tmp_path):
  def write_(*lines, name="data.jsonl"):
    text = [x if isinstance(x, str) else json.dumps(x) for x in lines]
    (tmp_path / name).write_text("\n".join(text) + "\n")
    return str(tmp_path / name)

  return write_


def read(path, tokenizer, positions=0, **changes):
  config = config_lib.DataConfig(path=path, **changes)
  return records.examples(config, tokenizer, positions)


def ids(text):
  return [sft_model.VOCAB[word] for word in text.split()]


def test_a_prompt_and_its_completion(write, tokenizers):
  path = write({"prompt": "w6 w7", "completion": "w8 w9"})
  (example,) = read(path, tokenizers[False])
  assert list(example.tokens) == ids("<s> w6 w7 w8 w9 </s>")
  assert example.loss_mask == (False,) * 3 + (True,) * 3
  (example,) = read(path, tokenizers[False], stop=False)
  assert list(example.tokens) == ids("<s> w6 w7 w8 w9")


def test_chats(write, tokenizers):
  user = {"role": "user", "content": "w6"}
  path = write(
    {"prompt": "w6", "good": "w8"},
    {"messages": [user], "good": "w8"},
    {"messages": [user, {"role": "assistant", "content": "w8"}]},
  )
  found = read(path, tokenizers[True], completion="good", stop=False)
  expected = ids("w1 w2 w6 w4 w5 w3 w8")
  assert [list(e.tokens) for e in found] == [expected] * 3
  assert all(e.loss_mask == (False,) * 6 + (True,) for e in found)
  system = read(path, tokenizers[True], completion="good", system="w7")
  assert list(system[0].tokens[:8]) == ids("w1 w3 w7 w4 w1 w2 w6 w4")
  plain = read(path, tokenizers[True], completion="good", chat=False, limit=1)
  assert list(plain[0].tokens) == ids("<s> w6 w8 </s>")
  plain = read(
    path, tokenizers[True], completion="good", chat=False, limit=1, system="w7"
  )
  assert list(plain[0].tokens) == ids("<s> w7 w6 w8 </s>")


def test_topics_and_a_limit(write, tokenizers):
  path = write(*sft_model.lines(9))
  assert len(read(path, tokenizers[False], topics=("t1", "t2"))) == 6
  assert len(read(path, tokenizers[False], topics=("t1", "t2"), limit=4)) == 4


GOOD = {"prompt": "w6 w7", "completion": "w8"}


@pytest.mark.parametrize(
  ("line", "changes", "message"),
  [
    ({"prompt": "w6"}, {}, ":2: the field 'completion' is missing.*prompt"),
    ({"completion": "w6"}, {}, ':2: there is neither a "prompt"'),
    ({**GOOD, "completion": ""}, {}, ":2: the field 'completion' is ''"),
    ({**GOOD, "completion": 3}, {}, ":2: the field 'completion' is 3"),
    ("{", {}, ":2: not JSON"),
    ("[1]", {}, ":2: not a JSON object"),
    ({"messages": "w6", "completion": "w7"}, {}, ':2: "messages" is no list'),
    ({"messages": [{"role": "user", "content": "w6"}], "completion": "w7"}, {},
     ":2: .*no chat template"),
    ({**GOOD, "completion": "w8 " * 20}, dict(max_length=16),
     ":2: 3 tokens of prompt and 21 of 'completion' are 24, more than"
     " data.max_length=16; raise it"),
    ({**GOOD, "completion": "w8 " * 20}, dict(positions=20),
     ":2: .*more than the model's 20 positions; shorten"),
    (GOOD, dict(topics=("t9",)), "there are no records of topics t9"),
    (GOOD, dict(chat=True), ":1: .*no chat template"),
  ],
)  # fmt: skip
def test_mistakes_are_named_by_line(write, tokenizers, line, changes, message):
  path = write(GOOD, line)
  with pytest.raises(errors.InputError, match=message):
    read(path, tokenizers[False], **changes)


def test_files_that_are_not_there_or_empty(write, tokenizers, tmp_path):
  with pytest.raises(errors.InputError, match="no such file"):
    read(str(tmp_path / "none.jsonl"), tokenizers[False])
  with pytest.raises(errors.InputError, match="there are no records in it"):
    read(write(""), tokenizers[False])


def test_every_epoch_has_every_example_once_in_a_new_order():
  count, batch, epochs = 10, 4, 6
  steps = [data.order(count, batch, 7, step) for step in range(15)]
  whole = np.concatenate(steps).reshape(epochs, count)
  np.testing.assert_array_equal(
    np.sort(whole, axis=1), np.tile(np.arange(count), (epochs, 1))
  )
  assert len({tuple(epoch) for epoch in whole}) == epochs
  # A step needs no other step; another seed is another order.
  np.testing.assert_array_equal(data.order(count, batch, 7, 9), steps[9])
  assert not np.array_equal(data.order(count, batch, 8, 0), steps[0])
  # A batch may be larger than the data.
  assert sorted(data.order(3, 6, 0, 0)) == [0, 0, 1, 1, 2, 2]


def test_batches_are_padded_to_few_shapes():
  shapes = set()
  for length in range(2, 300):
    example = data.Example([5] * length, [False] + [True] * (length - 1))
    batch = data.batch([example], mesh.single())
    t = batch.tokens_BT.shape[1]
    assert length <= t <= max(32, 1.5 * length)
    assert float(batch.weight_BM.sum()) == pytest.approx(1.0)
    shapes.add(t)
  assert shapes == {32, 48, 64, 96, 128, 192, 256, 384}
  limited = data.batch([example], mesh.single(), limit=300)
  assert limited.tokens_BT.shape == (1, 300)


def test_a_batch_points_at_what_is_learned():
  one = data.Example([9, 8, 7, 6], [True, False, True, True])
  two = data.Example([5, 4], [False, True])
  batch = data.batch([one, two], mesh.single())
  np.testing.assert_array_equal(batch.mask_BT.sum(1), [4, 2])
  np.testing.assert_array_equal(batch.at_BM[0, :2], [1, 2])
  np.testing.assert_array_equal(batch.target_BM[0, :2], [7, 6])
  np.testing.assert_array_equal(batch.target_BM[1, :1], [4])
  third = np.float32(1 / 3)
  np.testing.assert_array_equal(batch.weight_BM[0, :3], [third, third, 0])
  np.testing.assert_array_equal(batch.weight_BM[1, :2], [third, 0])
