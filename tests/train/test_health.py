"""Warnings say what is seen and what to do, once in a while."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import Caption, Contrastive, Matching, MomentumContrastive, Supcon, Unicl
from mmjax.train.health import HealthWatch, single_rows
from mmjax.train.session import Session
from tests.tiny import experiment


@pytest.fixture
def said():
  return []


@pytest.fixture
def watch(said):
  return HealthWatch(lambda kind, step, message: said.append(message), patience=50, waits=3, silence=200, workers=2)


def numbers(loss=1.0, share=0.0, **more):
  return {"loss": loss, "input_wait_share": share, **more}


def test_a_loss_that_stays_at_chance(watch, said):
  for step in range(10, 300, 10):
    watch.numbers(step, numbers(5.5 + 0.01 * (step % 3), chance=5.545))
  assert len(said) == 2 and "at chance (5.545) since step 10" in said[0] and "--optimizer.learning-rate" in said[0]


def test_no_word_of_a_loss_that_moves_or_whose_chance_is_unknown(watch, said):
  for step in range(10, 1000, 10):
    watch.numbers(step, numbers(4.0 if step % 50 == 0 else 5.545, chance=5.545))
    watch.numbers(step, numbers(5.545))
  assert said == []


PLAIN, MASKED = (Contrastive(),), (Contrastive(mask_same_concept=True),)


def batch(texts, concepts=None):
  """Eight rows: the number of each one's text, and of its concept (by default, each row its own)."""
  texts, concepts = np.array(texts), np.arange(len(texts)) if concepts is None else np.array(concepts)
  return {"text": jnp.stack([texts, texts + 1], axis=1), "concept": jnp.asarray(concepts)}


def test_captions_that_repeat_each_other(watch, said):
  for step in range(0, 400, 10):
    watch.batch(step, batch(range(8)), PLAIN)
    watch.batch(step, {"image": jnp.zeros((2, 2))}, PLAIN)
  assert said == []
  for step in range(400, 700, 10):
    watch.batch(step, batch([1] * 6 + [3, 5]), PLAIN)
  assert len(said) == 2 and "62% of the captions" in said[0] and "mask_same_concept" in said[0]


@pytest.mark.parametrize(
  "terms", [MASKED, (Contrastive(loss=Unicl()),), (Matching(),)], ids=lambda terms: terms[0].name
)
def test_no_word_of_repeated_captions_that_are_no_negatives(watch, said, terms):
  watch.batch(0, batch([1] * 4 + [3] * 2 + [5, 7], [1] * 4 + [3] * 2 + [5, 7]), terms)
  assert said == []
  watch.batch(0, batch([1] * 6 + [3, 5]), terms)  # "photo" of images that are different concepts
  assert len(said) == 1 and "75% of the captions in a batch are also those of images of other concepts" in said[0]


def test_no_word_of_repeated_captions_where_nothing_is_compared(watch, said):
  for terms in ((Caption(),), (Contrastive(between=("image", "image2")),)):
    watch.batch(0, batch([1] * 8, [1] * 8), terms)
  assert said == []


@pytest.mark.parametrize(
  "terms, few, enough",
  [
    (MASKED, [1] * 8, [1] * 3 + [2] * 3 + [3] * 2),
    (MASKED, [1, 2] * 4, range(8)),
    ((Matching(), Caption()), [1, 2] * 4, [1, 2, 3, 4] * 2),
    ((MomentumContrastive(mask_same_concept=True),), [1] * 8, range(8)),
    ((Contrastive(loss=Supcon()),), [1] * 8, [1, 2] * 4),  # classes are what these losses are for
  ],
)
def test_batches_of_few_concepts(watch, said, terms, few, enough):
  watch.batch(0, batch(range(8), enough), terms)
  watch.batch(0, batch(range(8), few), PLAIN)  # concepts are not read
  assert said == []
  watch.batch(0, batch(range(8), few), terms)
  left = {1: 0, 2: 4}[len(set(few))]
  assert len(said) == 1 and f"a batch of 8 has only {len(set(few))} different concept(s)" in said[0]
  assert f"a row has {left} negatives on average" in said[0]


