"""Next-word prediction, for captions, answers and texts with a given prefix."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.per_example import ExampleLosses, cross_entropy, mean_where


def caption_loss(
  logits: Float[Array, "batch length vocab"],
  ids: Int[Array, "batch length"],
  *,
  pad_id: int,
  label_smoothing: float = 0.0,
  prefix: Int[Array, "batch"] | None = None,
  per: Literal["example", "token"] = "example",
) -> ExampleLosses:
  """Cross-entropy of each next token (GPT; CoCa, Yu et al. 2022, eq. 4; BLIP's LM).

  Args:
    logits: output of a decoder that was fed `ids`. Position t predicts ids[:, t + 1]; the last position is not used.
    ids: token ids. The first token (begin of text) is never predicted.
    pad_id: id of padding, which is not predicted.
    label_smoothing: see `cross_entropy`. BLIP and the original Transformer use 0.1.
    prefix: number of leading tokens that are given and not predicted (a question, a prompt: prefix LM).
    per: "example": every text has weight 1, and its loss is the mean over its tokens. "token": the weight is the number
      of predicted tokens, so that the batch mean is the mean over all tokens (CoCa, BLIP).
  Returns: losses, each the mean over an example's predicted tokens, and weights. The weight is 0 if no token is
    predicted.
  """
  losses = cross_entropy(logits[:, :-1], ids[:, 1:], label_smoothing=label_smoothing)
  predicted = predicted_tokens(ids, pad_id=pad_id, prefix=prefix)
  losses, weights = mean_where(losses, predicted)
  return ExampleLosses(losses, weights if per == "example" else predicted.sum(1, dtype=jnp.float32))


def predicted_tokens(
  ids: Int[Array, "batch length"], *, pad_id: int, prefix: Int[Array, "batch"] | None = None
) -> Array:
  """True where ids[:, 1:] is predicted, [batch, length - 1]: neither padding nor prefix."""
  predicted = ids[:, 1:] != pad_id
  if prefix is None:
    return predicted
  place = jnp.arange(1, ids.shape[1], dtype=jnp.int32)[None]
  return predicted & (place >= prefix[:, None])


def text_log_likelihood(
  logits: Float[Array, "batch length vocab"],
  ids: Int[Array, "batch length"],
  *,
  pad_id: int,
  prefix: Int[Array, "batch"] | None = None,
) -> Float[Array, "batch"]:
  """log p(text) in nats: the sum over predicted tokens. 0 for a text without any.

  Args:
    logits: see `caption_loss`.
    ids: see `caption_loss`.
    pad_id: id of padding, which is not predicted.
    prefix: number of leading tokens that are given and not predicted.
  """
  predicted = predicted_tokens(ids, pad_id=pad_id, prefix=prefix)
  return -jnp.where(predicted, cross_entropy(logits[:, :-1], ids[:, 1:]), 0.0).sum(1)
