"""Recordings of spoken digits: synthetic ones, which are made, and real ones of packages that are installed."""

import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.data.sound.clip import Clip, library, resampled, trimmed
from mmjax.data.sound.reading import read_sound
from mmjax.data.sound.synthetic_voices import speaker, variants

RATE = 8000
"""Samples per second: that of the telephone prompts."""
WORDS = {
  "en": "zero one two three four five six seven eight nine",
  "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
  "fr": "zéro un deux trois quatre cinq six sept huit neuf",
  "it": "zero uno due tre quattro cinque sei sette otto nove",
  "ru": "ноль один два три четыре пять шесть семь восемь девять",
}
"""The digits from 0 on, by language."""
ASTERISK = {
  "Allison (en)": ("en", "en_US_f_Allison/digits/{}.wav"),
  "Allison (es)": ("es", "es_MX_f_Allison/digits/{}.wav"),
  "June": ("fr", "fr_CA_f_June/digits/{}.wav"),
  "Carlo": ("it", "it_IT_m_Carlo/digits/{}.wav"),
  "Ivrvoice": ("ru", "ru_RU_f_IvrvoiceRU/digits/{}.wav"),
  "Menardi": ("it", "it_IT_f_Menardi/digits/{}.wav"),
  "Armelle": ("fr", "fr/digits/{}.gsm"),
  "Colombia": ("es", "es/digits/{}.gsm"),
}
"""Voices of Debian's asterisk-core-sounds-*-wav, asterisk-prompt-it-menardi-wav, -fr-armelle and -es-co."""
TUXPAINT = {
  f"Tux Paint ({name})": (language, f"{{}}{suffix}.ogg")
  for name, language, suffix in (
    ("en", "en", ""),
    ("en_GB", "en", "_en_GB"),
    ("es", "es", "_es"),
    ("fr", "fr", "_fr"),
    ("it", "it", "_it"),
    ("ru", "ru", "_ru"),
  )
}
"""Voices of Debian's tuxpaint-stamps-default."""


class Spoken(NamedTuple):
  """A spoken digit. `samples` are int16 of RATE, without the silence at both ends."""

  digit: int
  language: str
  speaker: str
  samples: np.ndarray


def real(root: Path) -> list[Spoken]:
  """Read the recordings of real voices that are installed.

  Args:
    root: folder in which Debian's packages are installed (/) or unpacked.
  Returns: the recordings of the package captcha (PyPI), and of those of Debian's packages that are there.
  """
  found = [*_captcha()]
  for voices, folder in (
    (ASTERISK, root / "usr/share/asterisk/sounds"),
    (TUXPAINT, root / "usr/share/tuxpaint/stamps/symbols/math"),
  ):
    for name, (language, pattern) in voices.items():
      for digit in range(10):
        path = folder / pattern.format(digit)
        if path.is_file():
          found.append(_spoken(digit, language, name, _read(path)))
  return found


def synthetic(languages: Sequence[str], voices: int, takes: int, seed: int) -> Iterator[Spoken]:
  """Speak the digits with eSpeak's voices, each take with its own speed and pitch.

  Args:
    languages: keys of WORDS.
    voices: number of variants, evenly spread over those that there are.
    takes: recordings of a digit by a voice in a language.
    seed: seed of speed and pitch.
  Raises: DataError: the package espeakng-loader is not installed.
  """
  names, speak, rng = variants(), speaker(), np.random.default_rng(seed)
  chosen = [names[place] for place in spread(len(names), voices)]
  for language, voice, digit in itertools.product(languages, chosen, range(10)):
    for _ in range(takes):
      speed, pitch = int(rng.integers(110, 230)), int(rng.integers(20, 80))
      clip = speak(WORDS[language].split()[digit], f"{language}+{voice}", speed, pitch)
      yield _spoken(digit, language, f"eSpeak {voice}", clip)


def _captcha() -> Iterator[Spoken]:
  spec = importlib.util.find_spec("captcha")
  if spec is None or spec.origin is None:
    return
  for digit in range(10):
    path = Path(spec.origin).parent / "data" / str(digit) / "default.wav"
    if path.is_file():
      yield _spoken(digit, "en", "captcha", _read(path))


def _read(path: Path) -> Clip:
  if path.suffix != ".gsm":
    return read_sound(path, record=str(path))
  try:
    samples, rate = library("soundfile").read(
      path, dtype="float32", samplerate=RATE, channels=1, format="RAW", subtype="GSM610"
    )
  except RuntimeError as error:  # soundfile's errors
    raise DataError(f"{path}: cannot be read as GSM 6.10 ({error}). Reinstall its package.") from error
  return read_sound((samples, rate), record=str(path))


def _spoken(digit: int, language: str, name: str, clip: Clip) -> Spoken:
  samples = trimmed(resampled(clip, RATE).samples, RATE)
  return Spoken(digit, language, name, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16))


def save(path: Path, spoken: Sequence[Spoken]) -> None:
  """Write recordings to an .npz file."""
  arrays: dict[str, Any] = {
    "digit": np.array([one.digit for one in spoken], np.int32),
    "language": np.array([one.language for one in spoken]),
    "speaker": np.array([one.speaker for one in spoken]),
    "length": np.array([len(one.samples) for one in spoken], np.int64),
    "samples": np.concatenate([one.samples for one in spoken]),
  }
  partial = path.with_suffix(".partial.npz")
  np.savez(partial, **arrays)
  partial.replace(path)


def load(path: Path) -> list[Spoken]:
  """Read what `save` wrote. Raises DataError if the file is damaged."""
  try:
    with np.load(path) as file:
      parts = np.split(file["samples"], np.cumsum(file["length"])[:-1])
      columns = (file["digit"].tolist(), file["language"].tolist(), file["speaker"].tolist())
      return [Spoken(*fields) for fields in zip(*columns, parts, strict=True)]
  except (OSError, ValueError, KeyError, EOFError) as error:
    raise DataError(f"{path} is damaged ({error}). Remove it; it is made again.") from error
