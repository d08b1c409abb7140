"""Verification: an encoder whose embeddings tell identities apart, also those that it has never seen."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.ast import AstConfig
from mmjax.encoders.config import TowerConfig
from mmjax.models.shared_space import SharedSpace, SharedSpaceConfig
from mmjax.nn.norm import normalize
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifierConfig(SharedSpaceConfig):
  """A tower with embeddings, and a vector for each identity of the training data (Deng et al. 2019, ArcFace).

  The terms ArcFace and CosFace train it. Two examples are of one identity if the cosine of their embeddings is high.
  """

  towers: Mapping[str, TowerConfig] = dataclasses.field(default_factory=lambda: {"audio": AstConfig()}, hash=False)
  """The tower, by the name of the array that it encodes."""
  init_logit_scale: float | None = None
  """None: no learned factor. The terms have a fixed one."""
  label: str = "label"
  """Name of the column with the identities (mmjax.data.columns.class_label)."""
  num_identities: int = 1000
  """Number of identities. In training, that of the data."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if len(self.towers) != 1:
      raise ValueError(f"a verifier has one tower, and there are {', '.join(self.towers) or 'none'}")

  def fitted(self, learnt: Mapping[str, Any]) -> "VerifierConfig":
    config: Any = super().fitted(learnt)
    if self.label not in learnt:
      return config
    return dataclasses.replace(config, num_identities=len(learnt[self.label]["classes"]))

  def build(self) -> nn.Module:
    return Verifier(self)


class Verifier(SharedSpace):
  """Model of a VerifierConfig.

  Parameters: the tower under its name, NAME_projection, and identity_projection/kernel [embed_dim, identities].

  Example:
    >>> import jax
    >>> size = dict(frames=8, bands=8, patch_size=8, time_stride=8, band_stride=8, width=8, depth=1, num_heads=2)
    >>> model = VerifierConfig(towers={"audio": AstConfig(**size)}, embed_dim=4, num_identities=3).build()
    >>> cosines, _ = model.init_with_output(jax.random.key(0), model.config.example(2))
    >>> cosines.shape
    (2, 3)
  """

  config: VerifierConfig

  def setup(self) -> None:
    super().setup()
    self.identity_projection = _Vectors(self.config.embed_dim, self.config.num_identities)

  def identity_cosines(self, encoded: Mapping[str, Encoded]) -> Float[Array, "batch identities"]:
    """Cosines of the embeddings and the vectors of the identities, in float32."""
    ((name, one),) = encoded.items()
    vectors = normalize(self.identity_projection().T)
    return jnp.matmul(normalize(self.embedding(name, one)), vectors.T, precision="highest")

  def __call__(self, batch: Batch) -> Float[Array, "batch identities"]:  # type: ignore[override]
    """Run all parts once, for `init`."""
    return self.identity_cosines(self.encode(batch))


class _Vectors(nn.Module):
  """The vectors of the identities. Parameter: kernel."""

  embed_dim: int
  identities: int

  @nn.compact
  def __call__(self) -> Float[Array, "embed_dim identities"]:
    return self.param("kernel", nn.initializers.normal(0.01), (self.embed_dim, self.identities), jnp.float32)
