"""What a decoder says comes next: the one question that every way of generating text asks."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.nn.cache import rewind


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
  """How text is generated. Raises ValueError where the fields do not fit each other."""

  max_new_tokens: int = 32
  """Most tokens after the prompt, the end token included."""
  temperature: float = 0.0
  """Log-probabilities are divided by it before a word is drawn; 0: the likeliest word is taken (greedy)."""
  top_k: int = 0
  """Draw among that many of the likeliest words (Fan et al. 2018); 0: among all."""
  top_p: float = 1.0
  """Draw among the fewest likeliest words that have this much probability together (Holtzman et al. 2020)."""
  beams: int = 1
  """Beam search over that many texts at once, if more than 1."""
  length_penalty: float = 0.0
  """A beam's score is its log-probability / tokens ** length_penalty: 0 prefers short texts, 1 is the mean."""

  def __post_init__(self) -> None:
    if self.max_new_tokens < 1 or self.beams < 1:
      raise ValueError(f"max_new_tokens={self.max_new_tokens} and beams={self.beams} must be at least 1")
    for name in ("temperature", "top_k", "length_penalty"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name}={getattr(self, name)} must not be negative")
    if not 0.0 < self.top_p <= 1.0:
      raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")
    if self.beams > 1 and self.temperature:
      raise ValueError(f"beams={self.beams} draws nothing: set temperature=0, or beams=1")


@flax.struct.dataclass
class Generated:
  """Texts that a decoder went on with.

  Attributes:
    ids: each row's prompt, what was generated right after it (the end token too), padding.
    score: log-probability of what was generated, in nats; of a beam search, divided by tokens ** length_penalty.
  """

  ids: Int[Array, "batch length"]
  score: Float[Array, "batch"]


class NextWord:
  """Asks a model, bound to its parameters, for the next word; padding is never one.

  Attributes:
    model: an unbound module with `decode`, `empty_cache` and `config.text` (its pad_id and eos_id).
    params: its parameters.
  """

  def __init__(self, model: Any, params: Any):
    self._model, self._params = model, params
    self.pad_id, self.eos_id = model.config.text.pad_id, model.config.text.eos_id

  def begin(
    self, prompt: Int[Array, "batch length"], context: Any, room: int
  ) -> tuple[Float[Array, "batch vocab"], Any, Int[Array, "batch"]]:
    """Reads prompts (words, then padding) at once: (log-probabilities, cache with room for more, words of each)."""
    length = jnp.maximum((prompt != self.pad_id).sum(1, dtype=jnp.int32), 1)
    cache = self._model.empty_cache(prompt.shape[0], prompt.shape[1] + room)
    logits, cache = self._decode(prompt, context, cache)
    last = jnp.take_along_axis(logits, (length - 1)[:, None, None], axis=1)[:, 0]
    return self._normal(last), rewind(cache, length), length

  def __call__(self, word: Int[Array, "batch"], cache: Any) -> tuple[Float[Array, "batch vocab"], Any]:
    """Reads one more word of each text: (log-probabilities of the next, cache)."""
    logits, cache = self._decode(word[:, None], None, cache)
    return self._normal(logits[:, 0]), cache

  def _decode(self, ids: Array, context: Any, cache: Any) -> Any:
    return self._model.apply({"params": self._params}, ids, context, cache=cache, method="decode")

  def _normal(self, logits: Float[Array, "batch vocab"]) -> Float[Array, "batch vocab"]:
    possible = jnp.arange(logits.shape[-1]) != self.pad_id
    return jax.nn.log_softmax(jnp.where(possible[None], logits.astype(jnp.float32), -jnp.inf))
