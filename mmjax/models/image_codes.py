"""Image tokenizer: an image becomes a grid of codes, and codes become an image (VQ-VAE, FSQ, DALL-E's dVAE)."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.conv_grid import ConvGrid, ConvGridConfig, ConvImage
from mmjax.models.config import ModelConfig
from mmjax.models.quantizers import Fsq, QuantizerConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class ImageCodesConfig(ModelConfig):
  """Configuration of an image tokenizer. The term Reconstruct trains it."""

  image: ConvGridConfig = ConvGridConfig()
  """Convolutional encoder. The decoder mirrors it."""
  quantizer: QuantizerConfig = Fsq()
  """Quantizer of the grid's vectors."""
  discriminator: ConvGridConfig | None = None
  """Discriminator of patches, for the terms Discriminate and Deceive (VQGAN, Esser et al. 2021). None: none."""

  def __post_init__(self) -> None:
    if self.discriminator is not None and self.discriminator.image_size != self.image.image_size:
      raise ValueError(
        f"discriminator.image_size is {self.discriminator.image_size}, and image.image_size {self.image.image_size}: "
        "make them equal"
      )

  @property
  def num_codes(self) -> int:
    """Number of codes. They are 0 to num_codes - 1."""
    return self.quantizer.num_codes

  @property
  def image_size(self) -> int:
    """Side of the images in pixels."""
    return self.image.image_size

  @property
  def counts_codes(self) -> bool:
    return True

  @property
  def positions(self) -> int:
    """Codes of an image."""
    return self.image.grid**2

  def example(self, batch_size: int) -> dict[str, Array]:
    return {"image": self.image.example(batch_size)}

  def build(self) -> nn.Module:
    return ImageCodes(self)


@flax.struct.dataclass
class Reconstruction:
  """An image after the way through the codes.

  Attributes:
    images: normalised pixels.
    codes: the codes of the images.
    penalty: loss of the quantizer for each example.
  """

  images: Float[Array, "batch height width 3"]
  codes: Int[Array, "batch positions"]
  penalty: Float[Array, "batch"]


class ImageCodes(nn.Module):
  """Model of an ImageCodesConfig. Parameters: image, quantizer, projection, image_decoder, discriminator (if any).

  Example:
    >>> import jax
    >>> config = ImageCodesConfig(ConvGridConfig(image_size=8, width=4), Fsq((3, 3)))
    >>> images, variables = config.build().init_with_output(jax.random.key(0), config.example(2))
    >>> images.shape
    (2, 8, 8, 3)
    >>> codes = config.build().apply(variables, images, method="codes")
    >>> codes.shape, config.build().apply(variables, codes, method="pixels").shape
    ((2, 4), (2, 8, 8, 3))
  """

  config: ImageCodesConfig

  def setup(self) -> None:
    c = self.config
    self.image = c.image.build()
    self.quantizer = c.quantizer.build()
    self.projection = Dense(c.image.width, nn.initializers.lecun_normal())
    self.image_decoder = ConvImage(c.image)
    if c.discriminator is not None:
      self.discriminator = Discriminator(c.discriminator)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """The vectors of the grid before they are quantized."""
    return {"image": self.image(batch["image"], rng=rng)}

  def codes(self, images: Float[Array, "batch height width 3"]) -> Int[Array, "batch positions"]:
    """Encode normalised images: one code for each position of the grid, row by row."""
    return self.quantizer(self.image(images).tokens).codes

  def pixels(self, codes: Int[Array, "batch positions"]) -> Float[Array, "batch height width 3"]:
    """Decode codes to normalised images."""
    return self.image_decoder(self.projection(self.quantizer.lookup(codes)))

  def reconstruct(
    self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None, step: Array | int = 0
  ) -> Reconstruction:
    """Encode and decode.

    Args:
      images: normalised images.
      rng: one key per example. None: evaluation.
      step: number of optimiser steps, for schedules of the quantizer.
    """
    found = self.quantizer(self.image(images, rng=rng).tokens, rng=rng, step=step)
    return Reconstruction(self.image_decoder(self.projection(found.latents)), found.codes, found.penalty)

  def reality_logits(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch patches"]:
    """Logits of the discriminator that each patch is of an image, and not of a reconstruction."""
    return self.discriminator(images)

  def code_usage(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(share of the codes in use, perplexity of the codes), over the last training batches."""
    return self.quantizer.usage()

  def __call__(self, batch: Batch) -> Float[Array, "batch height width 3"]:
    """Runs every part of the model once, for `init`."""
    images = self.reconstruct(batch["image"]).images
    if self.config.discriminator is not None:
      self.reality_logits(images)
    return images


class Discriminator(nn.Module):
  """Discriminator of patches (Isola et al. 2017, PatchGAN). Parameters: grid, projection."""

  config: ConvGridConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch patches"]:
    tokens = ConvGrid(self.config, name="grid")(images).tokens
    return Dense(1, nn.initializers.lecun_normal(), name="projection")(tokens)[..., 0].astype(jnp.float32)
