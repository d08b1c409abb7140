"""Runs as `load_run` gives them, without the training: tiny models with random parameters."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax.data import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, train_vocabulary
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.fusion.config import FusionConfig
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import ClassifierConfig, TwoTowerConfig
from mmjax.models.blip import BlipConfig
from mmjax.models.predictor import PredictorConfig
from mmjax.models.vqa import VqaConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives import Answer, Caption, Classify
from mmjax.objectives.terms.regress import Regress
from mmjax.parallel.mesh import make_mesh
from mmjax.run import Run
from mmjax.train.loop import fitted
from tests import tiny
from tests.skips import DEPLOY

TOWER = dict(width=16, depth=1, num_heads=2)
IMAGE = ViTConfig(**TOWER, image_size=16, patch_size=8, pool="mean")
CLIP = TwoTowerConfig(image=IMAGE, text=TextConfig(**TOWER, vocab_size=64, max_length=8, eos_id=63), embed_dim=8)
STRINGS = ["a cat", "", "two hearts 💕 and a very long sentence that is cut", "<eos> 東京", "CAFÉ ﬁne"]


def needs_stablehlo() -> None:
  """Skip the test if StableHLO cannot be serialized."""
  pytest.importorskip("flatbuffers", reason=DEPLOY)


def two_towers(workdir: Path, **data: Any) -> Run:
  """A run of CLIP, with a tokenizer that was trained on STRINGS."""
  config = TokenizerConfig(vocab_size=300, max_length=8)
  tokenizer = Tokenizer(train_vocabulary(STRINGS, config), config)
  settings = dataclasses.replace(tiny.EXPERIMENT.run, workdir=workdir)
  experiment = dataclasses.replace(
    tiny.EXPERIMENT, model=CLIP, run=settings, data=dataclasses.replace(tiny.EXPERIMENT.data, **data)
  )
  return made(fitted(experiment, tokenizer, num_records={"": 1}), workdir, tokenizer)


def classifier(workdir: Path) -> Run:
  """A classifier of images with three classes."""
  model = ClassifierConfig(towers={"image": IMAGE}, num_classes=3, classes=("cat", "dog", "owl"))
  experiment = dataclasses.replace(tiny.EXPERIMENT, model=model, objectives=(Classify(),))
  return made(experiment, workdir, None)


def answerer(workdir: Path) -> Run:
  """A model that chooses one of three answers to a question about an image."""
  config = TokenizerConfig(vocab_size=300, max_length=8)
  tokenizer = Tokenizer(train_vocabulary(STRINGS, config), config, ("yes", "no", "two"))
  text = TextConfig(**TOWER, vocab_size=tokenizer.vocab_size, max_length=8, eos_id=tokenizer.eos_id, causal=False)
  model = VqaConfig(IMAGE, text, FusionConfig(**TOWER), num_answers=3)
  experiment = dataclasses.replace(tiny.EXPERIMENT, model=model, objectives=(Answer(),))
  return made(experiment, workdir, tokenizer)


def captioner(workdir: Path) -> Run:
  """A model that writes captions."""
  config = TokenizerConfig(vocab_size=300, max_length=8, bos_token="<bos>")
  tokenizer = Tokenizer(train_vocabulary(STRINGS, config), config)
  text = WordsConfig(**TOWER, vocab_size=tokenizer.vocab_size, max_length=8, eos_id=tokenizer.eos_id)
  experiment = dataclasses.replace(
    tiny.EXPERIMENT, model=BlipConfig(image=IMAGE, text=text, embed_dim=8), objectives=(Caption(),)
  )
  return made(experiment, workdir, tokenizer)


def predictor(workdir: Path) -> Run:
  """A predictor of a number whose mean is 40 and whose standard deviation is 5."""
  experiment = dataclasses.replace(
    tiny.EXPERIMENT, model=PredictorConfig(towers={"image": IMAGE}), objectives=(Regress(target="age"),)
  )
  return made(experiment, workdir, None, fitted={"age": {"mean": 40.0, "std": 5.0}})


def made(experiment: Any, workdir: Path, tokenizer: Tokenizer | None, **more: Any) -> Run:
  """A run with parameters of a normal distribution."""
  rng = np.random.default_rng(0)
  shapes = flat_shapes(experiment.model)
  params = unflatten({name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
  mesh = make_mesh(experiment.parallel, jax.devices()[:1])
  return Run(experiment, workdir, experiment.model.build(), params, tokenizer, mesh, step=2, **more)


def images() -> list[Image.Image]:
  """Images of several shapes and modes, one with transparency."""
  rng = np.random.default_rng(0)
  noise = lambda *shape: Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
  framed = Image.new("RGB", (30, 40), (9, 9, 9))
  framed.paste(noise(10, 12, 3), (11, 5))
  return [noise(40, 40, 3), noise(31, 50, 3), noise(20, 9, 4), noise(33, 16), framed, noise(5, 7, 3).convert("P")]
