"""ConvNeXt from scratch; tests/interop compares it with timm and transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ConvNeXt, ConvNeXtConfig
from mmjax.evaluate.task import describe
from mmjax.experiment import from_json, to_json
from mmjax.parallel.mesh import put_batch
from tests.tiny import experiment, host_batch, training_on

SMALL = ConvNeXtConfig(image_size=64, layers=(1, 1, 1, 1), width=8, layer_scale=0.5, drop_path=0.9)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 64, 64, 3)), jnp.float32)
RUN = dict(model=dict(image=ConvNeXtConfig(image_size=16, patch_size=2, layers=(1, 1, 1, 1), width=4, drop_path=0.3)))


def test_stochastic_depth_depends_on_the_example_alone():
  params = jax.jit(ConvNeXt(SMALL).init)(jax.random.key(0), IMAGES)["params"]
  encode = jax.jit(lambda images, rng: ConvNeXt(SMALL).apply({"params": params}, images, rng=rng).pooled)
  keys = jax.random.split(jax.random.key(1), 4)
  trained, alone = encode(IMAGES, keys), encode(IMAGES, None)
  assert np.abs(trained - alone).max() > 1e-3
  np.testing.assert_allclose(encode(IMAGES[::-1], keys[::-1])[::-1], trained, atol=1e-5)


def test_patches_of_zeros_have_gradients_of_the_size_of_others():
  config = ConvNeXtConfig(image_size=16, patch_size=2, layers=(1, 1, 1, 1), width=8)
  images = IMAGES[:, :16, :16]
  params = jax.jit(ConvNeXt(config).init)(jax.random.key(0), images)["params"]

  @jax.jit
  def norm(images):
    gradients = jax.grad(lambda p: ConvNeXt(config).apply({"params": p}, images).pooled[:, 0].sum())(params)
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradients)))

  assert norm(images.at[:, :8].set(0.0)) < 20 * norm(images)


def test_flops_are_what_the_compiler_counts():
  config = ConvNeXtConfig(image_size=128, layers=(1, 2, 1, 1), width=16, pool_hidden=6)
  image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
  params = jax.eval_shape(ConvNeXt(config).init, jax.random.key(0), image)["params"]
  lowered = jax.jit(lambda p, x: ConvNeXt(config).apply({"params": p}, x).pooled).lower(params, image)
  # The compiler leaves out products with a convolution's padding, and counts elementwise operations.
  assert config.flops() == pytest.approx(lowered.compile().cost_analysis()["flops"], rel=0.1)


def test_the_sizes_of_the_paper():
  # Liu et al. 2022, table 9: multiply-adds of an image.
  assert ConvNeXtConfig().flops() == pytest.approx(2 * 4.5e9, rel=0.02)
  assert ConvNeXtConfig(layers=(3, 3, 27, 3), width=128).flops() == pytest.approx(2 * 15.4e9, rel=0.02)


@pytest.fixture
def quick_compilations():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("quick_compilations")
def test_it_trains_on_eight_devices():
  training = training_on(8, experiment(**RUN))
  state = training.initial_state()
  before = jax.device_get(state.params["image"])
  batch, losses = put_batch(host_batch(), training.mesh), []
  for _ in range(4):
    state, metrics = training.step(state, batch)
    losses.append(float(metrics["loss"]))
  assert losses[-1] < losses[0]
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params["image"]))
  assert all(jax.tree.leaves(moved))


def test_a_run_holds_it():
  made = experiment(**RUN)
  assert from_json(to_json(made)) == made
  assert describe(made.model) == "ConvNeXt-4-p2-16px"


def test_fields_that_do_not_fit_are_named():
  for fields, message in (
    ({"image_size": 100}, "image_size=100 must be divisible by 8 .* = 32"),
    ({"layers": (1, 2)}, "must be four numbers"),
    ({"drop_path": 1.0}, "drop_path=1.0 must lie in"),
  ):
    with pytest.raises(ValueError, match=message):
      ConvNeXtConfig(**fields)
  with pytest.raises(ValueError, match="images are 32x32, but image_size=64"):
    ConvNeXt(SMALL).init(jax.random.key(0), IMAGES[:, :32, :32])
  assert dataclasses.replace(SMALL, pool_hidden=5).pooled_width == 5
