"""Configurations of pairwise losses: losses over all pairs of a batch, with their settings."""

import dataclasses
import math
from typing import Any, ClassVar

from mmjax.kinds import Kind, option_name, undefined
from mmjax.objectives.losses.contrastive import clip_loss, siglip_loss
from mmjax.objectives.losses.labelled import supcon_views_loss, unicl_loss
from mmjax.objectives.losses.margin import hinge_loss, semi_hard_triplet_loss, triplet_loss
from mmjax.objectives.losses.reweighted import dcl_loss, focal_loss
from mmjax.objectives.losses.smoothed import align_loss


class PairLoss(Kind):
  """A loss between two embeddings of every example. Contrastive calls it.

  A script can define its own: a frozen dataclass that inherits from this class and defines `__call__`. Its fields are
  the settings. Pass it to `main(EXPERIMENT, kinds=(Mine,))`, so that `--objectives.0.loss mine` chooses it.

  Example:
    >>> import dataclasses
    >>> import jax.numpy as jnp
    >>> from mmjax.objectives import Contrastive, PairLoss, clip_loss
    >>> @dataclasses.dataclass(frozen=True)
    ... class Cooled(PairLoss):
    ...   factor: float = 0.5
    ...
    ...   def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    ...     scale = self.factor * logit_scale
    ...     return clip_loss(image, text, logit_scale=scale, ids=ids, axis_name=axis_name, tile_size=tile_size)
    >>> Contrastive(loss=Cooled()).name
    'cooled_image_text'
  """

  needs_bias: ClassVar[bool] = False
  """True if the model must have a logit bias."""
  labelled: ClassVar[bool] = False
  """True if rows with equal labels are positives of each other."""

  @property
  def name(self) -> str:
    """First part of the name of the term in the log."""
    return option_name(type(self))

  def __call__(self, *embeddings: Any, **pairs: Any) -> Any:
    """Compute the mean of the loss over the global batch. It is the same on every device.

    A subclass names the arguments that it uses, and ends its signature with `**_`. A loss that ignores `axis_name` sees
    only the examples of one device.

    Args:
      *embeddings: two arrays [batch, dim], the unit-norm float32 embeddings of the local rows.
      **pairs: the other arguments. `logit_scale` and `logit_bias`: scale and bias of the logits. `ids`: rows with equal
        numbers are not negatives of each other; None: all other rows are negatives. `labels`: rows with equal numbers
        are positives of each other. `axis_name`: mesh axes of the batch. `tile_size`: rows and columns of the
        similarity matrix in memory at once.
    """
    raise undefined(self, "__call__")

  def chance(self, batch_size: int) -> float | None:
    """Loss if all similarities are equal. None if no closed form is known."""
    return None


@dataclasses.dataclass(frozen=True)
class Softmax(PairLoss):
  """Softmax cross-entropy of the correct pair among all pairs (Radford et al. 2021, CLIP)."""

  def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    return clip_loss(image, text, logit_scale=logit_scale, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size)


@dataclasses.dataclass(frozen=True)
class Sigmoid(PairLoss):
  """Binary cross-entropy of every pair (Zhai et al. 2023, SigLIP). Set model.init_logit_bias.

  The paper clamps neither scale nor bias: set model.max_logit_scale and model.max_logit_bias to inf for its recipe.
  """

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
  """Softmax without the positive pair in the denominator (Yeh et al. 2022, decoupled contrastive learning)."""

  def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    return dcl_loss(image, text, logit_scale=logit_scale, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size - 1) if batch_size > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Focal(PairLoss):
  """Sigmoid with easy pairs weighted down by (1 - p)^gamma (Lin et al. 2017). Set model.init_logit_bias."""

  needs_bias: ClassVar[bool] = True
  gamma: float = 2.0
  """Exponent of the weight of easy pairs. 0 is Sigmoid."""

  def __call__(self, image, text, *, logit_scale, logit_bias, ids, axis_name, tile_size, **_):
    settings = dict(logit_scale=logit_scale, logit_bias=logit_bias, gamma=self.gamma)
    return focal_loss(image, text, **settings, ids=ids, axis_name=axis_name, tile_size=tile_size)


@dataclasses.dataclass(frozen=True)
class Hinge(PairLoss):
  """Hinge loss with all negatives, on cosines (Kiros et al. 2014)."""

  margin: float = 0.2
  """Margin between the cosines of the pair and of a negative."""

  def __call__(self, image, text, *, ids, axis_name, tile_size, **_):
    return hinge_loss(image, text, margin=self.margin, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return 2 * (batch_size - 1) * self.margin


@dataclasses.dataclass(frozen=True)
class Triplet(PairLoss):
  """Hinge loss with the hardest negative of the global batch, on cosines (Faghri et al. 2018, VSE++)."""

  margin: float = 0.2
  """Margin between the cosines of the pair and of the negative."""

  def __call__(self, image, text, *, ids, axis_name, tile_size, **_):
    return triplet_loss(image, text, margin=self.margin, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return 2 * self.margin


@dataclasses.dataclass(frozen=True)
class SemiHard(PairLoss):
  """Hinge loss with the hardest negative that is not more similar than the pair (Schroff et al. 2015, FaceNet)."""

  margin: float = 0.2
  """Margin between the cosines of the pair and of the negative."""
  slack: float = 0.0
  """Negatives may be more similar than the pair by this much. 0 is semi-hard, 2 is Triplet."""

  def __call__(self, image, text, *, ids, axis_name, tile_size, **_):
    settings: Any = dict(margin=self.margin, slack=self.slack)
    return semi_hard_triplet_loss(image, text, **settings, ids=ids, axis_name=axis_name, tile_size=tile_size)


@dataclasses.dataclass(frozen=True)
class Align(PairLoss):
  """Softmax with label smoothing (Jia et al. 2021, ALIGN)."""

  label_smoothing: float = 0.1
  """Share of the target that is spread uniformly over all columns."""

  def __call__(self, image, text, *, logit_scale, ids, axis_name, tile_size, **_):
    settings = dict(logit_scale=logit_scale, label_smoothing=self.label_smoothing)
    return align_loss(image, text, **settings, ids=ids, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size)


@dataclasses.dataclass(frozen=True)
class Unicl(PairLoss):
  """Softmax in which all pairs with equal labels are positives (Yang et al. 2022, UniCL)."""

  labelled: ClassVar[bool] = True

  def __call__(self, image, text, *, logit_scale, labels, axis_name, tile_size, **_):
    return unicl_loss(image, text, labels, logit_scale=logit_scale, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(batch_size)


@dataclasses.dataclass(frozen=True)
class Supcon(PairLoss):
  """Supervised contrastive loss over the embeddings of both sides together (Khosla et al. 2020)."""

  labelled: ClassVar[bool] = True

  def __call__(self, image, text, *, logit_scale, labels, axis_name, tile_size, **_):
    return supcon_views_loss(image, text, labels, logit_scale=logit_scale, axis_name=axis_name, tile_size=tile_size)

  def chance(self, batch_size: int) -> float | None:
    return math.log(2 * batch_size - 1)
