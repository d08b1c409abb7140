"""Outputs of a trained model for host data, split over the devices, one batch at a time, in order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import NamedSharding

from mmjax.errors import UserError
from mmjax.nn.norm import normalize
from mmjax.parallel.mesh import batch_sharding, put_rows, replicated
from mmjax.types import Encoded

if TYPE_CHECKING:
  from mmjax.data.text.tokenizer import Tokenizer
  from mmjax.run import Run

Ask = Callable[[Any, Any], Any]
"""(bound model, rows on the devices) -> pytree of rows. A function of a module's top level: it is compiled once."""


def over_batches(
  run: Run, ask: Ask, batches: Iterable[Mapping[str, Any]], names: tuple[str, ...], kept: tuple[str, ...] = ()
) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
  """Yield (arrays of the batch, result of the model) for each evaluation batch, without the rows that fill up the last.

  Args:
    run: model, parameters and mesh.
    ask: function of (bound model, {name: array on the devices}) that returns a pytree of arrays [rows, ...]. It is
      compiled once, so define it at the top level of a module.
    batches: batches from `mmjax.evaluate.batches`, whose rows divide over the devices.
    names: arrays of a batch that `ask` gets.
    kept: arrays of a batch that are returned, on the host. Leave images out, so that no process decodes another's.
  """
  for batch in batches:
    valid = batch["valid"]
    answer = call(run, ask, {name: batch[name] for name in names})
    yield {name: batch[name][valid] for name in kept}, jax.tree.map(lambda leaf, v=valid: leaf[v], answer)


def over_rows(run: Run, ask: Ask, total: int, take: Callable[[np.ndarray], Any]) -> Iterator[Any]:
  """Compute the outputs for rows 0 to total - 1, one batch at a time.

  Args:
    run: model, parameters and mesh.
    ask: function of the bound model.
    total: number of rows.
    take: function from indices to the rows at these indices, as a pytree of arrays.
  """
  size = run.batch_size(total)
  for start in range(0, total, size):
    places = np.minimum(np.arange(start, start + size), total - 1)
    kept = min(size, total - start)
    yield jax.tree.map(lambda leaf, n=kept: leaf[:n], call(run, ask, take(places)))


def call(run: Run, ask: Ask, rows: Any) -> Any:
  """The answer for host rows, as host arrays; every process gets every row."""
  sharding = batch_sharding(run.mesh)
  placed = jax.tree.map(lambda leaf: put_rows(leaf, sharding), rows)
  return jax.tree.map(np.asarray, _apply(run.model, ask, replicated(run.mesh), run.params, placed))


def gathered(parts: Iterable[Any]) -> Any:
  """One pytree of the rows of many."""
  pieces = list(parts)
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)


def text_tokenizer(run: Run) -> Tokenizer:
  """The tokenizer of a run. Raises UserError for a run without text."""
  if run.tokenizer is None:
    raise UserError(f"the run in {run.workdir} has no text, and so no tokenizer")
  return run.tokenizer


def encode_images(run: Run, pictures: Any) -> tuple[Encoded, np.ndarray | None]:
  """(tokens of images, their unit-norm embeddings where the model has a common space), on the host."""
  take = lambda places: {"image": run.shown(pictures, places)}
  return gathered(over_rows(run, _image if hasattr(run.model, "project") else _image_alone, len(pictures), take))


def encode_strings(run: Run, strings: list[str]) -> tuple[Encoded, np.ndarray | None]:
  """(tokens of texts, their unit-norm embeddings where the model has a common space), on the host."""
  ids = text_tokenizer(run)(strings)
  take = lambda places: {"text": ids[places]}
  return gathered(over_rows(run, _text if hasattr(run.model, "project") else _text_alone, len(ids), take))


def _image(model: Any, batch: Any) -> Any:
  encoded = model.encode(batch)
  return encoded["image"], normalize(model.project(encoded)["image"])


def _text(model: Any, batch: Any) -> Any:
  encoded = model.encode(batch)
  return encoded["text"], normalize(model.project(encoded)["text"])


def _image_alone(model: Any, batch: Any) -> Any:
  return model.encode(batch)["image"], None


def _text_alone(model: Any, batch: Any) -> Any:
  return model.encode(batch)["text"], None


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(model: nn.Module, ask: Ask, sharding: NamedSharding, params: Any, rows: Any) -> Any:
  answer = nn.apply(ask, model)({"params": params}, rows)
  return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), answer)
