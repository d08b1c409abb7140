"""Source of spoken digits: synthetic voices for training, real voices for validation."""

import dataclasses
import fcntl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmjax.data.columns.base import Column
from mmjax.data.columns.class_label import ClassLabel
from mmjax.data.columns.sound import Sound
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest
from mmjax.data.sources.base import Reading, Source
from mmjax.data.spoken_digits import RATE, WORDS, Spoken, load, real, save, synthetic


@dataclasses.dataclass(frozen=True)
class SpokenDigits(Source):
  """Spoken digits in five languages, as sounds with a label of "0" to "9".

  Splits: "train" are synthetic voices (eSpeak NG), with `real_speakers` also real ones. "validation" are real voices:
  the package captcha, and those of Debian's packages that are installed (asterisk-core-sounds-{en,es,fr,it,ru}-wav,
  asterisk-prompt-it-menardi-wav, asterisk-prompt-fr-armelle, asterisk-prompt-es-co, tuxpaint-stamps-default); with
  test="synthetic", synthetic voices.
  No speaker is in both.
  """

  spoken: tuple[str, ...] = tuple(WORDS)
  """Languages: en, es, fr, it, ru."""
  voices: int = 40
  """Synthetic voices of a language."""
  takes: int = 2
  """Recordings of a digit by a synthetic voice in a language, each with its own speed and pitch."""
  real_speakers: bool = False
  """Train also on the real voices but those of `held_out`, and evaluate on these alone."""
  held_out: tuple[str, ...] = ()
  """Names, or beginnings of names, of the real speakers to evaluate on. Empty: all."""
  root: str = "/"
  """Folder in which Debian's packages are installed, or unpacked (dpkg -x)."""
  test: Literal["real", "synthetic"] = "real"
  """Voices of the validation split. synthetic: every fourth synthetic voice, which is then in no training recording."""
  seed: int = 0
  """Seed of speed and pitch."""
  shuffled: bool = False
  """Give every training recording the digit of another one (the control)."""

  @property
  def columns(self) -> Mapping[str, Column]:
    return {"audio": Sound(), "label": ClassLabel()}

  def open(self, split: str, reading: Reading) -> "DigitRecords":
    if split not in ("train", "validation"):
      raise unknown("split of spoken digits", split, ("train", "validation"))
    wrong = sorted(set(self.spoken) - set(WORDS))
    if wrong or not self.spoken:
      raise unknown("language of spoken digits", wrong[0] if wrong else "", WORDS)
    recorded = [one for one in real(Path(self.root).expanduser()) if one.language in self.spoken]
    tested = [one for one in recorded if not self.held_out or one.speaker.startswith(self.held_out)]
    if split == "validation":
      if self.test == "synthetic":
        return DigitRecords(self._synthetic(reading, held_out=True))
      if not tested:
        raise DataError(
          "No recording of a real voice was found: install the package captcha (pip install 'mmjax[voices]'), or "
          f"Debian's asterisk-core-sounds-en-wav; languages {', '.join(self.spoken)}, root {self.root}."
        )
      return DigitRecords(tested)
    if self.real_speakers and not self.held_out:
      raise DataError("--data.source.real-speakers needs --data.source.held-out SPEAKER ..., to evaluate on.")
    others = [one for one in recorded if not one.speaker.startswith(self.held_out)] if self.real_speakers else []
    return DigitRecords([*self._synthetic(reading), *others], shuffled=self.shuffled)

  def _synthetic(self, reading: Reading, *, held_out: bool = False) -> list[Spoken]:
    """The synthetic recordings of training, or of validation. All are made once, and kept in data.dir."""
    folder = Path(reading.dir).expanduser()
    name = f"spoken_digits-{'-'.join(self.spoken)}-{self.voices}-{self.takes}-{self.seed}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spoken_digits.lock").open("w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not (folder / name).is_file():
        save(folder / name, list(synthetic(self.spoken, self.voices, self.takes, self.seed)))
    spoken = load(folder / name)
    if self.test == "real":
      return spoken
    left_out = sorted({one.speaker for one in spoken})[3::4]
    return [one for one in spoken if (one.speaker in left_out) == held_out]


class DigitRecords:
  """The recordings, one record each: `sound`, `label`, `language`, `speaker`."""

  def __init__(self, spoken: Sequence[Spoken], *, shuffled: bool = False):
    self._spoken = spoken
    digits = np.array([one.digit for one in spoken])
    self._digits = np.random.default_rng(0).permutation(digits) if shuffled else digits

  def __len__(self) -> int:
    return len(self._spoken)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {**self.without_image(index), "sound": (self._spoken[index].samples, RATE)}

  def without_image(self, index: int) -> dict[str, Any]:
    """The record without its sound."""
    one, digit = self._spoken[index], int(self._digits[index])
    name = f"{one.speaker}/{one.language}/{one.digit}/{index}"
    return {"id": name, "concept": digit, "label": str(digit), "language": one.language, "speaker": one.speaker}

  @property
  def fingerprint(self) -> int:
    """Number that changes with the recordings and their order."""
    both = zip(self._spoken, self._digits.tolist(), strict=True)
    return digest(f"{one.speaker} {one.language} {digit} {len(one.samples)}" for one, digit in both)
