"""Parts of FastViT: branches of convolutions, squeeze-and-excitation and two kinds of blocks (Vasu et al. 2023)."""

from typing import Literal

import flax.linen as nn
import jax
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.nn.attention import attention
from mmjax.nn.channel_norm import ChannelNorm, ChannelNormKind
from mmjax.nn.dense import Dense
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm, LayerScale
from mmjax.nn.stochastic import Rngs, drop_path, fold_in

HEAD_WIDTH = 32  # width of an attention head
_SCALE = 1e-5  # initial scale of a branch
_EPSILON = 1e-5
_INIT = nn.initializers.truncated_normal(0.02)


class Branches(nn.Module):
  """Sum of normalised branches: a convolution for each size of kernel, and the input (MobileOne, Vasu et al. 2023).

  Parameters: conv_SIZE and norm_SIZE for each size; norm_skip, with `skip`.

  Attributes:
    features: channels of the output.
    sizes: sides of the kernels.
    norm: normalisation.
    dtype: compute dtype.
    stride: factor by which the convolutions reduce the sides.
    depthwise: if True, an output channel reads one input channel.
    skip: if True, the normalised input is a branch, too.
  """

  features: int
  sizes: tuple[int, ...]
  norm: ChannelNormKind
  dtype: str
  stride: int = 1
  depthwise: bool = False
  skip: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch rows columns features"]:
    groups = x.shape[-1] if self.depthwise else 1
    total = ChannelNorm(self.norm, name="norm_skip")(x, training=training) if self.skip else None
    for size in self.sizes:
      y = nn.Conv(
        self.features,
        (size, size),
        self.stride,
        padding=size // 2,
        feature_group_count=groups,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=f"conv_{size}",
      )(x)
      y = ChannelNorm(self.norm, name=f"norm_{size}")(y, training=training)
      total = y if total is None else total + y
    assert total is not None
    return total


class SqueezeExcite(nn.Module):
  """Weights each channel by a sigmoid of two linear layers of the channels' means (Hu et al. 2018).

  Attributes:
    hidden: width between the two layers.
    dtype: compute dtype.
  """

  hidden: int
  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    init = nn.initializers.he_normal()
    y = nn.relu(Dense(self.hidden, init, dtype=self.dtype, name="conv_squeeze")(x.mean((1, 2), keepdims=True)))
    return x * jax.nn.sigmoid(Dense(x.shape[-1], init, dtype=self.dtype, name="conv_excite")(y))


class ConvMLP(nn.Module):
  """Depthwise 7x7 convolution, and an MLP on each position.

  Attributes:
    expansion: hidden width of the MLP divided by the width.
    norm: normalisation.
    dtype: compute dtype.
  """

  expansion: int
  norm: ChannelNormKind
  dtype: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch height width channels"]:
    channels = x.shape[-1]
    x = Branches(channels, (7,), self.norm, self.dtype, depthwise=True, name="spatial")(x, training=training)
    return MLP(self.expansion * channels, "gelu", _INIT, self.dtype, "bert", name="mlp")(x)


class RepMixerBlock(nn.Module):
  """Residual block that mixes positions by a 3x3 convolution: x + s (branches(x) - norm(x)), then x + s' mlp(x).

  Attributes:
    expansion: hidden width of the MLP divided by the width.
    norm: normalisation.
    drop_path: probability of dropping the MLP.
    dtype: compute dtype.
  """

  expansion: int
  norm: ChannelNormKind
  drop_path: float
  dtype: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, rng: Rngs
  ) -> Float[Array, "batch height width channels"]:
    training, channels = rng is not None, x.shape[-1]
    mixer = Branches(channels, (3, 1), self.norm, self.dtype, depthwise=True, skip=True, name="mixer")
    mixed = mixer(x, training=training) - ChannelNorm(self.norm, name="mixer_norm")(x, training=training)
    x = x + LayerScale(_SCALE, name="scale1")(mixed)
    y = ConvMLP(self.expansion, self.norm, self.dtype, name="conv_mlp")(x, training=training)
    y = LayerScale(_SCALE, name="scale2")(y)
    return x + (drop_path(y, rate=self.drop_path, rng=rng) if self.drop_path else y)


class AttentionBlock(nn.Module):
  """Residual block that mixes positions by self-attention: x + s attention(norm(x)), then x + s' mlp(x).

  Attributes:
    expansion, norm, drop_path, dtype: as in `RepMixerBlock`.
    attention_norm: normalisation before attention: "channel" (`norm`) or "layer".
  """

  expansion: int
  norm: ChannelNormKind
  drop_path: float
  dtype: str
  attention_norm: Literal["channel", "layer"]

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, rng: Rngs
  ) -> Float[Array, "batch height width channels"]:
    training = rng is not None

    def branch(y: Array, number: int) -> Array:
      y = LayerScale(_SCALE, name=f"scale{number}")(y)
      return drop_path(y, rate=self.drop_path, rng=fold_in(rng, number)) if self.drop_path else y

    if self.attention_norm == "layer":
      y = LayerNorm(_EPSILON, name="norm")(x)
    else:
      y = ChannelNorm(self.norm, name="norm")(x, training=training)
    x = x + branch(_Attention(self.dtype, name="attention")(y), 1)
    return x + branch(ConvMLP(self.expansion, self.norm, self.dtype, name="conv_mlp")(x, training=training), 2)


class _Attention(nn.Module):
  """Self-attention of the positions of a feature map. Queries, keys and values have no bias."""

  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    width = x.shape[-1]

    def heads(name: str) -> Array:
      y = Dense(width, _INIT, use_bias=False, dtype=self.dtype, name=name)(x)
      return rearrange(y, "b y x (h d) -> b (y x) h d", d=HEAD_WIDTH)

    y = rearrange(attention(heads("query"), heads("key"), heads("value")), "b (y x) h d -> b y x (h d)", y=x.shape[1])
    return Dense(width, _INIT, dtype=self.dtype, name="out")(y)
