"""Contrastive term for small batches: every example keeps a normaliser from epoch to epoch."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.errors import ConfigError
from mmjax.objectives.losses.balance import piecewise_linear
from mmjax.objectives.losses.reweighted import sogclr_loss
from mmjax.objectives.terms.base import BatchTerm, Whole
from mmjax.objectives.terms.sharded import over_shards

Normalisers = tuple[Float[Array, "examples"], Float[Array, "examples"]]


@dataclasses.dataclass(frozen=True)
class Sogclr(BatchTerm):
  """Softmax contrastive loss with a moving normaliser per example (Yuan et al. 2022, alg. 1; Wei et al. 2024).

  CLIP computes the denominator over the batch. For a small batch, this is a poor estimate of the denominator over the
  dataset. Here every example keeps a moving average of its denominators: 8 bytes per example, at its index in the
  source.
  """

  gamma: tuple[tuple[int, float], ...] = ((0, 0.8),)
  """(step, share) points. Share of the current batch in the moving average, in (0, 1]. 1: only the current batch."""
  examples: int = 0
  """Number of training examples. 0: read from the data."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not self.gamma or any(not 0.0 < share <= 1.0 for _, share in self.gamma):
      raise ValueError(f"gamma={self.gamma} must be (step, share) points with shares in (0, 1]")

  @property
  def name(self) -> str:
    return f"sogclr_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, "index")

  def fitted(self, *, num_records: int, learnt: Mapping[str, Any]) -> "Sogclr":
    if self.examples not in (0, num_records):
      raise ConfigError(f"{self.name} was set to {self.examples} examples, but the data has {num_records}: set it to 0")
    return dataclasses.replace(self, examples=num_records)

  def memory(self, embed_dim: int) -> Normalisers:
    """Make the logarithms of the normalisers of rows and of columns: -inf before the first step."""
    if not self.examples:
      raise ConfigError(f"{self.name} keeps a value per training example: set `examples` to their number")
    empty = lambda: jnp.full(self.examples, -jnp.inf, jnp.float32)
    return empty(), empty()

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], Normalisers]:
    index = whole.batch["index"]

    def local(rows: Any, columns: Any, old: Any, scale: Array, gamma: Array) -> Any:
      return sogclr_loss(rows, columns, old, logit_scale=scale, gamma=gamma, axis_name=whole.axes)

    rows = (*(whole.embeddings[name] for name in self.between), tuple(kept[index] for kept in whole.memory))
    shared = (whole.logit_scale, piecewise_linear(whole.step, self.gamma))
    loss, new = over_shards(local, whole, rows, shared, by_row=True)
    one, two = (kept.at[index].set(value) for kept, value in zip(whole.memory, new, strict=True))
    return loss, (one, two)
