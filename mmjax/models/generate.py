"""Text generation in one compiled loop over a cache: greedy, sampling (temperature, top-k, top-p) or beam search."""

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Key

from mmjax.models.beam import beam_search
from mmjax.models.next_word import GenerateConfig, Generated, NextWord
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Encoded


@functools.partial(jax.jit, static_argnames=("model", "config"))
def generate(
  model: nn.Module,
  params: Any,
  prompt: Int[Array, "batch length"],
  context: Encoded | None = None,
  *,
  config: GenerateConfig,
  keys: Key[Array, "batch"] | None = None,
) -> Generated:
  """Continues each prompt until its end token, or for `max_new_tokens` tokens.

  The result of a row depends only on its prompt, context and key, and not on its place in the batch, on other rows or
  on devices. The keys and values of the context (an encoded image) are computed once. The function is compiled once
  for each model, configuration and shape. The loop ends when every text has ended.

  Args:
    model: a module with `decode(ids, context, cache=)`, `empty_cache(batch_size, length)`, and `config.text` with
      pad_id and eos_id.
    params: parameters of the model.
    prompt: token ids, at least one (the begin token) in each row. Padding follows shorter prompts.
    context: encoded tokens for cross-attention; None: none.
    config: decoding method and length.
    keys: one per row. Required for sampling (temperature above 0).
  Returns: the texts and their scores.
  Raises:
    ValueError: keys are missing, or prompt and new tokens exceed the model's max_length.
  """
  next_word = NextWord(model, params, config)
  if config.beams > 1:
    return beam_search(next_word, prompt, context, config)
  if config.temperature and keys is None:
    raise ValueError(f"temperature={config.temperature} samples words at random: give one key per row as keys=")
  return _one_text_each(next_word, prompt, context, config, keys)


def choose(log_probs: Float[Array, "batch vocab"], config: GenerateConfig, keys: Rngs) -> Int[Array, "batch"]:
  """Next word of each row: the most likely one, or one that is sampled with the row's key."""
  if not config.temperature:
    return jnp.argmax(log_probs, axis=1).astype(jnp.int32)
  assert keys is not None
  draw = jax.vmap(jax.random.categorical)
  log_probs = log_probs / config.temperature
  if not config.top_k and config.top_p == 1.0:
    return draw(keys, log_probs).astype(jnp.int32)
  scores, words = lax.top_k(log_probs, min(config.top_k or log_probs.shape[1], log_probs.shape[1]))
  probabilities = jax.nn.softmax(scores)
  likelier = jnp.cumsum(probabilities, axis=1) - probabilities  # total probability of all more likely words
  rank = draw(keys, jnp.where(likelier < config.top_p, scores, -jnp.inf))
  return jnp.take_along_axis(words, rank[:, None], axis=1)[:, 0]


@flax.struct.dataclass
class _Texts:
  """Texts during generation.

  Attributes:
    count: number of words generated so far.
    ids: prompts and generated words.
    place: position of each text's next word.
    last: last word of each text.
    ended: True if a text has ended.
    score: log-probability of the generated words.
  """

  count: Int[Array, ""]
  ids: Int[Array, "batch length"]
  place: Int[Array, "batch"]
  last: Int[Array, "batch"]
  ended: Bool[Array, "batch"]
  score: Float[Array, "batch"]


def _one_text_each(next_word: NextWord, prompt: Array, context: Any, config: GenerateConfig, keys: Rngs) -> Generated:
  batch = prompt.shape[0]
  log_probs, cache, length = next_word.begin(prompt, context, config.max_new_tokens)
  ids = jnp.pad(prompt, ((0, 0), (0, config.max_new_tokens)), constant_values=next_word.pad_id)
  nothing = jnp.zeros((batch,), jnp.int32)
  texts = _Texts(jnp.int32(0), ids, length, nothing, jnp.zeros((batch,), bool), jnp.zeros((batch,)))

  def extend(texts: _Texts, log_probs: Float[Array, "batch vocab"]) -> _Texts:
    word = choose(log_probs, config, fold_in(keys, texts.count))
    said = jnp.take_along_axis(log_probs, word[:, None], axis=1)[:, 0]
    word = jnp.where(texts.ended, next_word.pad_id, word)
    return _Texts(
      count=texts.count + 1,
      ids=texts.ids.at[jnp.arange(batch), texts.place].set(word),
      place=texts.place + (~texts.ended).astype(jnp.int32),
      last=word,
      ended=texts.ended | next_word.ends(word),
      score=texts.score + jnp.where(texts.ended, 0.0, said),
    )

  def body(carry: tuple[_Texts, Any]) -> tuple[_Texts, Any]:
    texts, cache = carry
    log_probs, cache = next_word(texts.last, cache)
    return extend(texts, log_probs), cache

  unfinished = lambda carry: (carry[0].count < config.max_new_tokens) & ~carry[0].ended.all()
  texts, _ = lax.while_loop(unfinished, body, (extend(texts, log_probs), cache))
  return Generated(texts.ids, texts.score)
