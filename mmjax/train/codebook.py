"""Codebook of the patches of a run's training images, for targets of masked image modelling."""

import contextlib
import functools
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from mmjax.data import make_loader, make_source, make_tokenizer
from mmjax.data.features import run_columns
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.files import write_atomically
from mmjax.models.config import image_size
from mmjax.objectives.losses.codebook import fit_codebook
from mmjax.objectives.losses.patches import patchify
from mmjax.objectives.terms.patches import MaskedPatches

_PER_IMAGE = 8  # patches: many images show more than many patches of few
_PER_CODE, _LEAST_PER_CODE, _MANY = 64, 8, 50_000  # patches: k-means holds their distances to all codes


def write_codebook(experiment: Experiment) -> Path:
  """Fit a codebook to the training images of a run by k-means, and write the file that its objective names.

  The images are the first ones of training, with its augmentation. The result depends on run.seed.

  Args:
    experiment: a run with a `MaskedPatches` objective that has a `codebook`.
  Returns: the file.
  Raises:
    ConfigError: no objective has a codebook, or the model predicts no codes.
  """
  paths = [o.codebook for o in experiment.objectives if isinstance(o, MaskedPatches) and o.codebook]
  if not paths:
    raise ConfigError("no objective has a codebook: set --objectives.N.codebook FILE.npy of a masked_patches objective")
  codes = getattr(experiment.model, "num_codes", 0)
  if not codes:
    raise ConfigError("the model predicts no codes: set --model.num-codes to the size of the codebook")
  patches = _patches(experiment, max(_LEAST_PER_CODE * codes, min(_MANY, _PER_CODE * codes)))
  fit = jax.jit(functools.partial(fit_codebook, codes=codes))
  content = io.BytesIO()
  np.save(content, np.asarray(fit(jnp.asarray(patches), key=jax.random.key(experiment.run.seed))), allow_pickle=False)
  for path in {Path(path).expanduser() for path in paths}:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
  return Path(paths[0]).expanduser()


def _patches(experiment: Experiment, number: int) -> Float32[np.ndarray, "n pixels"]:
  """Draw patches of the first training images."""
  data, model = experiment.data, experiment.model
  source = make_source(data, "train")
  tokenized = any(column.tokenizes for column in run_columns(data, source).values())
  tokenizer = make_tokenizer(data, source) if tokenized else None
  side, patch = image_size(model), model.image.patch_size  # type: ignore[attr-defined]
  draw, seed = np.random.default_rng(experiment.run.seed), experiment.run.seed
  loader = make_loader(data, source, tokenizer, image_size=side, batch_size=experiment.run.batch_size, seed=seed)
  found: list[np.ndarray] = []
  with contextlib.closing(loader):
    while sum(len(rows) for rows in found) < number:
      rows = np.asarray(patchify(jnp.asarray(next(loader)["image"]), patch))
      places = draw.random(rows.shape[:2]).argsort(1)[:, :_PER_IMAGE, None]  # others in each image
      found.append(np.take_along_axis(rows, places, axis=1).reshape(-1, rows.shape[2]))
  return np.concatenate(found)[:number]
