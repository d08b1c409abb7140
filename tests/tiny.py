"""The smallest model and batch that tests of training share."""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np

from mmjax.data import DataConfig, Emoji, TokenizerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.evaluators import EvaluationConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import Training, prepare

MODEL = TwoTowerConfig(
  image=ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2, pool="mean", patch_dropout=0.25),
  text=TextConfig(vocab_size=64, max_length=8, width=16, depth=1, num_heads=2, eos_id=63),
  embed_dim=8,
)

EXPERIMENT = Experiment(
  data=DataConfig(source=Emoji(limit=40), tokenizer=TokenizerConfig(vocab_size=384, max_length=8)),
  model=MODEL,
  optimizer=OptimizerConfig(warmup_steps=2, ema_decay=0.9),
  evaluation=EvaluationConfig(),
  run=RunConfig(steps=20, batch_size=16, log_every=1, tensorboard=False),
)


def experiment(**parts) -> Experiment:
  """EXPERIMENT with fields of its parts replaced: experiment(run=dict(steps=3))."""
  replaced = {name: dataclasses.replace(getattr(EXPERIMENT, name), **fields) for name, fields in parts.items()}
  return dataclasses.replace(EXPERIMENT, **replaced)


def host_batch(size: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  return {
    "image": rng.standard_normal((size, 16, 16, 3)).astype(np.float32),
    "text": rng.integers(1, 63, (size, 8)).astype(np.int32),
    "index": np.arange(size, dtype=np.int32) + 100 * seed,
    "concept": np.arange(size, dtype=np.int32),
  }


@functools.cache
def training_on(devices: int, experiment: Experiment) -> Training:
  """`prepare` as it is where there are that many devices; made, and so compiled, once for all tests."""
  first = jax.devices()[:devices]
  with mock.patch("jax.devices", lambda *_: first):
    return prepare(experiment)
