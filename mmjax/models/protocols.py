"""Protocols: the methods of models that loss terms and evaluators call.

A term lists the protocols that it needs (`Term.asks`). If the model lacks one, the run stops before its first step. A
model satisfies a protocol if it has the methods, and if its configuration has the settings that the protocol names as
`settings`. It need not inherit from the protocol. A protocol may inherit from others.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.stochastic import Rngs
from mmjax.types import Batch, Encoded


class Encodes(Protocol):
  """Encodes each array of a batch with its tower."""

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]: ...


class Compares(Protocol):
  """Computes embeddings in a shared space."""

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Compute unit-norm float32 embeddings, by the names of the encodings."""
    ...

  def logit_scale(self) -> Float[Array, ""]: ...

  def logit_bias(self) -> Float[Array, ""]: ...


class Fuses(Protocol):
  """Fuses modalities, so that each can attend to the others."""

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fuse the encodings that the model reads, by name. Others are ignored.

    Returns: fused encodings, by name. The pooled vector of the first one stands for all.
    """
    ...


class Matches(Protocol):
  """Classifies fused pairs: 1 if image and text belong together, otherwise 0."""

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]: ...


class AlignsWords(Fuses, Protocol):
  """Keeps the tokens of words and patches apart in a fusion."""

  settings: ClassVar[tuple[str, ...]] = ("text.pad_id", "text.eos_id", "text.special_ids", "image.grid")


class ScoresPairs(Protocol):
  """Computes a score from both items of a pair, which is no product of two embeddings."""

  def pair_scores(
    self, encoded: Mapping[str, Encoded], texts: Float[Array, "batch candidates width"]
  ) -> Float[Array, "batch candidates"]:
    """Compute the score of each item, such as a video, with some texts.

    Args:
      encoded: encodings by name.
      texts: for each item, the pooled vectors of its candidates.
    """
    ...


class GuessesWords(Protocol):
  """Encodes texts with masked words, and predicts these words."""

  settings: ClassVar[tuple[str, ...]] = ("text.vocab_size", "text.pad_id", "text.mask_id", "text.special_ids")

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded: ...

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """Compute the logits of words at some positions.

    Args:
      tokens: encodings of the positions.
      fused: True if the tokens went through the fusion. Models with two heads (FLAVA) use it to choose the head.
    """
    ...


class OrdersSentences(Protocol):
  """Classifies pairs of texts: 1 if the second follows the first, otherwise 0."""

  settings: ClassVar[tuple[str, ...]] = ("text.vocab_size", "text.pad_id", "text.mask_id", "text.special_ids")

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded: ...

  def next_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]: ...


class GuessesPatches(Protocol):
  """Encodes images with masked patches, and predicts these patches."""

  settings: ClassVar[tuple[str, ...]] = ("image.patch_size", "image.grid")

  def encode_patches(
    self, images: Float[Array, "batch height width 3"], hidden: Bool[Array, "batch patches"], *, rng: Rngs = None
  ) -> Encoded: ...

  def patch_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places outputs"]: ...


class Writes(Protocol):
  """Predicts each next word of a text, with an encoded context."""

  settings: ClassVar[tuple[str, ...]] = ("text.vocab_size", "text.pad_id")

  def decode(
    self,
    ids: Int[Array, "batch length"],
    context: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Any = None,
    text: Encoded | None = None,
  ) -> Any:
    """Compute the logits of the next words.

    Args:
      ids: token ids of the text.
      context: encoding that the decoder reads, such as that of the image. None: no context. With a cache, pass
        it only in the first call.
      rng: one key per example. None: no randomness.
      cache: keys and values of earlier tokens, from `empty_cache`. None: no cache.
      text: result of `encode` for the same ids. Models whose decoder starts from it need not compute it again.
    Returns: logits [batch, length, vocab]; with a cache, (logits, new cache).
    """
    ...

  def empty_cache(self, batch_size: int, length: int) -> Any: ...


class Recognizes(Protocol):
  """Scores the symbols of a text for each token of an encoding, for CTC."""

  settings: ClassVar[tuple[str, ...]] = ("text.pad_id", "text.special_ids")

  def symbol_logits(self, encoded: Encoded) -> Float[Array, "batch frames symbols"]:
    """Compute the scores in float32. The blank is the padding token of the vocabulary (`config.text.pad_id`)."""
    ...


class Answers(Protocol):
  """Classifies the answer to a question."""

  settings: ClassVar[tuple[str, ...]] = ("num_answers",)

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]: ...


class Reconstructs(Protocol):
  """Encodes images as codes of a codebook, and decodes codes."""

  def reconstruct(
    self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None, step: Array | int = 0
  ) -> Any:
    """Encode and decode normalised images.

    Returns: `images`, `codes` [batch, positions], and `penalty` [batch], a loss of the codebook.
    """
    ...

  def code_usage(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute (share of the codes in use, perplexity of the codes) over the last training batches."""
    ...


