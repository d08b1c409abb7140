"""clip_loss and siglip_loss against the dense reference: everywhere, in every way of calling them, in every
precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.objectives import clip_loss, siglip_loss
from tests.objectives import dense

N, D = 24, 8
# 24 examples on 8 devices: the last device holds nothing but padding, others are ragged.
MASK = np.array([1, 0, 1, 1, 1, 0.5, 2, 1, 0, 1, 1, 1, 1, 1, 0, 1, 3, 1, 1, 0, 1, 0, 0, 0])
TILES = {1: (7, 5), 2: 4, 3: (3, 8), 4: 100, 8: 2}


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def inputs(dtype=jnp.float64):
  number = lambda value: jnp.asarray(value, dtype)
  return dense.unit(N, D, 0, dtype), dense.unit(N, D, 1, dtype), number(7.0), number(-2.0), number(MASK)


REFERENCES = {
  "clip": lambda x, y, s, b, w: dense.clip(x, y, s),
  "clip masked": lambda x, y, s, b, w: dense.clip(x, y, s, w),
  "siglip": lambda x, y, s, b, w: dense.siglip(x, y, s, b),
  "siglip masked": lambda x, y, s, b, w: dense.siglip(x, y, s, b, w),
}


def every_gradient(losses, arguments):
  pull = lambda *a: {name: jax.value_and_grad(loss, range(5))(*a) for name, loss in losses.items()}
  return jax.jit(pull)(*arguments)


@pytest.fixture(scope="module")
def dense_results():
  with jax.enable_x64(True):
    return every_gradient(REFERENCES, inputs())


@pytest.mark.parametrize(("devices", "masked"), [(1, False), (2, True), (3, False), (4, True), (8, True)])
def test_value_and_gradients_equal_the_dense_loss_on_any_number_of_devices(x64, dense_results, devices, masked):
  mesh, axes = dense.mesh_of(devices)
  options = {"axis_name": axes[0], "tile_size": TILES[devices]}
  weights = lambda w: w if masked else None
  engines = {
    "clip": lambda x, y, s, b, w: clip_loss(x, y, logit_scale=s, weights=weights(w), **options),
    "siglip": lambda x, y, s, b, w: siglip_loss(x, y, logit_scale=s, logit_bias=b, weights=weights(w), **options),
  }
  specs = (P(axes), P(axes), P(), P(), P(axes))
  arguments = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(inputs(), specs)]
  got = every_gradient({k: dense.sharded(fn, mesh, axes, specs) for k, fn in engines.items()}, arguments)
  for name, result in got.items():
    want = dense_results[f"{name} masked" if masked else name]
    assert dense.error(defined(jax.device_get(result)), defined(want)) < 1e-12, name


def defined(value_and_gradients):
  """Without d/d(weight) at weight 0: presence switches there."""
  value, (*others, weights) = value_and_gradients
  return value, *others, jnp.where(MASK > 0, weights, 0)


def model_loss(params, image, text, axis_name):
  """Both losses in one step, behind a small encoder whose parameters are replicated."""
  normalise = lambda x: x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True))
  x, y = normalise(image @ params["image"]), normalise(text @ params["text"])
  scale, options = jnp.exp(params["log_scale"]), {"axis_name": axis_name, "tile_size": (4, 2)}
  first = clip_loss(x, y, logit_scale=scale, **options)
  return first + siglip_loss(x, y, logit_scale=scale, logit_bias=params["bias"], **options)


def parameters():
  kernel = lambda seed: dense.unit(D, 5, seed, jnp.float64)
  return {"image": kernel(2), "text": kernel(3), "log_scale": jnp.asarray(1.5), "bias": jnp.asarray(-1.0)}


@pytest.fixture(scope="module")
def wanted():
  with jax.enable_x64(True):
    image, text, *_ = inputs()
    return jax.jit(jax.value_and_grad(partial(model_loss, axis_name=None)))(parameters(), image, text)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_gradient_taken_outside_or_inside_shard_map_with_checking_on_or_off(x64, wanted, where, check):
  mesh, axes = dense.mesh_of(2, 2)
  specs = (P(), P(axes), P(axes))
  loss = partial(model_loss, axis_name=axes)
  if where == "outside":
    call = jax.value_and_grad(dense.sharded(loss, mesh, axes, specs, check_vma=check))
  else:
    inner = lambda *a: jax.lax.pmean(jax.value_and_grad(loss)(*a), axes)
    call = dense.sharded(inner, mesh, axes, specs, check_vma=check)
  image, text, *_ = inputs()
  assert dense.error(jax.jit(call)(parameters(), image, text), wanted) < 1e-12


def test_gradient_inside_pmap_after_pmean(x64, wanted):
  image, text, *_ = inputs()
  inner = lambda *a: jax.lax.pmean(jax.value_and_grad(partial(model_loss, axis_name="batch"))(*a), "batch")
  call = jax.pmap(inner, axis_name="batch", in_axes=(None, 0, 0), devices=jax.devices()[:4])
  split = lambda a: a.reshape(4, N // 4, D)
  got = call(parameters(), split(image), split(text))
  assert dense.error(jax.tree.map(lambda leaf: leaf[0], got), wanted) < 1e-12
  assert dense.error(jax.tree.map(lambda leaf: leaf[3], got), wanted) < 1e-12


def test_temperature_and_bias_per_row_and_false_negatives_by_id(x64):
  image, text, *_ = inputs()
  scale, bias = jnp.linspace(2.0, 9.0, N), jnp.linspace(-3.0, 1.0, N)
  ids = jnp.arange(N) % 7
  mesh, axes = dense.mesh_of(4)
  specs = (P(axes),) * 5

  def engine(x, y, s, b, ids):
    first = clip_loss(x, y, logit_scale=s, ids=ids, axis_name=axes, tile_size=4)
    return first + 0.5 * siglip_loss(x, y, logit_scale=s, logit_bias=b, ids=ids, axis_name=axes, tile_size=4)

  def reference(x, y, s, b, ids):
    return dense.clip(x, y, s, ids=ids) + 0.5 * dense.siglip(x, y, s, b, ids=ids)

  arguments = (image, text, scale, bias, ids)
  got = jax.jit(jax.value_and_grad(dense.sharded(engine, mesh, axes, specs), range(4)))(*arguments)
  want = jax.jit(jax.value_and_grad(reference, range(4)))(*arguments)
  assert dense.error(got, want) < 1e-12
  assert want[0] < reference(image, text, scale, bias, jnp.arange(N))


@jax.jit
def value_and_gradients(*arguments):
  losses = {
    "clip": lambda x, y, s, b: clip_loss(x, y, logit_scale=s, tile_size=64),
    "siglip": lambda x, y, s, b: siglip_loss(x, y, logit_scale=s, logit_bias=b, tile_size=64),
  }
  return {name: jax.value_and_grad(loss, range(4))(*arguments) for name, loss in losses.items()}


def test_float32_is_accurate_at_scale_50_and_finite_at_any():
  x, y = dense.unit(256, 64, 0), dense.unit(256, 64, 1)
  got = value_and_gradients(x, y, jnp.float32(50), jnp.float32(-10))
  with jax.enable_x64(True):
    exact = tuple(jnp.asarray(np.asarray(v), jnp.float64) for v in (x, y, jnp.float32(50), jnp.float32(-10)))
    want = {
      "clip": jax.value_and_grad(lambda x, y, s, b: dense.clip(x, y, s), (0, 1, 2))(*exact),
      "siglip": jax.value_and_grad(dense.siglip, range(4))(*exact),
    }
    assert dense.relative((got["clip"][0], got["clip"][1][:3]), want["clip"]) < 1e-6
    assert dense.relative(got["siglip"], want["siglip"]) < 1e-6
  for scale, bias in ((1e4, 0.0), (300.0, 150.0), (300.0, -500.0)):
    extreme = value_and_gradients(x, y, jnp.float32(scale), jnp.float32(bias))
    assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(extreme))


def test_bfloat16_features_cost_only_their_own_rounding():
  x, y = dense.unit(256, 64, 0, jnp.bfloat16), dense.unit(256, 64, 1, jnp.bfloat16)
  arguments = (x, y, jnp.float32(20), jnp.float32(-10))
  got = value_and_gradients(*arguments)
  with jax.enable_x64(True):
    exact = tuple(jnp.asarray(np.asarray(v, np.float64)) for v in arguments)
    want = {
      "clip": jax.value_and_grad(lambda x, y, s, b: dense.clip(x, y, s), (0, 1, 2))(*exact),
      "siglip": jax.value_and_grad(dense.siglip, range(4))(*exact),
    }
    for name, count in (("clip", 3), ("siglip", 4)):
      assert abs(float(got[name][0]) / float(want[name][0]) - 1) < 1e-6
      assert dense.relative(got[name][1][:count], want[name][1]) < 4e-3
      assert got[name][1][0].dtype == jnp.bfloat16


def test_hand_computed_values():
  # Two pairs, orthogonal to each other: logits are s on the diagonal and 0 off it.
  eye = jnp.eye(2)
  assert clip_loss(eye, eye, logit_scale=3.0) == pytest.approx(np.log(np.exp(3) + 1) - 3, rel=1e-6)
  want = np.log1p(np.exp(-(3.0 - 1.0))) + np.log1p(np.exp(0.0 - 1.0))
  assert siglip_loss(eye, eye, logit_scale=3.0, logit_bias=-1.0) == pytest.approx(want, rel=1e-6)
  same = jnp.ones((8, 1))
  assert clip_loss(same, same, logit_scale=5.0) == pytest.approx(np.log(8), rel=1e-6)  # chance
  # With all captions equal and masked as false negatives nothing is left to get wrong.
  assert clip_loss(same, same, logit_scale=5.0, ids=jnp.zeros(8, jnp.int32)) == pytest.approx(0, abs=1e-6)


def test_an_absent_batch_is_zero_with_zero_gradients():
  x, y = dense.unit(8, 4, 0), dense.unit(8, 4, 1)
  for loss in (clip_loss, partial(siglip_loss, logit_bias=jnp.float32(-1))):
    absent = partial(loss, logit_scale=9.0, weights=jnp.zeros(8))
    value, gradients = jax.value_and_grad(absent, (0, 1))(x, y)
    assert value == 0 and all(bool((g == 0).all()) for g in gradients)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"text": jnp.ones((4, 3))}, r"image and text must both be \[batch, dim\]"),
    ({"text": jnp.ones((4, 2), jnp.bfloat16)}, "image is float32 and text is bfloat16"),
    ({"logit_scale": 0.0}, "logit_scale must be positive"),
    ({"logit_scale": float("nan")}, "logit_scale must be positive"),
    ({"weights": jnp.ones(3)}, "weight must have one entry per example"),
    ({"axis_name": "pod"}, "axis 'pod' is not bound here"),
    ({"tile_size": 0}, "tile_size must be a whole number of at least 1"),
    ({"tile_size": (2, -1)}, "tile_size must be a whole number of at least 1"),
    ({"method": "rings"}, "unknown method 'rings'"),
    ({"method": "nested"}, "needs at least two axes"),
  ],
)
def test_bad_input_is_refused_with_a_reason(change, message):
  arguments = {"image": jnp.ones((4, 2)), "text": jnp.ones((4, 2)), "logit_scale": 10.0} | change
  with pytest.raises(ValueError, match=message):
    clip_loss(**arguments)
