"""Beam search: the most likely text among those that a few beams find.

The result is exact if there are as many beams as texts.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from mmjax.models.next_word import GenerateConfig, Generated, NextWord
from mmjax.nn.cache import reorder


@flax.struct.dataclass
class _Beams:
  """Beams of every example, and the best text that has ended.

  Attributes:
    count: number of words generated so far.
    ids: words of each beam.
    score: log-probability of each beam.
    best_ids: words of the best text that has ended.
    best_score: log-probability of that text divided by tokens ** length_penalty.
  """

  count: Int[Array, ""]
  ids: Int[Array, "batch beams new"]
  score: Float[Array, "batch beams"]
  best_ids: Int[Array, "batch new"]
  best_score: Float[Array, "batch"]


def beam_search(
  next_word: NextWord, prompt: Int[Array, "batch length"], context: Any, config: GenerateConfig
) -> Generated:
  """Best text of each example, ended or of full length. An example's result does not depend on other examples.

  Args:
    next_word: a model bound to its parameters.
    prompt: token ids to continue.
    context: tokens for cross-attention, such as an encoded image; None: none.
    config: number of beams, length and length penalty.
  """
  (batch, beams), new = (prompt.shape[0], config.beams), config.max_new_tokens
  log_probs, cache, length = next_word.begin(prompt, context, new)
  empty = jnp.full((batch, beams, new), next_word.pad_id, jnp.int32)
  # All beams begin with the same text, so all except the first get probability 0.
  score = jnp.full((batch, beams), -jnp.inf).at[:, 0].set(0.0)
  state = _Beams(jnp.int32(0), empty, score, empty[:, 0], jnp.full((batch,), -jnp.inf))
  repeated = jnp.broadcast_to(log_probs[:, None], (batch, beams, log_probs.shape[-1]))
  state, _ = _extend(state, repeated, next_word.eos_id, config)
  cache = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), cache)

  def body(carry: tuple[_Beams, Any]) -> tuple[_Beams, Any]:
    state, cache = carry
    last = lax.dynamic_index_in_dim(state.ids, state.count - 1, axis=2, keepdims=False)
    log_probs, cache = next_word(last.reshape(-1), cache)
    state, parents = _extend(state, log_probs.reshape(batch, beams, -1), next_word.eos_id, config)
    return state, reorder(cache, parents)

  unsettled = lambda carry: (carry[0].count < new) & ~_settled(carry[0], config).all()
  state, _ = lax.while_loop(unsettled, body, (state, cache))
  ids, score = _best(state, config)
  rows, places = jnp.arange(batch)[:, None], length[:, None] + jnp.arange(new, dtype=jnp.int32)[None]
  padded = jnp.pad(prompt, ((0, 0), (0, new)), constant_values=next_word.pad_id)
  return Generated(padded.at[rows, places].set(ids), score)


def _penalty(count: Array | int, config: GenerateConfig) -> Array:
  return jnp.asarray(count, jnp.float32) ** config.length_penalty


def _extend(
  state: _Beams, log_probs: Float[Array, "batch beams vocab"], eos_id: int, config: GenerateConfig
) -> tuple[_Beams, Int[Array, "batch beams"]]:
  """Adds one word to every beam. Also returns the beam that each new beam continues."""
  beams, vocab = log_probs.shape[1:]
  total = (state.score[:, :, None] + log_probs).reshape(-1, beams * vocab)
  # Each beam has only one candidate that ends. Among twice as many candidates as beams, enough do not end.
  score, index = lax.top_k(total, 2 * beams)
  parent, word = index // vocab, index % vocab
  ids = jnp.take_along_axis(state.ids, parent[:, :, None], axis=1).at[:, :, state.count].set(word)
  ends, count = word == eos_id, state.count + 1

  among_best = jnp.arange(2 * beams)[None] < beams  # a text ends only if it is among the best, as in greedy decoding
  ended = jnp.where(ends & among_best, score / _penalty(count, config), -jnp.inf)
  first = jnp.argmax(ended, axis=1)[:, None]
  best = jnp.take_along_axis(ended, first, axis=1)[:, 0]
  better = best > state.best_score
  best_ids = jnp.where(better[:, None], _take(ids, first)[:, 0], state.best_ids)

  alive, chosen = lax.top_k(jnp.where(ends, -jnp.inf, score), beams)
  best_score = jnp.where(better, best, state.best_score)
  extended = _Beams(count, _take(ids, chosen), alive, best_ids, best_score)
  return extended, jnp.take_along_axis(parent, chosen, axis=1)


def _take(ids: Int[Array, "batch candidates new"], chosen: Int[Array, "batch some"]) -> Int[Array, "batch some new"]:
  return jnp.take_along_axis(ids, chosen[:, :, None], axis=1)


def _settled(state: _Beams, config: GenerateConfig) -> Bool[Array, "batch"]:
  """True if no beam can still become better than the best text that has ended.

  Log-probabilities can only fall, and their divisor is at most the one used here.
  """
  return state.best_score >= state.score.max(1) / _penalty(config.max_new_tokens, config)


def _best(state: _Beams, config: GenerateConfig) -> tuple[Int[Array, "batch new"], Float[Array, "batch"]]:
  """Best text that has ended, or the best open beam if it is better."""
  open_score = state.score[:, 0] / _penalty(state.count, config)
  ended = state.best_score >= open_score
  return jnp.where(ended[:, None], state.best_ids, state.ids[:, 0]), jnp.where(ended, state.best_score, open_score)
