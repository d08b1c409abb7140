"""Batch norm, frozen batch norm and group norm against their formulas, and the moving of running averages."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mmjax.nn.channel_norm import STATISTICS, ChannelNorm, moved_statistics

X = np.random.default_rng(0).normal(2.0, 3.0, (8, 3, 5, 64)).astype(np.float32)
RNG = np.random.default_rng(1)
PARAMS = {name: jnp.asarray(RNG.uniform(0.5, 1.5, 64), jnp.float32) for name in ("scale", "bias", "mean", "var")}


def formula(x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
  last = {name: np.asarray(value)[None, None, None] for name, value in PARAMS.items()}
  return (x - mean) / np.sqrt(var + 1e-5) * last["scale"] + last["bias"]


def apply(kind: str, x: np.ndarray, *, training: bool, **more):
  params = {name: PARAMS[name] for name in (("scale", "bias") if kind == "group" else PARAMS)}
  return ChannelNorm(kind).apply({"params": params}, x, training=training, **more)


def test_batch_norm_uses_the_statistics_of_the_batch_in_training():
  expected = formula(X, X.mean((0, 1, 2)), X.var((0, 1, 2)))
  np.testing.assert_allclose(apply("batch", X, training=True), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "training"), [("batch", False), ("frozen", False), ("frozen", True)])
def test_other_batch_norm_uses_its_parameters(kind, training):
  expected = formula(X, np.asarray(PARAMS["mean"]), np.asarray(PARAMS["var"]))
  shown, seen = apply(kind, X, training=training, mutable=[STATISTICS])
  np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-5)
  assert not seen


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (8, 1)])
def test_group_norm_is_flax_s(channels, groups):
  params = {name: PARAMS[name][:channels] for name in ("scale", "bias")}
  ours = ChannelNorm("group").apply({"params": params}, X[..., :channels], training=True)
  theirs = nn.GroupNorm(groups, epsilon=1e-5).apply({"params": params}, X[..., :channels])
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["batch", "frozen"])
def test_running_averages_get_no_gradient(kind):
  loss = lambda p: jnp.square(ChannelNorm(kind).apply({"params": p}, X, training=False) - 1.0).sum()
  grads = jax.jit(jax.grad(loss))(PARAMS)
  assert not np.any(grads["mean"]) and not np.any(grads["var"])
  assert np.all(grads["scale"]) and np.all(grads["bias"])


def test_statistics_and_gradient_are_those_of_the_global_batch_on_eight_devices():
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

  def value(x):
    shown, seen = apply("batch", x, training=True, mutable=[STATISTICS])
    return jnp.sin(shown), seen[STATISTICS]

  def gradient(x, value):
    return jax.jit(jax.grad(lambda x: value(x)[0].sum()))(x)

  mapped = jax.shard_map(value, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
  (alone, seen), (split, spread) = value(X), jax.jit(mapped)(X)
  np.testing.assert_allclose(split, alone, rtol=1e-5, atol=1e-5)
  for name in ("mean", "var"):
    assert spread[name].shape == (8, 64)
    np.testing.assert_allclose(spread[name], np.broadcast_to(seen[name], (8, 64)), rtol=1e-5)
  np.testing.assert_allclose(gradient(X, mapped), gradient(X, value), rtol=1e-3, atol=1e-5)


def test_running_averages_move_by_a_tenth_where_they_are_trained():
  params = {"a": {"mean": jnp.zeros(2), "scale": jnp.ones(2)}, "b": {"mean": jnp.zeros(2)}}
  seen = {"a": {"mean": jnp.ones((4, 2))}, "b": {"mean": jnp.ones((4, 2))}}
  moved = moved_statistics(params, seen, {"a": {"mean": True, "scale": True}, "b": {"mean": False}})
  np.testing.assert_allclose(moved["a"]["mean"], 0.1, rtol=1e-6)
  np.testing.assert_array_equal(moved["b"]["mean"], 0.0)
  assert moved["a"]["scale"] is params["a"]["scale"]
