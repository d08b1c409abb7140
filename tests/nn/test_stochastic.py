"""Randomness belongs to the example, not to its place in the batch."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.nn.stochastic import drop_patches, drop_path

X = jnp.broadcast_to(jnp.arange(10.0)[None, :, None] + 1.0, (64, 10, 2))
RNG = jax.random.split(jax.random.key(0), 64)


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
  factors = np.asarray(drop_path(X, rate=0.25, rng=RNG) / X)
  kept = factors[:, 0, 0] > 0
  np.testing.assert_allclose(factors, np.where(kept, 1 / 0.75, 0)[:, None, None] * np.ones((1, 10, 2)), rtol=1e-6)
  assert 0.55 < kept.mean() < 0.95
  assert drop_path(X, rate=0.25, rng=None) is X


def test_drop_patches_keeps_as_many_everywhere_in_order():
  kept = np.asarray(drop_patches(X, rate=0.4, rng=RNG))[..., 0]
  assert kept.shape == (64, 6)
  assert (np.diff(kept, axis=1) > 0).all()
  assert len({tuple(row) for row in kept}) > 30
  assert drop_patches(X, rate=0.4, rng=None) is X


def test_an_example_meets_the_same_fate_in_any_order():
  order = np.random.default_rng(0).permutation(64)
  for f in (lambda rng: drop_path(X, rate=0.5, rng=rng), lambda rng: drop_patches(X, rate=0.5, rng=rng)):
    np.testing.assert_array_equal(np.asarray(f(RNG))[order], f(RNG[order]))
