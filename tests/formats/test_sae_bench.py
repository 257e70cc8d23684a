# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What sae-bench 0.6 asks of a dictionary that it did not train itself.

Its README: sae_bench/custom_saes. `benchmarks/saebench.py` runs its core
evaluation where it is installed; here its interface is met by what sae_lens
makes of our export, attribute by attribute.
"""

import importlib.util

import numpy as np
import pytest

from sae_jax import formats, sae

torch = pytest.importorskip("torch")

_D, _F, _K = 8, 32, 5
_METADATA = {
  "model_name": "SmolLM2-135M-Instruct",
  "hook_name": "blocks.9.hook_resid_post",
  "context_size": 128,
  "prepend_bos": False,
}


def _exported(path, sae_lens, activation):
  rng = np.random.default_rng(0)
  w_dec_FD = rng.normal(size=(_F, _D))
  arrays = {
    "w_enc_FD": rng.normal(size=(_F, _D)) / 3,
    "w_dec_FD": w_dec_FD / np.linalg.norm(w_dec_FD, axis=1, keepdims=True),
    "b_enc_F": 0.3 * rng.normal(size=_F),
    "b_dec_D": rng.normal(size=_D),
  }
  if activation == "jumprelu":
    arrays["threshold_F"] = np.full(_F, 0.25)
  params = sae.Params(**{n: np.float32(a) for n, a in arrays.items()})
  dictionary = sae.make_sae(params, _K, _METADATA, activation=activation)
  formats.save_sae(dictionary, path)
  return sae_lens.SAE.load_from_disk(path)


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_the_interface_is_met(tmp_path, sae_lens, activation):
  model = _exported(tmp_path, sae_lens, activation)
  if importlib.util.find_spec("sae_bench"):
    from sae_bench.sae_bench_utils import general_utils

    _, model, _ = general_utils.load_and_format_sae("local", model, "cpu")
    assert model.cfg.hook_layer == 9
  assert isinstance(model, torch.nn.Module)
  shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
  assert (
    shapes.items()
    >= {
      "W_enc": (_D, _F),
      "W_dec": (_F, _D),
      "b_enc": (_F,),
      "b_dec": (_D,),
    }.items()
  )
  # Its tolerance: a length of 1 within 1e-5 in float32.
  norms_F = model.W_dec.detach().norm(dim=1)
  assert torch.allclose(norms_F, torch.ones_like(norms_F), atol=1e-5)
  # Rows, and contexts of rows.
  x_BLD = torch.randn(2, 3, _D, generator=torch.Generator().manual_seed(0))
  with torch.no_grad():
    acts_BLF = model.encode(x_BLD)
    out_BLD = model.decode(acts_BLF)
    flat_BD = model(x_BLD.reshape(-1, _D))
  assert acts_BLF.shape == (2, 3, _F)
  assert (acts_BLF >= 0).all()
  torch.testing.assert_close(flat_BD, out_BLD.reshape(-1, _D))
  assert (model.device.type, model.dtype) == ("cpu", torch.float32)
  # What ActivationsStore.from_sae insists on.
  for name, value in _METADATA.items():
    assert getattr(model.cfg.metadata, name) == value
  assert model.cfg.to_dict()["d_sae"] == _F
  if activation == "jumprelu":
    assert (model.threshold > 0).all()
