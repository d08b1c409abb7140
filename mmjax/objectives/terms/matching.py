"""Image-text matching terms."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from mmjax.errors import ConfigError
from mmjax.models.protocols import AlignsWords, Compares, Encodes, Fuses, Matches
from mmjax.objectives.losses.alignment import word_patch_distance
from mmjax.objectives.losses.matching import (
  MATCHING_CHANCE,
  Negatives,
  global_negatives,
  hard_negatives,
  matching_loss,
)
from mmjax.objectives.losses.per_example import correct, cross_entropy
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores, Whole, joint
from mmjax.objectives.terms.sharded import over_shards
from mmjax.parallel.ring import take_rows
from mmjax.types import Encoded


class Partners(NamedTuple):
  """Encodings of the wrong partners of every example.

  Attributes:
    encoded: by "image", another image for the text of each example. By "text", another text for its image.
    weight: 0 if there is none (the example is then its own partner), otherwise 1.
  """

  encoded: dict[str, Encoded]
  weight: Float[Array, "batch"]


@dataclasses.dataclass(frozen=True)
class WrongPairs(ExampleTerm):
  """Base class of terms that compare pairs with wrong pairs of the same batch."""

  group: int = 16
  """Number of consecutive rows that are negatives of each other, if `among` is "group". They are in one microbatch on
  one device."""
  hard: bool = True
  """Sample negatives from softmax(similarity). False: uniformly."""
  mask_same_concept: bool = True
  """Exclude negatives with the same meaning (equal batch["concept"])."""
  among: Literal["group", "device", "global"] = "group"
  """Rows that are negatives of an example: those of its group, of the batch of its device (ALBEF and BLIP: of its GPU),
  or of the global batch. "global" does not depend on the number of devices. Neither depends on microbatches. Both hold
  the encoded tokens of the batch of a device in memory."""

  @property
  def sides(self) -> tuple[str, ...]:
    """Sides of an example that get wrong partners."""
    return ("image", "text")

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "concept")

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Matches, *(Compares,) * self.hard)

  @property
  def together(self) -> int:
    return self.group if self.among == "group" else 1

  @property
  def fetches(self) -> bool:
    return self.among != "group"

  def fetch(self, whole: Whole, encoded: Mapping[str, Encoded], keys: Key[Array, "batch"]) -> Partners:
    """Get partners from the device or from the global batch."""
    axes = whole.axes if self.among == "global" else None

    def local(rows: Any, concept: Array, encoded: Any, keys: Array, scale: Array) -> tuple[Array, Partners]:
      image, text = rows or _zeros(concept)
      concepts = concept if self.mask_same_concept else None
      drawn = global_negatives(image, text, keys, logit_scale=scale, concept=concepts, axis_name=axes)
      found = {side: take_rows(encoded[side], getattr(drawn, side), axes) for side in self.sides}
      return jnp.zeros(()), Partners(found, drawn.weight)

    embeddings = tuple(whole.embeddings[name] for name in ("image", "text")) if self.hard else ()
    rows = (embeddings, whole.batch["concept"], {side: encoded[side] for side in self.sides}, keys)
    return over_shards(local, whole, rows, (whole.logit_scale,), by_row=True)[1]

  def partners(self, forward: Forward, fetched: Any) -> Partners:
    """Partners of the rows, from `fetch` or from the groups."""
    if self.fetches:
      return fetched
    drawn = self._within_groups(forward)
    rows = lambda side: jax.tree.map(lambda leaf: leaf[getattr(drawn, side)], forward.encoded[side])
    return Partners({side: rows(side) for side in self.sides}, drawn.weight)

  def _within_groups(self, forward: Forward) -> Negatives:
    if self.hard:
      embeddings = forward.model.project({name: forward.encoded[name] for name in ("image", "text")})
      image, text, scale = embeddings["image"], embeddings["text"], forward.model.logit_scale()
    else:
      (image, text), scale = _zeros(forward.batch["concept"]), jnp.zeros(())
    concept = forward.batch["concept"] if self.mask_same_concept else None
    return hard_negatives(image, text, forward.keys(self.name), logit_scale=scale, group=self.group, concept=concept)


@dataclasses.dataclass(frozen=True)
class Matching(WrongPairs):
  """Image-text matching: a pair, and two wrong pairs made from it (Li et al. 2021, ALBEF, eq. 4)."""

  @property
  def name(self) -> str:
    return "matching"

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    model, encoded, partners = forward.model, forward.encoded, self.partners(forward, taught)
    images = _concatenated(partners.encoded["image"], encoded["image"])
    texts = _concatenated(encoded["text"], partners.encoded["text"])
    keys = [forward.keys(f"{self.name} {side}") for side in ("image", "text")]
    rng = None if forward.rng is None else jnp.concatenate(keys)
    positive = model.match_logits(joint(forward.fused))
    wrong = model.match_logits(joint(model.fuse({"image": images, "text": texts}, rng=rng))).reshape(2, -1, 2)
    weights = jnp.broadcast_to(partners.weight, wrong.shape[:2])
    right = jnp.concatenate([positive[None, :, 1] > positive[None, :, 0], wrong[..., 0] > wrong[..., 1]])
    return {
      "loss": matching_loss(positive, wrong, negative_weight=weights),
      "accuracy": (right.astype(jnp.float32).mean(0), partners.weight),
    }

  def chance(self, batch_size: int, model: Any) -> float | None:
    return MATCHING_CHANCE


@dataclasses.dataclass(frozen=True)
class SwappedMatching(WrongPairs):
  """Image-text matching of one pair per example, whose image is swapped at random for another one, and alignment of
  words and patches (Kim et al. 2021, ViLT, section 3.2).

  The fused words and patches of matching pairs are drawn together, and those of swapped pairs apart, by an approximate
  Wasserstein distance. Its mean over matching pairs is logged as `distance`.
  """

  hard: bool = False
  """Sample other images from softmax(similarity). False: uniformly (ViLT)."""
  rate: float = 0.5
  """Probability that the image is swapped."""
  alignment: float = 0.1
  """Weight of the distance. 0: no alignment."""
  beta: float = 0.5
  """Step size of the approximate transport (IPOT)."""
  iterations: int = 50
  """Iterations of the approximate transport."""

  @property
  def name(self) -> str:
    return "swapped_matching"

  @property
  def sides(self) -> tuple[str, ...]:
    return ("image",)

  @property
  def asks(self) -> tuple[type, ...]:
    return (*super().asks, *(AlignsWords,) * bool(self.alignment))

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    model, encoded, partners = forward.model, forward.encoded, self.partners(forward, taught)
    lucky = jax.vmap(jax.random.bernoulli, in_axes=(0, None))(forward.keys(f"{self.name} swap"), self.rate)
    swapped = lucky & (partners.weight > 0)
    choose = lambda other, own: jnp.where(swapped.reshape(-1, *[1] * (own.ndim - 1)), other, own)
    images = jax.tree.map(choose, partners.encoded["image"], encoded["image"])
    rng = None if forward.rng is None else forward.keys(f"{self.name} fusion")
    fused = model.fuse({"image": images, "text": encoded["text"]}, rng=rng)
    logits, truth = model.match_logits(joint(fused)), jnp.where(swapped, 0, 1)
    loss = cross_entropy(logits, truth)
    scores: dict[str, Any] = {"accuracy": correct(logits, truth)}
    if self.alignment:
      distance = self._distance(forward, fused)
      loss = loss + self.alignment * jnp.where(swapped, -distance, distance)
      scores["distance"] = (distance, (~swapped).astype(jnp.float32))
    return {"loss": (loss, jnp.ones_like(loss)), **scores}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return None if self.alignment or self.rate != 0.5 else math.log(2)

  def _distance(self, forward: Forward, fused: Mapping[str, Encoded]) -> Float[Array, "batch"]:
    """Distance between words (without special tokens) and patches (without a class token), after the fusion."""
    if not {"image", "text"} <= set(fused):
      raise ConfigError(
        f"the objective {self.name} aligns words and patches, and the fusion of {type(forward.model).__name__} has "
        f"tokens of {', '.join(fused)} only: set --objectives.N.alignment 0"
      )
    text, image, config = fused["text"], fused["image"], forward.model.config
    ids, patches = forward.batch["text"], config.image.grid**2
    special = jnp.asarray((config.text.pad_id, config.text.eos_id, *config.text.special_ids), jnp.int32)
    return word_patch_distance(
      text.tokens,
      image.tokens[:, -patches:],
      word_mask=text.mask & ~jnp.isin(ids, special),
      patch_mask=image.mask[:, -patches:],
      beta=self.beta,
      iterations=self.iterations,
    )


def _concatenated(one: Encoded, two: Encoded) -> Encoded:
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, two)


def _zeros(concept: Int[Array, "batch"]) -> tuple[Float[Array, "batch 1"], Float[Array, "batch 1"]]:
  """Embeddings that are all equal."""
  return jnp.zeros((len(concept), 1), jnp.float32), jnp.zeros((len(concept), 1), jnp.float32)
