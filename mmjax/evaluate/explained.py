"""The numbers that attention maps explain: that image and text match, an answer, or the text's words."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.objectives.terms.base import joint
from mmjax.types import Batch, Encoded


def match_score(model: Any, batch: Batch) -> tuple[Float[Array, "batch"], int, int]:
  """The logit of belonging together minus the other; see attention_maps.Score."""
  encoded = model.encode(batch)
  logits = model.match_logits(joint(model.fuse(encoded)))
  return logits[:, 1] - logits[:, 0], *_lengths(encoded)


def answer_score(model: Any, batch: Batch) -> tuple[Float[Array, "batch"], int, int]:
  """The logit of the answer that the model gives."""
  encoded = model.encode(batch)
  return model.answer_logits(joint(model.fuse(encoded))).max(1), *_lengths(encoded)


def words_score(model: Any, batch: Batch) -> tuple[Float[Array, "batch"], int, int]:
  """The log-probability of the text's own words, each where it stands."""
  encoded = model.encode(batch)
  logits = model.word_logits(model.fuse(encoded)["text"].tokens)
  own = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["text"][..., None], axis=2)[..., 0]
  return (own * encoded["text"].mask.astype(own.dtype)).sum(1), *_lengths(encoded)


def _lengths(encoded: dict[str, Encoded]) -> tuple[int, int]:
  return encoded["image"].mask.shape[1], encoded["text"].mask.shape[1]
