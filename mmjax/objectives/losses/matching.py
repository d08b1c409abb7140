"""Image-text matching: hard negatives and the loss (Li et al. 2021, ALBEF, section 3.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from mmjax.objectives.losses.per_example import ExampleLosses, cross_entropy

# Loss of a matching head with a constant output, with one positive to two negatives: H(1/3) nats. A loss that stays at
# 0.6365 means that only the fraction of positives was learned.
MATCHING_CHANCE = 0.6365141682948128


class Negatives(NamedTuple):
  """Negative partners of every image and text.

  Attributes:
    image: row of the negative image for each text.
    text: row of the negative text for each image.
    weight: 0 if the group contains no negative for this row (the row then points at itself), otherwise 1.
  """

  image: Int[Array, "batch"]
  text: Int[Array, "batch"]
  weight: Float[Array, "batch"]


def hard_negatives(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  rng: Key[Array, "batch"],
  *,
  logit_scale: float | Float[Array, ""],
  group: int,
  concept: Int[Array, "batch"] | None = None,
) -> Negatives:
  """Draws one negative image per text and one negative text per image from softmax(similarity) within groups.

  Args:
    image: unit-norm image embeddings, which get no gradient.
    text: unit-norm text embeddings, which get no gradient.
    rng: one key per example.
    logit_scale: multiplies the similarities. 0 draws negatives uniformly, which is the control for hard negatives.
    group: number of consecutive rows that are candidates for each other; must divide the batch.
    concept: rows with equal numbers have the same meaning and are not negatives of each other (duplicate captions).
  Raises:
    ValueError: group does not divide the batch.
  """
  size = image.shape[0]
  if size % group:
    raise ValueError(f"group={group} must divide the {size} rows of the local batch or microbatch")
  split = lambda x: rearrange(jax.lax.stop_gradient(x), "(n g) ... -> n g ...", g=group)
  scale = jax.lax.stop_gradient(jnp.asarray(logit_scale, jnp.float32))
  logits = scale * jnp.einsum("nid,njd->nij", split(image.astype(jnp.float32)), split(text.astype(jnp.float32)))
  wrong = jnp.broadcast_to(~jnp.eye(group, dtype=bool)[None], logits.shape)
  if concept is not None:
    number = split(concept)
    wrong = wrong & (number[:, :, None] != number[:, None, :])
  logits = jnp.where(wrong, logits, -jnp.inf)  # image i, text j
  found = rearrange(wrong.any(2), "n g -> (n g)")  # `wrong` is symmetric
  keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))
  draw = lambda pattern, stream: _draw(rearrange(logits, pattern), keys(rng, stream), found)
  return Negatives(draw("n i j -> (n j) i", 0), draw("n i j -> (n i) j", 1), found.astype(jnp.float32))


def _draw(
  logits: Float[Array, "batch group"], rng: Key[Array, "batch"], found: Bool[Array, "batch"]
) -> Int[Array, "batch"]:
  """Draws a row of the batch for each example from the softmax over its group; its own row if there is no candidate."""
  size, group = logits.shape
  here = jnp.arange(size, dtype=jnp.int32)
  picked = jax.vmap(jax.random.categorical)(rng, jnp.where(found[:, None], logits, 0.0)).astype(jnp.int32)
  return jnp.where(found, here // group * group + picked, here)


def matching_loss(
  positive: Float[Array, "batch 2"],
  negatives: Float[Array, "negatives batch 2"],
  *,
  positive_weight: Float[Array, "batch"] | None = None,
  negative_weight: Float[Array, "negatives batch"] | None = None,
) -> ExampleLosses:
  """Cross-entropy of "matches" (column 1) against "does not match", averaged over an example's pairs (ALBEF, eq. 4).

  Args:
    positive: logits of each example's own pair.
    negatives: logits of its negative pairs. With `hard_negatives` there are two: its text with another image, and its
      image with another text.
    positive_weight: 0 where an example has no pair of its own.
    negative_weight: 0 where no negative was found. An example without any negative has weight 0: a positive alone
      would teach that everything matches.
  Returns: losses and weights. With two negatives, the best constant output costs MATCHING_CHANCE.
  """
  count = negatives.shape[0]
  one = jnp.ones(positive.shape[0], jnp.float32)
  positive_weight = one if positive_weight is None else positive_weight.astype(jnp.float32)
  if negative_weight is None:
    negative_weight = jnp.ones((count, positive.shape[0]), jnp.float32)
  right = cross_entropy(positive, jnp.ones(positive.shape[0], jnp.int32))
  wrong = cross_entropy(negatives, jnp.zeros(negatives.shape[:2], jnp.int32))
  total = positive_weight * right + (negative_weight.astype(jnp.float32) * wrong).sum(0)
  weight = positive_weight + negative_weight.astype(jnp.float32).sum(0)
  counts = negative_weight.sum(0) > 0
  losses = jnp.where(counts, total / jnp.where(counts, weight, 1.0), 0.0)
  return ExampleLosses(losses, jnp.where(counts, weight / (count + 1), 0.0))
