"""BERT: a text encoder with heads for masked words and for next-sentence prediction (Devlin et al. 2019)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.word_head import WordHead
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class BertConfig(ModelConfig):
  """A text encoder with BERT's two heads. Raises ValueError if the encoder is causal."""

  text: TextConfig = bert_config(init_scheme="bert")
  """The text encoder. With token_types=2 it distinguishes two segments."""

  def __post_init__(self) -> None:
    if self.text.causal:
      raise ValueError("BERT predicts a hidden word from both sides: set text.causal=False")

  def build(self) -> nn.Module:
    return Bert(self)


class Bert(nn.Module):
  """BERT. Parameters: text, word_head, next_projection."""

  config: BertConfig

  def setup(self) -> None:
    c = self.config.text
    self.text = TextTransformer(c)
    self.word_head = WordHead(c.norm_epsilon, c.dtype)
    self.next_projection = Dense(2, nn.initializers.normal(0.02))

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes batch["text"] and, if the rows have two segments, batch["segment"]."""
    return {"text": self.encode_words(batch["text"], rng=rng, segment=batch.get("segment"))}

  def encode_words(
    self, ids: Int[Array, "batch length"], *, rng: Rngs = None, segment: Int[Array, "batch length"] | None = None
  ) -> Encoded:
    """Encodes token ids, some of which an objective may have hidden."""
    return self.text(ids, segment, rng=fold_in(rng, 1))

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """Scores of all words in float32, at all positions or at gathered ones."""
    del fused  # there is nothing to fuse with
    return self.word_head(tokens, self.text.variables["params"]["token_embedding"])

  def next_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of next-sentence prediction in float32. Column 1: the second segment follows the first."""
    return self.next_projection(pooled.astype(jnp.float32))

  @nn.jit
  def encode_text(
    self, ids: Int[Array, "batch length"], types: Int[Array, "batch length"] | None = None
  ) -> Float[Array, "batch dim"]:
    """Text embeddings: the pooled vectors, in float32."""
    return self.text.encode_text(ids, types)

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Runs every part of the model once, for `init`."""
    text = self.encode(batch)["text"]
    return {"words": self.word_logits(text.tokens), "next": self.next_logits(text.pooled)}
