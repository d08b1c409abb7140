"""Adversarial loss terms of image tokenizers: a discriminator tells images from reconstructions."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.errors import ConfigError
from mmjax.models.protocols import Discriminates, Reconstructs
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores
from mmjax.objectives.terms.reconstruct import reconstruction

Kind = Literal["minimax", "non_saturating", "hinge"]

GENERATOR = "^(?!discriminator/)"
"""Expression of the parameters of the generator, which is the image tokenizer."""


class _Adversarial(ExampleTerm):
  """A term on what the discriminator says of images and of their reconstructions."""

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image",)

  @property
  def reads(self) -> tuple[str, ...]:
    return ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (Reconstructs, Discriminates)

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    if model.discriminator is None:
      raise ConfigError(f"the objective {self.name} needs a discriminator: set model.discriminator to a ConvGridConfig")


@dataclasses.dataclass(frozen=True)
class Discriminate(_Adversarial):
  """Loss of the discriminator on images x and their reconstructions x' (Goodfellow et al. 2014, equation 1).

  minimax and non_saturating: -log D(x) - log(1 - D(x')), with a mean over patches (Isola et al. 2017). hinge:
  max(0, 1 - d(x)) + max(0, 1 + d(x')), of the logits d. It moves the discriminator alone.
  """

  form: Kind = "non_saturating"
  """Form of the loss. minimax and non_saturating differ in the term Deceive only."""
  moves: tuple[str, ...] = ("^discriminator/",)
  """Regular expressions of the paths of the parameters that get a gradient: those of the discriminator."""

  @property
  def name(self) -> str:
    return "discriminate"

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    made = jax.lax.stop_gradient(reconstruction(forward).images)
    real, fake = (forward.model.reality_logits(images) for images in (forward.batch["image"], made))
    loss = self._real(real).mean(1) + self._fake(fake).mean(1)
    ones = jnp.ones_like(loss)
    right = ((real > 0).mean(1, dtype=jnp.float32) + (fake < 0).mean(1, dtype=jnp.float32)) / 2
    return {"loss": (loss, ones), "accuracy": (right, ones)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return 2.0 if self.form == "hinge" else 2 * math.log(2)

  def _real(self, logits: Float[Array, "batch patches"]) -> Float[Array, "batch patches"]:
    return jax.nn.relu(1 - logits) if self.form == "hinge" else jax.nn.softplus(-logits)

  def _fake(self, logits: Float[Array, "batch patches"]) -> Float[Array, "batch patches"]:
    return jax.nn.relu(1 + logits) if self.form == "hinge" else jax.nn.softplus(logits)


@dataclasses.dataclass(frozen=True)
class Deceive(_Adversarial):
  """Adversarial loss of the generator on reconstructions x'. It moves all but the discriminator.

  minimax: log(1 - D(x')). non_saturating: -log D(x'), whose gradient does not vanish where D is sure. hinge: -d(x').
  """

  form: Kind = "non_saturating"
  """Form of the loss."""
  moves: tuple[str, ...] = (GENERATOR,)
  """Regular expressions of the paths of the parameters that get a gradient: all but those of the discriminator."""

  @property
  def name(self) -> str:
    return "deceive"

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits = forward.model.reality_logits(reconstruction(forward).images)
    each = {"minimax": -jax.nn.softplus(logits), "non_saturating": jax.nn.softplus(-logits), "hinge": -logits}
    loss = each[self.form].mean(1)
    return {"loss": (loss, jnp.ones_like(loss))}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return {"minimax": -math.log(2), "non_saturating": math.log(2), "hinge": 0.0}[self.form]
