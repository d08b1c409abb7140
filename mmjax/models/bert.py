"""BERT: a text tower that fills in hidden words and knows which sentences follow each other (Devlin et al. 2019)."""

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
  """A text tower with BERT's two heads. Raises ValueError for a tower that reads only backwards."""

  text: TextConfig = bert_config()
  """The text tower; token_types=2 lets it tell two segments apart."""

  def __post_init__(self) -> None:
    if self.text.causal:
      raise ValueError("BERT guesses a word from both sides: set text.causal=False")

  def build(self) -> nn.Module:
    return Bert(self)


class Bert(nn.Module):
  """Parameters: text, word_head, next_projection."""

  config: BertConfig

  def setup(self) -> None:
    c = self.config.text
    self.text = TextTransformer(c)
    self.word_head = WordHead(c.norm_epsilon, c.dtype)
    self.next_projection = Dense(2, nn.initializers.normal(0.02))

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """The text tower on batch["text"] and, where there are two segments in a row, batch["segment"]."""
    return {"text": self.encode_words(batch["text"], rng=rng, segment=batch.get("segment"))}

  def encode_words(
    self, ids: Int[Array, "batch length"], *, rng: Rngs = None, segment: Int[Array, "batch length"] | None = None
  ) -> Encoded:
    """The text tower on these ids, some of which an objective has hidden."""
    return self.text(ids, segment, rng=fold_in(rng, 1))

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """float32 scores of each word at each place (of all places, or of those that were gathered)."""
    del fused  # there is nothing to fuse with
    return self.word_head(tokens, self.text.variables["params"]["token_embedding"])

  def next_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """float32; column 1: the second segment follows the first."""
    return self.next_projection(pooled.astype(jnp.float32))

  def encode_text(
    self, ids: Int[Array, "batch length"], types: Int[Array, "batch length"] | None = None
  ) -> Float[Array, "batch dim"]:
    """The pooled vector alone, float32."""
    return self.text.encode_text(ids, types)

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """What `init` runs: everything once."""
    text = self.encode(batch)["text"]
    return {"words": self.word_logits(text.tokens), "next": self.next_logits(text.pooled)}
