"""Reading of WAV, FLAC, Ogg and MP3 to samples. The header is checked before the samples are decoded."""

import io
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmjax.data.downloads import refused
from mmjax.data.errors import DataError
from mmjax.data.sound import flac, mpeg
from mmjax.data.sound.clip import Clip, library
from mmjax.data.sound.headers import FORMATS, check_complete, sound_format, truncated, without_id3

SoundLike = bytes | str | os.PathLike | Clip | tuple[np.ndarray, int]

MAX_SECONDS = 600.0
MAX_BYTES = 64 * 2**20
MAX_CHANNELS = 16
MIN_RATE, MAX_RATE = 1000, 384_000
MAX_SAMPLE = 16.0
"""Largest sample. Full scale is 1; float files may exceed it. A larger one is not in this scale (int16 as float)."""

_CANCELLED = 0.01
"""Largest peak of the average, as a part of the channels' peak, at which they cancel each other."""


def read_sound(
  sound: SoundLike,
  *,
  record: str = "the sound",
  max_seconds: float = MAX_SECONDS,
  longer: Literal["refuse", "crop"] = "refuse",
) -> Clip:
  """Read a sound. The channels are averaged to one. The rate is that of the file.

  Silence is a clip like any other.

  Args:
    sound: encoded bytes, a path, a Clip, or (samples [n] or [n, channels] of float or int16, rate).
    record: name of the sound in error messages.
    max_seconds: longest accepted clip. It bounds the memory: 4 bytes a sample and channel.
    longer: "refuse" raises DataError for a longer clip. "crop" reads its first max_seconds.
  Returns: the clip, float32 [n] with n of at least 1.
  Raises:
    DataError: the sound cannot be read, is truncated, is too long, has no samples, has samples that are not finite or
      beyond MAX_SAMPLE, or needs a codec that libsndfile does not have. The message names the record.
  """
  if isinstance(sound, tuple):
    samples, rate = _from_array(sound, record)
    limit = int(max_seconds * rate)
    if len(samples) > limit and longer == "refuse":
      raise _too_long(record, len(samples) / rate, max_seconds)
    samples = samples[: max(limit, 1)]
  else:
    samples, rate = _decoded(_bytes(sound, record), record, max_seconds, longer)
  return Clip(_checked(samples, record), rate)


def _bytes(sound: bytes | str | os.PathLike, record: str) -> bytes:
  if isinstance(sound, bytes):
    return sound
  path = Path(sound)
  try:
    size = path.stat().st_size
    if size > MAX_BYTES:
      raise DataError(f"{record}: {path} has {size} bytes; up to {MAX_BYTES} are accepted. Cut it into clips.")
    return path.read_bytes()
  except OSError as error:
    raise DataError(f"{record}: cannot read {path}: {error.strerror}. Restore it or remove it.") from error


def _decoded(data: bytes, record: str, max_seconds: float, longer: str) -> tuple[np.ndarray, int]:
  data = without_id3(data)
  form = sound_format(data)
  if form is None:
    otherwise = f"is not a sound file; formats are {', '.join(FORMATS)}. Replace it or remove it."
    raise DataError(refused(data, record, otherwise))
  check_complete(data, form, record)
  if form == "MP3":
    data = mpeg.with_length(data, record)
  elif form == "FLAC":
    data = flac.with_length(data, record)
  soundfile = library("soundfile")
  if form not in soundfile.available_formats():
    raise DataError(
      f"{record}: the installed libsndfile {soundfile.__libsndfile_version__} cannot read {form}. Install the wheel of "
      "soundfile that brings its own (pip install --force-reinstall soundfile), or convert the file to FLAC."
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      with soundfile.SoundFile(io.BytesIO(data)) as file:
        return _samples(file, record, max_seconds, longer), file.samplerate
  except DataError:
    raise
  except Exception as error:  # decoders raise many types of exceptions
    raise DataError(
      f"{record}: the {form} file is corrupt, or has a codec that libsndfile {soundfile.__libsndfile_version__} does "
      f"not have ({_reason(error)}). Replace it, or convert it to FLAC."
    ) from error


def _reason(error: Exception) -> str:
  """The message of a decoder, without the address of the buffer that soundfile puts before it."""
  return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _samples(file: Any, record: str, max_seconds: float, longer: str) -> np.ndarray:
  """Decode the samples of an open file, [n, channels]."""
  frames, rate, channels = file.frames, file.samplerate, file.channels
  if not MIN_RATE <= rate <= MAX_RATE:
    raise DataError(
      f"{record}: its header claims {rate} samples a second, and {MIN_RATE} to {MAX_RATE} are accepted. Replace it."
    )
  if channels > MAX_CHANNELS:
    raise DataError(f"{record}: has {channels} channels; up to {MAX_CHANNELS} are accepted. Mix it down.")
  if frames <= 0:
    raise DataError(f"{record}: has no samples. Replace it or remove it.")
  limit = max(int(max_seconds * rate), 1)
  if frames > limit and longer == "refuse":
    raise _too_long(record, frames / rate, max_seconds)
  wanted = min(frames, limit)
  samples = file.read(wanted, dtype="float32", always_2d=True)
  if len(samples) < wanted:
    raise truncated(record, f"its header claims {frames} samples, and {len(samples)} could be decoded")
  return samples


def _too_long(record: str, seconds: float, limit: float) -> DataError:
  return DataError(
    f'{record}: refused, it is {seconds:.6g} s long and the limit is {limit:.6g} s. Cut it, set longer="crop" to use '
    "its beginning, or raise max_seconds."
  )


def _from_array(sound: tuple[Any, int], record: str) -> tuple[np.ndarray, int]:
  samples, rate = sound
  samples = np.asarray(samples)
  if samples.dtype == np.int16:
    samples = samples.astype(np.float32) / 32768
  if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
    raise DataError(
      f"{record}: an array of {samples.dtype} {list(samples.shape)} is not a sound; give (samples, rate) with samples "
      "of float or int16 [n] or [n, channels]."
    )
  if samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS:
    raise DataError(
      f"{record}: an array of {list(samples.shape)} has {samples.shape[1]} channels; up to {MAX_CHANNELS} are "
      "accepted. The order is [n, channels]: transpose an array [channels, n], as torchaudio gives."
    )
  if not MIN_RATE <= rate <= MAX_RATE or rate != int(rate):
    raise DataError(
      f"{record}: the rate is {rate}, and whole numbers from {MIN_RATE} to {MAX_RATE} are accepted. Correct it."
    )
  return samples.astype(np.float32), int(rate)


def _checked(samples: np.ndarray, record: str) -> np.ndarray:
  """Average the channels of samples that are sound."""
  if not samples.size:
    raise DataError(f"{record}: has no samples. Replace it or remove it.")
  largest = np.abs(samples).max()  # NaN if a sample is
  if not np.isfinite(largest):
    raise DataError(f"{record}: has samples that are not finite (NaN or infinity). Replace it or remove it.")
  if largest > MAX_SAMPLE:
    raise DataError(
      f"{record}: has samples up to {largest:.6g}, and full scale is 1. Divide them (int16 by 32768), or replace it."
    )
  return samples if samples.ndim == 1 else _mean(samples, record)


def _mean(samples: np.ndarray, record: str) -> np.ndarray:
  """Average the channels."""
  mean = samples.mean(axis=1, dtype=np.float32)
  peak = np.abs(samples).max()
  if peak and np.abs(mean).max() <= _CANCELLED * peak:
    raise DataError(
      f"{record}: its channels cancel each other, so that their average is silence: one of them is inverted. Invert "
      "it, or keep one channel."
    )
  return mean
