"""A tower of any modality, and a decoder that writes a text from its tokens, such as captions of videos."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.video import VideoConfig
from mmjax.models.config import ModelConfig
from mmjax.models.seq2seq import Seq2Seq
from mmjax.nn.decoder import Decoder
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class WriterConfig(ModelConfig):
  """Configuration of towers and a decoder. The term TargetText(source=NAME) trains it to write from the tower NAME."""

  towers: Mapping[str, TowerConfig] = dataclasses.field(
    default_factory=lambda: {"video": VideoConfig(output="patches")}, hash=False
  )
  """Towers by name. A tower encodes the array in the batch that has its name."""
  text: WordsConfig = WordsConfig(width=512, depth=6, num_heads=8)
  """The decoder and its vocabulary."""

  def __post_init__(self) -> None:
    if not self.towers or "text" in self.towers:
      raise ValueError(f"towers are {', '.join(self.towers) or 'none'}: name at least one, and none of them 'text'")

  def example(self, batch_size: int) -> dict[str, Array]:
    """Make a batch of zeros with the arrays that the model reads, for `init`."""
    text = jnp.zeros((batch_size, self.text.max_length), jnp.int32)
    return {name: tower.example(batch_size) for name, tower in self.towers.items()} | {"text": text}

  def build(self) -> nn.Module:
    return Writer(self)


class Writer(Seq2Seq):
  """Model of a WriterConfig. Parameters: each tower under its name, words, decoder.

  It decodes as `Seq2Seq` does; the context is the encoding of a tower.

  Example:
    >>> import jax
    >>> from mmjax.encoders import ViTConfig
    >>> tiny = dict(width=8, depth=1, num_heads=2)
    >>> tower = VideoConfig(frame=ViTConfig(image_size=8, patch_size=4, **tiny), frames=3)
    >>> config = WriterConfig(towers={"video": tower}, text=WordsConfig(vocab_size=50, max_length=4, **tiny))
    >>> logits, variables = config.build().init_with_output(jax.random.key(0), config.example(2))
    >>> logits.shape
    (2, 4, 50)
  """

  config: WriterConfig  # type: ignore[assignment]  # of a Seq2SeqConfig, `decode` and `empty_cache` read only text

  def setup(self) -> None:
    c = self.config
    for name, tower in c.towers.items():
      setattr(self, name, tower.build())
    self.words = Words(c.text)
    self.decoder = Decoder(c.text)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the arrays of the batch that have a tower."""
    towers = list(self.config.towers)
    return {
      name: getattr(self, name)(batch[name], rng=fold_in(rng, 2 + place))
      for place, name in enumerate(towers)
      if name in batch
    }

  def __call__(self, batch: Batch) -> Float[Array, "batch length vocab"]:
    """Runs every part of the model once, for `init`."""
    encoded: Any = self.encode(batch)
    return sum(self.decode(batch["text"], one) for one in encoded.values())
