"""Loss term for classification."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.errors import ConfigError
from mmjax.models.protocols import Classifies, Encodes
from mmjax.objectives.losses.mixing import Mixed, cutmix, mixup, partners
from mmjax.objectives.losses.per_example import ExampleLosses, correct, cross_entropy
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores
from mmjax.objectives.terms.regress import check_inputs


@dataclasses.dataclass(frozen=True)
class Classify(ExampleTerm):
  """Cross-entropy of the class of an example."""

  inputs: tuple[str, ...] = ("image",)
  """Names of the arrays that the model classifies."""
  label: str = "label"
  """Name of the column with the classes (ClassLabel)."""
  label_smoothing: float = 0.0
  """The target is (1 - e) one-hot + e / classes (Szegedy et al. 2016, section 7)."""
  balanced: bool = False
  """Weight the classes by the inverse of their frequency in the training data, so that all count the same."""
  class_weights: tuple[float, ...] = ()
  """Weights of the classes, in the order of their names. With `balanced`, they are set from the data."""
  mixup: float = 0.0
  """Alpha of mixup (Zhang et al. 2018: 0.2 for ImageNet). 0: none. With cutmix too, each image gets one of them."""
  cutmix: float = 0.0
  """Alpha of CutMix (Yun et al. 2019: 1.0). 0: none."""
  group: int = 8
  """Number of consecutive rows among which images are mixed. It must divide a microbatch of one device."""
  example_weights: str = ""
  """Name of the column with the weights of the examples in the loss (Weight). Empty: equal weights."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(f"label_smoothing is {self.label_smoothing}: it must lie in [0, 1)")
    if min(self.mixup, self.cutmix) < 0:
      raise ValueError(f"mixup and cutmix are {self.mixup} and {self.cutmix}: they must not be negative")
    if self.mixes and "image" not in self.inputs:
      raise ValueError(f"mixup and cutmix mix images, and the inputs of {self.name} are {', '.join(self.inputs)}")
    if self.mixes and self.example_weights:
      raise ValueError("mixup and cutmix mix examples, which then have no weight of their own: leave one of both out")

  @property
  def name(self) -> str:
    return "classify"

  @property
  def mixes(self) -> bool:
    """True if images are mixed."""
    return self.mixup > 0 or self.cutmix > 0

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.inputs, self.label, *((self.example_weights,) if self.example_weights else ()))

  @property
  def reads(self) -> tuple[str, ...]:
    return () if self.mixes else self.inputs

  @property
  def together(self) -> int:
    return self.group if self.mixes else 1

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Classifies)

  def fitted(self, *, num_records: int, learnt: Mapping[str, Any]) -> "Classify":
    if self.label not in learnt:
      return self
    counts = learnt[self.label]["counts"]
    if self.balanced:
      weights = tuple(num_records / (len(counts) * count) for count in counts)
      return dataclasses.replace(self, class_weights=weights)
    if self.class_weights and len(self.class_weights) != len(counts):
      raise ConfigError(
        f"the objective {self.name} has {len(self.class_weights)} class_weights, and the data has {len(counts)} "
        f"classes ({', '.join(learnt[self.label]['classes'][:5])}, ...): give one weight per class, in this order"
      )
    return self

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    check_inputs(self.name, self.inputs, model, columns)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    labels = forward.batch[self.label]
    if not self.mixes:
      logits = forward.model.class_logits(forward.encoded, rng=forward.fusion_rng)
      loss = self._loss(logits, labels, forward)
    else:
      mixed = self._mixed(forward)
      rows = {name: forward.batch[name] for name in self.inputs} | {"image": mixed.images}
      encoded = forward.model.encode(rows, rng=forward.rng)
      logits = forward.model.class_logits(encoded, rng=forward.fusion_rng)
      other = self._loss(logits, partners(labels, self.group), forward)
      loss = _blended(self._loss(logits, labels, forward), other, mixed.share)
    return {"loss": loss, "accuracy": correct(logits, labels)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.num_classes)

  def _loss(
    self, logits: Float[Array, "*members batch classes"], labels: Int[Array, "*members batch"], forward: Forward
  ) -> ExampleLosses:
    losses = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
    weights = jnp.ones_like(losses)
    if self.class_weights:
      weights = jnp.asarray(self.class_weights, jnp.float32)[labels]
    if self.example_weights:
      weights *= jnp.broadcast_to(forward.batch[self.example_weights], losses.shape)
    return ExampleLosses(losses, weights)

  def _mixed(self, forward: Forward) -> Mixed:
    images, keys = forward.batch["image"], forward.keys(self.name)
    blended = mixup(images, keys, alpha=self.mixup, group=self.group) if self.mixup else None
    if not self.cutmix:
      assert blended is not None
      return blended
    cut = cutmix(images, keys, alpha=self.cutmix, group=self.group)
    if blended is None:
      return cut
    heads = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 2)))(keys)
    return jax.tree.map(lambda a, b: jnp.where(heads.reshape(-1, *(1,) * (a.ndim - 1)), a, b), blended, cut)


def _blended(own: ExampleLosses, other: ExampleLosses, share: Float[Array, "batch"]) -> ExampleLosses:
  """The losses of both classes, weighted by their shares of the image."""
  first, second = share * own.weights, (1 - share) * other.weights
  total = first + second
  return ExampleLosses((first * own.losses + second * other.losses) / total, total)
