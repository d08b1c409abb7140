"""Loss term of speech recognition by connectionist temporal classification."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from mmjax.models.protocols import Encodes, Recognizes
from mmjax.objectives.losses.ctc import ctc_loss
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


@dataclasses.dataclass(frozen=True)
class Ctc(ExampleTerm):
  """Recognition of a text from frames, summed over all alignments (CTC, Graves et al. 2006).

  The log has the share of the texts that fit into their frames as "fits". The others are left out of the loss.
  """

  source: str = "audio"
  """Name of the array that is recognized."""
  text: str = "text"
  """Name of the column with the text."""

  @property
  def name(self) -> str:
    return "ctc"

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.source, self.text)

  @property
  def reads(self) -> tuple[str, ...]:
    return (self.source,)

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Recognizes)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    encoded, vocabulary = forward.encoded[self.source], forward.model.config.text
    loss = ctc_loss(
      forward.model.symbol_logits(encoded),
      encoded.mask,
      forward.batch[self.text],
      blank_id=vocabulary.pad_id,
      special_ids=vocabulary.special_ids,
    )
    return {"loss": loss, "fits": ((loss.weights > 0).astype(jnp.float32), jnp.ones_like(loss.weights))}
