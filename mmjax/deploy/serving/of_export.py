"""An exported folder as a service sees it: StableHLO or ONNX, with no code of the model."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.deploy.loading import Loaded
from mmjax.deploy.serving.served import (
  ANSWER,
  CLASSIFY,
  CLASSIFY_TEXT,
  EMBED_IMAGE,
  EMBED_TEXT,
  Ability,
  Served,
  powers,
)
from mmjax.deploy.standalone import BATCH, MANIFEST, PREPROCESS, TOKENIZER, WEIGHTS
from mmjax.errors import UserError

_TEXT = "a picture"


def is_export(folder: Path) -> bool:
  """True if a folder is an export, and not the workdir of a run."""
  return (folder / MANIFEST).is_file()


def of_export(loaded: Loaded, max_batch: int = 32) -> Served:
  """Find out what an export can do.

  Args:
    loaded: result of `mmjax.deploy.load`.
    max_batch: largest batch, a power of two.
  Raises: UserError: there is nothing in it that a service offers.
  """
  inputs = {name: tuple(one["prepare"] for one in part["inputs"]) for name, part in loaded.parts.items()}
  # name of the ability: (name of the part, how its inputs are prepared, function)
  offered: dict[str, tuple[str, tuple[str, ...], Callable[[Any], Any]]] = {
    EMBED_IMAGE: ("image", ("image",), _stacked(loaded.encode_image)),
    EMBED_TEXT: ("text", ("text",), loaded.encode_text),
    CLASSIFY: ("classify", ("image",), _stacked(loaded.classify)),
    CLASSIFY_TEXT: ("classify", ("text",), loaded.classify),
    ANSWER: ("answer", ("image", "text"), functools.partial(_answered, loaded)),
  }
  sizes, examples = powers(min(max_batch, BATCH)), _examples(loaded)
  abilities = {
    name: Ability(ask, examples[kinds], sizes)
    for name, (part, kinds, ask) in offered.items()
    if inputs.get(part) == kinds
  }
  if not abilities:
    raise UserError(
      f"the export in {loaded.folder} has nothing to serve: its parts are {', '.join(loaded.parts) or 'none'}"
    )
  manifest = loaded.manifest
  classes = loaded.classes if "classify" in loaded.parts else ()
  reads_images = any("image" in kinds for kinds in inputs.values())
  return Served(
    manifest["run"]["name"],
    manifest["run"]["step"],
    fingerprint(loaded),
    abilities,
    loaded.preprocess if reads_images else None,
    classes,
    manifest.get("logit_scale", 100.0),
  )


def fingerprint(loaded: Loaded) -> str:
  """Hash of what embeddings depend on: the programs, the weights, the transform of images and the tokenizer."""
  programs = {part["file"] for part in loaded.parts.values()}
  files = {
    name: digest
    for name, digest in loaded.manifest["files"].items()
    if name in (*programs, WEIGHTS, PREPROCESS) or name.startswith(f"{TOKENIZER}/")
  }
  return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _examples(loaded: Loaded) -> dict[tuple[str, ...], Any]:
  """An item for each way to prepare inputs."""
  shapes = [one["shape"][1:] for part in loaded.parts.values() for one in part["inputs"] if one["prepare"] == "image"]
  blank = np.zeros(shapes[0] if shapes else (), np.float32)
  return {("image",): blank, ("text",): _TEXT, ("image", "text"): (blank, _TEXT)}


def _stacked(ask: Callable[[Any], Any]) -> Callable[[Sequence[Any]], Any]:
  return lambda items: ask(np.stack(items))


def _answered(loaded: Loaded, items: Sequence[tuple[Any, str]]) -> list[str]:
  return loaded.answer(np.stack([image for image, _ in items]), [text for _, text in items])
