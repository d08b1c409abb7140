"""Loss term for texts with images among their words, and for dialogues."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp

from mmjax.data.columns.interleaved import Interleaved
from mmjax.errors import ConfigError
from mmjax.models.interleaved import IMAGES
from mmjax.models.protocols import Encodes, Writes
from mmjax.objectives.losses.per_example import cross_entropy, mean_where
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


@dataclasses.dataclass(frozen=True)
class InterleavedText(ExampleTerm):
  """Each next word of a text with images, given the words and images before it (Alayrac et al. 2022, equation 1).

  Images, and padding, are not predicted. "accuracy" is the share of predicted words that are the likeliest.
  """

  said: bool = False
  """Predict only the words that text_said marks: the assistant's turns of a column Dialogue."""
  per: Literal["example", "token"] = "token"
  """Unit of equal weight in the mean: every text, or every predicted word."""

  @property
  def name(self) -> str:
    return "interleaved_text"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("text", IMAGES) + ("text_said",) * self.said

  @property
  def reads(self) -> tuple[str, ...]:
    return (IMAGES,)

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Writes)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    column = columns.get("text")
    places = getattr(model, "places", 1)
    if isinstance(column, Interleaved) and column.copies != places:
      raise ConfigError(
        f"the column 'text' has copies={column.copies} image tokens for each image, and the model has {places} tokens "
        f"of an image: set --data.columns.text.copies {places}"
      )

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    ids, text = forward.batch["text"], forward.model.config.text
    logits = forward.model.decode(ids, forward.encoded[IMAGES], rng=forward.rng)[:, :-1]
    targets = ids[:, 1:]
    predicted = (targets != text.pad_id) & (targets != text.image_id)
    if self.said:
      predicted = predicted & forward.batch["text_said"][:, 1:]
    losses, weights = mean_where(cross_entropy(logits, targets), predicted)
    count = predicted.sum(1, dtype=jnp.float32)
    right = ((jnp.argmax(logits, -1) == targets) & predicted).sum(1, dtype=jnp.float32) / jnp.maximum(count, 1.0)
    return {"loss": (losses, weights if self.per == "example" else count), "accuracy": (right, count)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.text.vocab_size)