@pytest.mark.parametrize(
  "concepts, warned",
  [
    ([0] * 24 + list(range(1, 9)), True),  # "photo" alone on three of four images: 9 concepts, 14 of 31 negatives
    (np.arange(32) % 9, False),  # classes
    ([0] * 12 + list(range(20)), False),
    (np.arange(32) // 2, False),  # emoji by two artists
  ],
)
def test_one_concept_on_most_rows_leaves_few_negatives(watch, said, concepts, warned):
  watch.batch(0, batch(concepts, concepts), MASKED)
  assert len(said) == warned
  assert not warned or ("only 9 different concept(s)" in said[0] and "has 14 negatives on average" in said[0])


@pytest.mark.parametrize("terms", [PLAIN, MASKED])
@pytest.mark.parametrize(
  "shared, warned",
  [(16, True), (4, False), (2, False)],  # rows of 32 whose caption is "photo": one of two captions, and accidents
)
def test_a_caption_that_half_of_the_images_share_makes_false_negatives(watch, said, terms, shared, warned):
  watch.batch(0, batch([0] * shared + list(range(1, 33 - shared)), range(32)), terms)
  assert len(said) == warned
  assert not warned or "are false negatives" in said[0]


def test_classes_without_a_mask_are_no_surprise(watch, said):
  watch.batch(0, batch(np.arange(32) % 20, np.arange(32) % 20), PLAIN)
  assert said == []


def test_an_early_step_is_checked_if_no_log_line_is_early(watch):
  """Of log lines at steps 500, 1,000, ... none is early."""
  assert [step for step in range(1, 2001) if watch.due(step, 500)] == [watch._early]
  assert not any(watch.due(step, 10) for step in range(1, 2001))


@pytest.mark.parametrize("log_every, steps", [(500, [100]), (50, [50, 100])])
def test_a_session_has_its_losses_checked_early(log_every, steps):
  heard, session = [], Session.__new__(Session)
  session._step, session._start = 0, 0
  session._experiment = experiment(run={"log_every": log_every, "steps": 2000})
  session._watch = HealthWatch(lambda *said: heard.append(said[:2]), early=100)
  quiet = SimpleNamespace(advance=lambda *_: None, write=lambda *_: None, report=lambda *_: None)
  session._progress = session._writer = quiet
  session._clock = SimpleNamespace(numbers=lambda: {"input_wait_share": 0.0})
  checked = []
  session._watch.losses = lambda step, numbers, chances: checked.append((step, numbers["loss"]))
  for _ in range(120):
    session._count({"loss": jnp.float32(0.0)})
  assert checked == [(step, 0.0) for step in steps]


def test_a_loss_of_nearly_0_early(watch, said):
  chances = {"softmax": 4.0, "words": 8.0, "unknown": None, "alone": 0.0}
  watch.losses(10, {"softmax": 0.05, "words": 3.0, "unknown": 0.0, "alone": 0.0}, chances)
  assert said == []
  watch.losses(20, {"softmax": 0.0, "words": 3.0, "unknown": 0.0, "alone": 0.0}, chances)
  watch.losses(300, {"softmax": 0.0, "words": 0.0, "unknown": 0.0, "alone": 0.0}, chances)  # no longer early
  assert len(said) == 1 and "softmax is 0 at step 20 already, and chance is 4.000" in said[0]


def test_a_batch_of_one_row():
  of = lambda size, *terms: list(
    single_rows(dataclasses.replace(experiment(run={"batch_size": size}), objectives=terms))
  )
  (message,) = of(1, Contrastive())
  assert "the batch is 1: softmax_image_text compares" in message and "--run.batch-size" in message
  assert of(2, Contrastive()) == of(1, Caption()) == []
  assert of(1, MomentumContrastive()) == []  # it has a queue


def test_steps_that_wait_for_data(watch, said):
  for step in (1, 2, 3, 4):
    watch.numbers(step, numbers(share=0.9 if step != 2 else 0.1))
  assert said == []  # never three lines in a row
  for step in range(5, 30):
    watch.numbers(step, numbers(share=0.9))
  assert len(said) == 1 and "90% of the time" in said[0] and "--data.workers (now 2" in said[0]
