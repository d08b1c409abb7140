"""Loss terms for text: masked words, next sentence, captions, and texts that are written from other texts."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.models.protocols import Encodes, Fuses, GuessesWords, OrdersSentences, Writes
from mmjax.objectives.losses.balance import piecewise_linear
from mmjax.objectives.losses.captioning import caption_loss
from mmjax.objectives.losses.masked_words import (
  choose_positions,
  distilled_word_loss,
  mask_tokens,
  masked_word_loss,
  take_positions,
)
from mmjax.objectives.losses.next_sentence import next_sentence_loss
from mmjax.objectives.losses.per_example import correct
from mmjax.objectives.terms.base import AVERAGE, ExampleTerm, Forward, Scores
from mmjax.types import Encoded


class Hidden(NamedTuple):
  """Texts with masked words.

  Attributes:
    text: their encoding, without an image.
    positions: positions of the words to predict, padded to a fixed number.
    chosen: True for positions that are not padding.
    ids: original token ids at the positions.
  """

  text: Encoded
  positions: Int[Array, "batch most"]
  chosen: Bool[Array, "batch most"]
  ids: Int[Array, "batch most"]


def hide_words(forward: Forward, rate: float, segments: bool, *, whole: bool = False) -> Hidden:
  """Mask words of the texts, and encode them with `encode_words`. Terms with the same settings share the result.

  Args:
    forward: outputs of the model.
    rate: share of masked words.
    segments: True if the texts are pairs of sentences, and the model reads their segments.
    whole: mask whole words.
  """

  def compute() -> Hidden:
    ids, text = forward.batch["text"], forward.model.config.text
    masked, chosen = mask_tokens(
      ids,
      forward.keys("hidden words"),
      mask_id=text.mask_id,
      vocab_size=text.vocab_size,
      pad_id=text.pad_id,
      special_ids=text.special_ids,
      rate=rate,
      words=forward.batch["text_words"] if whole else None,
    )
    most = min(ids.shape[1], max(1, math.ceil(2 * rate * ids.shape[1])))
    positions, chosen = choose_positions(chosen, most)
    segment = {"segment": forward.batch["segment"]} if segments else {}
    encoded = forward.model.encode_words(masked, rng=forward.rng, **segment)
    return Hidden(encoded, positions, chosen, take_positions(ids, positions))

  return forward.once(("hidden words", rate, segments, whole), compute)


@dataclasses.dataclass(frozen=True)
class MaskedWords(ExampleTerm):
  """Masked language modelling from text and image (Devlin et al. 2019; Li et al. 2021, ALBEF, eq. 3)."""

  image: bool = True
  """Predict from text and image. False: from the text only (BERT)."""
  rate: float = 0.15
  """Share of masked words. 80% of them become the mask token, 10% another word, and 10% stay unchanged."""
  segments: bool = False
  """True if the text is a pair of sentences, and the model reads their segments."""
  whole_words: bool = False
  """Mask all tokens of a word together (ViLT, section 3.3). A column `Caption(words=True)` numbers the words."""
  alpha: tuple[tuple[int, float], ...] = ()
  """(step, share) points. The predictions of the moving average are this share of the target (ALBEF: 0 to .4 in one
  epoch). Empty: no teacher."""

  @property
  def name(self) -> str:
    return "masked_words" if self.image else "masked_words_text"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image",) * self.image + ("text",) + ("segment",) * self.segments + ("text_words",) * self.whole_words

  @property
  def reads(self) -> tuple[str, ...]:
    return ("image",) if self.image else ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (GuessesWords, *(Encodes, Fuses) * self.image)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("mask",)

  @property
  def teacher(self) -> str | None:
    return AVERAGE if self.alpha else None

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits, hidden = self._guess(forward)
    if self.alpha:
      alpha = piecewise_linear(forward.step, self.alpha)
      loss = distilled_word_loss(logits, taught, hidden.ids, hidden.chosen, alpha=alpha)
    else:
      loss = masked_word_loss(logits, hidden.ids, hidden.chosen)
    return {"loss": loss, "accuracy": share(jnp.argmax(logits, -1) == hidden.ids, hidden.chosen)}

  def teach(self, forward: Forward) -> Any:
    return self._guess(forward)[0]

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.text.vocab_size)

  def _guess(self, forward: Forward) -> tuple[Float[Array, "batch most vocab"], Hidden]:
    hidden = hide_words(forward, self.rate, self.segments, whole=self.whole_words)
    text = hidden.text
    if self.image:
      text = forward.model.fuse({"image": forward.encoded["image"], "text": text}, rng=forward.rng)["text"]
    return forward.model.word_logits(take_positions(text.tokens, hidden.positions), fused=self.image), hidden


@dataclasses.dataclass(frozen=True)
class NextSentence(ExampleTerm):
  """Next sentence prediction from the text with masked words (Devlin et al. 2019, section 3.1)."""

  rate: float = 0.15
  """Share of masked words. With the rate of MaskedWords, both terms share one masked text and its encoding."""

  @property
  def name(self) -> str:
    return "next_sentence"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("text", "segment", "next")

  @property
  def reads(self) -> tuple[str, ...]:
    return ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (OrdersSentences,)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("mask",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits, follows = forward.model.next_logits(hide_words(forward, self.rate, True).text.pooled), forward.batch["next"]
    return {"loss": next_sentence_loss(logits, follows), "accuracy": correct(logits, follows)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(2)


@dataclasses.dataclass(frozen=True)
class Caption(ExampleTerm):
  """Captioning: each next word is predicted from the words before it and the image (Yu et al. 2022, CoCa, eq. 4)."""

  image: bool = True
  """Predict from words and image. False: from the words only (GPT)."""
  label_smoothing: float = 0.0
  """Share of the target that is spread uniformly over the vocabulary (BLIP: .1)."""
  per: Literal["example", "token"] = "token"
  """Unit of equal weight in the mean: every example, or every token."""

  @property
  def name(self) -> str:
    return "caption" if self.image else "language"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image",) * self.image + ("text",)

  @property
  def reads(self) -> tuple[str, ...]:
    return ("image",) if self.image else ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (Writes, *(Encodes,) * self.image)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    ids, pad_id = forward.batch["text"], forward.model.config.text.pad_id
    image = forward.encoded["image"] if self.image else None
    known = forward.encoded.get("text") if self.image else None  # present if another term reads it
    logits = forward.model.decode(ids, image, rng=forward.rng, text=known)
    return {"loss": caption_loss(logits, ids, pad_id=pad_id, label_smoothing=self.label_smoothing, per=self.per)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.text.vocab_size)


@dataclasses.dataclass(frozen=True)
class TargetText(ExampleTerm):
  """Writing of a text from another one, or from speech: each next word of `target`, given the words before it and the
  whole `text` (Vaswani et al. 2017) or another array."""

  label_smoothing: float = 0.1
  """Share of the target that is spread uniformly over the vocabulary (Vaswani et al. 2017, section 5.4)."""
  source: str = "text"
  """Name of the array that the text is written from. "audio": speech recognition (Whisper); "video": captions of
  videos (WriterConfig)."""

  @property
  def name(self) -> str:
    return "target_text"

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.source, "target")

  @property
  def reads(self) -> tuple[str, ...]:
    return (self.source,)

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Writes)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    ids = forward.batch["target"]
    logits = forward.model.decode(ids, forward.encoded[self.source], rng=forward.rng)
    pad_id = forward.model.config.text.pad_id
    return {"loss": caption_loss(logits, ids, pad_id=pad_id, label_smoothing=self.label_smoothing, per="token")}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.text.vocab_size)


def share(right: Bool[Array, "batch most"], counted: Bool[Array, "batch most"]) -> tuple[Array, Array]:
  """(accuracy over counted positions, their number) per example. The mean over a batch is then over positions.

  Args:
    right: True for correct predictions.
    counted: True for positions that count.
  """
  count = counted.sum(1, dtype=jnp.float32)
  return (right & counted).sum(1, dtype=jnp.float32) / jnp.maximum(count, 1.0), count
