"""The transformer every encoder shares, pre-norm unless told otherwise."""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.attention import MultiHeadAttention, may_have_kernel, padding
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm
from mmjax.nn.stochastic import Rngs, drop_path, fold_in
from mmjax.nn.tpu import rows_major

Remat = Literal["none", "dots", "hidden", "attention", "full"]  # from nothing to all


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """What every transformer shares. Raises ValueError where the fields do not fit each other."""

  width: int = 768
  """Width of the token vectors."""
  depth: int = 12
  """Number of blocks."""
  num_heads: int = 12
  """Attention heads; must divide width."""
  mlp_dim: int | None = None
  """Hidden width of the MLP; 4 * width where it is None."""
  activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
  """The MLP's nonlinearity: exact GELU, its tanh approximation, or x * sigmoid(1.702 x)."""
  norm_epsilon: float = 1e-6
  """Added to the variance in every layer norm."""
  norm: Literal["pre", "post"] = "pre"
  """Layer norm before each branch and once at the end, or after each sum (Vaswani et al. 2017, BERT)."""
  input_norm: bool = False
  """A layer norm on the embeddings, before the first block (CLIP's image tower, BERT)."""
  qk_norm: bool = False
  """Normalise queries and keys, against growing attention logits (Dehghani et al. 2023)."""
  drop_path: float = 0.0
  """Probability of dropping a block's branches in the last block; it rises linearly from 0 in the first."""
  scan: bool = False
  """One compiled block looped over stacked parameters: compiles faster, runs somewhat slower on CPU."""
  remat: Remat = "none"
  """What the backward pass computes again: nothing; all but matmul results; all but the blocks' inputs and of each
  block attention's result and the MLP's hidden layer, or attention's result alone; or all but the blocks' inputs."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype; parameters, statistics and the softmax stay float32."""
  attention: Literal["auto", "xla", "cudnn"] = "auto"
  """Attention's implementation: "cudnn" is flash attention on NVIDIA GPUs."""

  def __post_init__(self) -> None:
    if self.depth < 1:
      raise ValueError(f"depth={self.depth} must be at least 1")
    if self.width % self.num_heads:
      raise ValueError(f"width={self.width} must be divisible by num_heads={self.num_heads}")
    if not 0.0 <= self.drop_path < 1.0:
      raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")

  @property
  def hidden(self) -> int:
    """Hidden width of the MLP."""
    return 4 * self.width if self.mlp_dim is None else self.mlp_dim


