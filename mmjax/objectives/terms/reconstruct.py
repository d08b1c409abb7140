"""Loss term of image tokenizers: the image must come back from its codes."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp

from mmjax.models.protocols import Reconstructs
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


@dataclasses.dataclass(frozen=True)
class Reconstruct(ExampleTerm):
  """Distance between an image and its reconstruction from codes, plus the penalty of the quantizer.

  The log also has the distance alone (error), the share of the codes in use and the perplexity of the codes.
  """

  distance: Literal["l1", "l2"] = "l1"
  """Mean absolute or mean squared difference of the normalised colours."""

  @property
  def name(self) -> str:
    return "reconstruct"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image",)

  @property
  def reads(self) -> tuple[str, ...]:
    return ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (Reconstructs,)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    images, found = forward.batch["image"].astype(jnp.float32), reconstruction(forward)
    difference = found.images.astype(jnp.float32) - images
    each = jnp.abs(difference) if self.distance == "l1" else jnp.square(difference)
    error = each.mean((1, 2, 3))
    used, perplexity = forward.model.code_usage()
    ones = jnp.ones_like(error)
    return {
      "loss": (error + found.penalty, ones),
      "error": (error, ones),
      "codes_used": (used * ones, ones),
      "code_perplexity": (perplexity * ones, ones),
    }


def reconstruction(forward: Forward) -> Any:
  """The reconstruction of the images. Terms that move the same parameters share it."""
  compute = lambda: forward.model.reconstruct(forward.batch["image"], rng=forward.rng, step=forward.step)
  return forward.once("reconstruction", compute)
