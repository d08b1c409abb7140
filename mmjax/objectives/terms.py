"""The weighted terms of a run's loss, as its configuration lists them."""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import jax
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from mmjax.errors import ConfigError
from mmjax.objectives.contrastive import clip_loss, siglip_loss
from mmjax.objectives.labelled import supcon_views_loss, unicl_loss
from mmjax.objectives.margin import hinge_loss, semi_hard_triplet_loss, triplet_loss
from mmjax.objectives.smoothed import align_loss
from mmjax.objectives.term import Term
from mmjax.objectives.variants import dcl_loss, focal_loss
from mmjax.types import Batch

PairLoss = Callable[..., Float[Array, ""]]
"""loss(image, text, ...) -> scalar; of logit_scale, logit_bias, ids, labels, axis_name and tile_size it is given
those that its signature names."""

LOSSES: Mapping[str, PairLoss] = MappingProxyType(
  {
    "softmax": clip_loss,
    "sigmoid": siglip_loss,
    "dcl": dcl_loss,
    "focal": focal_loss,
    "hinge": hinge_loss,
    "triplet": triplet_loss,
    "unicl": unicl_loss,
    "supcon": supcon_views_loss,
    "align": align_loss,
    "semi_hard": semi_hard_triplet_loss,
  }
)

# The loss where every pair looks the same, by batch size. sigmoid: n times the entropy of 1/n, what the best constant
# logit gives, about ln(n) + 1.
_CHANCE: Mapping[str, Callable[[int], float]] = MappingProxyType(
  {
    "softmax": math.log,
    "unicl": math.log,
    "align": math.log,
    "sigmoid": lambda n: math.log(n) + (n - 1) * math.log(n / (n - 1)) if n > 1 else 0.0,
    "dcl": lambda n: math.log(n - 1) if n > 1 else 0.0,
    "hinge": lambda n: 2 * (n - 1) * _default(hinge_loss, "margin"),
    "supcon": lambda n: math.log(2 * n - 1),
    "triplet": lambda n: 2 * _default(triplet_loss, "margin"),
  }
)


@dataclasses.dataclass(frozen=True)
class Contrastive(Term):
  """A contrastive loss between two embeddings of every example in the global batch."""

  loss: str = "softmax"
  """softmax (CLIP), sigmoid (SigLIP), dcl, focal, hinge, triplet, semi_hard, align, unicl and supcon (which read
  `labels`), or the name of the script's own, given to main(..., losses={NAME: function}). sigmoid, focal: set
  model.init_logit_bias."""
  between: tuple[str, str] = ("image", "text")
  """The two embeddings that are compared, by name: image, text, or image2 (the second view of data.views=2)."""
  mask_same_concept: bool = False
  """Leave out the negatives that mean the same (equal batch["concept"]): duplicates, and variants of one thing."""
  labels: Literal["concept", "group"] = "concept"
  """What makes two examples positives of each other in unicl and supcon: that they mean the same, or that they are of
  one class (equal batch["group"], which emoji have). Classes whose texts are all the same would change nothing."""
  tile_size: int | None = None
  """Most rows and columns of the similarity matrix held at once; None: what is fast here."""

  def __call__(
    self,
    embeddings: Mapping[str, Float[Array, "batch dim"]],
    batch: Batch,
    *,
    loss: PairLoss,
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    mesh: Mesh,
    batch_axes: tuple[str, ...],
  ) -> Float[Array, ""]:
    """The unweighted loss over the global batch.

    Args:
      embeddings: unit-norm float32 embeddings by name, sharded over `batch_axes` of `mesh`.
      batch: what they were made from.
      loss: what `self.loss` names.
      logit_scale: similarities are multiplied by it.
      logit_bias: added to the logits (sigmoid).
      mesh: the mesh the arrays lie on.
      batch_axes: the mesh axes the batch is split over.
    """
    rows, columns = (embeddings[name] for name in self.between)
    wanted = inspect.signature(loss).parameters

    def local(rows, columns, concepts, labels, scale, bias):
      available = dict(logit_scale=scale, logit_bias=bias, axis_name=batch_axes, tile_size=self.tile_size)
      available |= {"ids": concepts if self.mask_same_concept else None, "labels": labels}
      return loss(rows, columns, **{name: value for name, value in available.items() if name in wanted})

    sharded, whole = PartitionSpec(batch_axes), PartitionSpec()
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(*[sharded] * 4, whole, whole), out_specs=whole)
    return mapped(rows, columns, batch["concept"], batch[self.labels], logit_scale, logit_bias)

  def chance(self, batch_size: int, model: Any = None) -> float | None:
    """The loss of a model that says the same of every pair; None where no closed form is known."""
    return _CHANCE[self.loss](batch_size) if self.loss in _CHANCE else None

  @property
  def name(self) -> str:
    return f"{self.loss}_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, *sorted({"concept", self.labels}))


def needs_bias(loss: PairLoss) -> bool:
  return "logit_bias" in inspect.signature(loss).parameters


def resolve(objectives: Sequence[Contrastive], own: Mapping[str, PairLoss], *, has_bias: bool) -> dict[str, PairLoss]:
  """The functions that the terms name: the script's own, or those of LOSSES.

  Args:
    objectives: the terms.
    own: the script's losses, by name.
    has_bias: whether the model has a logit bias.
  Raises: ConfigError for an unknown name (with the nearest), for an own loss that takes a built-in's name, and for
    one that asks for what a term does not have.
  """
  known = {**LOSSES, **own}
  for name in own:
    if name in LOSSES:
      raise ConfigError(f"a loss of the script's own is named {name!r}, as a built-in one is; give it another name")
  for objective in objectives:
    if objective.loss not in known:
      near = difflib.get_close_matches(objective.loss, known, n=1)
      hint = f"; did you mean {near[0]!r}?" if near else ""
      raise ConfigError(f"objectives: unknown loss {objective.loss!r}; there are {', '.join(known)}{hint}")
  return {o.loss: _checked(o.loss, known[o.loss], has_bias) for o in objectives}


def _checked(name: str, loss: PairLoss, has_bias: bool) -> PairLoss:
  given = ("logit_scale", "logit_bias", "ids", "labels", "axis_name", "tile_size")
  parameters = list(inspect.signature(loss).parameters.values())[2:]
  for parameter in parameters:
    if parameter.default is parameter.empty and parameter.name not in given:
      raise ConfigError(f"the loss {name!r} asks for {parameter.name!r}; a term has {', '.join(given)}")
  if "axis_name" not in [parameter.name for parameter in parameters]:
    raise ConfigError(f"the loss {name!r} has no axis_name: it would see one device's examples only")
  if needs_bias(loss) and not has_bias:
    raise ConfigError(f"the loss {name!r} asks for a logit_bias: set --model.init-logit-bias (SigLIP uses -10)")
  return loss


def _default(loss: PairLoss, parameter: str) -> float:
  return inspect.signature(loss).parameters[parameter].default
