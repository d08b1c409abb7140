"""Swin transformer: windows, their shifts, and randomness of the example. Values: tests/interop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import Swin, SwinConfig
from mmjax.evaluate.task import describe
from mmjax.experiment import from_json, to_json
from mmjax.models.counting import traced_flops
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.windows import WindowBlock
from mmjax.parallel.mesh import put_batch
from mmjax.plan.variants import remat_of, with_remat
from tests.tiny import experiment, host_batch, training_on

pytestmark = pytest.mark.usefixtures("every_platform")
SMALL = SwinConfig(image_size=16, patch_size=2, width=8, layers=(2, 1), num_heads=(2, 4), window_size=4)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((3, 16, 16, 3)), jnp.float32)
RNG = jax.random.split(jax.random.key(1), 3)


@pytest.fixture(scope="module")
def params():
  shapes = jax.eval_shape(Swin(SMALL).init, jax.random.key(0), IMAGES)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), jnp.float32), shapes)


def test_tokens_and_pooled_and_randomness_of_the_example(params):
  model = Swin(dataclasses.replace(SMALL, drop_path=0.5))
  encode = jax.jit(lambda images, rng: model.apply({"params": params}, images, rng=rng))
  out, order = encode(IMAGES, RNG), jnp.asarray([2, 0, 1])
  assert (out.tokens.shape, out.mask.shape, out.pooled.shape) == ((3, 16, 16), (3, 16), (3, 16))
  np.testing.assert_allclose(out.pooled, out.tokens.mean(1), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(encode(IMAGES[order], RNG[order]).pooled, out.pooled[order], rtol=1e-5, atol=1e-6)
  assert np.abs(encode(IMAGES, RNG[order]).pooled - out.pooled).max() > 1e-3


def test_every_block_is_rematerialised(params):
  model = Swin(dataclasses.replace(SMALL, remat="full"))
  traced = jax.make_jaxpr(lambda p: model.apply({"params": p}, IMAGES).pooled)(params)
  assert sum(equation.primitive.name.startswith("remat") for equation in traced.eqns) == 3


@pytest.mark.parametrize(
  ("shift", "token", "moved"),
  [
    (0, (0, 0), {(0, 0), (0, 1), (1, 0), (1, 1)}),
    (1, (1, 2), {(1, 1), (1, 2), (2, 1), (2, 2)}),
    (1, (0, 1), {(0, 1), (0, 2)}),  # at the edge: the window's other row is the opposite edge of the map
    (1, (3, 3), {(3, 3)}),
  ],
)
def test_a_token_is_read_in_its_window_only(shift, token, moved):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 8)), jnp.float32)
  run = window_block(shift)
  changed = np.abs(run(x.at[0, *token, 0].add(1.0)) - run(x)).max(-1)[0] > 1e-5  # the norm removes a shift of all
  assert set(zip(*map(np.ndarray.tolist, np.nonzero(changed)), strict=True)) == moved


@functools.cache
def window_block(shift: int):
  block, layer = WindowBlock(TransformerConfig(width=8, depth=1, num_heads=2), window=2, shift=shift), jnp.asarray(0)
  return jax.jit(lambda x: block.init_with_output(jax.random.key(0), x, None, layer)[0])


def test_bfloat16_stays_bfloat16():
  model = Swin(dataclasses.replace(SMALL, dtype="bfloat16", drop_path=0.5))
  out, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, rng=RNG), IMAGES)
  assert out.tokens.dtype == out.pooled.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_flops_are_those_of_the_traced_tower(params):
  pooling = 2 * 16 * 16  # the mean over 16 tokens of width 16 is a product with the mask
  traced = traced_flops(lambda p, x: Swin(SMALL).apply({"params": p}, x).pooled, params, IMAGES[:1])
  assert SMALL.flops() == traced - pooling


@pytest.fixture
def quick_compilations():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("quick_compilations")
def test_it_trains_on_eight_devices():
  image = dataclasses.replace(SMALL, layers=(1, 1), drop_path=0.3)
  training = training_on(8, experiment(model=dict(image=image), parallel=dict(fsdp=2, model=2)))
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
  made = experiment(model=dict(image=SMALL))
  assert from_json(to_json(made)) == made
  assert describe(made.model) == "Swin-8-p2-16px"
  assert remat_of(with_remat(made, "dots")) == "dots"


def test_fields_that_do_not_fit_are_named():
  for fields, message in (
    ({"layers": (1, 2, 1)}, r"num_heads=\(2, 4\) must have a positive number per stage"),
    ({"layers": (1, 0)}, "a positive number per stage"),
    ({"image_size": 18}, "image_size=18 must be divisible by 4"),
    ({"window_size": 3}, "stage 1 has 8 tokens a side for image_size=16; window_size=3 must divide them"),
    ({"num_heads": (3, 4)}, "width=8 must be divisible by num_heads=3"),
  ):
    with pytest.raises(ValueError, match=message):
      dataclasses.replace(SMALL, **fields)
  with pytest.raises(ValueError, match="images are 8x8, but image_size=16"):
    Swin(SMALL).init(jax.random.key(0), IMAGES[:, :8, :8])
