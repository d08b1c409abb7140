"""Connectionist temporal classification: a text from frames, over all alignments of the two (Graves et al. 2006)."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.objectives.losses.per_example import ExampleLosses


def ctc_loss(
  logits: Float[Array, "batch frames symbols"],
  mask: Bool[Array, "batch frames"],
  ids: Int[Array, "batch length"],
  *,
  blank_id: int,
  special_ids: tuple[int, ...],
) -> ExampleLosses:
  """-log p(text) per symbol, in nats, summed over the alignments (Graves et al. 2006, eq. 14).

  The mean over a batch is then over symbols. The weight of a text without a symbol, or with more symbols than its
  frames can say, is 0.

  Args:
    logits: scores of the symbols for each frame.
    mask: True for the frames of a clip. They stand before its padding.
    ids: token ids of the texts.
    blank_id: id of the blank, which stands in no text, such as that of padding.
    special_ids: ids that are no symbols of a text. They are left out of the texts.
  """
  import optax  # here, not at the top: a command line is parsed without it

  labels, counted = symbols(ids, special_ids)
  paddings = [1.0 - real.astype(jnp.float32) for real in (mask, counted)]
  with jax.default_matmul_precision("highest"):  # log-probabilities are picked out by a product with one-hot vectors
    losses = optax.ctc_loss(logits.astype(jnp.float32), paddings[0], labels, paddings[1], blank_id=blank_id)
  count = counted.sum(1, dtype=jnp.float32)
  right = (count > 0) & said_by(mask, labels, counted)
  per_symbol = jnp.where(right, losses, 0.0) / jnp.maximum(count, 1.0)
  return ExampleLosses(per_symbol, jnp.where(right, count, 0.0))


def symbols(
  ids: Int[Array, "batch length"], special_ids: tuple[int, ...]
) -> tuple[Int[Array, "batch length"], Bool[Array, "batch length"]]:
  """Leave special tokens out of texts. Returns (the other ids, in order and before the rest, True for them)."""
  special = jnp.isin(ids, jnp.asarray(special_ids, ids.dtype))
  order = jnp.argsort(special, axis=1, stable=True)
  return jnp.take_along_axis(ids, order, axis=1), ~jnp.take_along_axis(special, order, axis=1)


def said_by(
  mask: Bool[Array, "batch frames"], labels: Int[Array, "batch length"], counted: Bool[Array, "batch length"]
) -> Bool[Array, "batch"]:
  """True for texts that fit into their frames: a frame for each symbol, and one between two equal neighbours.

  Args:
    mask: True for the frames of a clip.
    labels: symbols of the texts.
    counted: True for the symbols that count. They stand first.
  """
  repeats = (labels[:, 1:] == labels[:, :-1]) & counted[:, 1:]
  return counted.sum(1) + repeats.sum(1) <= mask.sum(1)
