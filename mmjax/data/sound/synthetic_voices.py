"""Synthetic voices: texts spoken by eSpeak NG, from the package `espeakng-loader` (its library and voices)."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.errors import DataError
from mmjax.data.sound.clip import Clip

_SYNCHRONOUS, _RATE, _PITCH, _UTF8 = 2, 1, 3, 1
"""AUDIO_OUTPUT_SYNCHRONOUS, espeakRATE, espeakPITCH and espeakCHARS_UTF8 of eSpeak's speak_lib.h."""
_UNSUITABLE = ("whisper", "whisperf", "Demonic", "croak")
"""Variants that are no voices of a speaker."""
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

Speak = Callable[[str, str, int, int], Clip]
"""Function of (text, voice such as "en+f3", words per minute, pitch of 0 to 100)."""


def package() -> Any:
  """Import espeakng_loader. Raises DataError, which names the extra, if it is not installed."""
  try:
    import espeakng_loader
  except ImportError as error:
    raise DataError(
      f"Synthetic voices need the package espeakng-loader ({error}). Install it: pip install 'mmjax[voices]'."
    ) from error
  return espeakng_loader


def variants() -> list[str]:
  """Names of the variants of a voice, sorted: eSpeak's speakers."""
  folder = Path(package().get_data_path()) / "voices" / "!v"
  return sorted(path.name for path in folder.iterdir() if path.name not in _UNSUITABLE and " " not in path.name)


@functools.cache  # the library has one state in a process
def speaker() -> Speak:
  """Load eSpeak NG. Raises DataError if its library cannot be loaded.

  The same words in the same order give the same samples in every process. A word depends a little on those before it.
  """
  loader = package()
  try:
    library = ctypes.CDLL(loader.get_library_path())
  except OSError as error:
    raise DataError(f"The library of espeakng-loader cannot be loaded: {error}. Reinstall the package.") from error
  parts: list[np.ndarray] = []

  @_CALLBACK
  def receive(samples: Any, count: int, events: Any) -> int:
    if samples and count > 0:
      parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0

  rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(loader.get_data_path()).encode(), 0)
  library.espeak_SetSynthCallback(receive)

  def speak(text: str, voice: str, words_per_minute: int, pitch: int) -> Clip:
    parts.clear()
    if library.espeak_SetVoiceByName(voice.encode()):
      raise DataError(f"eSpeak NG has no voice {voice!r}. Its voices are LANGUAGE or LANGUAGE+VARIANT, such as en+f3.")
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    encoded = text.encode() + b"\0"
    library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
    if not parts:
      raise DataError(f"eSpeak NG says nothing for {text!r} with the voice {voice!r}. Choose another text.")
    return Clip(np.concatenate(parts).astype(np.float32) / 32768, rate)

  speak.receive = receive  # type: ignore[attr-defined]  # the library calls it: it must live as long
  return speak
