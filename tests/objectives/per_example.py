"""What the tests of per-example objectives share: the definitions in numpy, and a check of value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np


def keys(size, seed=0):
  return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(size))


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def cross_entropy(logits, labels):
  """-log softmax(logits)[label] in float64."""
  logits = np.asarray(logits, np.float64)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -np.take_along_axis(log_p, np.asarray(labels)[..., None], -1)[..., 0]


def assert_finite(loss, *inputs):
  """Losses, weights and the gradient of their weighted sum are finite; returns (losses, weights, gradients)."""

  def total(*inputs):
    losses, weights = loss(*inputs)
    assert losses.dtype == weights.dtype == jnp.float32 and losses.shape == weights.shape == (len(inputs[0]),)
    return (losses * weights).sum(), (losses, weights)

  gradients, (losses, weights) = jax.jit(jax.grad(total, range(len(inputs)), has_aux=True))(*inputs)
  assert all(bool(np.isfinite(x).all()) for x in jax.tree.leaves((losses, weights, gradients)))
  return losses, weights, gradients
