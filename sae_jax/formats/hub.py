# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A dictionary to the Hugging Face hub, with its model card."""

import os
import pathlib
import re

import huggingface_hub
from huggingface_hub import errors as hub_errors

from sae_jax import errors
from sae_jax.formats import api, model_card

_CARD = "README.md"
_FOLDER = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def push(
  path: str | os.PathLike[str],
  repo: str,
  *,
  folder: str = "",
  origin: str | os.PathLike[str] = "",
  evaluation: str | os.PathLike[str] = "",
  private: bool = False,
  revision: str | None = None,
  token: str | None = None,
  endpoint: str | None = None,
) -> str:
  """Uploads the dictionary at `path` and its card in one commit.

  SAELens then loads it as `SAE.from_pretrained(repo, folder)`. The card is
  FOLDER/README.md, and that of the repository as well if it has none yet.

  Args:
    path: see `api.load_sae`; it is loaded, as a check, and uploaded as it is.
    repo: `user/name`; it is made where it does not exist.
    folder: where in the repository; empty: the name of the hook, or `sae`.
    origin: what it was converted from, if it was: whose figures are given.
    evaluation: see `model_card.measured`.
    private: of a repository that is made.
    revision: a branch that exists; None: the main one.
    token: of the hub; None: that of `hf auth login`, or of HF_TOKEN.
    endpoint: of another hub.

  Returns:
    The address of the folder.

  Raises:
    errors.InputError: there is no such dictionary, it is damaged, `folder` is
      no name of a folder, or the hub cannot be reached or refuses.
  """
  form, place = api.find(path)
  dictionary = api.load_sae(place)
  folder = folder or str(dictionary.metadata.get("hook_name") or "sae")
  if not _FOLDER.fullmatch(folder):
    raise errors.InputError(
      f"folder={folder!r} is no name of a folder; letters, digits, . _ - and /"
      " are allowed, beginning with a letter or digit"
    )
  card = model_card.text(
    dictionary,
    form=form.NAME,
    found=model_card.measured(origin or place, evaluation),
    repo=repo,
    folder=folder,
  ).encode()
  hub = huggingface_hub.HfApi(endpoint=endpoint, token=token)
  try:
    # The hub's own name for it: the user's, where `repo` has none.
    repo = hub.create_repo(repo, private=private, exist_ok=True).repo_id
    cards = [f"{folder}/{_CARD}"]
    if not hub.file_exists(repo, _CARD, revision=revision):
      cards.append(_CARD)
    added = {f"{folder}/{name}": file for name, file in _files(place).items()}
    hub.create_commit(
      repo,
      [
        huggingface_hub.CommitOperationAdd(where, content)
        for where, content in [*added.items(), *((c, card) for c in cards)]
      ],
      commit_message=f"Dictionary {folder}",
      revision=revision,
    )
  except (
    hub_errors.HTTPError,  # whichever HTTP library the hub's has
    hub_errors.HFValidationError,
    OSError,
  ) as error:
    reason = str(error).strip().splitlines() or [""]
    raise errors.InputError(
      f"{repo}: not uploaded ({type(error).__name__}: {reason[0]}); check the"
      " name, the network, and that `hf auth login` was done with a token that"
      " may write"
    ) from error
  return f"{hub.endpoint}/{repo}/tree/{revision or 'main'}/{folder}"


def _files(place: pathlib.Path) -> dict[str, pathlib.Path]:
  """Every file of the dictionary by its name below its directory."""
  if place.is_file():
    return {place.name: place}
  return {
    file.relative_to(place).as_posix(): file
    for file in sorted(place.rglob("*"))
    if file.is_file()
    and not any(p.startswith(".") for p in file.relative_to(place).parts)
    and file != place / _CARD
  }
