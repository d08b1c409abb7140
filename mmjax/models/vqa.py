"""Visual question answering: two encoders, a fusion, and heads for answers and for the relevant pixels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.fusion.config import FusionConfig, make_fusion
from mmjax.fusion.late import Decision, decisions
from mmjax.fusion.tokens import split
from mmjax.models.config import ModelConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded

_JOINT = ("merged_attention", "early")  # one sequence of tokens, of any number of modalities
_BY_TOKEN = (*_JOINT, "co_attention", "bottleneck", "gcn", "gat")


@dataclasses.dataclass(frozen=True)
class VqaConfig(ModelConfig):
  """Towers, fusion and heads. Raises ValueError where they do not fit each other."""

  image: ViTConfig = ViTConfig(pool="mean")
  """The image encoder."""
  text: TextConfig = TextConfig(causal=False, pool="mean")
  """The encoder of the question."""
  fusion: FusionConfig = FusionConfig(depth=6)
  """The fusion. "merged_attention" is the joint transformer. "late" averages the scores of both modalities, and its
  width is set to the number of answers.
  """
  sees: Literal["both", "image", "text"] = "both"
  """Modalities that the fusion gets. One modality alone is a control, for merged_attention and early."""
  num_answers: int = 3129
  """Number of answer classes."""
  decoder_depth: int = 0
  """Blocks of a decoder that writes the answer from the fused question; 0: no decoder."""

  def __post_init__(self) -> None:
    if self.sees != "both" and self.fusion.kind not in _JOINT:
      raise ValueError(
        f'sees="{self.sees}" needs a fusion of any number of modalities: set fusion.kind to {" or ".join(_JOINT)}'
      )
    if self.decoder_depth and self.sees == "image":
      raise ValueError('the decoder reads the fused question, and sees="image" has none: set decoder_depth=0')
    if self.fusion.kind == "cross_attention" and self.fusion.width != self.text.width:
      raise ValueError(f"cross_attention has the width of the question's tokens: set fusion.width={self.text.width}")

  @property
  def operator(self) -> FusionConfig:
    """Configuration of the fusion as it is built."""
    late = self.fusion.kind == "late"
    return dataclasses.replace(self.fusion, width=self.num_answers, num_heads=1) if late else self.fusion

  @property
  def writer(self) -> WordsConfig:
    """Configuration of the decoder: that of the question encoder, with its own depth."""
    fields = [field.name for field in dataclasses.fields(TransformerConfig)]
    shared = {name: getattr(self.text, name) for name in (*fields, "vocab_size", "max_length", "pad_id", "eos_id")}
    return WordsConfig(**shared | {"depth": self.decoder_depth})

  def build(self) -> nn.Module:
    return VqaWriter(self) if self.decoder_depth else Vqa(self)


class Vqa(nn.Module):
  """Visual question answering by classification of answers.

  Parameters: image, text, fusion, answer_projection (except with late fusion), relevance_projection.
  """

  config: VqaConfig

  def setup(self) -> None:
    c = self.config
    self.image, self.text, self.fusion = ViT(c.image), TextTransformer(c.text), make_fusion(c.operator)
    if c.fusion.kind != "late":
      self.answer_projection = Dense(c.num_answers, nn.initializers.normal(0.02))
    self.relevance_projection = Dense(c.image.patch_size**2, nn.initializers.normal(0.02))

  @property
  def token_order(self) -> tuple[str, ...] | None:
    """Order of the tokens in the fusion's one sequence; None if it has none (`mmjax.evaluate.attention_maps`)."""
    orders = {"merged_attention": ("class", "text", "image"), "early": ("text", "image")}
    return orders.get(self.config.fusion.kind)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images and questions of the batch separately. The batch may contain only one of the two."""
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    return encoded | ({"text": self.text(batch["text"], rng=fold_in(rng, 1))} if "text" in batch else {})

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fuses image and question. The result has an entry for each modality that the fusion reads.

    If the fusion returns no image tokens (it pools, or only the question reads), "image" holds the image encoder's
    tokens.
    """
    image, text = encoded["image"], encoded["text"]
    c = self.config
    seen = {name: e for name, e in (("text", text), ("image", image)) if c.sees in ("both", name)}
    fused = self.fusion(*seen.values(), rng=rng)
    if c.fusion.kind in _BY_TOKEN:
      return dict(zip(seen, split(fused, list(seen.values())), strict=True))
    return {"text": fused, "image": Encoded(image.tokens, image.mask, fused.pooled)}

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]:
    """Scores of the answers in float32. With late fusion, the joint vector already contains the scores."""
    pooled = pooled.astype(jnp.float32)
    return pooled if self.config.fusion.kind == "late" else self.answer_projection(pooled)

  def modality_logits(self, fused: dict[str, Encoded]) -> dict[str, Decision]:
    """Scores of the answers from each modality alone, for late fusion. `answer_logits` has their average."""
    return decisions(fused["text"], ("text", "image"), self.config.fusion.kind)

  def relevance_logits(self, tokens: Float[Array, "batch places dim"]) -> Float[Array, "batch height width"]:
    """Logits in float32 of the probability that the question is about a pixel.

    The last tokens must be the image's patches.
    """
    c = self.config.image
    pixels = self.relevance_projection(tokens[:, -(c.grid**2) :].astype(jnp.float32))
    return rearrange(pixels, "b (y x) (p q) -> b (y p) (x q)", y=c.grid, p=c.patch_size)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    fused = self.fuse(encoded)
    answers = self.answer_logits(next(iter(fused.values())).pooled)
    masks = {"relevance": self.relevance_logits(fused["image"].tokens)} if "image" in fused else {}
    return {"answer": answers, **masks}


class VqaWriter(Vqa):
  """`Vqa` with a decoder that writes answers. Further parameters: words (the table that embeds and scores), decoder."""

  def setup(self) -> None:
    super().setup()
    self.words, self.decoder = Words(self.config.writer), Decoder(self.config.writer)

  def decode(
    self,
    ids: Int[Array, "batch length"],
    question: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Cache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Args:
      ids: token ids of the answer. With a cache, the ids that follow the cached ones.
      question: the fused question. With a cache, None except in the first call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; the decoder embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    """
    del text  # the decoder embeds the words itself
    words = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.decoder(words, context=question, causal=True, rng=fold_in(rng, 2), cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` answers."""
    return self.config.writer.cache(batch_size, length)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    question = self.fuse(encoded)["text"]
    return super().__call__(batch) | {"words": self.decode(batch["text"], question)}
