"""FastViT from scratch; tests/interop compares it with timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import FastViT, FastViTConfig
from mmjax.evaluate.task import describe
from mmjax.experiment import from_json, to_json
from mmjax.nn.channel_norm import STATISTICS
from tests.tiny import experiment

SMALL = FastViTConfig(image_size=32, layers=(1, 1, 1, 1), width=8, norm="batch", drop_path=0.5)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 32, 32, 3)), jnp.float32)


def test_training_leaves_the_statistics_of_every_norm():
  params = jax.eval_shape(FastViT(SMALL).init, jax.random.key(0), IMAGES)["params"]

  def forward(params, keys):
    return FastViT(SMALL).apply({"params": params}, IMAGES, rng=keys, mutable=[STATISTICS])

  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
  encoded, seen = jax.eval_shape(forward, params, keys)
  assert (encoded.tokens.shape, encoded.pooled.shape) == ((2, 1, 128), (2, 128))
  paths = lambda tree: {jax.tree_util.keystr(path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
  normed = {path for path in paths(params) if "norm" in path}
  assert paths(seen[STATISTICS]) == normed and len(normed) == 37


def test_flops_are_what_the_compiler_counts():
  config = FastViTConfig(image_size=128, layers=(1, 2, 1, 1), width=16, norm="frozen")
  image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
  params = jax.eval_shape(FastViT(config).init, jax.random.key(0), image)["params"]
  lowered = jax.jit(lambda p, x: FastViT(config).apply({"params": p}, x).pooled).lower(params, image)
  # The compiler leaves out products with a convolution's padding, and counts elementwise operations.
  assert config.flops() == pytest.approx(lowered.compile().cost_analysis()["flops"], rel=0.2)


def test_a_run_holds_it():
  made = experiment(model=dict(image=SMALL))
  assert from_json(to_json(made)) == made
  assert describe(made.model) == "FastViT-8-32px" and made.model.image.batch_statistics


def test_fields_that_do_not_fit_are_named():
  for fields, message in (
    ({"image_size": 48}, "image_size=48 must be divisible by 32"),
    ({"layers": (1, 2, 1)}, "must be four or five numbers"),
    ({"attention_stages": 5}, "attention_stages=5 must lie between 0 and the 4 stages"),
    ({"width": 2}, "must be a multiple of 32"),
    ({"drop_path": -0.1}, "drop_path=-0.1 must lie in"),
  ):
    with pytest.raises(ValueError, match=message):
      FastViTConfig(**fields)
  with pytest.raises(ValueError, match="images are 32x32, but image_size=64"):
    FastViT(FastViTConfig(image_size=64)).init(jax.random.key(0), IMAGES)
