"""FLOPs counted from a jaxpr are those of the mathematics, through loops, branches, remat and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.counting import traced_flops, training_flops
from mmjax.models.flops import two_tower_flops
from mmjax.models.two_tower import TwoTowerConfig

pytestmark = pytest.mark.usefixtures("every_platform")
X, W = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32)
ONE = 2 * 4 * 8 * 8


def test_a_matmul_is_two_per_multiply_add():
  assert traced_flops(jnp.dot, X, W) == ONE


def test_loops_remat_and_branches():
  def loop(x, w):
    body = jax.checkpoint(lambda x: jnp.tanh(x @ w))
    x, _ = jax.lax.scan(lambda x, _: (body(x), None), x, length=5)
    return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x, x)

  assert traced_flops(loop, X, W) == 6 * ONE


def test_every_device_counts():
  mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
  rows = PartitionSpec("data")
  mapped = jax.shard_map(jnp.dot, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
  assert traced_flops(mapped, X, W) == ONE


def test_a_convolution():
  image, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 16))
  convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  assert traced_flops(convolve, image, kernel) == 2 * (2 * 4 * 4 * 16) * 27


def test_a_loop_of_unknown_length_is_refused():
  loop = lambda x, w: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ w, x)
  with pytest.raises(ValueError, match="use a scan"):
    traced_flops(loop, X, W)


def test_two_towers_have_what_their_formula_says():
  size = dict(width=32, depth=2, num_heads=2)
  image = ViTConfig(**size, image_size=32, patch_size=8, pool="mean", scan=True)
  text = TextConfig(**size, vocab_size=64, max_length=16, pool="mean", causal=False, eos_id=1, scan=True)
  config = TwoTowerConfig(image=image, text=text, embed_dim=16)
  model, batch = config.build(), config.example(4)
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
  counted = traced_flops(lambda p, b: model.apply(p, b), params, batch)
  products = 2 * 4 * config.embed_dim  # of the loss, which is not in here
  means = 2 * 2 * 16 * 32  # of 16 tokens of width 32 in both towers, which the formula leaves out
  assert counted == 4 * (two_tower_flops(config, batch_size=4, train=False) - products + means)


def test_what_does_not_depend_on_the_parameters_is_not_differentiated():
  loss = lambda w, teacher, x: jnp.sum((x @ w - jax.lax.stop_gradient(x @ teacher)) ** 2)
  assert training_flops(loss, W, W, X) == 3 * ONE + ONE
