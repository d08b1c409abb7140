"""Class Run: a trained model with its transforms and tokenizer. Function load_run reads it from a workdir."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float, Int

from mmjax.data.columns.base import Evaluating
from mmjax.data.columns.fitting import of_stream
from mmjax.data.features import run_columns
from mmjax.data.lazy_rows import LazyRows
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import eval_transform
from mmjax.errors import UserError
from mmjax.experiment import Experiment
from mmjax.models.config import image_size
from mmjax.nn.norm import normalize
from mmjax.parallel.mesh import batch_sharding, batch_shards, put_rows, replicated

CONFIG, CHECKPOINTS, TOKENIZER, COLUMNS = "config.json", "checkpoints", "tokenizer", "columns.json"
PREPROCESS = "preprocess.json"


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model, its parameters, and the transforms and tokenizer of its training.

  Attributes:
    experiment: configuration of the run.
    workdir: folder of the run.
    model: the linen module.
    params: parameters of the model. If the run kept a moving average, these are the averages (see
      evaluation.average).
    tokenizer: converts strings to token ids as in training (padding, EOS, case and length). None for a run without
      text.
    mesh: devices that encode. Batches are split over its batch axes.
    step: number of optimiser steps of the parameters.
    fitted: values that columns learned from the training data, by column name.
    image: transform of images in evaluation. None: that of `experiment.data`.
  """

  experiment: Experiment
  workdir: Path
  model: nn.Module
  params: Any
  tokenizer: Tokenizer | None
  mesh: Mesh
  step: int
  fitted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  image: Any = None

  def by_stream(self) -> "dict[str, Run]":
    """One run per data stream, as if the stream were the only data. That of data.source has the name ""."""
    return {
      name: dataclasses.replace(self, experiment=each, fitted=of_stream(self.fitted, name))
      for name, each in self.experiment.by_stream().items()
    }

  def preprocess(self, image: Any) -> Float[np.ndarray, "height width 3"]:
    """Resize and normalise an image as in evaluation. It is a path, encoded bytes, a PIL image or a uint8 array."""
    return self.transform(image)

  def encode_image(self, images: Sequence[Any] | Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n dim"]:
    """Compute unit-norm embeddings of images. They are inputs of `preprocess`, or one preprocessed float32 array."""
    if isinstance(images, np.ndarray) and images.ndim == 4 and images.dtype == np.float32:
      return self._encode("encode_image", len(images), images.__getitem__)
    return self._encode("encode_image", len(images), functools.partial(self.shown, images))

  def encode_text(self, strings: Sequence[str]) -> Float[np.ndarray, "n dim"]:
    """Compute unit-norm embeddings of texts."""
    if isinstance(strings, str):
      raise TypeError("encode_text takes a list of strings; wrap the one string in a list")
    if self.tokenizer is None:
      raise UserError(f"the run in {self.workdir} has no text, and so no tokenizer")
    ids = self.tokenizer(list(strings))
    return self._encode("encode_text", len(ids), ids.__getitem__)

  def encode(self, column: str, items: Sequence[Any]) -> Float[np.ndarray, "n dim"]:
    """Compute unit-norm embeddings of items of one column.

    Args:
      column: name of the column, as in `data.columns`.
      items: images, strings, or other items that the column accepts.
    Raises: UserError: the run does not have this column.
    """
    runs = [(each, name) for each in self.by_stream().values() for name in run_columns(each.experiment.data)]
    run = next((each for each, name in runs if name == column), None)
    if run is None:
      known = ", ".join(name for _, name in runs)
      raise UserError(f"the run in {self.workdir} has no column {column!r}; it has {known}")
    kind = run_columns(run.experiment.data)[column]
    evaluating = Evaluating(self.transform, self.tokenizer, lambda record: record["captions"]["name"][0], run.fitted)
    records = [kind.record(item) for item in items]
    rows = kind.evaluated(column, records, np.arange(len(items)), evaluating)[column] if records else []
    return self._encode(_EncodeColumn(column), len(items), rows.__getitem__)

  def shown(self, images: Any, places: Int[np.ndarray, " n"]) -> LazyRows:
    """Images at some places, as rows of a batch. Only rows for devices of this process are read and preprocessed."""
    side = image_size(self.experiment.model)
    return LazyRows(places, (side, side, 3), lambda wanted: [self.preprocess(images[place]) for place in wanted])

  @functools.cached_property
  def transform(self) -> Any:
    """Transform of images in evaluation. None for a model without images."""
    side = image_size(self.experiment.model)
    if not side or self.image is not None:
      return self.image
    return eval_transform(self.experiment.data, side)

  def _encode(
    self, method: str | Callable[..., Any], total: int, take: Callable[[np.ndarray], Any]
  ) -> Float[np.ndarray, "n dim"]:
    """Encode in batches of one size, split over the mesh. The last one is padded. Every process gets all rows."""
    size = self.batch_size(total)
    parts = []
    for start in range(0, total, size):
      rows = put_rows(take(np.minimum(np.arange(start, start + size), total - 1)), batch_sharding(self.mesh))
      embedded = _embed(self.model, method, replicated(self.mesh), self.params, rows)
      parts.append(np.asarray(embedded)[: total - start])
    if parts:
      return np.concatenate(parts)
    model: Any = self.experiment.model
    return np.zeros((0, model.embed_dim), np.float32)

  def batch_size(self, rows: int) -> int:
    """Return the batch size for a number of rows.

    It is the number of shards times a power of two, so that few sizes are compiled. If there are enough rows, it
    reaches evaluation.batch_size.
    """
    shards = batch_shards(self.mesh)
    size = shards
    while size < min(rows, self.experiment.evaluation.batch_size):
      size *= 2
    return size


@dataclasses.dataclass(frozen=True)
class _EncodeColumn:
  """Embeddings of one column, as a method of a model. Equal instances share a compilation."""

  column: str

  def __call__(self, model: Any, rows: jax.Array) -> jax.Array:
    return model.project(model.encode({self.column: rows}))[self.column]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _embed(
  model: nn.Module, method: str | Callable[..., Any], sharding: NamedSharding, params: Any, rows: jax.Array
) -> jax.Array:
  embeddings: Any = model.apply({"params": params}, rows, method=method)
  return jax.lax.with_sharding_constraint(normalize(embeddings), sharding)
