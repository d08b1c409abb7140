"""Towers of any modalities whose encodings make one vector: side by side or by a fusion, of what an example has."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.fusion.config import FusionConfig, make_fusion
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded

PRESENT = "present"
"""Name of the array in a batch that says which modalities an example has, bool [batch, towers] (column Present)."""
_DROPOUT = 997  # number of the random stream of modality dropout; towers have small numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class JoinedConfig(ModelConfig):
  """Towers, and a linear layer from their pooled vectors to the outputs.

  The vectors of several towers stand side by side, or a fusion makes one of them.
  """

  towers: Mapping[str, TowerConfig] = dataclasses.field(default_factory=lambda: {"image": ViTConfig()}, hash=False)
  """Towers by name. A tower encodes the array in the batch that has its name."""
  fusion: FusionConfig | None = None
  """Fusion of the towers, in their order. None: the pooled vectors side by side. "late" has a linear head per tower,
  whose outputs are averaged over the modalities that an example has."""
  modality_dropout: float = 0.0
  """Probability of leaving out each modality of a training example, one of which always stays. It implies `partial`."""
  partial: bool = False
  """Examples may lack modalities, as the column `present` (Present) says. The model then has a learned vector for each
  absent modality."""

  def __post_init__(self) -> None:
    if not self.towers:
      raise ValueError("the model needs a tower: set towers, such as {'image': ViTConfig()}")
    if self.fusion is not None and len(self.towers) < 2:
      raise ValueError(f"a fusion needs two towers, and the model has {', '.join(self.towers)}: leave fusion out")
    if not 0 <= self.modality_dropout < 1:
      raise ValueError(f"modality_dropout={self.modality_dropout} must lie in [0, 1)")
    if self.chooses and len(self.towers) < 2:
      raise ValueError(
        f"modality_dropout and partial need two towers, and the model has {', '.join(self.towers)}: leave them out"
      )
    if PRESENT in self.towers:
      raise ValueError(f"no tower can have the name {PRESENT!r}: it is the array of the modalities that there are")

  @property
  def outputs(self) -> int:
    """Number of outputs."""
    raise NotImplementedError

  @property
  def chooses(self) -> bool:
    """True if modalities may be left out."""
    return self.partial or self.modality_dropout > 0

  def example(self, batch_size: int) -> dict[str, Array]:
    return {name: tower.example(batch_size) for name, tower in self.towers.items()}


class Joined(nn.Module):
  """Base of models of a JoinedConfig.

  A modality that an example lacks, or that modality dropout leaves out, has no real token (its mask is False), and its
  pooled vector is a learned one. So nothing of its array is read by any fusion.

  Parameters: each tower under its name, fusion if there is one, NAME_projection/{kernel,bias} (`head`; not with late
  fusion, or if `head` is None), and TOWER_absent_bias, the vector of an absent modality (with modality_dropout or
  partial).
  """

  config: Any
  head: ClassVar[str | None] = "output_projection"

  def setup(self) -> None:
    c = self.config
    for name, tower in c.towers.items():
      setattr(self, name, tower.build())
    late = c.fusion is not None and c.fusion.kind == "late"
    if c.fusion is not None:
      self.fusion = make_fusion(dataclasses.replace(c.fusion, width=c.outputs) if late else c.fusion)
    if c.chooses:
      normal = nn.initializers.normal(0.02)
      self.absent = {
        name: self.param(f"{name}_absent_bias", normal, (tower.pooled_width,), jnp.float32)
        for name, tower in c.towers.items()
      }
    if not late and self.head is not None:
      setattr(self, self.head, Dense(c.outputs, nn.initializers.zeros))

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the arrays of the batch that have a tower.

    Args:
      batch: arrays by name. "present" [batch, towers], if it is there, says which modalities an example has.
      rng: one key per example. None: no randomness.
    """
    towers = [name for name in self.config.towers if name in batch]
    encoded = {name: getattr(self, name)(batch[name], rng=fold_in(rng, place)) for place, name in enumerate(towers)}
    there = self._there(batch, rng, next(iter(encoded.values())).mask.shape[0]) if towers else None
    return encoded if there is None else self.choose(encoded, there)

  def choose(self, encoded: Mapping[str, Encoded], there: Bool[Array, "batch towers"]) -> dict[str, Encoded]:
    """Leave modalities out of encodings.

    Args:
      encoded: encodings by name.
      there: True for the modalities that stay, in the order of the towers.
    """
    names = list(self.config.towers)
    return {name: self._only_if(there[:, names.index(name)], name, one) for name, one in encoded.items()}

  def outputs(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch outputs"]:
    """Outputs in float32, from the encodings of all towers. Arguments: as for `joint`."""
    joint, fusion = self.joint(encoded, rng=rng), self.config.fusion
    late = fusion is not None and fusion.kind == "late"
    return joint if late else getattr(self, str(self.head))(joint)

  def joint(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch width"]:
    """One float32 vector per example, from the encodings of all towers: side by side, or that of the fusion.

    Args:
      encoded: encodings by name.
      rng: one key per example for the fusion. None: no randomness.
    """
    each = [encoded[name] for name in self.config.towers]
    if self.config.fusion is None:
      return jnp.concatenate([one.pooled.astype(jnp.float32) for one in each], axis=-1)
    return self.fusion(*each, rng=rng).pooled.astype(jnp.float32)

  @nn.jit
  def encode_image(self, images: Float[Array, "batch *image"]) -> Float[Array, "batch dim"]:
    """Compute the pooled vectors of the tower "image", in float32."""
    return self.image(images).pooled.astype(jnp.float32)

  def __call__(self, batch: Batch) -> Float[Array, "batch outputs"]:
    """Outputs for a batch."""
    return self.outputs(self.encode(batch))

  def _there(self, batch: Batch, rng: Rngs, rows: int) -> Bool[Array, "batch towers"] | None:
    """Modalities that are encoded, for each example. None: all."""
    present, rate, number = batch.get(PRESENT), self.config.modality_dropout, len(self.config.towers)
    if rng is None or not rate:
      return present
    given = jnp.ones((rows, number), bool) if present is None else present
    keys = fold_in(rng, _DROPOUT)
    kept = given & jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, (number,)))(keys)
    scores = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (number,)))(keys)
    spared = jax.nn.one_hot(jnp.argmax(jnp.where(given, scores, -1.0), axis=1), number, dtype=jnp.bool_)
    return jnp.where(kept.any(1)[:, None], kept, spared & given)

  def _only_if(self, there: Bool[Array, "batch"], name: str, encoded: Encoded) -> Encoded:
    """The encoding where a modality is there; elsewhere no token, and the learned vector."""
    tokens = jnp.where(there[:, None, None], encoded.tokens, 0)
    absent = self.absent[name][None].astype(encoded.pooled.dtype)
    pooled = jnp.where(there[:, None], encoded.pooled, absent)
    return Encoded(tokens, encoded.mask & there[:, None], pooled)
