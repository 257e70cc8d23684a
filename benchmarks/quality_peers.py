# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The peers' trainers as learners of quality.py.

Libraries are imported when a learner is made. Where a library's loop cannot be
called (sparsify's stands inside a language model's forward hook), its steps are
those of its loop, line by line.
"""

import copy
import dataclasses
import os
import tempfile

# Without a GPU, sparsify's Triton kernels must be switched off before import.
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import jax
import jax.numpy as jnp
import numpy as np
import quality_task

from sae_jax import sae


class Sparsify:
  """eai-sparsify's `SparseCoder` in the loop of its `trainer.py`."""

  def __init__(
    self, task: quality_task.Task, data: quality_task.Data, optimizer: str
  ):
    import sparsify
    import torch

    _only_topk(task, "eai-sparsify")
    self._torch = torch
    torch.manual_seed(task.seed)
    self._coder = sparsify.SparseCoder(
      task.d_model,
      sparsify.SparseCoderConfig(num_latents=task.latents, k=task.k),
      dtype=torch.float32,
    )
    self._first = True
    wide = (task.latents / 2**14) ** 0.5
    self._schedule = None
    if optimizer == "signum":
      from schedulefree import ScheduleFreeWrapper
      from sparsify.sign_sgd import SignSGD

      signs = SignSGD(self._coder.parameters(), lr=task.rate or 5e-3 / wide)
      self._optimizer = ScheduleFreeWrapper(signs, momentum=0.95)
      self._optimizer.train()
    else:
      from transformers import get_linear_schedule_with_warmup

      self._optimizer = torch.optim.Adam(
        self._coder.parameters(), lr=task.rate or 2e-4 / wide
      )
      warmup = 1000 if task.rate is None else task.warmup
      self._schedule = get_linear_schedule_with_warmup(
        self._optimizer, warmup, task.steps
      )

  def step(self, x_BD):
    x_BD = _tensor(self._torch, x_BD)
    coder = self._coder
    if self._first:
      coder.b_dec.data = x_BD.mean(0)
      self._first = False
    coder.set_decoder_norm_to_unit_norm()
    total_variance = (x_BD - x_BD.mean(0)).pow(2).sum()
    # auxk_alpha is 0 by default, and no latent can be dead before 10 M rows.
    out = coder(x_BD, dead_mask=None, total_variance=total_variance)
    (out.fvu + out.multi_topk_fvu / 8).backward()
    coder.remove_gradient_parallel_to_decoder_directions()
    self._optimizer.step()
    self._optimizer.zero_grad()
    if self._schedule is not None:
      self._schedule.step()

  def _saved(self, read):
    """`read()` of the weights that its checkpoint would have."""
    if self._schedule is not None:
      return read()
    self._optimizer.eval()
    result = read()
    self._optimizer.train()
    return result

  def dictionary(self):
    coder = self._coder
    return self._saved(
      lambda: _sae(
        coder.cfg.k,
        coder.encoder.weight,
        coder.W_dec,
        coder.encoder.bias,
        coder.b_dec,
      )
    )

  def reconstruct(self, x_BD):
    with self._torch.no_grad():
      x_BD = self._torch.from_numpy(x_BD)
      return self._saved(lambda: self._coder(x_BD).sae_out.numpy())


