"""Convolutional stem of ViTamin: inverted bottlenecks with layer norm (Chen et al. 2024, section 4.1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense
from mmjax.nn.mlp import gelu
from mmjax.nn.norm import LayerNorm

STRIDE = 16
"""Pixels of a side that become one token."""

_DEPTHS = (2, 4)  # blocks of the two stages
_EXPANSION = 4  # inner width of a block divided by its output width


class DepthwiseConv(nn.Module):
  """3x3 convolution of each channel by itself, with padding 1.

  It is a sum of nine shifted and scaled images. XLA's CPU backend computes a grouped convolution 15 times slower.

  Parameters: kernel [3, 3, channels] and bias.

  Attributes:
    stride: factor by which the sides shrink.
    dtype: compute dtype.
  """

  stride: int
  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    height, width, channels = x.shape[1:]
    init = nn.initializers.normal((2 / 9) ** 0.5)  # He et al. 2015, for nine inputs
    kernel = self.param("kernel", init, (3, 3, channels), jnp.float32).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32).astype(self.dtype)
    padded, s = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), self.stride
    shifted = lambda i, j: padded[:, i : i + height : s, j : j + width : s] * jnp.expand_dims(kernel[i, j], (0, 1, 2))
    total = shifted(0, 0)
    for place in range(1, 9):
      total = total + shifted(*divmod(place, 3))
    return total + jnp.expand_dims(bias, (0, 1, 2))


class MBConv(nn.Module):
  """Inverted bottleneck: x + linear(gelu(depthwise(gelu(linear(norm(x)))))).

  With stride 2, a 3x3 average pool shrinks x, and a linear layer widens it if the widths differ.

  Attributes:
    features: output width; the depthwise convolution has four times as many channels.
    stride: factor by which the sides shrink: 1 or 2.
    dtype: compute dtype.
    epsilon: added to the variance in the norm.
  """

  features: int
  stride: int
  dtype: str
  epsilon: float

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns features"]:
    y = LayerNorm(self.epsilon, name="norm")(x)
    y = gelu(Dense(_EXPANSION * self.features, nn.initializers.he_normal(), dtype=self.dtype, name="conv_up")(y))
    y = gelu(DepthwiseConv(self.stride, self.dtype, name="conv_depthwise")(y))
    y = Dense(self.features, nn.initializers.lecun_normal(), dtype=self.dtype, name="conv_down")(y)
    if self.stride == 2:
      mean = nn.avg_pool(x.astype(jnp.float32), (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False)
      x = mean.astype(x.dtype)
    if x.shape[-1] != self.features:
      x = Dense(self.features, nn.initializers.lecun_normal(), dtype=self.dtype, name="conv_skip")(x)
    return x + y


class MBConvStem(nn.Module):
  """Two 3x3 convolutions, two stages of inverted bottlenecks, and a 3x3 convolution to the tokens' width.

  Parameters: conv_1, norm_1, conv_2; stage_1_block_0 to stage_2_block_3; norm_3 and conv_3.

  Attributes:
    width: width of the tokens.
    channels: channels of the first stage. The second stage has twice as many.
    dtype: compute dtype.
    epsilon: added to the variance in the norms.
  """

  width: int
  channels: int
  dtype: str
  epsilon: float

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch rows columns dim"]:
    x = self._conv(self.channels, 2, "conv_1")(images.astype(self.dtype))
    x = gelu(LayerNorm(self.epsilon, name="norm_1")(x))
    x = self._conv(self.channels, 1, "conv_2")(x)
    for stage, depth in enumerate(_DEPTHS, 1):
      for block in range(depth):
        name = f"stage_{stage}_block_{block}"
        x = MBConv(self.channels * stage, 1 if block else 2, self.dtype, self.epsilon, name=name)(x)
    return self._conv(self.width, 2, "conv_3")(LayerNorm(self.epsilon, name="norm_3")(x))

  @nn.nowrap
  def _conv(self, features: int, stride: int, name: str) -> nn.Conv:
    fields: Any = dict(kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name=name)
    return nn.Conv(features, (3, 3), stride, ((1, 1), (1, 1)), **fields)


def mbconv_flops(width: int, channels: int, image_size: int) -> int:
  """FLOPs of the stem for one image.

  Args:
    width: width of the tokens.
    channels: channels of the first stage.
    image_size: side of the image in pixels.
  """
  side, before = image_size // 2, channels
  total = 2 * side**2 * 9 * (3 * channels + channels**2)
  for stage, depth in enumerate(_DEPTHS, 1):
    features = channels * stage
    inner, places = _EXPANSION * features, (side // 2) ** 2
    total += 2 * (side**2 * before * inner + places * (before * features if before != features else 0))
    total += 2 * places * (depth * (9 + features) + (depth - 1) * features) * inner
    side, before = side // 2, features
  return total + 2 * (side // 2) ** 2 * 9 * before * width
