"""What the tests of models that fuse pictures and words share: tiny inputs, and eight devices against one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models import SHARDING_RULES
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings

CLS, MASK, VOCABULARY, WORDS = 1, 2, 20, 6
TEXT = jnp.asarray([[CLS, 4, 7, 5, 0, 0], [CLS, 6, 7, 8, 9, 3], [CLS, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], jnp.int32)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
BATCH = {"image": IMAGES, "text": TEXT}


@functools.cache
def params(config):
  fresh = jax.jit(config.build().init)(jax.random.key(0), BATCH)["params"]
  grow = lambda p: p * 3.0 if p.ndim > 1 else p  # far from zero, so that what is read shows
  return jax.tree.map(grow, fresh)


@functools.partial(jax.jit, static_argnames="config")
def run(params, batch, config):
  return config.build().apply({"params": params}, batch)


def moved(out, other):
  """How far each example's row went."""
  return np.abs(np.asarray(out) - np.asarray(other)).reshape(len(out), -1).max(1)


def assert_padding_and_others_change_nothing(config, names):
  """A shorter row of padding, and another order of the batch."""
  out = run(params(config), BATCH, config)
  shorter = run(params(config), {**BATCH, "text": TEXT[:, :4].at[1, 3].set(0)}, config)
  turned = run(params(config), jax.tree.map(lambda x: x[::-1], BATCH), config)
  for name in out:
    np.testing.assert_allclose(turned[name][::-1], out[name], rtol=1e-4, atol=1e-5, err_msg=name)
  for name in names:
    places = shorter[name].shape[1]
    for row in (0, 2):
      np.testing.assert_allclose(shorter[name][row], out[name][row, :places], rtol=1e-4, atol=1e-5, err_msg=name)


def assert_eight_devices_equal_one(config):
  """Batch over four, heads and widths over two; values and gradients, with a text that is all padding."""

  def loss(params, batch):
    # Squares, since sums of some heads (a softmax's) are constant.
    return sum(jnp.square(value.astype(jnp.float32)).mean() for value in run(params, batch, config).values())

  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  shardings = parameter_shardings(SHARDING_RULES, params(config), mesh)
  split = jax.jit(jax.value_and_grad(loss), in_shardings=(shardings, batch_sharding(mesh)))(params(config), BATCH)
  whole = jax.jit(jax.value_and_grad(loss))(params(config), BATCH)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6 * largest), split, whole)
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
