"""Image-text matching: hard negatives and the loss (Li et al. 2021, ALBEF, section 3.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from mmjax.objectives.losses.per_example import ExampleLosses, cross_entropy
from mmjax.parallel.ring import AxisName

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
  split = lambda x: rearrange(x, "(n g) ... -> n g ...", g=group)
  number = None if concept is None else split(concept)
  logits = _logits(split(image), split(text), logit_scale)  # image i, text j
  wrong = _others(jnp.broadcast_to(jnp.eye(group, dtype=bool), logits.shape), number, number)
  found = rearrange(wrong.any(2), "n g -> (n g)")  # `wrong` is symmetric
  logits, first = jnp.where(wrong, logits, -jnp.inf), jnp.arange(size, dtype=jnp.int32) // group * group
  draw = lambda pattern, stream: _draw(rearrange(logits, pattern), rng, stream, found, first)
  return Negatives(draw("n i j -> (n j) i", 0), draw("n i j -> (n i) j", 1), found.astype(jnp.float32))


def global_negatives(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  rng: Key[Array, "batch"],
  *,
  logit_scale: float | Float[Array, ""],
  concept: Int[Array, "batch"] | None = None,
  axis_name: AxisName,
) -> Negatives:
  """Draws negatives as `hard_negatives` does, with all rows of the global batch as candidates.

  The embeddings of all devices are gathered. The draws of a row depend on its key and on the global batch only, not on
  the number of devices. `take_rows` fetches the rows.

  Args:
    image: unit-norm image embeddings of the local rows, which get no gradient.
    text: unit-norm text embeddings of the local rows, which get no gradient.
    rng: one key per local row.
    logit_scale: see `hard_negatives`.
    concept: see `hard_negatives`.
    axis_name: mesh axes of the batch, inside shard_map. None: the arrays are the whole batch.
  Returns: numbers of rows in the global batch.
  """
  size = image.shape[0]
  everywhere = lambda x: x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)
  images, texts = everywhere(jax.lax.stop_gradient(image)), everywhere(jax.lax.stop_gradient(text))
  start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
  here, first = start + jnp.arange(size, dtype=jnp.int32), jnp.zeros(size, jnp.int32)
  own = here[:, None] == jnp.arange(len(images), dtype=jnp.int32)[None]
  wrong = _others(own, concept, None if concept is None else everywhere(concept))
  found = wrong.any(1)
  draw = lambda logits, stream: _draw(jnp.where(wrong, logits, -jnp.inf), rng, stream, found, first, here)
  return Negatives(
    draw(_logits(text, images, logit_scale), 0), draw(_logits(image, texts, logit_scale), 1), found.astype(jnp.float32)
  )


def _logits(
  rows: Float[Array, "*groups rows dim"], columns: Float[Array, "*groups columns dim"], scale: float | Float[Array, ""]
) -> Float[Array, "*groups rows columns"]:
  rows, columns = (jax.lax.stop_gradient(x).astype(jnp.float32) for x in (rows, columns))
  return jax.lax.stop_gradient(jnp.asarray(scale, jnp.float32)) * jnp.einsum("...id,...jd->...ij", rows, columns)


def _others(
  own: Bool[Array, "*groups rows columns"],
  concept: Int[Array, "*groups rows"] | None,
  concepts: Int[Array, "*groups columns"] | None,
) -> Bool[Array, "*groups rows columns"]:
  """True for pairs of rows that are not the same, and do not mean the same."""
  if concept is None or concepts is None:
    return ~own
  return ~own & (concept[..., :, None] != concepts[..., None, :])


def _draw(
  logits: Float[Array, "batch candidates"],
  rng: Key[Array, "batch"],
  stream: int,
  found: Bool[Array, "batch"],
  first: Int[Array, "batch"],
  here: Int[Array, "batch"] | None = None,
) -> Int[Array, "batch"]:
  """Draws a candidate for each row from the softmax.

  Args:
    logits: -inf for rows that are no candidates.
    rng: one key per row.
    stream: number of the random stream.
    found: True for rows with at least one candidate.
    first: number of the first candidate of each row.
    here: number of each row, which is returned if there is no candidate. None: its place.
  """
  here = jnp.arange(len(logits), dtype=jnp.int32) if here is None else here
  keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(rng, stream)
  picked = jax.vmap(jax.random.categorical)(keys, jnp.where(found[:, None], logits, 0.0)).astype(jnp.int32)
  return jnp.where(found, first + picked, here)


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
