"""Gated cross-attention, which lets a frozen language model read images (Alayrac et al. 2022, section 2.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.cache import CachedAttention, KeyValue
from mmjax.nn.initial import kernel_init
from mmjax.nn.transformer import TransformerConfig, block_attention, block_mlp, norm_layer


class GatedCrossBlock(nn.Module):
  """x + tanh(a) attention(norm(x), images), then x + tanh(b) mlp(norm(x)).

  The gates a and b are scalars that begin at 0. The block then returns its input.

  Parameters: norm1, cross_attention, attention_gate; norm2, mlp, mlp_gate.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    images: Float[Array, "batch k image_width"] | None,
    readable: Bool[Array, "batch length k"] | None,
    memory: KeyValue | None = None,
  ) -> tuple[Float[Array, "batch length width"], KeyValue | None]:
    """Applies the block.

    Args:
      x: tokens of a text.
      images: tokens of its images. None: they are in `memory`, or there are none.
      readable: True for a token of the text and a token of an image that it may read. None without images.
      memory: keys and values of the images, from an earlier call. None: they are computed.
    Returns: (tokens, keys and values of the images).
    """
    c = self.config
    init = kernel_init(c.init_scheme, c.width**-0.5 * (2 * c.depth) ** -0.5)
    if images is not None or memory is not None:
      attend = CachedAttention(**block_attention(c, init), name="cross_attention")
      known = memory if images is None else None
      read, memory = attend(norm_layer(c, "norm1")(x), known, context=images, readable=readable)
      x = x + self._gate("attention_gate", x.dtype) * read
    thought = block_mlp(c, init, "mlp")(norm_layer(c, "norm2")(x))
    return x + self._gate("mlp_gate", x.dtype) * thought, memory

  @nn.nowrap
  def _gate(self, name: str, dtype: jnp.dtype) -> Float[Array, ""]:
    return jnp.tanh(self.param(name, nn.initializers.zeros, (), jnp.float32)).astype(dtype)


def last_image_mask(
  seen: Int[Array, "batch length"], images: int, tokens: int
) -> Bool[Array, "batch length images*tokens"]:
  """True for a token of a text and the tokens of the last image before it (Alayrac et al. 2022, section 2.3).

  Args:
    seen: number of images up to each token of the text. A token with none reads nothing.
    images: number of images of a row.
    tokens: tokens of an image.

  Example:
    >>> import jax.numpy as jnp
    >>> last_image_mask(jnp.array([[0, 1, 2]]), images=2, tokens=1).tolist()
    [[[False, False], [True, False], [False, True]]]
  """
  number = 1 + jnp.repeat(jnp.arange(images, dtype=jnp.int32), tokens)
  return seen[:, :, None] == number[None, None]
