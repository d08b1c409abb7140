"""Combination of the scores of several models."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

_LEAST_SHARE = 1e-6
"""Share of the votes that a class without votes counts as, so that its logarithm is finite."""


def mean_of_probabilities(
  logits: Float[Array, "members batch classes"], weights: Float[Array, "members"]
) -> Float[Array, "batch classes"]:
  """Logarithm of the weighted mean of the members' probabilities, in float32.

  Its softmax is the mean itself (Lakshminarayanan et al. 2017, deep ensembles, section 2.4; Breiman 1996, bagging).

  Args:
    logits: scores of the classes of each member.
    weights: weights of the members. Their sum is 1.
  """
  logs = jax.nn.log_softmax(logits.astype(jnp.float32))
  return jax.nn.logsumexp(logs + jnp.log(weights)[:, None, None], axis=0)


def votes(
  logits: Float[Array, "members batch classes"], weights: Float[Array, "members"]
) -> Float[Array, "batch classes"]:
  """Logarithm of each class's weighted share of the votes, in float32. A member votes for its likeliest class.

  This is plurality voting, and with the weights of SAMME its decision (Zhu et al. 2009, algorithm 2, step 3). A class
  without votes counts as a share of 1e-6.

  Args:
    logits: scores of the classes of each member. Of equal scores, the first class gets the vote.
    weights: weights of the members. Their sum is 1.
  """
  cast = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=jnp.float32)
  return jnp.log(jnp.maximum(jnp.einsum("mbc,m->bc", cast, weights), _LEAST_SHARE))


def side_by_side(
  embeddings: Float[Array, "members batch dim"], weights: Float[Array, "members"]
) -> Float[Array, "batch members*dim"]:
  """Join unit-norm embeddings of members into unit-norm ones, whose cosine is the weighted mean of the cosines.

  Args:
    embeddings: unit-norm embeddings of each member.
    weights: weights of the members. Their sum is 1.
  """
  scaled = embeddings.astype(jnp.float32) * jnp.sqrt(weights)[:, None, None]
  return jnp.moveaxis(scaled, 0, 1).reshape(embeddings.shape[1], -1)
