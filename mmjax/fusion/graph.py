"""Graph networks over the tokens of all modalities: each token reads the tokens most similar to it."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from mmjax.fusion.tokens import check_width, join
from mmjax.nn.dense import Dense
from mmjax.nn.norm import LayerNorm
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, dropout, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Encoded


def similarity_edges(encoded: Sequence[Encoded], *, own: int, cross: int) -> Bool[Array, "batch nodes nodes"]:
  """Edges of a graph whose nodes are the tokens of all modalities, in the order of `join`.

  Each token has an edge to itself, to the `own` most similar other tokens of its modality, and to the `cross` most
  similar tokens of each other modality. Edges have no direction: one token's choice joins both. Similarity is the
  cosine of the given tokens, in float32. Padding has no edges, and the choice has no gradient.

  Source: the graph of nearest neighbours of Vision GNN (Han et al. 2022, section 3.1), here also between modalities.
  """
  tokens, mask = join(encoded, "float32")
  unit = tokens / jnp.maximum(jnp.linalg.norm(tokens, axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
  similarity = jnp.einsum("bqd,bkd->bqk", unit, unit, precision="highest")
  itself = jnp.eye(mask.shape[1], dtype=bool)[None]
  there = mask[:, :, None] & mask[:, None]
  similarity = jnp.where(there & ~itself, similarity, -jnp.inf)
  modality = np.repeat(np.arange(len(encoded)), [e.mask.shape[1] for e in encoded])
  chosen = itself & there
  for number, e in enumerate(encoded):
    columns = (modality == number)[None, None]
    for rows, count in ((modality == number, own), (modality != number, cross)):
      allowed = rows[None, :, None] & columns
      chosen |= allowed & _largest(jnp.where(allowed, similarity, -jnp.inf), min(count, e.mask.shape[1]))
  return chosen | jnp.swapaxes(chosen, 1, 2)


def _largest(values: Float[Array, "batch nodes nodes"], count: int) -> Bool[Array, "batch nodes nodes"]:
  """True for the `count` largest finite values of each row."""
  if count == 0:
    return jnp.zeros(values.shape, bool)
  _, places = lax.top_k(values, count)
  return jax.nn.one_hot(places, values.shape[-1], dtype=bool).any(axis=-2) & jnp.isfinite(values)


class GraphFusion(nn.Module):
  """Layers of a graph network over `similarity_edges`, each in a pre-norm residual branch.

  Without attention, a layer is that of a GCN (Kipf and Welling 2017, equation 2), with A the edges, self-loops
  included, and D their degrees:

      x + relu(D^-1/2 A D^-1/2 norm(x) W)

  With attention, it is that of a GAT (Velickovic et al. 2018, equations 3 to 5), for each head:

      x_i + elu(sum_j softmax_j(leaky_relu(l . W norm(x_i) + r . W norm(x_j))) W norm(x_j)),   j a neighbour of i

  The residual keeps tokens apart in deep stacks, where repeated averages would make them equal. The result holds the
  tokens of all modalities in their order. `pooled` is the mean over all real tokens.

  Attributes:
    config: width, depth, heads and dropout; each modality's tokens must have its width.
    own: number of edges that a token chooses in its modality.
    cross: number of edges that a token chooses in each other modality.
    attention: if True, a GAT; otherwise, a GCN.
  """

  config: TransformerConfig
  own: int
  cross: int
  attention: bool

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    c = self.config
    check_width(encoded, c.width)
    edges = similarity_edges(encoded, own=self.own, cross=self.cross)
    x, mask = join(encoded, c.dtype)
    for layer in range(c.depth):
      y = LayerNorm(c.norm_epsilon, name=f"norm_{layer}")(x)
      y = Dense(c.width, nn.initializers.lecun_normal(), dtype=c.dtype, name=f"layer_{layer}_projection")(y)
      y = self._attend(y, edges, layer) if self.attention else nn.relu(_convolve(y, edges))
      x = x + dropout(y, rate=c.dropout, rng=fold_in(rng, layer))
    x = LayerNorm(c.norm_epsilon, name="norm")(x)
    return Encoded(x, mask, mean_pool(x, mask))

  @nn.nowrap
  def _attend(
    self, y: Float[Array, "batch nodes width"], edges: Bool[Array, "batch nodes nodes"], layer: int
  ) -> Float[Array, "batch nodes width"]:
    heads = self.config.num_heads
    y = y.reshape(*y.shape[:2], heads, -1)
    init = nn.initializers.normal(y.shape[-1] ** -0.5)
    scores = []
    for side in ("reader", "read"):
      vector = self.param(f"layer_{layer}_{side}", init, y.shape[2:], jnp.float32)
      scores.append(jnp.einsum("bnhd,hd->bhn", y.astype(jnp.float32), vector))
    logits = nn.leaky_relu(scores[0][..., None] + scores[1][:, :, None], 0.2)
    logits = jnp.where(edges[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = jnp.where(edges[:, None], jax.nn.softmax(logits, axis=-1), 0.0)  # padding has no edges
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(y.dtype), y, preferred_element_type=jnp.float32)
    return nn.elu(out).reshape(*out.shape[:2], -1).astype(y.dtype)


def _convolve(
  y: Float[Array, "batch nodes width"], edges: Bool[Array, "batch nodes nodes"]
) -> Float[Array, "batch nodes width"]:
  root = jnp.maximum(edges.sum(-1), 1).astype(jnp.float32) ** -0.5
  weights = jnp.where(edges, root[:, :, None] * root[:, None], 0.0)
  out = jnp.einsum("bqk,bkd->bqd", weights.astype(y.dtype), y, preferred_element_type=jnp.float32)
  return out.astype(y.dtype)
