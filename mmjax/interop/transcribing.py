"""Transcription by a loaded Whisper: sounds in, texts out."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmjax.data.sound.clip import fitted, resampled
from mmjax.data.sound.features import WhisperMel
from mmjax.data.sound.reading import SoundLike, read_sound
from mmjax.interop.speech_settings import HOP, RATE, SpeechSettings
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.types import Encoded


class Transcriber:
  """Writes down what is said in sounds.

  Args:
    model: a Whisper.
    params: its parameters.
    settings: how texts are generated.
    tokenizer: tokenizer of the model (tokenizers.Tokenizer).
  """

  def __init__(self, model: Any, params: Any, settings: SpeechSettings, tokenizer: Any):
    self._model, self._params, self._settings, self._tokenizer = model, params, settings, tokenizer
    self._silent = _silent(tokenizer, model.config.text.vocab_size)
    self._features = WhisperMel(RATE, model.config.audio.mel_bins)

  def __call__(
    self,
    sounds: Sequence[SoundLike],
    *,
    language: str | None = None,
    task: str | None = None,
    config: GenerateConfig | None = None,
    batch_size: int = 8,
  ) -> list[str]:
    """Transcribe sounds. The result and the errors are those of `Pretrained.transcribe`.

    Args:
      sounds, language, task, config, batch_size: as for `Pretrained.transcribe`.
    """
    if isinstance(sounds, (str, bytes)):
      raise TypeError("transcribe takes a sequence of sounds; put a single sound in a list")
    windows, owners = [], []
    for number, sound in enumerate(sounds):
      parts = self._windows(sound, number)
      windows += parts
      owners += [number] * len(parts)
    texts = [""] * len(sounds)
    for start in range(0, len(windows), batch_size):
      batch, size = windows[start : start + batch_size], min(batch_size, len(windows))
      batch += batch[:1] * (size - len(batch))  # every batch has the same shape, so that one is compiled
      ids = self.write(np.stack(batch), language=language, task=task, config=config)
      for owner, row in zip(owners[start : start + batch_size], ids, strict=False):
        texts[owner] = f"{texts[owner]} {self.decode(row)}".strip()
    return texts

  def write(
    self,
    frames: Float[np.ndarray, "batch frames mel_bins"],
    *,
    language: str | None = None,
    task: str | None = None,
    config: GenerateConfig | None = None,
  ) -> list[list[int]]:
    """Generate the token ids of each clip, without the prompt, up to the end token.

    Args:
      frames: log-mel spectrograms.
      language, task, config: as for `Pretrained.transcribe`.
    """
    context = _encode(self._model, self._params, frames)
    prompt = self._prompts(context, self._settings.prompt(language, task))
    found = generate(self._model, self._params, prompt, context, config=self._config(config, prompt.shape[1]))
    rows = np.asarray(found.ids)[:, prompt.shape[1] :].tolist()
    end = self._model.config.text.eos_id
    return [row[: row.index(end)] if end in row else row for row in rows]

  def decode(self, ids: Sequence[int]) -> str:
    """Text of token ids, without special tokens and those of the form <|...|>: languages, tasks and times."""
    words = [one for one in ids if one not in self._silent]
    return self._tokenizer.decode(words, skip_special_tokens=False).strip()

  def _windows(self, sound: SoundLike, number: int) -> list[Float[np.ndarray, "frames mel_bins"]]:
    """Features of each window of a sound, which is filled up with silence."""
    samples = resampled(read_sound(sound, record=f"sound {number}"), RATE).samples
    length = self._model.config.audio.frames * HOP
    return [self._features(fitted(samples, length, start)) for start in range(0, len(samples), length)]

  def _prompts(self, context: Encoded, prompt: tuple[int | None, ...]) -> Int[jax.Array, "batch length"]:
    rows = np.tile(np.array([0 if one is None else one for one in prompt], np.int32), (context.tokens.shape[0], 1))
    if None in prompt:
      among = tuple(self._settings.languages.values())
      rows[:, prompt.index(None)] = _languages(self._model, self._params, context, self._settings.begin, among)
    return jnp.asarray(rows)

  def _config(self, config: GenerateConfig | None, length: int) -> GenerateConfig:
    """Settings of the generation after a prompt of some length."""
    s = self._settings
    room = self._model.config.text.max_length - length
    room = room if s.max_length is None else min(room, s.max_length)
    config = GenerateConfig(max_new_tokens=max(1, room)) if config is None else config
    never, not_first = (*config.suppress, *s.suppress), (*config.suppress_first, *s.suppress_first)
    return dataclasses.replace(config, suppress=never, suppress_first=not_first)


def _silent(tokenizer: Any, vocab_size: int) -> frozenset[int]:
  """Ids that stand for no text: special tokens, <|...|>, and those that the tokenizer does not have."""
  special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
  names = ((id, tokenizer.id_to_token(id)) for id in range(vocab_size))
  marked = (id for id, name in names if name is None or (name.startswith("<|") and name.endswith("|>")))
  return frozenset(special.union(marked))


@functools.partial(jax.jit, static_argnames="model")
def _encode(model: Any, params: Any, frames: Float[jax.Array, "batch frames mel_bins"]) -> Encoded:
  return model.apply({"params": params}, {"audio": frames}, method="encode")["audio"]


@functools.partial(jax.jit, static_argnames=("model", "begin", "among"))
def _languages(
  model: Any, params: Any, context: Encoded, begin: int, among: tuple[int, ...]
) -> Int[jax.Array, "batch"]:
  """Id of the most likely language of each clip: the token that follows the begin token."""
  first = jnp.full((context.tokens.shape[0], 1), begin, jnp.int32)
  logits = model.apply({"params": params}, first, context, method="decode")[:, 0]
  ids = jnp.asarray(among, jnp.int32)
  return ids[jnp.argmax(logits[:, ids], axis=1)]
