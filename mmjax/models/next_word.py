"""Next-word probabilities of a decoder, shared by all methods of text generation."""

import dataclasses
import functools
import operator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.cache import rewind


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
  """Configuration of text generation. Raises ValueError if the fields are inconsistent."""

  max_new_tokens: int = 32
  """Maximal number of tokens after the prompt, including the end token."""
  temperature: float = 0.0
  """Divisor of the log-probabilities before a word is sampled; 0: greedy decoding."""
  top_k: int = 0
  """Sample among this many most likely words (Fan et al. 2018); 0: among all words."""
  top_p: float = 1.0
  """Sample among the smallest set of most likely words with at least this total probability (Holtzman et al. 2020)."""
  beams: int = 1
  """Number of beams; above 1, use beam search."""
  length_penalty: float = 0.0
  """A beam's score is log-probability / tokens ** length_penalty. 0 favours short texts; 1 is the mean per token."""
  end_ids: tuple[int, ...] = ()
  """Further tokens that end a text, beside the model's end token. Beam search has no such tokens."""
  suppress: tuple[int, ...] = ()
  """Token ids that are never generated (Whisper: signs that stand for no speech)."""
  suppress_first: tuple[int, ...] = ()
  """Token ids that no generated text begins with (Whisper: a blank and the end token)."""

  def __post_init__(self) -> None:
    if self.max_new_tokens < 1 or self.beams < 1:
      raise ValueError(f"max_new_tokens={self.max_new_tokens} and beams={self.beams} must be at least 1")
    for name in ("temperature", "top_k", "length_penalty"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name}={getattr(self, name)} must not be negative")
    if not 0.0 < self.top_p <= 1.0:
      raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")
    if self.beams > 1 and self.temperature:
      raise ValueError(f"beams={self.beams} does not sample: set temperature=0, or beams=1")
    if self.beams > 1 and self.end_ids:
      raise ValueError(f"beams={self.beams} knows one end token, that of the model: set end_ids=(), or beams=1")


@flax.struct.dataclass
class Generated:
  """Generated texts.

  Attributes:
    ids: each row's prompt, then the generated words with the end token, then padding.
    score: log-probability of the generated words, in nats. For beam search, divided by tokens ** length_penalty.
  """

  ids: Int[Array, "batch length"]
  score: Float[Array, "batch"]


class NextWord:
  """Next-word probabilities of a model with its parameters. Padding has probability 0, unless it is an end token.

  Args:
    model: an unbound module with `decode`, `empty_cache` and `config.text` (pad_id and eos_id).
    params: parameters of the model.
    config: settings of the generation, for the words that end a text and those that have probability 0. None: only
      eos_id ends a text, and only padding has probability 0.
  """

  def __init__(self, model: Any, params: Any, config: GenerateConfig | None = None):
    self._model, self._params = model, params
    self._never, self._not_first = ((), ()) if config is None else (config.suppress, config.suppress_first)
    self.pad_id, self.eos_id = model.config.text.pad_id, model.config.text.eos_id
    self._end_ids = (self.eos_id, *(() if config is None else config.end_ids))

  def ends(self, words: Int[Array, "..."]) -> Bool[Array, "..."]:
    """True for each word that ends its text."""
    return functools.reduce(operator.or_, [words == end for end in self._end_ids])

  def begin(
    self, prompt: Int[Array, "batch length"], context: Any, room: int
  ) -> tuple[Float[Array, "batch vocab"], Any, Int[Array, "batch"]]:
    """Reads prompts (words, then padding).

    Args:
      prompt: token ids.
      context: tokens for cross-attention; None: none.
      room: number of tokens that the cache can hold in addition to the prompt.
    Returns: (log-probabilities of the next word, cache, number of words in each prompt).
    """
    places = jnp.arange(1, prompt.shape[1] + 1, dtype=jnp.int32)[None]
    length = jnp.maximum(jnp.where(prompt != self.pad_id, places, 0).max(1), 1)
    cache = self._model.empty_cache(prompt.shape[0], prompt.shape[1] + room)
    logits, cache = self._decode(prompt, context, cache)
    last = jnp.take_along_axis(logits, (length - 1)[:, None, None], axis=1)[:, 0]
    return self._normal(last, self._never + self._not_first), rewind(cache, length), length

  def __call__(self, word: Int[Array, "batch"], cache: Any) -> tuple[Float[Array, "batch vocab"], Any]:
    """Reads one more word of each text. Returns (log-probabilities of the next word, cache)."""
    logits, cache = self._decode(word[:, None], None, cache)
    return self._normal(logits[:, 0], self._never), cache

  def _decode(self, ids: Array, context: Any, cache: Any) -> Any:
    return self._model.apply({"params": self._params}, ids, context, cache=cache, method="decode")

  def _normal(self, logits: Float[Array, "batch vocab"], never: tuple[int, ...]) -> Float[Array, "batch vocab"]:
    possible = (jnp.arange(logits.shape[-1]) != self.pad_id) | (self.pad_id in self._end_ids)
    if never:
      possible = possible.at[jnp.asarray(never)].set(False)
    return jax.nn.log_softmax(jnp.where(possible[None], logits.astype(jnp.float32), -jnp.inf))
