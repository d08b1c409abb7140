"""Masked language modelling: the choice of hidden words, and the loss (Devlin et al. 2019, section 3.1)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from mmjax.objectives.losses.per_example import ExampleLosses, cross_entropy, mean_where


def mask_tokens(
  ids: Int[Array, "batch length"],
  rng: Key[Array, "batch"],
  *,
  mask_id: int,
  vocab_size: int,
  pad_id: int,
  special_ids: tuple[int, ...] = (),
  rate: float = 0.15,
  at_least_one: bool = True,
  words: Int[Array, "batch length"] | None = None,
) -> tuple[Int[Array, "batch length"], Bool[Array, "batch length"]]:
  """Chooses words to predict. 80% of them become [MASK], 10% become another word, 10% stay unchanged.

  Args:
    ids: token ids.
    rng: one key per example. Other keys choose other words, so use new keys in every step.
    mask_id: the id of [MASK].
    vocab_size: number of ids. Random words are drawn from all ids except special ones, padding and [MASK].
    pad_id: id of padding, which is never chosen.
    special_ids: ids that are never chosen and never inserted ([CLS], [SEP], end of text).
    rate: probability that a word is chosen.
    at_least_one: if True, choose at least one word of each text that has any. Short captions need this: without it, a
      fraction exp(-0.16 n) of the texts with n words has nothing to predict (at a rate of 0.15).
    words: number of the word that each token is part of, -1 for a token of no word. Words are then chosen as a whole,
      with all of their tokens (whole-word masking). Each token is replaced independently. None: tokens are chosen.
  Returns: (ids after the replacement, True for chosen words).
  Raises:
    ValueError: mask_id is not an id, or there is no word to draw from.
  """
  if not 0 <= mask_id < vocab_size:
    raise ValueError(f"mask_id={mask_id} must lie in [0, vocab_size={vocab_size}): the tokenizer needs a mask token")
  kept = np.asarray([*special_ids, pad_id, mask_id], np.int32)
  drawable = np.setdiff1d(np.arange(vocab_size, dtype=np.int32), kept)
  if not len(drawable):
    raise ValueError(f"vocab_size={vocab_size} leaves no word other than the special ids {sorted(set(kept.tolist()))}")
  maskable = ~jnp.isin(ids, jnp.asarray(kept))
  firsts = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape) if words is None else _firsts(words)

  def one(key: Array, ids: Array, maskable: Array, first: Array) -> tuple[Array, Array]:
    choose, change, word = jax.random.split(key, 3)
    luck = jnp.where(maskable, jax.random.uniform(choose, ids.shape)[first], 2.0)
    chosen = luck < rate
    if at_least_one:
      chosen |= maskable & (luck == luck.min())
    fate = jax.random.uniform(change, ids.shape)
    drawn = jnp.asarray(drawable)[jax.random.randint(word, ids.shape, 0, len(drawable))].astype(ids.dtype)
    changed = jnp.where(fate < 0.8, jnp.asarray(mask_id, ids.dtype), jnp.where(fate < 0.9, drawn, ids))
    return jnp.where(chosen, changed, ids), chosen

  return jax.vmap(one)(rng, ids, maskable, firsts)


def _firsts(words: Int[Array, "batch length"]) -> Int[Array, "batch length"]:
  """Position of the first token of each token's word."""
  return jnp.argmax(words[:, :, None] == words[:, None], axis=2).astype(jnp.int32)


def choose_positions(
  chosen: Bool[Array, "batch length"], most: int
) -> tuple[Int[Array, "batch most"], Bool[Array, "batch most"]]:
  """Positions of the first `most` chosen words of each example, in order.

  Only these positions need the product with the vocabulary. With a rate of 0.15 and most = ceil(0.3 length), few chosen
  words are left out. These are hidden, but not predicted.

  Returns: (positions, True for positions of chosen words). The other positions are arbitrary valid ones.
  """
  order = jnp.argsort(~chosen, axis=1, stable=True)[:, :most].astype(jnp.int32)
  return order, jnp.take_along_axis(chosen, order, axis=1)


def take_positions(x: Array, positions: Int[Array, "batch most"]) -> Array:
  """Gathers x [batch, length, ...] at the positions: [batch, most, ...]."""
  return jnp.take_along_axis(x, positions.reshape(*positions.shape, *(1,) * (x.ndim - 2)), axis=1)


def masked_word_loss(
  logits: Float[Array, "batch places vocab"], ids: Int[Array, "batch places"], chosen: Bool[Array, "batch places"]
) -> ExampleLosses:
  """Cross-entropy of the true ids, averaged over an example's chosen words. The weight is 0 if none was chosen.

  The arguments may cover whole texts, or the positions from `choose_positions`, whose second result is then `chosen`.
  Chance is log(vocab). A model that knows only word frequencies reaches the unigram entropy.
  """
  return mean_where(cross_entropy(logits, ids), chosen)


def distilled_word_loss(
  logits: Float[Array, "batch places vocab"],
  teacher_logits: Float[Array, "batch places vocab"],
  ids: Int[Array, "batch places"],
  chosen: Bool[Array, "batch places"],
  *,
  alpha: float | Float[Array, ""],
) -> ExampleLosses:
  """(1 - alpha) masked_word_loss + alpha KL(momentum model's words || words) (Li et al. 2021, ALBEF, eq. 7).

  Args:
    logits: scores of the student.
    teacher_logits: scores of the momentum model, which get no gradient.
    ids: the true ids.
    chosen: True for positions that are predicted.
    alpha: weight of the teacher.
  """
  teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32))
  student = jax.nn.log_softmax(logits.astype(jnp.float32))
  divergence = (jnp.exp(teacher) * (teacher - student)).sum(-1)
  alpha = jnp.asarray(alpha, jnp.float32)
  return mean_where((1.0 - alpha) * cross_entropy(logits, ids) + alpha * divergence, chosen)
