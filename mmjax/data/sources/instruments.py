"""Source of single notes of instruments, rendered from sound fonts, with the name of the instrument."""

import dataclasses
import fcntl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column
from mmjax.data.columns.sound import Sound
from mmjax.data.columns.text import Caption
from mmjax.data.errors import DataError, unknown
from mmjax.data.records import PRIMARY
from mmjax.data.sound_fonts import FAMILIES, FONTS, RATE, find_font, notes
from mmjax.data.sources.base import Reading, Source

_KEYS = 128  # MIDI keys


@dataclasses.dataclass(frozen=True)
class Instruments(Source):
  """Notes of 96 instruments of General MIDI, as sounds with their names. Validation has other sound fonts.

  The fonts are those of Debian's csound-soundfont, timgm6mb-soundfont and fluid-soundfont-gm. The first two share
  recordings (the nearest mean spectrum of one names 78% of the other's notes, and 17% of fluid's), so that both are for
  training. The package tinysoundfont (PyPI) renders them.
  """

  fonts: tuple[str, ...] = ("csound", "timgm")
  """Sound fonts for training: csound, timgm, fluid."""
  held_out: tuple[str, ...] = ("fluid",)
  """Sound fonts for validation."""
  keys: tuple[int, ...] = (40, 44, 48, 52, 55, 58, 60, 62, 64, 67, 70, 72, 76)
  """MIDI keys of the training notes; 60 is the middle c."""
  test_keys: tuple[int, ...] = (48, 55, 60, 64, 72)
  """MIDI keys of the validation notes."""
  seconds: float = 1.0
  """Length of a note."""
  root: str = "/"
  """Folder in which Debian's packages are installed, or unpacked (dpkg -x)."""
  shuffled: bool = False
  """Give every training note the name of another one (the control)."""

  def __post_init__(self) -> None:
    both = set(self.fonts) & set(self.held_out)
    if both:
      raise ValueError(f"the sound font {sorted(both)[0]!r} is for training and held out: name each once")
    if not all(0 <= key < _KEYS for key in (*self.keys, *self.test_keys)):
      raise ValueError(f"keys and test_keys are MIDI keys, 0 to {_KEYS - 1}")

  @property
  def columns(self) -> Mapping[str, Column]:
    return {"audio": Sound(), "text": Caption()}

  def open(self, split: str, reading: Reading) -> Sequence[Mapping[str, Any]]:
    if split not in ("train", "validation"):
      raise unknown("split of instruments", split, ("train", "validation"))
    training = split == "train"
    fonts, keys = (self.fonts, self.keys) if training else (self.held_out, self.test_keys)
    wrong = sorted(set(fonts) - set(FONTS))
    if wrong or not fonts or not keys:
      raise unknown("sound font", wrong[0] if wrong else "", FONTS)
    parts = [self._rendered(font, keys, reading) for font in fonts]
    names = np.array([record["instrument"] for part in parts for record in part])
    given = np.random.default_rng(0).permutation(names) if self.shuffled and training else names
    both = zip((record for part in parts for record in part), given.tolist(), strict=True)
    return [_named(record, name) for record, name in both]

  def _rendered(self, font: str, keys: Sequence[int], reading: Reading) -> list[dict[str, Any]]:
    """The notes of a font. They are rendered once, and kept in data.dir."""
    root, folder = Path(self.root).expanduser(), Path(reading.dir).expanduser()
    status = find_font(font, root).stat()
    path = folder / f"instruments-{font}-{status.st_size}-{'_'.join(map(str, keys))}-{self.seconds:g}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "instruments.lock").open("w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not path.is_file():
        found = np.stack([note.samples for note in notes(font, root, keys, self.seconds)]).astype(np.float16)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, found)
        partial.replace(path)
    try:
      samples = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
      raise DataError(f"{path} is damaged ({error}). Remove it; it is made again.") from error
    played = [
      (instrument, family, key)
      for family, names in FAMILIES.values()
      for instrument in names.split(", ")
      for key in keys
    ]
    return [
      {"instrument": instrument, "group": family, "sound": (row.astype(np.float32), RATE),
       "id": f"{font}/{instrument}/{key}"}
      for row, (instrument, family, key) in zip(samples, played, strict=True)
    ]  # fmt: skip


def _named(record: dict[str, Any], name: str) -> dict[str, Any]:
  """A record with its caption. Notes of one instrument are of one concept."""
  return {**record, "captions": {PRIMARY: [name]}, "concept": _NUMBERS[name]}


_NUMBERS = {
  name: first + place for first, (_, names) in FAMILIES.items() for place, name in enumerate(names.split(", "))
}
