"""The small interfaces by which terms of a loss and evaluators ask a model.

A term names those it needs (`Term.asks`), and a run is refused before its first step where its model lacks one. A model
satisfies a protocol by having its methods: it inherits from nothing.
"""

from typing import Any, Protocol

from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.stochastic import Rngs
from mmjax.types import Batch, Encoded


class Encodes(Protocol):
  """Encodes every array of a batch by its tower."""

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]: ...


class Compares(Protocol):
  """Embeds in a shared space."""

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Unit-norm float32 embeddings, by the names of what was encoded."""
    ...

  def logit_scale(self) -> Float[Array, ""]: ...

  def logit_bias(self) -> Float[Array, ""]: ...


class Fuses(Protocol):
  """Lets modalities read each other."""

  def fuse(self, image: Encoded, text: Encoded, *, rng: Rngs = None) -> dict[str, Encoded]: ...


class Matches(Protocol):
  """Says whether a fused pair belongs together."""

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]: ...


class GuessesWords(Protocol):
  """Encodes texts in which words are hidden, and scores words for their places."""

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded: ...

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """`fused` tells a model with two heads (FLAVA) whether the tokens have read another modality."""
    ...


class OrdersSentences(Protocol):
  """Says whether one text follows another."""

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded: ...

  def next_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]: ...


class GuessesPatches(Protocol):
  """Encodes images in which patches are hidden, and guesses those."""

  def encode_patches(
    self, images: Float[Array, "batch height width 3"], hidden: Bool[Array, "batch patches"], *, rng: Rngs = None
  ) -> Encoded: ...

  def patch_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places outputs"]: ...


class Writes(Protocol):
  """Predicts each next word, given what is encoded."""

  def decode(
    self,
    ids: Int[Array, "batch length"],
    context: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Any = None,
    text: Encoded | None = None,
  ) -> Any:
    """`text` is what `encode` gave for the same ids. A model whose decoder goes on from it need not encode it again."""
    ...

  def empty_cache(self, batch_size: int, length: int) -> Any: ...


class Answers(Protocol):
  """Scores answers to a question."""

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]: ...


class Grounds(Protocol):
  """Says which pixels a question is about."""

  def relevance_logits(self, tokens: Float[Array, "batch places width"]) -> Float[Array, "batch height width"]: ...


def missing(model: Any, protocol: type) -> list[str]:
  """Names of the methods of a protocol that a model (an object or a class) lacks."""
  names = [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]
  return [name for name in names if not callable(getattr(model, name, None))]
