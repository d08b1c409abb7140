"""Visual question answering losses: classify the answer, or rank candidate answers.

For generated answers, use `caption_loss`.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.captioning import text_log_likelihood
from mmjax.objectives.losses.per_example import ExampleLosses, class_loss, weighted


def answer_scores(counts: Int[Array, "*batch answers"]) -> Float[Array, "*batch answers"]:
  """Soft score of an answer that n of the ten annotators gave: min(1, n / 3) (Antol et al. 2015, section 3)."""
  return jnp.minimum(1.0, counts.astype(jnp.float32) / 3.0)


def answer_class_loss(
  logits: Float[Array, "batch answers"], answer: Int[Array, "batch"], weights: Float[Array, "batch"] | None = None
) -> ExampleLosses:
  """Cross-entropy of the one correct answer. The weight is 0 if it is unknown (-1).

  Args:
    logits: scores of the answers.
    answer: class of the correct answer; -1: unknown.
    weights: weight of each question, for example if several annotated answers share a question (BLIP, section 4.4).
  """
  return weighted(class_loss(logits, answer), weights)


def answer_score_loss(
  logits: Float[Array, "batch answers"],
  scores: Float[Array, "batch answers"],
  weights: Float[Array, "batch"] | None = None,
) -> ExampleLosses:
  """Binary cross-entropy with soft scores in [0, 1], summed over answers (Teney et al. 2018, section 3.6).

  A question without a known answer (all scores 0) has weight 0.
  """
  logits, scores = logits.astype(jnp.float32), scores.astype(jnp.float32)
  losses = (jax.nn.softplus(logits) - scores * logits).sum(-1)
  return weighted(ExampleLosses(losses, (scores > 0).any(-1).astype(jnp.float32)), weights)


def answer_log_likelihood(
  logits: Float[Array, "batch candidates length vocab"],
  ids: Int[Array, "batch candidates length"],
  *,
  pad_id: int,
) -> Float[Array, "batch candidates"]:
  """log p(answer | image, question) of each candidate, from a decoder that was fed the candidates.

  This is the sum over tokens, not their mean. Sums of different answers are comparable as probabilities; a mean would
  favour long answers.
  """
  flat = lambda x: rearrange(x, "b k ... -> (b k) ...")
  return text_log_likelihood(flat(logits), flat(ids), pad_id=pad_id).reshape(ids.shape[:2])


def answer_ranking_loss(
  log_likelihood: Float[Array, "batch candidates"],
  answer: Int[Array, "batch"],
  weights: Float[Array, "batch"] | None = None,
) -> ExampleLosses:
  """Cross-entropy over k candidates, of which number `answer` is correct. The weight is 0 if none is (-1)."""
  return weighted(class_loss(log_likelihood, answer), weights)
