"""Losses over all pairs of a batch with their settings, as a configuration lists them."""

import dataclasses
import math
from typing import Any, ClassVar

from mmjax.kinds import Kind, option_name
from mmjax.objectives.contrastive import clip_loss, siglip_loss
from mmjax.objectives.labelled import supcon_views_loss, unicl_loss
from mmjax.objectives.margin import hinge_loss, semi_hard_triplet_loss, triplet_loss
from mmjax.objectives.smoothed import align_loss
from mmjax.objectives.variants import dcl_loss, focal_loss


class PairLoss(Kind):
  """A loss between two embeddings of every example. Contrastive calls it.

  A script's own is a frozen dataclass that inherits from this one and defines `__call__`. Its fields are its settings.
  Give it to `main(EXPERIMENT, kinds=(Mine,))`, so that `--objectives.0.loss mine` finds it.
  """

  needs_bias: ClassVar[bool] = False
  """The model must have a logit bias."""

  @property
  def name(self) -> str:
    """The first part of the term's name in the log."""
    return option_name(type(self))

  def __call__(self, *embeddings: Any, **pairs: Any) -> Any:
    """Returns the mean over the global batch, the same on every device.

    Args:
      *embeddings: two arrays [batch, dim], the unit-norm float32 embeddings of the local rows.
      **pairs: `logit_scale`, `logit_bias`, `ids` (equal numbers: not each other's negatives; None: all are), `labels`
        (equal numbers: positives), `axis_name` (mesh axes of the batch), `tile_size`. Name those that are used and end
        the signature with `**_`. A loss that ignores `axis_name` sees the examples of one device only.
    """
    raise NotImplementedError

  def chance(self, batch_size: int) -> float | None:
    """The loss where every pair looks the same; None where no closed form is known."""
    return None


@dataclasses.dataclass(frozen=True)
class Softmax(PairLoss):
  """CLIP: the right partner among all (Radford et al. 2021)."""

  def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    return clip_loss(image, text, logit_scale=logit_scale, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size)


@dataclasses.dataclass(frozen=True)
class Sigmoid(PairLoss):
  """SigLIP: every pair is right or wrong by itself (Zhai et al. 2023). Set model.init_logit_bias."""

  needs_bias: ClassVar[bool] = True

  def __call__(self, image, text, *, logit_scale, logit_bias, ids, axis_name, tile_size, **_):
    scale_and_bias = dict(logit_scale=logit_scale, logit_bias=logit_bias)
    return siglip_loss(image, text, **scale_and_bias, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    # n times the entropy of 1 / n, by the best constant logit: about ln(n) + 1.
    n = batch_size
    return math.log(n) + (n - 1) * math.log(n / (n - 1)) if n > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Dcl(PairLoss):
  """Decoupled: the positive is not in the denominator (Yeh et al. 2022)."""

  def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    return dcl_loss(image, text, logit_scale=logit_scale, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size - 1) if batch_size > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Focal(PairLoss):
  """Sigmoid with easy pairs turned down by (1 - p)^gamma (Lin et al. 2017). Set model.init_logit_bias."""

  needs_bias: ClassVar[bool] = True
  gamma: float = 2.0
  """0 is Sigmoid."""

  def __call__(self, image, text, *, logit_scale, logit_bias, ids, axis_name, tile_size, **_):
    settings = dict(logit_scale=logit_scale, logit_bias=logit_bias, gamma=self.gamma)
    return focal_loss(image, text, **settings, ids=ids, axis_name=axis_name, tile_size=tile_size)


@dataclasses.dataclass(frozen=True)
class Hinge(PairLoss):
  """Hinge against every negative, on cosines (Kiros et al. 2014)."""

  margin: float = 0.2
  """A negative must be this much less similar than the pair."""

  def __call__(self, image, text, *, ids, axis_name, tile_size, **_):
    return hinge_loss(image, text, margin=self.margin, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return 2 * (batch_size - 1) * self.margin


@dataclasses.dataclass(frozen=True)
class Triplet(PairLoss):
  """Hinge against the hardest negative of the global batch, on cosines (Faghri et al. 2018, VSE++)."""

  margin: float = 0.2
  """The negative must be this much less similar than the pair."""

  def __call__(self, image, text, *, ids, axis_name, tile_size, **_):
    return triplet_loss(image, text, margin=self.margin, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return 2 * self.margin


@dataclasses.dataclass(frozen=True)
class SemiHard(PairLoss):
  """Hinge against the hardest negative that is no more similar than the pair (Schroff et al. 2015, FaceNet)."""

  margin: float = 0.2
  """The negative must be this much less similar than the pair."""
  slack: float = 0.0
  """Negatives may be this much more similar than the pair: 0 is semi-hard, 2 is Triplet."""

  def __call__(self, image, text, *, ids, axis_name, tile_size, **_):
    settings: Any = dict(margin=self.margin, slack=self.slack)
    return semi_hard_triplet_loss(image, text, **settings, ids=ids, axis_name=axis_name, tile_size=tile_size)


@dataclasses.dataclass(frozen=True)
class Align(PairLoss):
  """Softmax with label smoothing (Jia et al. 2021, ALIGN)."""

  label_smoothing: float = 0.1
  """Share of the target that is spread evenly over all columns."""

  def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    settings = dict(logit_scale=logit_scale, label_smoothing=self.label_smoothing)
    return align_loss(image, text, **settings, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size)


@dataclasses.dataclass(frozen=True)
class Unicl(PairLoss):
  """Pairs with equal labels are all positives (Yang et al. 2022, UniCL)."""

  def __call__(self, image, text, *, logit_scale, labels, axis_name, tile_size, **_):
    return unicl_loss(image, text, labels, logit_scale=logit_scale, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size)


@dataclasses.dataclass(frozen=True)
class Supcon(PairLoss):
  """Supervised contrast within both embeddings together, which share their labels (Khosla et al. 2020)."""

  def __call__(self, image, text, *, logit_scale, labels, axis_name, tile_size, **_):
    return supcon_views_loss(image, text, labels, logit_scale=logit_scale, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(2 * batch_size - 1)
