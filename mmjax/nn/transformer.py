"""Transformer that all encoders share, pre-norm by default."""

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.attention import MultiHeadAttention, may_have_kernel, padding
from mmjax.nn.dense import Initializer
from mmjax.nn.initial import InitScheme, kernel_init
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm, LayerScale
from mmjax.nn.relative import RelativeBias
from mmjax.nn.rotary import Rotation
from mmjax.nn.stochastic import Rngs, drop_path, dropout, dropout_factors, fold_in
from mmjax.nn.tpu import rows_major

Remat = Literal["none", "dots", "hidden", "attention", "full"]  # ordered from no recomputation to full recomputation


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Fields that all transformers share. Raises ValueError if the fields are inconsistent."""

  width: int = 768
  """Width of the token vectors."""
  depth: int = 12
  """Number of blocks."""
  num_heads: int = 12
  """Number of attention heads; must divide width, unless head_dim is set."""
  head_dim: int | None = None
  """Dimension of an attention head; None: width / num_heads."""
  key_heads: int | None = None
  """Number of heads of keys and values, each of which serves num_heads / key_heads heads of queries (grouped queries,
  Ainslie et al. 2023); None: num_heads."""
  mlp_dim: int | None = None
  """Hidden width of the MLP; None: 4 * width."""
  activation: Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"] = "gelu"
  """Activation of the MLP: exact GELU, its tanh approximation, x * sigmoid(1.702 x), x * sigmoid(x), or ReLU."""
  linear_bias: bool = True
  """Linear layers of the blocks have biases. False: T5."""
  mlp_gated: bool = False
  """Multiply the hidden layer of a block's MLP by the activation of a third linear layer, the gate (Shazeer 2020). This
  is SwiGLU with activation="silu" and GeGLU with "gelu"."""
  mlp_norm: bool = False
  """Normalise the hidden layer of a block's MLP before its last linear layer (sub-LN, Wang et al. 2022; EVA02)."""
  mlp_input_norm: bool = False
  """Normalise the input of a block's MLP, after the norm that every pre-norm branch begins with (ViTamin)."""
  norm_epsilon: float = 1e-6
  """Added to the variance in every layer norm."""
  norm: Literal["pre", "post", "branch"] = "pre"
  """Position of the layer norms. "pre": before each branch, and one after the last block. "post": after each residual
  sum (Vaswani et al. 2017, BERT). "branch": on the result of each branch, before the sum, and one after the last block
  (Swin V2, Liu et al. 2022; EVA02-E).
  """
  rms_norm: bool = False
  """Normalise by the root mean square, without mean and bias (Zhang and Sennrich 2019, T5)."""
  norm_bias: bool = True
  """Layer norms of the blocks, and before and after them, have biases. False: ModernBERT."""
  layer_scale: float | None = None
  """Multiply the result of each branch by a learned vector with this initial value (CaiT, Touvron et al. 2021). None:
  no such vector."""
  input_norm: bool = False
  """Apply a layer norm to the embeddings, before the first block (CLIP's image tower, BERT)."""
  qk_norm: bool = False
  """Normalise queries and keys, which keeps attention logits from growing (Dehghani et al. 2023)."""
  scaled_attention: bool = True
  """Divide attention logits by the square root of head_dim. False: T5."""
  relative_buckets: int = 0
  """Number of distances between tokens that attention tells apart by a learned bias for each head, shared by all blocks
  (Raffel et al. 2020, T5; MPNet: 32); 0: no such bias."""
  relative_distance: int = 128
  """All distances from here on share a bias. Used with relative_buckets."""
  attention_bias: Literal["all", "query_value", "none", "only"] = "all"
  """Projections with a bias, of the queries, keys and values of the blocks. A bias of the keys changes nothing without
  rotary positions (EVA, BEiT: "query_value"). "only": these three have biases although linear_bias is False (Qwen2)."""
  attention_norm: bool = False
  """Normalise the result of a block's attention before the output projection (sub-LN, Wang et al. 2022; EVA02)."""
  drop_path: float = 0.0
  """Probability of dropping a branch of the last block (stochastic depth). It rises linearly from 0 in the first."""
  scan: bool = False
  """Compile one block and loop over stacked parameters. This compiles faster, but runs somewhat slower on a CPU."""
  remat: Remat = "none"
  """Activations that the backward pass recomputes instead of keeping them in memory. "none": nothing. "dots": all but
  the results of linear layers and of attention. "hidden": all but the blocks' inputs, attention's result and the MLP's
  hidden layer. "attention": all but the blocks' inputs and attention's result. "full": all but the blocks' inputs.
  """
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters, statistics and the softmax stay in float32."""
  attention: Literal["auto", "xla", "cudnn"] = "auto"
  """Implementation of attention; "cudnn" is flash attention on NVIDIA GPUs."""
  init_scheme: InitScheme = "clip"
  """Initial weights. "clip": normal, with deviations from width and depth (the code of CLIP's text tower). "xavier":
  Xavier uniform kernels, embeddings of deviation 1 / sqrt(width) (big_vision, SigLIP). "bert": normal with deviation
  0.02, truncated at two deviations (Devlin et al. 2019, BERT's code)."""
  dropout: float = 0.0
  """Probability of dropping an element of the embeddings (the input of the first block) and of the result of each
  branch (Vaswani et al. 2017, section 5.4; BERT and GPT-2: 0.1)."""
  attention_dropout: float = 0.0
  """Probability of dropping an attention weight (BERT and GPT-2: 0.1). In training, attention then keeps all weights in
  memory: no fused implementation has this option."""

  def __post_init__(self) -> None:
    if self.depth < 1:
      raise ValueError(f"depth={self.depth} must be at least 1")
    if self.head_dim is None and self.width % self.num_heads:
      raise ValueError(f"width={self.width} must be divisible by num_heads={self.num_heads}")
    if self.key_heads is not None and (self.key_heads < 1 or self.num_heads % self.key_heads):
      raise ValueError(f"key_heads={self.key_heads} must divide num_heads={self.num_heads}")
    for name in ("drop_path", "dropout", "attention_dropout"):
      if not 0.0 <= getattr(self, name) < 1.0:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")
    if self.relative_buckets and not 4 <= self.relative_buckets <= 2 * self.relative_distance:
      raise ValueError(
        f"relative_buckets={self.relative_buckets} must lie in [4, 2 * relative_distance={2 * self.relative_distance}]"
      )
    if self.layer_scale is not None and self.norm == "branch":
      raise ValueError('layer_scale needs norm="pre" or "post": with "branch", a norm scales the result of each branch')

  @property
  def hidden(self) -> int:
    """Hidden width of the MLP."""
    return 4 * self.width if self.mlp_dim is None else self.mlp_dim

  @property
  def attention_width(self) -> int:
    """Width of queries, keys and values, of all heads together."""
    return self.width if self.head_dim is None else self.num_heads * self.head_dim

  @property
  def key_width(self) -> int:
    """Width of keys, and of values, of all their heads together."""
    return self.attention_width // self.num_heads * (self.key_heads or self.num_heads)

  def rotation(self, length: int, start: Int[Array, "batch"] | None = None) -> Rotation | None:
    """Rotation of the queries and keys of a sequence by their positions; None: there is none.

    Args:
      length: number of tokens.
      start: position of the first token of each row. None: 0.
    """
    del length, start
    return None


def refuse_block_options(config: TransformerConfig, name: str, options: Collection[str]) -> None:
  """Raise ValueError for block options in the configuration of a stack whose blocks do not have them.

  Args:
    config: the configuration.
    name: name of the stack, for the message.
    options: fields that must have their default.
  """
  for option in options:
    value, default = getattr(config, option), getattr(TransformerConfig, option)
    if value != default:
      raise ValueError(f"{option}={value} is not an option of {name}, which supports only {default}")


def take_token(
  tokens: Float[Array, "batch length width"], position: int | Int[Array, "batch"]
) -> Float[Array, "batch 1 width"]:
  """Takes one token of each example, at a position that may differ between examples (an int: the same in all)."""
  if isinstance(position, int):
    return tokens[:, position : position + 1]
  return jnp.take_along_axis(tokens, position[:, None, None], axis=1)


def norm_layer(config: TransformerConfig, name: str) -> LayerNorm:
  """Layer norm, or RMS norm, of a block."""
  center = not config.rms_norm
  return LayerNorm(config.norm_epsilon, use_bias=center and config.norm_bias, center=center, name=name)


def block_mlp(c: TransformerConfig, down_init: Initializer, name: str) -> MLP:
  """MLP of a block."""
  hidden, early = (c.norm_epsilon if wanted else None for wanted in (c.mlp_norm, c.mlp_input_norm))
  gate, bias = c.mlp_gated, c.linear_bias
  return MLP(c.hidden, c.activation, down_init, c.dtype, c.init_scheme, gate, hidden, bias, early, name=name)


def block_attention(c: TransformerConfig, out_init: Initializer) -> dict[str, Any]:
  """Fields of the attention of a block."""
  fields: dict[str, Any] = dict(num_heads=c.num_heads, qk_norm=c.qk_norm, dtype=c.dtype)
  fields |= dict(out_init=out_init, epsilon=c.norm_epsilon, init_scheme=c.init_scheme, implementation=c.attention)
  fields |= dict(head_dim=c.head_dim, use_bias=c.linear_bias, scaled=c.scaled_attention)
  return fields | dict(biased=c.attention_bias, out_norm=c.attention_norm, key_heads=c.key_heads)


class Block(nn.Module):
  """Transformer block. Pre-norm (Radford et al. 2019): x + attention(norm(x)), then x + mlp(norm(x)).

  With post-norm, each norm follows the sum. With norm="branch", it follows attention or the MLP.

  Parameters: attention, mlp, norm1, norm2; scale1 and scale2, with `config.layer_scale`.

  With `context`, `x` holds only one token of each example, and only these are computed. `mask` then marks the tokens of
  `context` that they may read.

  The tokens of all examples form one axis, which is the layout that matrix products read. With a separate batch axis, a
  TPU's compiler would change the layout before and after attention if the length does not fill tiles of 8 rows.

  Attributes:
    config: configuration of the stack.
    causal: if True, a token reads only itself and earlier tokens.
    length: tokens per example; with `context`, tokens of `context` per example.
    first_norm: if False, a pre-norm block has no norm1: the norm of the embeddings takes its place (ModernBERT).
  """

  config: TransformerConfig
  causal: bool
  length: int
  first_norm: bool = True

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch*length width"],
    mask: Bool[Array, "batch k"] | None,
    rng: Rngs,
    layer: Array,
    context: Float[Array, "batch*k width"] | None = None,
    rotations: tuple[Rotation, Rotation] | None = None,
    bias: Float[Array, "#rows heads q k"] | None = None,
    pick: Int[Array, "batch"] | None = None,
  ) -> Float[Array, "batch*length width"]:
    """Applies the block.

    Args:
      x: tokens.
      mask: True for each token that may be read; None: all.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      layer: number of the block in the stack.
      context: all tokens, if `x` holds only one of each example.
      rotations: rotations of the tokens of `x`, and of all tokens (rotary position embedding).
      bias: bias of the attention logits.
      pick: with `context`, position of the token of `x` in it. Its elements are dropped as among all tokens.
    Returns: the tokens of `x` after the block.
    """
    c = self.config
    batch = (x if context is None else context).shape[0] // self.length
    # Projections that write into the residual stream have smaller initial weights in a deeper network (GPT-2, CLIP).
    out_init = kernel_init(c.init_scheme, c.width**-0.5 * (2 * c.depth) ** -0.5)
    rate = c.drop_path * layer.astype(jnp.float32) / max(1, c.depth - 1)

    def branch(y: Array, stream: int) -> Array:
      if c.layer_scale is not None:
        y = LayerScale(c.layer_scale, name=f"scale{stream + 1}")(y)
      factors = dropout_factors((self.length, c.width), rate=c.dropout, rng=fold_in(rng, stream + 2))
      if factors is not None:
        kept = factors if pick is None else take_token(factors, pick)
        y = y * rearrange(kept, "b l w -> (b l) w").astype(y.dtype)
      return drop_path(y, rate=rate, rng=fold_in(rng, stream)) if c.drop_path else y

    attention = MultiHeadAttention(**block_attention(c, out_init), name="attention")
    mlp = block_mlp(c, out_init, "mlp")
    norm1, norm2 = norm_layer(c, "norm1"), norm_layer(c, "norm2")
    rng = fold_in(rng, layer)
    causal = self.causal and context is None

    def attend(y: Array, read: Array | None) -> Array:
      rows = lambda z: rearrange(z, "(b l) w -> b l w", b=batch)
      both = None if read is None else rows(read)
      shape = (c.num_heads, self.length, self.length)
      factors = dropout_factors(shape, rate=c.attention_dropout, rng=fold_in(rng, 4))
      if pick is not None:
        factors = _of_query(factors, pick)
      y = attention(rows(y), both, mask=mask, causal=causal, bias=bias, rotations=rotations, factors=factors)
      return rearrange(y, "b l w -> (b l) w")

    if c.norm == "post":
      x = norm1(x + branch(attend(x, context), 0))
      return norm2(x + branch(mlp(x), 1))
    if c.norm == "branch":
      x = x + branch(norm1(attend(x, context)), 0)
      return x + branch(norm2(mlp(x)), 1)
    if not self.first_norm:
      read, y = context, x
    else:
      read = None if context is None else norm1(context)
      x, y = norm1.beside(x)
    x = rows_major(x + branch(attend(y, read), 0))
    x, y = norm2.beside(x)
    return rows_major(x + branch(mlp(y), 1))


def _of_query(
  rows: Float[Array, "#batch heads length length"] | None, position: int | Int[Array, "batch"]
) -> Float[Array, "#batch heads 1 length"] | None:
  """Takes one query of each example of a bias, or of factors, of the attention weights."""
  if rows is None:
    return None
  if isinstance(position, int):
    return rows[:, :, position : position + 1]
  if rows.shape[0] == 1:
    return jnp.moveaxis(jnp.take(rows[0], position, axis=1), 1, 0)[:, :, None]
  return jnp.take_along_axis(rows, position[:, None, None, None], axis=2)


def _identity(x: Array) -> Array:
  return x


def rematerialised(block: Any, policy: str, *, scan: bool) -> Any:
  """Wraps a block class so that its backward pass recomputes activations by a policy of TransformerConfig.remat."""
  if policy == "none":
    return block
  kept = {"full": (), "attention": ("attention", "norm"), "hidden": ("attention", "norm", "hidden")}
  kept["dots"] = (*kept["hidden"], "dense")
  saveable = jax.checkpoint_policies.save_only_these_names(*kept[policy])
  # Inside a scan, the loop already keeps XLA from merging the recomputation with the forward pass.
  return nn.remat(block, policy=saveable, prevent_cse=not scan)


class Transformer(nn.Module):
  """A stack of blocks, followed by a layer norm unless the blocks are post-norm.

  Parameters: block_0, block_1, ... or, with `config.scan`, one `blocks` with a leading layer axis; norm (not with
  post-norm); input_norm and relative_bias, if the configuration sets them.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.nn import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig(width=8, depth=1, num_heads=2))
    >>> tokens = jnp.ones((2, 5, 8))
    >>> variables = model.init(jax.random.key(0), tokens)
    >>> outputs, picked = model.apply(variables, tokens)
    >>> outputs.shape, picked.shape
    ((2, 5, 8), (2, 8))

  Attributes:
    config: configuration of the stack.
    causal: if True, a token reads only itself and earlier tokens.
    last_norm: if False, there is no layer norm after the blocks.
  """

  config: TransformerConfig
  causal: bool = False
  last_norm: bool = True

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    mask: Bool[Array, "batch length"] | None = None,
    *,
    rng: Rngs = None,
    pick: int | Int[Array, "batch"] = 0,
    rotation: Rotation | None = None,
    biases: Float[Array, "depth heads length length"] | None = None,
    raw: bool = False,
    taps: int = 0,
  ) -> tuple[Float[Array, "batch tokens width"], Float[Array, "batch width"]]:
    """Returns all tokens, and the one token at `pick`.

    The last block computes the picked token separately, and the compiler removes tokens that nobody reads. A caller
    that needs only the picked token therefore pays for one token in the last block. This saves 14% of the work at
    depth 6 and 7% at depth 12. With `config.scan` the last block computes all tokens.

    Args:
      x: embedded tokens.
      mask: True for each token that may be read; None: all.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      pick: position of the picked token, the same in all examples (int) or one per example.
      rotation: rotation of each token's queries and keys (rotary position embedding); None: no rotation.
      biases: biases of the attention logits of each block; None: those of relative_buckets, if any.
      raw: if True, all tokens are returned without the last norm, and the picked token with it (FLAVA).
      taps: if not 0, the tokens after each of this many last blocks are returned, each with the last norm, one block
        after the other along the axis of the tokens (BridgeTower).
    Returns: all tokens, and the picked token.
    """
    c = self.config
    own = x.shape[1]
    rotation = c.rotation(own) if rotation is None else rotation
    if rotation is None and biases is None:  # the TPU kernel has neither
      x, mask = self._padded(x, mask)
    both = None if rotation is None else (rotation, rotation)
    length = x.shape[1]
    block = functools.partial(rematerialised(Block, c.remat, scan=c.scan), c, self.causal, length)
    norm = norm_layer(c, "norm") if c.norm != "post" and self.last_norm else _identity
    of_all = _identity if raw else norm
    x = x.astype(c.dtype)
    if c.input_norm:
      x = norm_layer(c, "input_norm")(x)
    x = dropout(x, rate=c.dropout, rng=fold_in(rng, c.depth))  # the streams before belong to the blocks
    bias = None
    if c.relative_buckets:
      far = (c.relative_buckets, c.relative_distance, self.causal)
      bias = RelativeBias(c.num_heads, *far, name="relative_bias")(length)
    x, rows = rearrange(x, "b l w -> (b l) w"), lambda x: rearrange(x, "(b l) w -> b l w", l=length)

    def tapped(states: Sequence[Array]) -> Array:
      each = [rows(state)[:, :own] for state in states]
      return each[0] if len(each) == 1 else jnp.concatenate(each, axis=1)

    if c.scan:

      def step(module: Any, carry: Array, at: Any) -> tuple[Array, Array | None]:
        carry = module(carry, mask, rng, at[0], None, both, bias if biases is None else at[1])
        return carry, carry if taps else None

      scanned = nn.scan(
        step,
        variable_axes={"params": 0, "intermediates": 0, "perturbations": 0},
        split_rngs={"params": True},
        length=c.depth,
        check_constancy_invariants=False,  # there is nothing to check, and the block would be traced once more
      )
      each = None if biases is None else biases[:, None]
      x, states = scanned(block(name="blocks"), x, (jnp.arange(c.depth), each))
      tokens = [of_all(x)] if states is None else list(map(of_all, states[c.depth - taps :]))
      return tapped(tokens), norm(take_token(rows(x), pick)[:, 0])
    kept = []
    for layer in range(c.depth - 1):
      own_bias = bias if biases is None else biases[layer : layer + 1]
      x = block(name=f"block_{layer}")(x, mask, rng, jnp.asarray(layer), None, both, own_bias)
      kept += [of_all(x)] if layer >= c.depth - taps else []
    bias = bias if biases is None else biases[-1:]
    last, index = block(name=f"block_{c.depth - 1}"), jnp.asarray(c.depth - 1)
    readable = self._readable(x.shape[0] // length, length, mask, pick)
    apart = None if rotation is None else (rotation.at(pick), rotation)
    each = jnp.broadcast_to(jnp.asarray(pick, jnp.int32), (x.shape[0] // length,))
    picked = last(take_token(rows(x), pick)[:, 0], readable, rng, index, x, apart, _of_query(bias, pick), each)
    return tapped([*kept, of_all(last(x, mask, rng, index, None, both, bias))]), norm(picked)

  @nn.nowrap
  def _padded(
    self, x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"] | None
  ) -> tuple[Float[Array, "batch padded width"], Bool[Array, "batch padded"] | None]:
    """Pads the tokens, if that lets attention use the TPU kernel. No token reads the padding."""
    c, (batch, length, width) = self.config, x.shape
    if c.relative_buckets or not may_have_kernel(self, qk_norm=c.qk_norm, implementation=c.attention):
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
