"""ViLT in the form of transformers' published models: without a head, for answers, matching and hidden words."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.models.vilt import Vilt, ViltConfig
from mmjax.nn.dense import Dense
from mmjax.nn.initial import embedding_init
from mmjax.nn.mlp import gelu
from mmjax.nn.norm import LayerNorm
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class PublishedViltConfig(ViltConfig):
  """ViLT whose words have a norm and segments of their own. Raises ValueError if the fields are inconsistent."""

  text: TextConfig = bert_config(norm="pre", tanh_pool=False, max_length=40)
  """The transformer and its words. `input_norm` normalises the words, and not the patches."""
  image_class_token: bool = True
  head: Literal["none", "answers", "match", "words"] = "none"
  """Head: none (ViltModel), scores of answers (ViltForQuestionAnswering), a score of the pair
  (ViltForImageAndTextRetrieval), or scores of words (ViltForMaskedLM)."""
  num_answers: int = 3129
  """Number of answers, with head="answers"."""
  answers: tuple[str, ...] = ()
  """The answers of published weights. Empty: unknown."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.answers and len(self.answers) != self.num_answers:
      raise ValueError(f"answers has {len(self.answers)} texts, but num_answers is {self.num_answers}")

  @property
  def stream(self) -> TransformerConfig:
    return dataclasses.replace(super().stream, input_norm=False)

  def build(self) -> nn.Module:
    return PublishedVilt(self)


class PublishedVilt(Vilt):
  """transformers' ViLT, with one of its heads.

  Parameters: those of Vilt's embeddings and stream, tanh_pool, segment_embedding and word_norm. Heads:
  answer_up_projection, answer_norm and answer_projection; pair_projection; or word_head.
  """

  config: PublishedViltConfig

  def setup(self) -> None:
    super().setup()
    c, t, init = self.config, self.config.text, nn.initializers.normal(0.02)
    if t.token_types:
      embedding = embedding_init(t.init_scheme, 0.02, t.width)
      self.segments = self.param("segment_embedding", embedding, (t.token_types, t.width), jnp.float32)
    self.word_norm = LayerNorm(t.norm_epsilon) if t.input_norm else None
    self.answer_up_projection, self.answer_norm = Dense(2 * t.width, init), LayerNorm(1e-5)  # PyTorch's epsilon
    self.answer_projection, self.pair_projection = Dense(c.num_answers, init), Dense(1, init)

  def encode_words(
    self, ids: Int[Array, "batch length"], *, rng: Rngs = None, segment: Int[Array, "batch length"] | None = None
  ) -> Encoded:
    """Embeds words. `segment` is the number of each word's text; None: 0. `rng` is ignored."""
    encoded = super().encode_words(ids, rng=rng)
    tokens = encoded.tokens
    if self.config.text.token_types:
      rows = jnp.take(self.segments, jnp.zeros_like(ids) if segment is None else segment, axis=0)
      tokens = tokens + rows.astype(tokens.dtype)
    tokens = tokens if self.word_norm is None else self.word_norm(tokens)
    return Encoded(tokens, encoded.mask, tokens[:, 0])

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]:
    """Scores of the answers in float32, with head="answers"."""
    return self.answer_projection(gelu(self.answer_norm(self.answer_up_projection(pooled.astype(jnp.float32)))))

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32, with head="match". Column 1: the score of the pair; column 0: zero."""
    score = self.pair_projection(pooled.astype(jnp.float32))
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Runs every part of the model. Returns the pooled vector and the head's scores."""
    fused = self.fuse(self.encode(batch))["text"]
    match self.config.head:
      case "answers":
        scores = {"answer": self.answer_logits(fused.pooled)}
      case "match":
        scores = {"match": self.match_logits(fused.pooled)}
      case "words":
        scores = {"words": self.word_logits(fused.tokens)}
      case _:
        scores = {}
    return {"pooled": fused.pooled, **scores}
