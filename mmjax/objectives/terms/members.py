"""Loss term for training the members of an ensemble of classifiers, each on a sample of its own (bagging)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmjax.errors import ConfigError
from mmjax.models.protocols import Classifies, ClassifiesByMember, Encodes
from mmjax.objectives.losses.per_example import ExampleLosses, correct
from mmjax.objectives.losses.resampling import Sampling, sample_counts
from mmjax.objectives.terms.base import Forward, Scores
from mmjax.objectives.terms.classify import Classify


@dataclasses.dataclass(frozen=True)
class ClassifyMembers(Classify):
  """Cross-entropy of the class for each member of an ensemble alone, summed over the members (EnsembleConfig).

  Each member learns as it would alone from its sample: bagging (Breiman 1996), or a deep ensemble with "all". Only the
  norm that optimizer.clip_norm limits is that of all members.
  """

  sampling: Sampling = "bootstrap"
  """Sample of each member: "bootstrap" (counts of draws with replacement), "folds" (all but one of as many folds as
  there are members, for stacking), or "all"."""
  sampling_seed: int = 0
  """Seed of the samples."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.mixes:
      raise ValueError(f"{self.name} has no mixup and cutmix: a mixed image is in the samples of different members")

  @property
  def name(self) -> str:
    return "classify_members"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*super().needs, "index")

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Classifies, ClassifiesByMember)

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    super().check(model, columns)
    if self.sampling == "folds" and len(model.models) < 2:
      raise ConfigError(
        f"the objective {self.name} makes as many folds as there are members, and there is one: add more"
      )

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    labels = forward.batch[self.label]
    logits = forward.model.member_class_logits(forward.encoded, rng=forward.fusion_rng)
    counts = sample_counts(forward.batch["index"], members=len(logits), sampling=self.sampling, seed=self.sampling_seed)
    every = self._loss(logits, jnp.broadcast_to(labels, logits.shape[:2]), forward)
    combined = forward.model.class_logits(
      forward.encoded, rng=forward.fusion_rng
    )  # the compiler merges it with `logits`
    loss = ExampleLosses((every.losses * counts).sum(0), every.weights[0])
    return {"loss": loss, "accuracy": correct(combined, labels)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    members = len(model.models)
    return math.log(model.num_classes) * (members - 1 if self.sampling == "folds" else members)
