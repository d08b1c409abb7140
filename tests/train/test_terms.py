"""Any terms of any model go through the one step: on any mesh, in any number of microbatches, weighed as listed."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from mmjax.experiment import Experiment, RunConfig
from mmjax.models.gpt import GptConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives.word_terms import Caption
from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.train.optimizer import OptimizerConfig
from mmjax.train.setup import prepare

WORDS = WordsConfig(width=16, depth=1, num_heads=2, vocab_size=24, max_length=8)
EXPERIMENT = Experiment(
  model=GptConfig(WORDS),
  objectives=(Caption(image=False),),
  optimizer=OptimizerConfig(warmup_steps=1, schedule="constant"),
  run=RunConfig(batch_size=16, steps=4),
)


def batch():
  rng = np.random.default_rng(0)
  ids = rng.integers(2, 24, (16, 8), dtype=np.int32)
  ids[3:9, 5:] = 0
  ids[9] = 0  # a text of padding alone
  return {"text": ids, "index": np.arange(16, dtype=np.int32), "concept": np.arange(16, dtype=np.int32)}


def two_steps(experiment: Experiment, devices: int, **parallel):
  experiment = dataclasses.replace(experiment, parallel=ParallelConfig(**parallel))
  training = prepare(experiment, devices=jax.devices()[:devices])
  state, seen = training.initial_state(), []
  for _ in range(2):
    state, metrics = training.step(state, put_batch(batch(), training.mesh))
    seen.append({name: float(value) for name, value in metrics.items() if name != "bad_parameters"})
  return seen, state


def test_a_language_model_starts_at_chance_and_does_not_depend_on_the_mesh():
  one, _ = two_steps(EXPERIMENT, 1)
  assert one[0]["language"] == pytest.approx(math.log(24), abs=0.2)
  for devices, parallel in ((8, {}), (8, dict(fsdp=2, model=2)), (4, dict(microbatches=2))):
    other, _ = two_steps(EXPERIMENT, devices, **parallel)
    for left, right in zip(one, other, strict=True):
      assert left == pytest.approx(right, rel=1e-5)
