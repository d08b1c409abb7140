"""Counts with which the members of an ensemble see each example: bootstrap samples and folds."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

Sampling = Literal["all", "bootstrap", "folds"]

_COUNTS = np.cumsum([0.36787944, 0.36787944, 0.18393972, 0.06131324, 0.01532831, 0.00306566, 0.00051094, 0.00007299])
"""Cumulative probabilities of the counts 0 to 7 of a Poisson distribution with mean 1."""


def sample_counts(
  index: Int[Array, "batch"], *, members: int, sampling: Sampling, seed: int
) -> Float[Array, "members batch"]:
  """Number of times that each example is in the sample of each member.

  It depends on the index of the example and the seed alone, so that it is known afterwards which members have not seen
  an example (count 0).

  "bootstrap": Poisson with mean 1, the limit of the counts of n draws from n examples with replacement (Oza and Russell
  2001, online bagging, section 2). "folds": each example is in one of as many folds as there are members, at random;
  member m sees all but fold m. "all": 1.

  Args:
    index: numbers of the examples in their source.
    members: number of members.
    sampling: the kind of samples.
    seed: seed of the samples.
  """
  if sampling == "all":
    return jnp.ones((members, *index.shape), jnp.float32)
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), index)
  if sampling == "folds":
    fold = jax.vmap(lambda key: jax.random.randint(key, (), 0, members))(keys)
    return (jnp.arange(members)[:, None] != fold[None]).astype(jnp.float32)
  draws = jax.vmap(lambda key: jax.random.uniform(key, (members,)))(keys).T
  return jnp.searchsorted(jnp.asarray(_COUNTS, jnp.float32), draws, side="right").astype(jnp.float32)
