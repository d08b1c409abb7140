"""FLAVA in the form of transformers' FlavaModel: three encoders with poolers, a shared space (Singh et al. 2022)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.fusion.joint import MergedAttention
from mmjax.fusion.tokens import split
from mmjax.models.shared_space import Projection
from mmjax.models.two_tower import TwoTower, TwoTowerConfig
from mmjax.nn.norm import layer_norm
from mmjax.nn.pooling import TanhPool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class PublishedFlavaConfig(TwoTowerConfig):
  """An image encoder, a text encoder, and a multimodal encoder. Raises ValueError if the text is causal."""

  image: ViTConfig = ViTConfig(pool="cls", class_position=True, tanh_pool=True, norm_epsilon=1e-12)
  """The image encoder, with a class token."""
  text: TextConfig = bert_config(norm="pre")
  """The text encoder. Texts begin with a [CLS] token (data.tokenizer.cls_token), which represents the text."""
  fusion: TransformerConfig = TransformerConfig(depth=6, norm_epsilon=1e-12)
  """The multimodal encoder."""
  embed_dim: int = 768
  image_projection: Projection = "affine"
  text_projection: Projection = "affine"

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.text.causal or self.text.pool != "first" or self.image.pool != "cls":
      raise ValueError(
        'the first token represents an image or a text: set text.causal=False, text.pool="first" and image.pool="cls"'
      )
    if "none" in (self.image_projection, self.text_projection):
      raise ValueError('FLAVA has projections of images and texts: set them to "affine" or "linear"')
    if {self.image.norm, self.text.norm} != {"pre"} or self.image.rms_norm or self.text.rms_norm:
      raise ValueError('FLAVA\'s encoders end in a layer norm: set norm="pre" and rms_norm=False')

  def build(self) -> nn.Module:
    return PublishedFlava(self)


class PublishedFlava(TwoTower):
  """transformers' FlavaModel.

  The multimodal encoder reads the tokens before the last norm of each encoder. Embeddings are computed from the first
  token after that norm and before the pooler.

  Parameters: those of TwoTower, fusion, and tanh_pool, the pooler of the multimodal encoder.
  """

  config: PublishedFlavaConfig
  token_order = ("class", "image", "text")

  def setup(self) -> None:
    super().setup()
    c = self.config.fusion
    self.fusion, self.tanh_pool = MergedAttention(c), TanhPool(c.dtype, c.init_scheme)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the images and texts of the batch separately.

    The tokens are those before the last norm, and `pooled` is the pooler's vector.
    """
    found = {}
    for stream, name in enumerate(("image", "text")):
      if name in batch:
        found[name] = getattr(self, name)(batch[name], rng=fold_in(rng, stream), raw=True)
    return found

  def embedding(self, name: str, encoded: Encoded) -> Float[Array, "batch dim"]:
    """Project the first token of an encoding to the shared space. The embedding is float32 and not unit-norm."""
    tower: Any = getattr(self, name)
    last = tower.variables["params"]["transformer"]["norm"]
    first = layer_norm(encoded.tokens[:, 0], last["scale"], last["bias"], tower.config.norm_epsilon)
    return getattr(self, f"{name}_projection")(first.astype(jnp.float32))

  @nn.jit
  def encode_image(
    self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None
  ) -> Float[Array, "batch dim"]:
    """Compute embeddings of normalised images. They are float32 and not unit-norm."""
    return self.embedding("image", self.encode({"image": images}, rng=rng)["image"])

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Float[Array, "batch dim"]:
    """Compute embeddings of token ids. They are float32 and not unit-norm."""
    return self.embedding("text", self.encode({"text": ids}, rng=rng)["text"])

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fused tokens of text and image, which attend to each other. `pooled` is the multimodal encoder's pooler."""
    image, text = encoded["image"], encoded["text"]
    fused = self.fusion(image, text, rng=rng)
    fused = Encoded(fused.tokens, fused.mask, self.tanh_pool(fused.pooled))
    patches, words = split(fused, (image, text))
    return {"text": words, "image": patches}

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Run all parts once, for `init`."""
    encoded = self.encode(batch)
    return self.project(encoded) | {"fused": self.fuse(encoded)["text"].pooled}
