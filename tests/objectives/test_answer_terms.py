"""Terms about questions: which loss each computes from a batch, against the definition, and what questions weigh."""

import itertools
import types
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.objectives import Answer, AnswerRanking, AnswerScores, AnswerText, Forward, ModalityAnswer, Relevance
from mmjax.objectives.terms.answers import QuestionTerm
from mmjax.types import Encoded
from tests.objectives.per_example import cross_entropy, keys, normal

ROWS, CLASSES, VOCABULARY = 3, 4, 7
LOGITS = normal(ROWS, CLASSES)
WORDS = normal(ROWS, 5, VOCABULARY, VOCABULARY, seed=1)  # by context, place and word
WEIGHTS = np.asarray([0.5, 0.0, 2.0], np.float32)
SCORES = np.asarray([[1, 0, 1 / 3, 0], [0, 0, 0, 1], [0, 2 / 3, 0, 0]], np.float32)
CANDIDATES = np.asarray(
  [[[2, 3, 1, 0, 0], [2, 4, 5, 1, 0]], [[2, 6, 1, 0, 0], [2, 5, 1, 0, 0]], [[2, 3, 4, 1, 0], [0] * 5]], np.int32
)


class Model:
  """What a model of questions says: tables. The decoder looks its context up, so a mixed-up context shows."""

  config = types.SimpleNamespace(text=types.SimpleNamespace(pad_id=0))

  def encode(self, batch, *, rng):
    return {name: encoded(batch["index"]) for name in batch}

  def fuse(self, encoded, *, rng):
    return {"text": encoded["text"], "image": encoded["image"]}

  def answer_logits(self, pooled):
    return LOGITS[pooled[:, 0].astype(int)]

  def modality_logits(self, fused):
    return {"image": (LOGITS, jnp.ones(ROWS, bool)), "text": (LOGITS[::-1], jnp.asarray([False, True, True]))}

  def relevance_logits(self, tokens):
    return jnp.zeros((len(tokens), 2, 2))

  def decode(self, ids, context, *, rng):
    row = context.pooled[:, 0].astype(int)[:, None]
    return WORDS[row, jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids]


def encoded(index):
  row = jnp.asarray(index, jnp.float32)[:, None]
  return Encoded(row[:, :, None], jnp.ones((len(index), 1), bool), row)


class Given(Forward):
  encoded: ClassVar = {name: encoded(np.arange(ROWS)) for name in ("image", "text")}


def forward(**arrays):
  return Given(Model(), {**arrays, "weight": WEIGHTS}, keys(ROWS), jnp.int32(0), (), training=False)


def likelihood(row, ids):
  """log p of an answer, word by word."""
  steps = [(place, word, after) for place, (word, after) in enumerate(itertools.pairwise(ids)) if after != 0]
  return sum(-cross_entropy(WORDS[row, place, word], after) for place, word, after in steps)


def test_scores_are_learned_by_a_binary_cross_entropy_per_answer():
  found = AnswerScores().over_rows(forward(answer_scores=SCORES), None)
  p = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
  want = -(SCORES * np.log(p) + (1 - SCORES) * np.log(1 - p)).sum(1)
  np.testing.assert_allclose(found["loss"].losses, want, rtol=1e-5)
  np.testing.assert_allclose(found["accuracy"][0], SCORES[np.arange(ROWS), np.argmax(LOGITS, 1)])
  zero = np.zeros((1, CLASSES))
  untrained = -(0.5 * np.log(0.5) + 0.5 * np.log(0.5)) * zero.size
  assert AnswerScores().chance(8, types.SimpleNamespace(num_answers=CLASSES)) == pytest.approx(untrained)


def test_scores_of_another_number_of_answers_are_refused():
  with pytest.raises(ConfigError, match="the model has 4 answers, and the data 3: set --model.num-answers to 3"):
    AnswerScores().over_rows(forward(answer_scores=SCORES[:, :3]), None)


def test_ranking_is_a_softmax_over_the_likelihoods_of_candidates():
  found = AnswerRanking().over_rows(forward(answer_candidates=CANDIDATES), None)
  said = np.asarray([[likelihood(row, ids) for ids in answers] for row, answers in enumerate(CANDIDATES)])
  want = [*cross_entropy(said[:2], [0, 0]), 0.0]  # the last question has one candidate: padding is none
  np.testing.assert_allclose(found["loss"].losses, want, rtol=1e-5, atol=1e-6)
  assert found["accuracy"][0].tolist() == [float(said[0, 0] > said[0, 1]), float(said[1, 0] > said[1, 1]), 1.0]


def test_each_modality_answers_alone_and_their_losses_add_up():  # the first example has no text
  answer = np.asarray([1, 2, -1], np.int32)
  found = ModalityAnswer().over_rows(forward(answer=answer), None)
  image, text = cross_entropy(LOGITS[:2], answer[:2]), cross_entropy(LOGITS[::-1][:2], answer[:2])
  np.testing.assert_allclose(found["loss"].losses[:2], [image[0], image[1] + text[1]], rtol=1e-5)
  for name, weights in (("loss", [1, 1, 0]), ("image", [1, 1, 0]), ("text", [0, 1, 0])):
    np.testing.assert_array_equal(found[name].weights, weights)


@pytest.mark.parametrize(
  ("term", "arrays"),
  [
    (Answer, {"answer": np.asarray([1, 2, -1], np.int32)}),
    (AnswerScores, {"answer_scores": SCORES}),
    (AnswerText, {"answer_text": CANDIDATES[:, 0]}),
    (AnswerRanking, {"answer_candidates": CANDIDATES}),
    (ModalityAnswer, {"answer": np.asarray([1, 2, -1], np.int32)}),
    (Relevance, {"relevance": np.ones((ROWS, 2, 2), np.float32)}),
  ],
)
def test_a_question_counts_by_its_weight_in_every_term(term, arrays):
  assert issubclass(term, QuestionTerm)
  plain = term().over_rows(forward(**arrays), None)["loss"]
  loss = term(weights="weight").over_rows(forward(**arrays), None)["loss"]
  np.testing.assert_array_equal(loss.losses, plain.losses)
  np.testing.assert_array_equal(loss.weights, plain.weights * WEIGHTS)
  assert set(term(weights="weight").needs) == {*term().needs, "weight"}
