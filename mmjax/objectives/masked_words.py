"""Masked language modelling: which words are hidden, and what guessing them costs (Devlin et al. 2019, section 3.1)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from mmjax.objectives.per_example import ExampleLosses, cross_entropy, mean_where


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
) -> tuple[Int[Array, "batch length"], Bool[Array, "batch length"]]:
  """Hides words: of those chosen 80% become [MASK], 10% another word, 10% stay as they are.

  Args:
    rng: one key per example; other keys choose other words, so a text is hidden differently in every step.
    mask_id: the id of [MASK].
    vocab_size: number of ids; the random word is drawn from all that are neither special, padding nor [MASK].
    special_ids: ids that are never chosen and never put in ([CLS], [SEP], end of text).
    rate: each word's probability of being chosen.
    at_least_one: a text in which chance chose nothing has its likeliest word chosen, if it has any word at all.
      Short captions need it: without it exp(-.16 n) of the texts with n words teach nothing.
  Returns: (ids with some hidden, True at the chosen ones).
  Raises: ValueError for a mask_id that is no id, or where no word is left to draw from.
  """
  if not 0 <= mask_id < vocab_size:
    raise ValueError(f"mask_id={mask_id} must lie in [0, vocab_size={vocab_size}): the tokenizer needs a mask token")
  kept = np.asarray([*special_ids, pad_id, mask_id], np.int32)
  words = np.setdiff1d(np.arange(vocab_size, dtype=np.int32), kept)
  if not len(words):
    raise ValueError(f"vocab_size={vocab_size} leaves no word beside the special ids {sorted(set(kept.tolist()))}")
  maskable = ~jnp.isin(ids, jnp.asarray(kept))

  def one(key: Array, ids: Array, maskable: Array) -> tuple[Array, Array]:
    choose, change, word = jax.random.split(key, 3)
    luck = jnp.where(maskable, jax.random.uniform(choose, ids.shape), 2.0)
    chosen = luck < rate
    if at_least_one:
      chosen |= maskable & (luck == luck.min())
    fate = jax.random.uniform(change, ids.shape)
    drawn = jnp.asarray(words)[jax.random.randint(word, ids.shape, 0, len(words))].astype(ids.dtype)
    changed = jnp.where(fate < 0.8, jnp.asarray(mask_id, ids.dtype), jnp.where(fate < 0.9, drawn, ids))
    return jnp.where(chosen, changed, ids), chosen

  return jax.vmap(one)(rng, ids, maskable)


def choose_positions(
  chosen: Bool[Array, "batch length"], most: int
) -> tuple[Int[Array, "batch most"], Bool[Array, "batch most"]]:
  """The first `most` chosen places of every example, in order, so that only they meet the vocabulary's matmul.

  With a rate of .15 and most = ceil(.3 length) few places are left out; those are hidden, but not asked for.

  Returns: (positions, True where there is such a place; the others point anywhere inside).
  """
  order = jnp.argsort(~chosen, axis=1, stable=True)[:, :most].astype(jnp.int32)
  return order, jnp.take_along_axis(chosen, order, axis=1)


def take_positions(x: Array, positions: Int[Array, "batch most"]) -> Array:
  """x [batch, length, ...] at the positions: [batch, most, ...]."""
  return jnp.take_along_axis(x, positions.reshape(*positions.shape, *(1,) * (x.ndim - 2)), axis=1)


def masked_word_loss(
  logits: Float[Array, "batch places vocab"], ids: Int[Array, "batch places"], chosen: Bool[Array, "batch places"]
) -> ExampleLosses:
  """Cross-entropy of the true ids, mean over an example's chosen places; weight 0 where nothing was chosen.

  Takes whole texts, or what take_positions gathered at choose_positions' places (`chosen` is then its second result).
  Chance is log(vocab); the unigram entropy for a model that knows how frequent words are.
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

  The teacher gets no gradient.
  """
  teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32))
  student = jax.nn.log_softmax(logits.astype(jnp.float32))
  divergence = (jnp.exp(teacher) * (teacher - student)).sum(-1)
  alpha = jnp.asarray(alpha, jnp.float32)
  return mean_where((1.0 - alpha) * cross_entropy(logits, ids) + alpha * divergence, chosen)
