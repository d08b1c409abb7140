"""Microbatching changes the memory and nothing else."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.objectives import clip_loss
from mmjax.parallel.microbatch import microbatch
from mmjax.parallel.ring import vary

N, D = 32, 4


def encode(params, x):
  hidden = jnp.tanh(x @ params["in"])
  hidden = hidden @ params["out"]
  return hidden * jax.lax.rsqrt((hidden * hidden).sum(-1, keepdims=True) + 1e-6)


def loss(params, image, text, num, axis_name=None):
  """A whole step: two towers a microbatch at a time, then the loss over the whole global batch."""
  forward = microbatch(lambda batch: [encode(params, x) for x in batch], num)
  x, y = forward([image, text])
  return clip_loss(x, y, logit_scale=jnp.exp(params["log_scale"]), axis_name=axis_name, tile_size=4)


def inputs(dtype=jnp.float64):
  draw = np.random.default_rng(0).standard_normal
  array = lambda *shape: jnp.asarray(draw(shape), dtype)
  params = {"in": array(D, 16), "out": array(16, D), "log_scale": jnp.asarray(1.0, dtype)}
  return params, array(N, D), array(N, D)


def mesh_of(*shape):
  axes = ("data", "fsdp")
  return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 2), axes


def test_a_microbatched_step_has_the_gradient_of_the_whole_one():
  with jax.enable_x64(True):
    step = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    want, got = step(*inputs(), 1), step(*inputs(), 4)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def compiled_step(num):
  """The sharded step, gradient inside shard_map, parameters cast to varying outside the microbatch loop."""
  mesh, axes = mesh_of(2, 4)

  def local(params, image, text):
    value, gradient = jax.value_and_grad(loss)(vary(params, axes), image, text, num, axes)
    return value, jax.tree.map(lambda g: jax.lax.psum(g, axes), gradient)

  step = jax.shard_map(local, mesh=mesh, in_specs=(P(), P(axes), P(axes)), out_specs=P())
  params, image, text = inputs(jnp.float32)
  put = lambda x: jax.device_put(x, NamedSharding(mesh, P(axes)))
  arguments = (params, put(image), put(text))
  return jax.jit(step).lower(*arguments).compile(), arguments


def test_no_all_reduce_stands_inside_the_microbatch_loop():
  step, arguments = compiled_step(4)
  value, gradient = step(*arguments)
  want_value, want = jax.jit(jax.value_and_grad(loss), static_argnums=3)(*inputs(jnp.float32), 1)
  assert value == pytest.approx(float(want_value), rel=1e-5)
  for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(want)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  text = step.as_text()
  bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
  assert len(bodies) >= 3  # microbatches forward and backward, ring
  for body in bodies:
    found = re.search(rf"^%?{re.escape(body)} .*?^}}", text, re.MULTILINE | re.DOTALL)
    assert found and "all-reduce" not in found.group(0)


def test_a_sharded_batch_stays_where_it_is_under_plain_jit():
  mesh, axes = mesh_of(2, 4)
  place = NamedSharding(mesh, P(axes))
  step = jax.jit(microbatch(lambda x: jnp.tanh(x) * 2, 4), in_shardings=place, out_shardings=place)
  x = jax.device_put(jnp.arange(32.0 * 3).reshape(32, 3), place)
  text = step.lower(x).compile().as_text()
  for collective in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
    assert collective not in text
  np.testing.assert_allclose(step(x), np.tanh(x) * 2, rtol=1e-6)


def test_row_i_goes_to_microbatch_i_modulo_n_and_comes_back_in_order():
  keys = jax.random.split(jax.random.key(0), 6)  # typed keys travel like any other array
  seen = microbatch(lambda batch: {"first": batch["i"][:1].repeat(2), "i": batch["i"], "key": batch["key"]}, 3)
  result = seen({"i": jnp.arange(6), "key": keys})
  assert result["i"].tolist() == [0, 1, 2, 3, 4, 5]
  assert result["first"].tolist() == [0, 1, 2, 0, 1, 2]  # microbatch k holds rows k and k + 3
  assert (result["key"] == keys).all()


def test_rows_that_belong_together_stay_neighbours():
  """Each pair of rows trades places, whatever the number of microbatches."""
  trade = lambda x: x.reshape(-1, 2, 3)[:, ::-1].reshape(-1, 3)
  x = jnp.arange(24.0).reshape(8, 3)
  for num in (1, 2, 4):
    np.testing.assert_array_equal(microbatch(trade, num, together=2)(x), trade(x))
  with pytest.raises(ValueError, match="4 equal microbatches of groups of 4 rows; .* multiple of 16"):
    microbatch(trade, 4, together=4)(x)


def test_activations_of_one_microbatch_are_alive_at_a_time():
  params, image, text = inputs(jnp.float32)
  wide = params | {"in": jnp.ones((D, 4096)), "out": jnp.ones((4096, D))}
  image, text = jnp.tile(image, (8, 1)), jnp.tile(text, (8, 1))
  step = jax.jit(jax.value_and_grad(loss), static_argnums=3)
  memory = lambda num: step.lower(wide, image, text, num).compile().memory_analysis().temp_size_in_bytes
  assert memory(8) < memory(1) / 4


def test_bad_input_is_refused_with_a_reason():
  with pytest.raises(ValueError, match="batch of 32 cannot be divided into 5 equal microbatches"):
    microbatch(jnp.tanh, 5)(jnp.ones((32, 2)))
  with pytest.raises(ValueError, match="at least 1"):
    microbatch(jnp.tanh, 0)
  with pytest.raises(ValueError, match="share one leading axis"):
    microbatch(jnp.add, 2)(jnp.ones(4), jnp.ones(6))
  with pytest.raises(ValueError, match="its leading axis must be that of the microbatch"):
    microbatch(lambda x: x.sum(), 2)(jnp.ones((4, 2)))