def take_token(
  tokens: Float[Array, "batch length width"], position: int | Int[Array, "batch"]
) -> Float[Array, "batch 1 width"]:
  """The token at each example's position (the same one in every example for an int)."""
  if isinstance(position, int):
    return tokens[:, position : position + 1]
  return jnp.take_along_axis(tokens, position[:, None, None], axis=1)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)) (pre-norm, as in Radford et al. 2019); or each norm after the sum.

  With `context`, `x` are some of its tokens, and only they are computed; `mask` then says what they may read.

  The tokens of all examples stand one below the other, as matrix products read them: a third axis would be laid out
  anew by a TPU's compiler wherever the length does not fill its tiles of 8 rows, before and after attention.

  Attributes:
    config: what every block shares.
    causal: a token reads only itself and those before.
    length: tokens of an example, of `context` where there is one.
  """

  config: TransformerConfig
  causal: bool
  length: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch*length width"],
    mask: Bool[Array, "batch k"] | None,
    rng: Rngs,
    layer: Array,
    context: Float[Array, "batch*k width"] | None = None,
  ) -> Float[Array, "batch*length width"]:
    c = self.config
    batch = (x if context is None else context).shape[0] // self.length
    # Projections that write into the residual stream begin smaller in a deeper network (GPT-2, CLIP).
    out_init = nn.initializers.normal(c.width**-0.5 * (2 * c.depth) ** -0.5)
    rate = c.drop_path * layer.astype(jnp.float32) / max(1, c.depth - 1)

    def branch(y: Array, stream: int) -> Array:
      return drop_path(y, rate=rate, rng=fold_in(rng, stream)) if c.drop_path else y

    attention = MultiHeadAttention(
      num_heads=c.num_heads,
      qk_norm=c.qk_norm,
      out_init=out_init,
      dtype=c.dtype,
      implementation=c.attention,
      epsilon=c.norm_epsilon,
      name="attention",
    )
    mlp = MLP(c.hidden, c.activation, out_init, c.dtype, name="mlp")
    norm1, norm2 = LayerNorm(c.norm_epsilon, name="norm1"), LayerNorm(c.norm_epsilon, name="norm2")
    rng = fold_in(rng, layer)
    causal = self.causal and context is None

    def attend(y: Array, read: Array | None) -> Array:
      rows = lambda z: rearrange(z, "(b l) w -> b l w", b=batch)
      y = attention(rows(y), None if read is None else rows(read), mask=mask, causal=causal)
      return rearrange(y, "b l w -> (b l) w")

    if c.norm == "post":
      x = norm1(x + branch(attend(x, context), 0))
      return norm2(x + branch(mlp(x), 1))
    read = None if context is None else norm1(context)
    x, y = norm1.beside(x)
    x = rows_major(x + branch(attend(y, read), 0))
    x, y = norm2.beside(x)
    return rows_major(x + branch(mlp(y), 1))


def _identity(x: Array) -> Array:
  return x


def rematerialised(block: Any, policy: str, *, scan: bool) -> Any:
  """A block class whose backward pass computes again what TransformerConfig.remat says."""
  if policy == "none":
    return block
  kept = {"full": (), "attention": ("attention", "norm"), "hidden": ("attention", "norm", "hidden")}
  kept["dots"] = (*kept["hidden"], "dense")
  saveable = jax.checkpoint_policies.save_only_these_names(*kept[policy])
  # Inside a scan the loop itself keeps XLA from merging the recomputation with the forward pass.
  return nn.remat(block, policy=saveable, prevent_cse=not scan)


class Transformer(nn.Module):
  """A stack of blocks, followed by a layer norm where the blocks are pre-norm.

  Parameters: block_0, block_1, ... or, with `config.scan`, one `blocks` with a leading layer axis; norm (pre-norm
  only); input_norm, if the configuration has it.
  """

  config: TransformerConfig
  causal: bool = False

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    mask: Bool[Array, "batch length"] | None = None,
    *,
    rng: Rngs = None,
    pick: int | Int[Array, "batch"] = 0,
  ) -> tuple[Float[Array, "batch length width"], Float[Array, "batch width"]]:
    """Returns all tokens, and the one token at `pick`.

    That token is computed on its own: whoever needs nothing but it pays for one token in the last block, not for
    all, since the compiler drops the tokens that nobody reads (14% of the work at depth 6, 7% at depth 12).
    """
    c = self.config
    own = x.shape[1]
    x, mask = self._padded(x, mask)
    length = x.shape[1]
    block = functools.partial(rematerialised(Block, c.remat, scan=c.scan), c, self.causal, length)
    norm = LayerNorm(c.norm_epsilon, name="norm") if c.norm == "pre" else _identity
    x = x.astype(c.dtype)
    if c.input_norm:
      x = LayerNorm(c.norm_epsilon, name="input_norm")(x)
    x, rows = rearrange(x, "b l w -> (b l) w"), lambda x: rearrange(x, "(b l) w -> b l w", l=length)
    if c.scan:
      scanned = nn.scan(
        lambda module, carry, layer: (module(carry, mask, rng, layer), None),
        variable_axes={"params": 0, "intermediates": 0, "perturbations": 0},
        split_rngs={"params": True},
        length=c.depth,
      )
      x, _ = scanned(block(name="blocks"), x, jnp.arange(c.depth))
      return rows(norm(x))[:, :own], norm(take_token(rows(x), pick)[:, 0])
    for layer in range(c.depth - 1):
      x = block(name=f"block_{layer}")(x, mask, rng, jnp.asarray(layer))
    last, index = block(name=f"block_{c.depth - 1}"), jnp.asarray(c.depth - 1)
    readable = self._readable(x.shape[0] // length, length, mask, pick)
    picked = last(take_token(rows(x), pick)[:, 0], readable, rng, index, x)
    return rows(norm(last(x, mask, rng, index)))[:, :own], norm(picked)

  @nn.nowrap
  def _padded(
    self, x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"] | None
  ) -> tuple[Float[Array, "batch padded width"], Bool[Array, "batch padded"] | None]:
    """With the tokens more, which nothing reads, that let attention have a TPU's kernel."""
    c, (batch, length, width) = self.config, x.shape
    if not may_have_kernel(self, qk_norm=c.qk_norm, implementation=c.attention):
      return x, mask
    more = padding(length, width, c.num_heads, c.dtype)
    if not more:
      return x, mask
    readable = jnp.ones((batch, length), bool) if mask is None else mask
    return jnp.pad(x, ((0, 0), (0, more), (0, 0))), jnp.pad(readable, ((0, 0), (0, more)))

  def _readable(self, batch: int, length: int, mask: Array | None, pick: int | Array) -> Array | None:
    if not self.causal:
      return mask
    until = jnp.broadcast_to(jnp.asarray(pick, jnp.int32), (batch,))[:, None]
    before = jnp.arange(length, dtype=jnp.int32)[None] <= until
    return before if mask is None else before & mask
