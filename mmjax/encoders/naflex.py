"""Vision transformer for images of any shape: rows of patches in, patch tokens out (NaFlex)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.data.images.native import PADDED, row_width
from mmjax.encoders.vit import ViT, ViTConfig, map_config
from mmjax.nn.embeddings import PatchEmbed, resampled_positions
from mmjax.nn.flops import attention_pool_flops, transformer_flops
from mmjax.nn.initial import embedding_init
from mmjax.nn.pooling import AttentionPool, mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Transformer
from mmjax.types import Encoded

_FIXED = (
  *("stem", "positions", "patch_bias", "rotary", "patch_norm", "class_position", "registers", "register_position"),
  *("norm_after_pool", "tanh_pool", "patch_dropout", "drop_remainder"),
)
"""Settings of a ViT that a NaFlex tower does not have."""


@dataclasses.dataclass(frozen=True)
class NaFlexConfig(ViTConfig):
  """Configuration of a vision transformer for images of any shape, for the array of a column `NativeImage`.

  image_size is the side of the square image whose patches have one learned position embedding each. For another shape,
  the position embeddings are resampled. Raises ValueError if the fields are inconsistent.
  """

  patches: int = 256
  """Longest row of patches (the longest of NativeImage.lengths)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in _FIXED:
      value, only = getattr(self, name), getattr(ViTConfig, name)
      if value != only:
        raise ValueError(f"{name}={value!r} is not an option of a NaFlex tower, which supports only {only!r}")
    if self.pool not in ("map", "mean"):
      raise ValueError(f'pool="{self.pool}" is not an option of a NaFlex tower: set pool to "map" or "mean"')
    if self.patches < 1:
      raise ValueError(f"patches={self.patches} must be at least 1")

  def flops(self) -> int:
    total = 2 * self.patches * self.width * (3 * self.patch_size**2 + self.grid**2) + transformer_flops(
      self, self.patches
    )
    return total + (attention_pool_flops(map_config(self), self.patches) if self.pool == "map" else 0)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.patches, row_width(self.patch_size)), jnp.float32)

  def build(self) -> nn.Module:
    return NaFlexViT(self)


class NaFlexViT(ViT):
  """Vision transformer for images of any shape. Its parameters are those of a `ViT`.

  An image of the shape image_size x image_size gets the embedding that a `ViT` with the same parameters gives it.

  Example:
    >>> import jax, numpy as np
    >>> from mmjax.data.images.native import to_row
    >>> config = NaFlexConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2, patches=6)
    >>> rows = np.stack([to_row(np.zeros(shape), 4, 6) for shape in ((4, 12, 3), (8, 8, 3))])
    >>> encoded, variables = config.build().init_with_output(jax.random.key(0), rows)
    >>> encoded.tokens.shape, encoded.pooled.shape, encoded.mask.sum(1).tolist()
    ((2, 6, 8), (2, 8), [3, 4])
  """

  config: NaFlexConfig

  @nn.compact
  def __call__(  # type: ignore[override]
    self,
    images: Float[Array, "batch length values"] | Float[Array, "batch height width 3"],
    *,
    rng: Rngs = None,
  ) -> Encoded:
    """Encodes images.

    Args:
      images: rows of patches (mmjax.data.images.native) of any length, or normalised images of one shape, whose sides
        are whole patches.
      rng: one key per example for dropout of elements and stochastic depth; None: evaluation.
    Raises:
      ValueError: the images are neither.
    """
    c = self.config
    pixels, places, mask = _patches(images, c.patch_size)
    # Each patch is a line of an image that is one patch wide, so that the stem is that of a ViT.
    tall = rearrange(pixels, "b n (p q c) -> b (n p) q c", p=c.patch_size, q=c.patch_size)
    x = PatchEmbed(c.width, c.patch_size, c.dtype, c.stem_bias, name="stem")(tall)[:, :, 0]
    init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
    positions = self.param("position_embedding", init, (c.grid**2, c.width), jnp.float32)
    x = x + resampled_positions(rearrange(positions, "(i j) d -> i j d", i=c.grid), places).astype(x.dtype)
    readable = mask if images.ndim == 3 else None
    tokens, _ = Transformer(c, name="transformer")(x, readable, rng=fold_in(rng, 1))
    pool = AttentionPool(map_config(c), name="pool") if c.pool == "map" else mean_pool
    return Encoded(tokens, mask, pool(tokens, mask))


def _patches(
  images: Array, side: int
) -> tuple[Float[Array, "batch length values"], Float[Array, "batch length 2"], Bool[Array, "batch length"]]:
  """Pixels, places and mask of the patches of rows or of images."""
  if images.ndim == 3 and images.shape[2] == row_width(side):
    places = images[..., -2:]
    return images[..., :-2], places, places[..., 0] > PADDED / 2
  if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] % side or images.shape[2] % side:
    raise ValueError(
      f"images have the shape {images.shape}, but must be rows of patches [batch, length, {row_width(side)}], or "
      f"images [batch, height, width, 3] whose sides are multiples of patch_size={side}"
    )
  pixels = rearrange(images, "b (y p) (x q) c -> b (y x) (p q c)", p=side, q=side)
  rows, columns = images.shape[1] // side, images.shape[2] // side
  places = jnp.stack(jnp.divmod(jnp.arange(rows * columns), columns), axis=-1).astype(jnp.float32)
  both = (images.shape[0], rows * columns)
  return pixels, jnp.broadcast_to(places[None], (*both, 2)), jnp.ones(both, bool)
