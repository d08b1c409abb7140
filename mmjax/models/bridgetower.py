"""BridgeTower in the form of transformers' published models (Xu et al. 2023)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.comparing import clamped_scale, clipped_scale
from mmjax.models.config import ModelConfig
from mmjax.nn.decoder import DecoderBlock, Reading
from mmjax.nn.dense import Dense
from mmjax.nn.norm import LayerNorm, normalize
from mmjax.nn.pooling import TanhPool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Batch, Encoded

Head = Literal["none", "match", "contrastive"]
Link = Literal["add", "scaled_add", "interpolate"]
_IMAGE = ViTConfig(image_size=288, pool="cls", input_norm=True, class_position=True, stem_bias=False)
_TEXT = TextConfig(
  width=768,
  num_heads=12,
  norm="post",
  input_norm=True,
  pool="first",
  causal=False,
  count_positions=True,
  max_length=512,
)


@dataclasses.dataclass(frozen=True)
class BridgeTowerConfig(ModelConfig):
  """An image and a text encoder, and a stack that reads each of their last blocks.

  Raises ValueError if the fields are inconsistent.
  """

  image: ViTConfig = _IMAGE
  """The image encoder."""
  text: TextConfig = _TEXT
  """The text encoder."""
  cross: TransformerConfig = TransformerConfig(depth=6, norm="post")
  """The stack. Each of its blocks reads the block of each encoder that has the same number, counted from the last."""
  shared_transforms: bool = True
  """One linear layer for each modality brings the tokens of all blocks of its encoder into the stack. False: one for
  each block."""
  link: Link = "add"
  """Sum of an encoder's tokens and those of the stack: plain, with a learned factor of the former, or an interpolation
  by a learned number."""
  link_epsilon: float = 1e-5
  """Added to the variance in the layer norms of the sums."""
  head: Head = "none"
  """Head: none (BridgeTowerModel), image-text matching (BridgeTowerForImageAndTextRetrieval), or unit-norm embeddings
  of images, texts and pairs (BridgeTowerForContrastiveLearning)."""
  embed_dim: int = 512
  """Dimension of the embeddings, with head="contrastive"."""
  init_logit_scale: float = 1 / 0.07
  """Initial value of the learned factor of the similarities, with head="contrastive"."""
  max_logit_scale: float = 100.0
  """Upper limit of the learned factor. The parameter is clamped to it after each step; inf: no limit."""

  def __post_init__(self) -> None:
    if self.cross.width != self.text.width:
      raise ValueError(f"cross.width={self.cross.width} must be that of the text encoder, {self.text.width}")
    for name, tower in (("image", self.image), ("text", self.text)):
      if tower.depth < self.cross.depth:
        raise ValueError(f"{name}.depth={tower.depth} must be at least cross.depth={self.cross.depth}")
    if self.image.depth != self.text.depth:
      raise ValueError(f"image.depth={self.image.depth} must be equal to text.depth={self.text.depth}")
    if self.image.pool != "cls" or self.text.pool != "first":
      raise ValueError('image.pool must be "cls", and text.pool "first"')
    if self.head == "contrastive" and not self.shared_transforms:
      raise ValueError('head="contrastive" needs shared_transforms')

  def clamped(self, params: Any) -> Any:
    return clamped_scale(params, self.max_logit_scale) if self.head == "contrastive" else params

  def build(self) -> nn.Module:
    return BridgeTower(self)


class LinkSum(nn.Module):
  """Normalised sum of the tokens of an encoder and of the stack. Parameters: norm, and scale or share."""

  kind: Link
  epsilon: float

  @nn.compact
  def __call__(
    self, own: Float[Array, "batch length width"], stack: Float[Array, "batch length width"]
  ) -> Float[Array, "batch length width"]:
    if self.kind == "scaled_add":
      own = own * self.param("scale", nn.initializers.ones, (), jnp.float32).astype(own.dtype)
    elif self.kind == "interpolate":
      share = self.param("share", nn.initializers.constant(0.5), (), jnp.float32).astype(own.dtype)
      own, stack = own * (1 - share), stack * share
    return LayerNorm(self.epsilon, name="norm")(own + stack)


class BridgeTower(nn.Module):
  """transformers' BridgeTower, with one of its heads.

  Parameters: image, text; for each of the two a list of {image,text}_transforms, _blocks and _links, and
  {image,text}_norm and _pool; type_embedding. Heads: match_projection; or {image,text,pair}_projection and logit_scale
  (its logarithm).
  """

  config: BridgeTowerConfig

  def setup(self) -> None:
    c, width = self.config, self.config.cross.width
    init = nn.initializers.normal(width**-0.5)
    self.image, self.text = ViT(c.image), TextTransformer(c.text)
    self.type_embedding = self.param("type_embedding", nn.initializers.normal(0.02), (2, width), jnp.float32)
    transforms = lambda: [
      Dense(width, init, dtype=c.cross.dtype) for _ in range(1 if c.shared_transforms else self.taps)
    ]
    blocks = lambda: [DecoderBlock(c.cross, causal=False, separate_causal=False) for _ in range(self.taps)]
    links = lambda: [LinkSum(c.link, c.link_epsilon) for _ in range(self.taps - 1)]
    self.image_transforms, self.text_transforms = transforms(), transforms()
    self.image_blocks, self.text_blocks = blocks(), blocks()
    self.image_links, self.text_links = links(), links()
    self.image_norm, self.text_norm = LayerNorm(c.link_epsilon), LayerNorm(c.link_epsilon)
    pool = lambda: TanhPool(c.cross.dtype, c.cross.init_scheme)
    self.image_pool, self.text_pool = pool(), pool()
    if c.head == "match":
      self.match_projection = Dense(2, init)
    if c.head == "contrastive":
      self.image_projection, self.text_projection, self.pair_projection = (Dense(c.embed_dim, init) for _ in range(3))
      start = nn.initializers.constant(math.log(c.init_logit_scale))
      self.log_scale = self.param("logit_scale", start, ())

  @property
  def taps(self) -> int:
    """Number of blocks of each encoder that the stack reads."""
    return self.config.cross.depth

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images and texts of the batch separately.

    `tokens` are those after each block that the stack reads, one block after the other.
    """
    encoded = {}
    if "image" in batch:
      encoded["image"] = self.image(batch["image"], rng=fold_in(rng, 0), taps=self.taps)
    if "text" in batch:
      encoded["text"] = self.text(batch["text"], rng=fold_in(rng, 1), taps=self.taps)
    return encoded

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """The tokens of texts that have read the image, and those of images that have read the text.

    `pooled` of both is the pooled text beside the pooled image.
    """
    mask = self._last(encoded["text"].mask)
    images, texts = (self._in_stack(name, encoded[name].tokens) for name in ("image", "text"))
    image, text = self.image_norm(images[0]), self.text_norm(texts[0])
    for number in range(self.taps):
      if number:
        image, text = (
          self.image_links[number - 1](images[number], image),
          self.text_links[number - 1](texts[number], text),
        )
      at, keys = jnp.asarray(number), (fold_in(rng, 2), fold_in(rng, 3))
      read_text, read_image = Reading(context=text, context_mask=mask), Reading(mask=mask, context=image)
      image, _ = self.image_blocks[number](image, read_text, keys[0], at)
      text, _ = self.text_blocks[number](text, read_image, keys[1], at)
    pooled = jnp.concatenate([self.text_pool(text[:, 0]), self.image_pool(image[:, 0])], axis=-1)
    return {"text": Encoded(text, mask, pooled), "image": Encoded(image, jnp.ones(image.shape[:2], bool), pooled)}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32, with head="match". Column 1: image and text belong together."""
    return self.match_projection(pooled.astype(jnp.float32))

  def project(self, encoded: Mapping[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Unit-norm float32 embeddings of the results of `encode`, by the same names, with head="contrastive"."""
    first = {name: self._last(e.tokens)[:, 0] for name, e in encoded.items()}
    if "image" in first:
      first["image"] = self.image_transforms[0](first["image"]) + self.type_embedding[1][None].astype(
        first["image"].dtype
      )
    heads = {"image": self.image_projection, "text": self.text_projection}
    return {name: normalize(heads[name](token.astype(jnp.float32))) for name, token in first.items()}

  def embed_pairs(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch dim"]:
    """Unit-norm float32 embeddings of pairs, from the pooled vectors of `fuse`, with head="contrastive"."""
    return normalize(self.pair_projection(pooled.astype(jnp.float32)))

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """Unit-norm float32 embeddings of normalised images, with head="contrastive"."""
    return self.project(self.encode({"image": images}))["image"]

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch dim"]:
    """Unit-norm float32 embeddings of token ids, with head="contrastive"."""
    return self.project(self.encode({"text": ids}))["text"]

  def logit_scale(self) -> Float[Array, ""]:
    """Factor of the similarities, at most max_logit_scale."""
    return clipped_scale(self.log_scale, self.config.max_logit_scale)

  def logit_bias(self) -> Float[Array, ""]:
    """Bias of the logits: 0."""
    return jnp.zeros((), jnp.float32)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model. Returns the pooled vector and the results of the head."""
    encoded = self.encode(batch)
    pooled = self.fuse(encoded)["text"].pooled
    match self.config.head:
      case "match":
        more = {"match": self.match_logits(pooled)}
      case "contrastive":
        more = {**self.project(encoded), "pair": self.embed_pairs(pooled)}
      case _:
        more = {}
    return {"pooled": pooled, **more}

  def _last(self, tapped: Array) -> Array:
    """The part of the last block."""
    return tapped[:, tapped.shape[1] // self.taps * (self.taps - 1) :]

  def _in_stack(self, name: str, tapped: Float[Array, "batch tokens width"]) -> list[Array]:
    """Tokens of an encoder after each block, brought into the stack."""
    transforms = getattr(self, f"{name}_transforms")
    kind = self.type_embedding[int(name == "image")][None, None]
    each = rearrange(tapped, "b (t l) d -> t b l d", t=self.taps)
    return [transforms[n % len(transforms)](states) + kind.astype(states.dtype) for n, states in enumerate(each)]
