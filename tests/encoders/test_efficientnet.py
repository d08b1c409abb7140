"""EfficientNet-Lite from scratch; tests/interop/test_packages.py compares it with timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import EfficientNet, EfficientNetConfig
from mmjax.evaluate.task import describe
from mmjax.experiment import from_json, to_json
from mmjax.nn.channel_norm import STATISTICS
from tests.tiny import experiment

SMALL = EfficientNetConfig(image_size=33, width=0.1, depth=0.3, norm="batch", drop_path=0.5)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 33, 33, 3)), jnp.float32)


def test_training_leaves_the_statistics_of_every_norm():
  def forward(keys):
    model, rng = EfficientNet(SMALL), jax.random.split(keys, 2)
    params = model.init(keys, IMAGES)["params"]
    encoded, seen = model.apply({"params": params}, IMAGES, rng=rng, mutable=[STATISTICS])
    return encoded, params, seen[STATISTICS]

  encoded, params, seen = jax.eval_shape(forward, jax.random.key(0))
  assert (encoded.tokens.shape, encoded.pooled.shape) == ((2, SMALL.grid**2, 1280), (2, 1280))
  paths = lambda tree: {jax.tree_util.keystr(path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
  normed = {path for path in paths(params) if "norm" in path}
  assert (
    paths(seen) == normed and len(normed) == 2 + 2 + 3 * 7
  )  # stem and head, a block without and seven with expansion


def test_the_sizes_are_those_of_the_family():
  """Parameters of Lite0 to Lite4 with 1,000 classes, in millions (Liu 2020): 4.7, 5.4, 6.1, 8.2, 13."""
  for side, width, depth, millions in (
    (224, 1, 1, 4.7),
    (240, 1, 1.1, 5.4),
    (260, 1.1, 1.2, 6.1),
    (300, 1.4, 1.8, 13.0),
  ):
    config = EfficientNetConfig(side, width, depth, norm="frozen")
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(EfficientNet(config).init, jax.random.key(0), image))
    count = sum(leaf.size for path, leaf in leaves if path[-1].key not in ("mean", "var")) + 1281 * 1000
    assert count == pytest.approx(millions * 1e6, rel=0.02)
  assert EfficientNetConfig().flops() == pytest.approx(2 * 407e6, rel=0.06)  # published: 407 million multiply-adds


def test_a_run_holds_it():
  made = experiment(model=dict(image=SMALL))
  assert from_json(to_json(made)) == made
  assert describe(made.model).startswith("EfficientNet") and made.model.image.batch_statistics


def test_fields_that_do_not_fit_are_named():
  for fields, message in (
    ({"image_size": 31}, "image_size=31 must be at least 32"),
    ({"width": 0}, "width=0 and depth=1.0 must be positive"),
    ({"drop_path": 1.0}, "drop_path=1.0 must lie in"),
  ):
    with pytest.raises(ValueError, match=message):
      EfficientNetConfig(**fields)
  with pytest.raises(ValueError, match="images are 33x33, but image_size=64"):
    EfficientNet(EfficientNetConfig(image_size=64)).init(jax.random.key(0), IMAGES)