class Discriminates(Protocol):
  """Tells images from reconstructions, patch by patch."""

  def reality_logits(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch patches"]: ...


class Draws(Protocol):
  """Predicts the codes of an image from a text."""

  settings: ClassVar[tuple[str, ...]] = ("text.vocab_size", "text.pad_id", "image.num_codes")

  def image_codes(self, images: Float[Array, "batch height width 3"]) -> Int[Array, "batch positions"]: ...

  def draw_logits(
    self, text: Int[Array, "batch length"], codes: Int[Array, "batch positions"], *, rng: Rngs = None
  ) -> tuple[Float[Array, "batch words vocab"], Float[Array, "batch positions codes"]]:
    """Compute the logits of the words and of the codes of an image."""
    ...


class Classifies(Protocol):
  """Classifies examples."""

  settings: ClassVar[tuple[str, ...]] = ("num_classes",)

  def class_logits(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch classes"]: ...


class ClassifiesByMember(Protocol):
  """Classifies examples by each member of an ensemble alone."""

  settings: ClassVar[tuple[str, ...]] = ("models", "num_classes")

  def member_class_logits(
    self, encoded: Mapping[str, Encoded], *, rng: Rngs = None
  ) -> Float[Array, "members batch classes"]: ...


class Identifies(Protocol):
  """Compares embeddings with a vector of each identity of the training data."""

  def identity_cosines(self, encoded: Mapping[str, Encoded]) -> Float[Array, "batch identities"]:
    """Compute the cosines in float32, from the encoding of one array."""
    ...


class Predicts(Protocol):
  """Predicts a number."""

  def predict(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch"]:
    """Compute the number for each example, in standard deviations from the mean of the training data."""
    ...


class AnswersByModality(Protocol):
  """Classifies the answer from each modality alone (late fusion)."""

  def modality_logits(
    self, fused: dict[str, Encoded]
  ) -> dict[str, tuple[Float[Array, "batch answers"], Bool[Array, "batch"]]]:
    """Get (scores of the answers, True where the example has the modality), by modality, from the result of `fuse`.

    Raises ConfigError if the fusion has no head per modality.
    """
    ...


class Grounds(Protocol):
  """Predicts the pixels that are relevant to a question."""

  def relevance_logits(self, tokens: Float[Array, "batch places width"]) -> Float[Array, "batch height width"]: ...


def missing(model: Any, protocol: type) -> list[str]:
  """List what a model lacks of a protocol and of those that it inherits from.

  Args:
    model: the linen module, or its class, whose settings are not checked then.
    protocol: the protocol.
  Returns: names of methods, then settings of the configuration: `model.text.pad_id` for `config.text.pad_id`.
  """
  parts = [vars(each) for each in protocol.__mro__ if each.__module__ not in ("typing", "builtins")]
  methods = [name for part in parts for name, value in part.items() if callable(value) and not name.startswith("_")]
  settings = [setting for part in parts for setting in part.get("settings", ())]
  kind = model if isinstance(model, type) else type(model)
  lacking = [name for name in methods if not callable(getattr(kind, name, None))]
  if model is not kind:
    lacking += [f"model.{setting}" for setting in settings if not _has(model.config, setting.split("."))]
  return list(dict.fromkeys(lacking))


def _has(config: Any, path: list[str]) -> bool:
  return not path or (hasattr(config, path[0]) and _has(getattr(config, path[0]), path[1:]))
