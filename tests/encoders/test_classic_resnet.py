"""The ResNet of He et al. from scratch; tests/interop/test_transformers_vision.py compares it with transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ClassicResNet, ClassicResNetConfig
from mmjax.evaluate.task import describe
from mmjax.experiment import from_json, to_json
from mmjax.nn.channel_norm import STATISTICS
from tests.tiny import experiment

SMALL = ClassicResNetConfig(image_size=17, layers=(1, 2), widths=(8, 16), width=4, norm="batch")
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 17, 17, 3)), jnp.float32)


def test_training_leaves_the_statistics_of_every_norm():
  def forward(keys):
    model, rng = ClassicResNet(SMALL), jax.random.split(keys, 2)
    params = model.init(keys, IMAGES)["params"]
    encoded, seen = model.apply({"params": params}, IMAGES, rng=rng, mutable=[STATISTICS])
    return encoded, params, seen[STATISTICS]

  encoded, params, seen = jax.eval_shape(forward, jax.random.key(0))
  assert (encoded.tokens.shape, encoded.pooled.shape) == ((2, SMALL.grid**2, 16), (2, 16)) and SMALL.grid == 3
  paths = lambda tree: {jax.tree_util.keystr(path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
  normed = {path for path in paths(params) if "norm" in path}
  assert paths(seen) == normed and len(normed) == 1 + 3 * 3 + 2  # the stem, three blocks, two of which have a skip


@pytest.mark.parametrize(
  ("fields", "millions", "billions"),
  [
    ({}, 25.557, 4.09),  # ResNet-50
    (dict(early_stride=True), 25.557, 3.8),  # as in the paper
    (dict(layers=(3, 4, 23, 3)), 44.549, 7.8),  # ResNet-101
    (dict(block="basic", layers=(2, 2, 2, 2), widths=(64, 128, 256, 512)), 11.690, 1.81),  # ResNet-18
  ],
)
def test_the_sizes_are_those_of_the_family(fields, millions, billions):
  """Parameters with 1,000 classes (torchvision) and multiply-adds (He et al. 2016, table 1; torchvision)."""
  config = ClassicResNetConfig(**fields, norm="frozen")
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(ClassicResNet(config).init, jax.random.key(0), image))
  count = sum(leaf.size for path, leaf in leaves if path[-1].key not in ("mean", "var"))
  assert count + (config.pooled_width + 1) * 1000 == pytest.approx(millions * 1e6, abs=500)
  assert config.flops() == pytest.approx(2e9 * billions, rel=0.02)


def test_a_run_holds_it():
  made = experiment(model=dict(image=SMALL))
  assert from_json(to_json(made)) == made
  assert describe(made.model).startswith("ClassicResNet") and made.model.image.batch_statistics


def test_fields_that_do_not_fit_are_named():
  for fields, message in (
    (dict(image_size=31), "image_size=31 must be at least 32"),
    (dict(layers=(1, 2)), r"layers=\(1, 2\) and widths=\(256, 512, 1024, 2048\) must be as many"),
    (dict(widths=(6, 8, 8, 8)), r"widths=\(6, 8, 8, 8\) must be divisible by 4"),
  ):
    with pytest.raises(ValueError, match=message):
      ClassicResNetConfig(**fields)
  with pytest.raises(ValueError, match="images are 17x17, but image_size=64"):
    ClassicResNet(ClassicResNetConfig(image_size=64)).init(jax.random.key(0), IMAGES)