class DictionaryLearning:
  """dictionary_learning's `TopKTrainer` or `BatchTopKTrainer`."""

  def __init__(self, task: quality_task.Task, data: quality_task.Data):
    import torch
    from dictionary_learning.trainers import batch_top_k, top_k

    self._torch = torch
    self._batch = task.activation == "batch_topk"
    make = batch_top_k.BatchTopKTrainer if self._batch else top_k.TopKTrainer
    schedule = {}
    if task.rate is not None:
      schedule = {
        "lr": task.rate,
        "warmup_steps": task.warmup,
        "decay_start": round(0.8 * task.steps),
        "threshold_start_step": min(1000, task.steps // 2),
      }
    self._trainer = make(
      steps=task.steps,
      activation_dim=task.d_model,
      dict_size=task.latents,
      k=task.k,
      layer=0,
      lm_name="none",
      device="cpu",
      seed=task.seed,
      **schedule,
    )
    self._done = 0

  def step(self, x_BD):
    self._trainer.update(self._done, _tensor(self._torch, x_BD))
    self._done += 1

  def dictionary(self):
    ae = self._trainer.ae
    threshold = float(ae.threshold) if self._batch else None
    return _sae(
      int(ae.k),
      ae.encoder.weight,
      ae.decoder.weight.T,
      ae.encoder.bias,
      ae.b_dec,
      threshold,
    )

  def reconstruct(self, x_BD):
    with self._torch.no_grad():
      return self._trainer.ae(self._torch.from_numpy(x_BD)).numpy()


class SaeLens:
  """SAELens's training SAE in its `SAETrainer`."""

  def __init__(self, task: quality_task.Task, data: quality_task.Data):
    import sae_lens
    import torch
    from sae_lens import config as config_lib
    from sae_lens.training import sae_trainer

    self._torch = torch
    torch.manual_seed(task.seed)
    self._batch = task.activation == "batch_topk"
    kind = "BatchTopKTrainingSAE" if self._batch else "TopKTrainingSAE"
    config = getattr(sae_lens, f"{kind}Config")(
      d_in=task.d_model, d_sae=task.latents, k=task.k
    )
    schedule = {}
    if task.rate is not None:
      schedule = {
        "lr": task.rate,
        "lr_warm_up_steps": task.warmup,
        "lr_decay_steps": round(0.2 * task.steps),
      }
    rate = schedule.get("lr", 3e-4)
    self._trainer = sae_trainer.SAETrainer(
      config_lib.SAETrainerConfig(
        total_training_samples=task.steps * task.batch,
        train_batch_size_samples=task.batch,
        lr_end=rate / 10,  # its runner's default; "constant" does not use it
        **schedule,
      ),
      getattr(sae_lens, kind)(config),
      data_provider=iter(()),
    )

  def step(self, x_BD):
    self._trainer.step(_tensor(self._torch, x_BD))
    self._trainer.n_training_steps += 1

  def dictionary(self):
    finished = copy.deepcopy(self._trainer.sae)
    threshold = float(finished.topk_threshold) if self._batch else None
    finished.fold_W_dec_norm()  # the threshold is of folded activations
    return _sae(
      int(finished.cfg.k),
      finished.W_enc.T,
      finished.W_dec,
      finished.b_enc,
      finished.b_dec,
      threshold,
    )

  def reconstruct(self, x_BD):
    import sae_lens

    with tempfile.TemporaryDirectory() as place, self._torch.no_grad():
      self._trainer.sae.save_inference_model(place)
      saved = sae_lens.SAE.load_from_disk(place)
      return saved(self._torch.from_numpy(x_BD)).numpy()


def _tensor(torch, x_BD: jax.Array):
  return torch.from_numpy(np.asarray(x_BD).astype(np.float32))


def _sae(k, enc_FD, dec_FD, enc_F, dec_D, threshold=None) -> sae.Sae:
  """A dictionary from a peer's tensors."""

  def array(tensor):
    # A copy: training changes the tensor in place.
    return jnp.array(np.ascontiguousarray(tensor.detach().numpy()), copy=True)

  params = sae.Params(
    w_enc_FD=array(enc_FD),
    w_dec_FD=array(dec_FD),
    b_enc_F=array(enc_F),
    b_dec_D=array(dec_D),
  )
  if threshold is None:
    return sae.make_sae(params, k)
  threshold_F = jnp.full((params.latents,), threshold, jnp.float32)
  params = dataclasses.replace(params, threshold_F=threshold_F)
  places = min(params.latents, 1024)
  return sae.make_sae(params, places, activation="jumprelu")


def _only_topk(task, name):
  if task.activation != "topk":
    raise ValueError(f"{name} has no {task.activation}")
