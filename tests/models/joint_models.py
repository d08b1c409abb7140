"""What the tests of models that fuse pictures and words share: tiny inputs, and eight devices against one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models import SHARDING_RULES
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings
from tests.models.random_params import random_params

CLS, MASK, VOCABULARY, WORDS = 1, 2, 20, 6
TEXT = jnp.asarray([[CLS, 4, 7, 5, 0, 0], [CLS, 6, 7, 8, 9, 3], [CLS, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], jnp.int32)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
BATCH = {"image": IMAGES, "text": TEXT}


@functools.cache
def params(config):
  return random_params(config.build(), BATCH)


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
  """Batch over four, heads and widths over two, with a text that is all padding; train/test_meshes.py: gradients."""
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  shardings = parameter_shardings(SHARDING_RULES, params(config), mesh)
  say = jax.jit(functools.partial(run, config=config), in_shardings=(shardings, batch_sharding(mesh)))
  split, whole = say(*jax.device_get((params(config), BATCH))), run(params(config), BATCH, config)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), split, whole)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
