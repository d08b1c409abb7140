"""Warnings say what is seen and what to do, once in a while."""

import jax.numpy as jnp
import pytest

from mmjax.train.watch import Watch


@pytest.fixture
def said():
  return []


@pytest.fixture
def watch(said):
  return Watch(said.append, patience=50, waits=3, silence=200, workers=2)


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


def test_captions_that_repeat_each_other(watch, said):
  varied = {"text": jnp.arange(16).reshape(8, 2)}
  repeated = {"text": jnp.array([[1, 2]] * 6 + [[3, 4], [5, 6]])}
  for step in range(0, 400, 10):
    watch.captions(step, varied)
    watch.captions(step, {"image": jnp.zeros((2, 2))})
  assert said == []
  for step in range(400, 700, 10):
    watch.captions(step, repeated)
  assert len(said) == 2 and "62% of the captions" in said[0] and "mask_same_concept" in said[0]


def test_steps_that_wait_for_data(watch, said):
  for step in (1, 2, 3, 4):
    watch.numbers(step, numbers(share=0.9 if step != 2 else 0.1))
  assert said == []  # never three lines in a row
  for step in range(5, 30):
    watch.numbers(step, numbers(share=0.9))
  assert len(said) == 1 and "90% of the time" in said[0] and "--data.workers (now 2" in said[0]
