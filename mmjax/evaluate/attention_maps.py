"""Attention of words to image patches, and its product with its gradient (Grad-CAM of attention)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from mmjax.types import Batch

Score = Callable[[Any, Batch], tuple[Float[Array, "batch"], int, int]]
"""(bound model, batch) -> (the number per example that is explained, tokens of the image, tokens of the text)."""


@dataclass(frozen=True)
class AttentionMaps:
  """Of every layer in which words read patches, from the first to the last; heads are averaged.

  Attributes:
    attention: how much each word reads each patch.
    relevance: max(gradient of the score, 0) x attention: how much that raises the score.
  """

  attention: Float[np.ndarray, "layers batch words patches"]
  relevance: Float[np.ndarray, "layers batch words patches"]


def attention_maps(model: nn.Module, params: Any, batch: Batch, score: Score, *, patches: int) -> AttentionMaps | None:
  """The maps of a batch; None where no layer lets words read patches.

  Relevance is that of Selvaraju et al. 2017 on attention, as Li et al. 2021 (ALBEF, section 6.2) show it.

  Args:
    model: its attention layers show their weights when "intermediates" is mutable (mmjax.nn.attention). A model whose
      fusion has all tokens in one row says in `token_order` which, as ("text", "image") or ("class", "image", "text").
    params: its parameters.
    batch: images and texts.
    score: (bound model, batch) -> (scores [batch], number of image tokens, number of text tokens).
    patches: how many of the image's tokens, the last ones, are patches.
  """
  return maps_of(explainer(model, score, patches)(params, batch))


def maps_of(found: Sequence[tuple[Array, Array]]) -> AttentionMaps | None:
  """The maps in the results of an `explainer`; None where there are none."""
  if not found:
    return None
  attention, relevance = (np.concatenate([np.asarray(pair[i]) for pair in found]) for i in (0, 1))
  return AttentionMaps(attention, relevance)


def num_layers(model: nn.Module, params: Any, batch: Batch, score: Score, *, patches: int) -> int:
  """Number of layers of the maps.

  Args:
    model: the model.
    params: shapes of its parameters.
    batch: shapes of images and texts.
    score: as for `attention_maps`.
    patches: how many of the image's tokens, the last ones, are patches.
  """
  found = jax.eval_shape(explainer(model, score, patches), params, batch)
  return sum(own.shape[0] for own, _ in found)


def explainer(model: nn.Module, score: Score, patches: int) -> Callable[[Any, Batch], Any]:
  """(params, batch) -> [(attention, relevance) of the layers of every attention in which words read patches].

  It is compiled once for each shape of a batch: keep it to explain many.
  """

  @jax.jit
  def explain(params: Any, batch: Batch) -> Any:
    lengths: dict[str, int] = {}

    def total(perturbations: Any) -> tuple[Array, Any]:
      variables = {"params": params} | ({"perturbations": perturbations} if perturbations else {})
      mutable = ["intermediates"] if perturbations else ["intermediates", "perturbations"]
      (values, lengths["image"], lengths["text"]), state = nn.apply(score, model, mutable=mutable)(variables, batch)
      return values.sum(), state

    shapes = jax.eval_shape(total, {})[1].get("perturbations", {})
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradients, state = jax.grad(total, has_aux=True)(zeros)
    sown = state.get("intermediates", {})
    weights = jax.tree.map(lambda calls: calls[-1], sown, is_leaf=lambda node: isinstance(node, tuple))
    order = getattr(model, "token_order", None)
    found = [_words_over_patches(*layer, lengths, order, patches) for layer in _layers(weights, gradients)]
    return [maps for maps in found if maps is not None]

  return explain


def _layers(weights: Any, gradients: Any) -> list[tuple[bool, Array, Array]]:
  """(is it cross-attention?, weights, gradients) of every attention, the arrays [layers, batch, heads, q, k].

  Later blocks come later.
  """
  flat = jax.tree_util.tree_leaves_with_path(weights)
  pairs = zip(flat, jax.tree.leaves(gradients), strict=True)
  ordered = sorted(pairs, key=lambda pair: [_natural(key.key) for key in pair[0][0]])
  stacked = lambda leaf: leaf if leaf.ndim == 5 else leaf[None]  # a scan has put a layer axis in front
  return [
    ("cross_attention" in [key.key for key in path], stacked(weight), stacked(gradient))
    for (path, weight), gradient in ordered
  ]


def _natural(name: str) -> tuple[str, int]:
  """block_10 comes after block_9."""
  head, _, number = name.rpartition("_")
  return (head, int(number)) if number.isdigit() else (name, 0)


def _words_over_patches(
  crosses: bool,
  weights: Array,
  gradients: Array,
  lengths: Mapping[str, int],
  order: tuple[str, ...] | None,
  patches: int,
) -> tuple[Array, Array] | None:
  """Rows of words and columns of patches, heads averaged; None where these are not what the layer relates."""
  if crosses == (order is not None):
    return None
  rows, columns = _places(weights.shape[-2:], lengths, order)
  if rows is None or columns is None:
    return None
  columns = slice(columns.stop - patches, columns.stop)
  own, slopes = weights[..., rows, columns], gradients[..., rows, columns]
  return own.mean(2), (jnp.maximum(slopes, 0.0) * own).mean(2)


def _places(
  shape: tuple[int, ...], lengths: Mapping[str, int], order: tuple[str, ...] | None
) -> tuple[slice | None, slice | None]:
  """(slice of the words among the queries, slice of the image's tokens among the keys)."""
  if order is None:
    fits = shape == (lengths["text"], lengths["image"])
    return (slice(0, shape[0]), slice(0, shape[1])) if fits else (None, None)
  sizes = [lengths.get(name, 1) for name in order]
  if shape != (sum(sizes), sum(sizes)):
    return None, None
  ends = {name: sum(sizes[: place + 1]) for place, name in enumerate(order)}
  rows, columns = (slice(ends[name] - lengths[name], ends[name]) for name in ("text", "image"))
  return rows, columns
