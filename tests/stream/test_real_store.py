# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The stream on real stores, and in real processes."""

import json
import pathlib
import socket

import ml_dtypes
import numpy as np
import pytest
from counting import config, take

from sae_jax import errors, mesh, store, stream

HOOK = "blocks.3.hook_resid_post"


def write_store(path, rows=300):
  row_N = np.arange(rows)
  x_ND = np.stack([row_N % 256, row_N // 256], 1).astype(ml_dtypes.bfloat16)
  store.write_arrays(path, {HOOK: x_ND}, read_rows=8, write_rows=32)
  return store.open_store(path)


def test_an_epoch_of_a_store_has_each_of_its_rows(tmp_path):
  source = write_store(tmp_path / "s")
  train, held_out = source.holdout(40)
  for chunks in (train, held_out):
    rows = source.chunk_rows(chunks)
    batches = stream.open_stream(
      source, HOOK, config(4), mesh=mesh.single(), chunks=chunks
    )
    seen = np.sort(take(batches, rows // 4), axis=None)
    batches.close()
    start = chunks.start * 8
    assert (seen == np.arange(start, start + rows)).all()


def test_a_moved_store_is_resumed_and_another_one_refused(tmp_path):
  source = write_store(tmp_path / "s")
  batches = stream.open_stream(source, HOOK, config(), mesh=mesh.single())
  expected = take(batches, 9)
  batches.close()
  batches = stream.open_stream(source, HOOK, config(), mesh=mesh.single())
  take(batches, 4)
  state = batches.state()
  batches.close()
  (tmp_path / "s").rename(tmp_path / "moved")
  batches = stream.open_stream(
    store.open_store(tmp_path / "moved"),
    HOOK,
    config(),
    mesh=mesh.single(),
    start_state=state,
  )
  assert (take(batches, 5) == expected[4:]).all()
  batches.close()
  store.write_arrays(
    tmp_path / "b",
    {HOOK: np.zeros((300, 2), np.float32)},
    read_rows=8,
    write_rows=32,
  )
  with pytest.raises(errors.InputError, match="stream state: store is"):
    stream.open_stream(
      store.open_store(tmp_path / "b"),
      HOOK,
      config(),
      mesh=mesh.single(),
      start_state=state,
    )


def test_a_damaged_chunk_is_named_in_the_training_thread(tmp_path):
  source = write_store(tmp_path / "s")
  folder = tmp_path / "s" / "activations" / HOOK / "c"
  file = sorted(path for path in folder.rglob("*") if path.is_file())[2]
  data = bytearray(file.read_bytes())
  data[5] ^= 1
  file.write_bytes(data)
  batches = stream.open_stream(source, HOOK, config(), mesh=mesh.single())
  with pytest.raises(errors.InputError) as raised:
    take(batches, 300 // 8)
  batches.close()
  for part in (str(tmp_path / "s"), HOOK, "read chunk", "damaged"):
    assert part in str(raised.value)


def test_an_unknown_hook_is_refused_at_once(tmp_path):
  source = write_store(tmp_path / "s")
  with pytest.raises(errors.InputError, match=r"blocks\.4"):
    stream.open_stream(
      source, "blocks.4.hook_resid_post", config(), mesh=mesh.single()
    )


PROCESS = """
import json, os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
jax.config.update("jax_num_cpu_devices", 4)
address, process, path, out, sizes, state = sys.argv[1:7]
jax.distributed.initialize(address, 2, int(process))
sys.path.insert(0, sys.argv[7])
import numpy as np
from counting import config, row_numbers
from sae_jax import mesh, store, stream
source = store.open_store(path)
read = set()
plain = source.read_chunks
source.read_chunks = lambda hook, ids: (read.update(ids), plain(hook, ids))[1]
sae, data, latent = json.loads(sizes)
on = mesh.make(mesh.MeshConfig(sae=sae, data=data, latent=latent))
batches = stream.open_stream(
  source, source.hooks[0], config(16, 3, 4), mesh=on,
  start_state=json.loads(state),
)
rows = []
for _ in range(8):
  x_BD = next(batches)
  rows.append({
    str(s.index[0].indices(16)[0]): row_numbers(s.data).tolist()
    for s in x_BD.addressable_shards
  })
position = batches.state()
batches.close()
with open(out, "w") as f:
  json.dump({"rows": rows, "state": position, "read": sorted(read)}, f)
jax.distributed.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 2, 4), (1, 1, 8)])
def test_two_processes_see_the_batches_of_one(forge, tmp_path, sizes):
  source = write_store(tmp_path / "s", rows=3000)
  whole = stream.open_stream(source, HOOK, config(16, 3, 4), mesh=mesh.single())
  take(whole, 3)
  state = json.dumps(whole.state())
  expected = take(whole, 8)
  last = whole.state()
  whole.close()
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  here = str(pathlib.Path(__file__).parent)
  processes = [
    forge.start(
      *(address, process, tmp_path / "s", tmp_path / f"{process}.json"),
      *(json.dumps(sizes), state, here),
      code=PROCESS,
    )
    for process in range(2)
  ]
  assert [process.wait(timeout=120) for process in processes] == [0, 0]
  found = [json.loads((tmp_path / f"{p}.json").read_text()) for p in range(2)]
  rows_seen = [set(), set()]
  for process in range(2):
    assert found[process]["state"] == last
    for batch, shards in enumerate(found[process]["rows"]):
      for start, rows in shards.items():
        at = slice(int(start), int(start) + len(rows))
        assert rows == expected[batch][at].tolist()
        rows_seen[process].update(range(at.start, at.stop))
  if sizes[1] > 1:  # the rows of a batch are divided between the processes
    assert rows_seen == [set(range(8)), set(range(8, 16))]
    # And so are the chunks of an epoch, of which this is the beginning.
    assert not set(found[0]["read"]) & set(found[1]["read"])
