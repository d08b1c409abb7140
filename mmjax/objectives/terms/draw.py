"""Loss terms of text-to-image transformers: the codes of an image, from its text and other codes."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int, Key

from mmjax.errors import ConfigError
from mmjax.models.protocols import Draws
from mmjax.objectives.losses.captioning import caption_loss
from mmjax.objectives.losses.per_example import cross_entropy, mean_where
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


class _Drawing(ExampleTerm):
  """A term that predicts the codes of an image from its text."""

  decoding: ClassVar[str]

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text")

  @property
  def reads(self) -> tuple[str, ...]:
    return ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (Draws,)

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    if getattr(model, "decoding", self.decoding) != self.decoding:
      raise ConfigError(
        f"the objective {self.name} ({type(self).__name__}) trains decoding {self.decoding!r}, and the model has "
        f"{model.decoding!r}: set --model.decoding {self.decoding}, or choose the other objective"
      )


@dataclasses.dataclass(frozen=True)
class DrawCodes(_Drawing):
  """Next words of the text and next codes of the image (Ramesh et al. 2021, DALL-E).

  The log also has both losses (text, image) and the accuracy of the codes.
  """

  text_weight: float = 1 / 8
  """Weight of the loss of the text. That of the image is 1 - text_weight."""
  dropped: float = 0.1
  """Share of the examples whose text is dropped, for classifier-free guidance."""

  decoding = "autoregressive"

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("text_weight", "dropped"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")

  @property
  def name(self) -> str:
    return "draw"

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    pad, ids = forward.model.config.text.pad_id, forward.batch["text"]
    text = drop_texts(ids, forward.keys("dropped texts"), rate=self.dropped, pad_id=pad)
    codes = forward.model.image_codes(forward.batch["image"])
    word_logits, code_logits = forward.model.draw_logits(text, codes, rng=forward.rng)
    words = caption_loss(word_logits, text, pad_id=pad)  # a dropped text has none, and a loss of 0
    image = cross_entropy(code_logits, codes).mean(1)
    ones = jnp.ones_like(image)
    return {
      "loss": (self.text_weight * words.losses + (1 - self.text_weight) * image, ones),
      "text": words,
      "image": (image, ones),
      "accuracy": ((jnp.argmax(code_logits, -1) == codes).mean(1, dtype=jnp.float32), ones),
    }

  def chance(self, batch_size: int, model: Any) -> float | None:
    text = (1 - self.dropped) * math.log(model.text.vocab_size)
    return self.text_weight * text + (1 - self.text_weight) * math.log(model.image.num_codes)


@dataclasses.dataclass(frozen=True)
class DrawMaskedCodes(_Drawing):
  """Masked codes of the image, from the text and the other codes (Chang et al. 2022, MaskGIT, eq. 1).

  The share of masked codes of an example is cos(pi r / 2), with r uniform in [0, 1).
  """

  dropped: float = 0.1
  """Share of the examples whose text is dropped, for classifier-free guidance."""

  decoding = "masked"

  def __post_init__(self) -> None:
    super().__post_init__()
    if not 0 <= self.dropped < 1:
      raise ValueError(f"dropped={self.dropped} must lie in [0, 1)")

  @property
  def name(self) -> str:
    return "draw_masked"

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    c, ids = forward.model.config, forward.batch["text"]
    text = drop_texts(ids, forward.keys("dropped texts"), rate=self.dropped, pad_id=c.text.pad_id)
    codes = forward.model.image_codes(forward.batch["image"])
    hidden = hidden_codes(forward.keys("hidden codes"), codes.shape[1])
    read = jnp.where(hidden, c.image.num_codes, codes)
    _, logits = forward.model.draw_logits(text, read, rng=forward.rng)
    right = (jnp.argmax(logits, -1) == codes).astype(jnp.float32)
    return {"loss": mean_where(cross_entropy(logits, codes), hidden), "accuracy": mean_where(right, hidden)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.image.num_codes)


def drop_texts(
  ids: Int[Array, "batch length"], keys: Key[Array, "batch"], *, rate: float, pad_id: int
) -> Int[Array, "batch length"]:
  """Replace a share of the texts by padding, which stands for no text.

  Args:
    ids: token ids.
    keys: one key per row.
    rate: probability that a text is dropped.
    pad_id: token id of padding.
  """
  if not rate:
    return ids
  dropped = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
  return jnp.where(dropped[:, None], pad_id, ids)


def hidden_codes(keys: Key[Array, "batch"], positions: int) -> Bool[Array, "batch positions"]:
  """True for the codes to mask, at least one of each row: a share of cos(pi r / 2), with r uniform in [0, 1)."""

  def of_row(key: Array) -> Array:
    share = jnp.cos(jnp.pi / 2 * jax.random.uniform(key))
    count = jnp.maximum(jnp.ceil(share * positions), 1.0).astype(jnp.int32)
    rank = jnp.argsort(jax.random.uniform(jax.random.fold_in(key, 1), (positions,)))
    return rank < count

  return jax.vmap(of_row)(keys)
