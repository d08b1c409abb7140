"""Parameters for tests that need any, and not the initial ones: their shapes, filled without compiling anything."""

import jax
import jax.numpy as jnp
import numpy as np


def random_params(model, batch, deviation=0.3):
  """As `model.init(key, batch)["params"]`: normal kernels, scales near 1, small biases."""
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    centre = 1.0 if path[-1].key == "scale" else 0.0
    return jnp.asarray(centre + deviation * rng.standard_normal(leaf.shape), leaf.dtype)

  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
  return jax.tree_util.tree_map_with_path(fill, shapes)
