"""Whisper: it hears speech and writes a text (Radford et al. 2023), an encoder-decoder transformer."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.speech import SpeechConfig, SpeechTransformer
from mmjax.models.config import ModelConfig
from mmjax.models.seq2seq import Seq2Seq
from mmjax.nn.decoder import Decoder
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class WhisperConfig(ModelConfig):
  """A speech encoder, and a decoder that reads it. The defaults are Whisper tiny's."""

  audio: SpeechConfig = SpeechConfig()
  """The speech encoder."""
  text: WordsConfig = WordsConfig(
    width=384,
    depth=4,
    num_heads=6,
    norm_epsilon=1e-5,
    attention_bias="query_value",
    vocab_size=51_865,
    max_length=448,
    pad_id=50_257,
    eos_id=50_257,
  )
  """The decoder and its vocabulary."""
  begin_id: int = 50_258
  """Token id with which every text begins (training: data.tokenizer.bos_token)."""

  def example(self, batch_size: int) -> dict[str, Array]:
    """Make a batch of zeros with the arrays that the model encodes, for `init`."""
    text = jnp.zeros((batch_size, self.text.max_length), jnp.int32)
    return {"audio": self.audio.example(batch_size), "text": text}

  def build(self) -> nn.Module:
    return Whisper(self)


class Whisper(Seq2Seq):
  """transformers' WhisperForConditionalGeneration. Parameters: audio (the encoder), words, decoder.

  It decodes as `Seq2Seq` does; the context is the encoding of the sound.
  """

  config: WhisperConfig  # type: ignore[assignment]  # of a Seq2SeqConfig, `decode` and `empty_cache` read only text

  def setup(self) -> None:
    c = self.config
    self.audio = SpeechTransformer(c.audio)
    self.words = Words(c.text)
    self.decoder = Decoder(c.text)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the log-mel spectrograms batch["audio"], [batch, frames, mel_bins]."""
    return {"audio": self.audio(batch["audio"], rng=fold_in(rng, 0))}

  def __call__(self, batch: Batch) -> Float[Array, "batch length vocab"]:
    """Runs every part of the model once, for `init`."""
    return self.decode(batch["text"], self.encode(batch)["audio"])
