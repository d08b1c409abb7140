"""FT-Transformer: the numbers and categories of a record are the tokens of a transformer (Gorishniy et al. 2021)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig
from mmjax.nn.flops import transformer_flops
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class FTTransformerConfig(TransformerConfig, TowerConfig):
  """Configuration of a transformer over the fields of a table. A run sets `numeric` and `categories` from its data."""

  width: int = 192
  """Width of the token vectors (the paper's default)."""
  depth: int = 3
  """Number of blocks."""
  num_heads: int = 8
  """Number of attention heads; must divide width."""
  numeric: int = 1
  """Number of fields with numbers. They come first."""
  categories: tuple[int, ...] = ()
  """Number of known categories of each field with categories."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.fields < 1 or self.numeric < 0 or min(self.categories, default=0) < 0:
      raise ValueError(f"numeric={self.numeric} and categories={self.categories} must describe at least one field")

  @property
  def fields(self) -> int:
    """Number of fields."""
    return self.numeric + len(self.categories)

  @property
  def pooled_width(self) -> int:
    return self.width

  def fitted(self, learnt: Any) -> "FTTransformerConfig":
    if not isinstance(learnt, Mapping) or "categorical" not in learnt:
      return self
    sizes = tuple(len(names) for names in learnt["categorical"].values())
    return dataclasses.replace(self, numeric=len(learnt["numeric"]), categories=sizes)

  def flops(self) -> int:
    return transformer_flops(self, 1 + self.fields)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.fields, 2), jnp.float32)

  def build(self) -> nn.Module:
    return FTTransformer(self)


class FTTransformer(nn.Module):
  """FT-Transformer. Maps the array of a column `Table` to `Encoded`: a class token, then one token per field.

  The token of field j is b_j + x w_j for a number, b_j + the embedding of its category, or b_j + m_j where the value
  is missing (section 3.3; the paper has no missing values). The embeddings of unknown categories and of missing values
  begin at zero. `pooled` is the class token after the last block. Blocks are pre-norm, as in the paper, with the
  activation of the configuration (paper: ReGLU, activation="relu" with mlp_gated).

  Parameters: feature_scale (w), feature_bias (b), missing_bias (m), category_embedding/token_embedding, class_token,
  transformer.
  """

  config: FTTransformerConfig

  @nn.compact
  def __call__(self, table: Float[Array, "batch fields 2"], *, rng: Rngs = None) -> Encoded:
    c = self.config
    uniform = nn.initializers.uniform(2 * c.width**-0.5)
    init = lambda *arguments: uniform(*arguments) - c.width**-0.5  # in +-1/sqrt(width), as in the authors' code
    bias = self.param("feature_bias", init, (c.fields, c.width), jnp.float32)
    absent = self.param("missing_bias", nn.initializers.zeros, (c.fields, c.width), jnp.float32)
    first = self.param("class_token", init, (1, c.width), jnp.float32)
    values, missing = table[:, :, 0], table[:, :, 1] > 0
    parts = []
    if c.numeric:
      scale = self.param("feature_scale", init, (c.numeric, c.width), jnp.float32)
      parts.append(values[:, : c.numeric, None] * scale[None])
    if c.categories:
      parts.append(Categories(c, name="category_embedding")(values[:, c.numeric :]))
    tokens = jnp.where(missing[:, :, None], absent[None], jnp.concatenate(parts, axis=1)) + bias[None]
    tokens = jnp.concatenate([jnp.broadcast_to(first[None], (len(tokens), 1, c.width)), tokens], axis=1)
    tokens, pooled = Transformer(c, name="transformer")(tokens.astype(c.dtype), rng=rng)
    return Encoded(tokens, jnp.ones(tokens.shape[:2], bool), pooled)


class Categories(nn.Module):
  """Embeddings of the categories of all fields, in one table. Each field begins with the row of unknown categories."""

  config: FTTransformerConfig

  @nn.compact
  def __call__(self, codes: Float[Array, "batch fields"]) -> Float[Array, "batch fields width"]:
    c = self.config
    starts = np.cumsum([0, *(size + 1 for size in c.categories)]).astype(np.int32)
    limit = c.width**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
      return jax.random.uniform(key, shape, dtype, -limit, limit).at[starts[:-1]].set(0.0)

    table = self.param("token_embedding", init, (int(starts[-1]), c.width), jnp.float32)
    sizes = jnp.asarray(c.categories, jnp.int32)[None]
    known = jnp.clip(codes.astype(jnp.int32), 0, sizes)  # never a row of another field
    return jnp.take(table, known + starts[None, :-1], axis=0)
