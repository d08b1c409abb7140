"""Speech recognizer without a decoder: an encoder, and the scores of the symbols for each of its tokens (CTC)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.speech import SpeechConfig
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class SymbolsConfig:
  """Vocabulary of a recognizer. In training it is that of the tokenizer. The padding token is the blank of CTC."""

  vocab_size: int = 300
  """Number of token ids."""
  pad_id: int = 0
  """Token id of padding, and of the blank."""
  special_ids: tuple[int, ...] = (0,)
  """Token ids that stand for no text, with that of padding."""

  def __post_init__(self) -> None:
    if not 0 <= self.pad_id < self.vocab_size or self.pad_id not in self.special_ids:
      raise ValueError(
        f"pad_id={self.pad_id} must lie in [0, vocab_size={self.vocab_size}) and be one of special_ids="
        f"{self.special_ids}"
      )


@dataclasses.dataclass(frozen=True)
class RecognizerConfig(ModelConfig):
  """An encoder of sound, and a linear layer from its tokens to the scores of the symbols (Graves et al. 2006)."""

  audio: TowerConfig = SpeechConfig()
  """The encoder. Its tokens stand in the order of time."""
  text: SymbolsConfig = SymbolsConfig()
  """The vocabulary."""

  def example(self, batch_size: int) -> dict[str, Array]:
    return {"audio": self.audio.example(batch_size)}

  def build(self) -> nn.Module:
    return Recognizer(self)


class Recognizer(nn.Module):
  """Model of a RecognizerConfig. Parameters: audio (the encoder), symbol_projection/{kernel,bias}.

  The projection begins at zero, so that every symbol has the same score.

  Example:
    >>> import jax
    >>> from mmjax.encoders import SpeechConfig
    >>> audio = SpeechConfig(width=8, depth=1, num_heads=2, mel_bins=5, frames=12)
    >>> model = RecognizerConfig(audio, SymbolsConfig(vocab_size=30)).build()
    >>> logits, _ = model.init_with_output(jax.random.key(0), model.config.example(2))
    >>> logits.shape
    (2, 6, 30)
  """

  config: RecognizerConfig

  def setup(self) -> None:
    self.audio = self.config.audio.build()
    self.symbol_projection = Dense(self.config.text.vocab_size, nn.initializers.zeros)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the sounds batch["audio"]."""
    return {"audio": self.audio(batch["audio"], rng=fold_in(rng, 0))}

  def symbol_logits(self, encoded: Encoded) -> Float[Array, "batch frames symbols"]:
    """Scores of the symbols for each token, in float32."""
    return self.symbol_projection(encoded.tokens.astype(jnp.float32))

  def __call__(self, batch: Batch) -> Float[Array, "batch frames symbols"]:
    """Run every part of the model once, for `init`."""
    return self.symbol_logits(self.encode(batch)["audio"])
