"""Column of sounds, as features of their frames."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from mmjax.data.columns.base import Column, Evaluating, Example, Maker, Making, Shapes
from mmjax.data.errors import DataError
from mmjax.data.lazy_rows import LazyRows
from mmjax.data.places import spread
from mmjax.data.sound.augment import SoundAugmentation
from mmjax.data.sound.clip import fitted, resampled, with_loudness
from mmjax.data.sound.features import Features, LogMel, cmvn

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig

PADDED = -1e9
"""Value of the frames after the end of a clip with pad="mask". Encoders that mask compare with PADDED / 2."""
_SAMPLED = 500


@dataclasses.dataclass(frozen=True)
class Sound(Column):
  """Sound column: decodes the field `sound` of a record to features, float32 [frames, features.size].

  A clip is resampled to the rate of the features. Of a longer clip, training takes a random part of `seconds`, and
  evaluation the middle one. A shorter clip is padded at its end. Silence has the features of silence. Randomness
  depends on (seed, epoch, index) of the example.
  """

  field: str = "sound"
  """Field of the record: an encoded file, a path, or (samples, rate)."""
  features: Features = LogMel()
  """Features of the frames."""
  seconds: float = 5.0
  """Length of a row."""
  frames: int | None = None
  """Frames of a row. Frames beyond it are left out, and missing ones padded. None: those of `seconds`."""
  longer: Literal["crop", "refuse"] = "crop"
  """Treatment of a clip of more than `max_seconds`: crop reads its beginning, refuse is an error."""
  max_seconds: float = 600.0
  """Longest clip that is decoded."""
  pad: Literal["silence", "repeat", "value", "mask", "stretch"] = "silence"
  """Padding of a short clip. silence: zeros, before the features are computed (Whisper). repeat: the clip again, as
  often as all of it fits, and then zeros (CLAP). value: frames of one value
  after that, which encoders read (AST). mask: frames of PADDED, which encoders leave out (AstConfig.masked). stretch:
  none; the frames of the clip, short or long, are interpolated to those of a row (isolated words)."""
  loudness: float | None = None
  """Scale each clip to this root mean square, in decibels of full scale (such as -26). None: as recorded."""
  normalize: Literal["none", "clip", "data"] = "none"
  """Mean and standard deviation that features are normalised by. clip: of each feature over the frames of its clip
  (CMVN). data: one of each, of the training data."""
  augmentation: SoundAugmentation = SoundAugmentation()
  """Random changes of training clips."""

  def __post_init__(self) -> None:
    if not 0 < self.seconds <= self.max_seconds:
      raise ValueError(f"seconds is {self.seconds}: it must lie in (0, max_seconds={self.max_seconds:g}]")
    if self.frames is not None and self.frames < 1:
      raise ValueError(f"frames is {self.frames}: it must be at least 1")

  @property
  def num_frames(self) -> int:
    """Frames of a row."""
    return self.features.frames(self._samples) if self.frames is None else self.frames

  @property
  def fits(self) -> bool:
    return self.normalize == "data"

  @property
  def _samples(self) -> int:
    return max(1, round(self.seconds * self.features.rate))

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((self.num_frames, self.features.size), np.float32)}

  def decode(self, record: Mapping[str, Any], data: "DataConfig") -> None:
    self.clip(record)

  def fit(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute mean and standard deviation over all features of up to 500 training records, evenly spread."""
    count, total, squares = 0, 0.0, 0.0
    places = spread(len(records), _SAMPLED)
    for place in places:
      values = self._values(self._cut(self.clip(records[place]), None)).astype(np.float64)
      count, total, squares = count + values.size, total + values.sum(), squares + np.square(values).sum()
    mean = total / count
    deviation = float(np.sqrt(max(squares / count - mean**2, 0.0)))
    if deviation < 1e-6:
      raise DataError(f"the features of {len(places)} training sounds are all {mean:.6g}: the sounds are silence.")
    return {"mean": float(mean), "std": deviation}

  def maker(self, name: str, making: Making) -> Maker:
    return _SoundMaker(self, name, making)

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    learnt = evaluating.fitted.get(name)

    def rows(wanted: list[int]) -> list[np.ndarray]:
      return [self.row(records[place], None, learnt) for place in wanted]

    return {name: LazyRows(places, (self.num_frames, self.features.size), rows)}

  def row(
    self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any
  ) -> Float[np.ndarray, "frames size"]:
    return self.processed(self.clip(record), rng, fitted)

  def record(self, item: Any) -> Mapping[str, Any]:
    return {self.field: item, "id": "the sound"}

  def show(self, record: Mapping[str, Any]) -> str:
    from mmjax.data.sound.drawing import player

    return player(self.clip(record), self.features)

  def clip(self, record: Mapping[str, Any]) -> Float[np.ndarray, "samples"]:
    """Read the sound of a record, at the rate of the features. Raises DataError, which names the record."""
    from mmjax.data.sound.reading import read_sound

    sound = read_sound(record[self.field], record=record["id"], max_seconds=self.max_seconds, longer=self.longer)
    return resampled(sound, self.features.rate).samples

  def processed(
    self, samples: Float[np.ndarray, "samples"], rng: np.random.Generator | None, learnt: Any
  ) -> Float[np.ndarray, "frames size"]:
    """Make a row of a clip.

    Args:
      samples: the clip, at the rate of the features.
      rng: random numbers for augmentation. None in evaluation.
      learnt: result of `fit`. None without normalize="data".
    """
    values = self._values(self._cut(samples, rng))
    values = stretched(values, self.num_frames) if self.pad == "stretch" else values[: self.num_frames]
    if self.normalize == "clip":
      values = cmvn(values)
    elif self.normalize == "data":
      values = (values - np.float32(learnt["mean"])) / np.float32(learnt["std"])
    if rng is not None:
      self.augmentation.features(values, rng)
    row = np.full((self.num_frames, self.features.size), self._padding, np.float32)
    row[: len(values)] = values
    return row

  @property
  def _padding(self) -> float:
    if self.pad == "mask":
      return PADDED
    return self.features.padding if self.normalize == "none" else 0.0

  def _cut(self, samples: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """The samples of a row: of a longer clip a part, of a shorter one all, or with silence after them."""
    if rng is not None:
      samples = self.augmentation.samples(samples, self.features.rate, rng)
    spare = max(0, len(samples) - self._samples)
    start = spare // 2 if rng is None else int(rng.random() * (spare + 1))
    if self.pad == "repeat":
      samples = np.tile(samples, max(1, self._samples // len(samples)))
    if self.pad in ("silence", "repeat"):
      return fitted(samples, self._samples, start)
    return samples[start : start + self._samples]

  def _values(self, samples: np.ndarray) -> np.ndarray:
    return self.features(samples if self.loudness is None else with_loudness(samples, self.loudness))


def stretched(values: Float[np.ndarray, "frames size"], count: int) -> Float[np.ndarray, "count size"]:
  """Interpolate frames linearly to another number of them, from the first to the last."""
  places = np.linspace(0, len(values) - 1, count)
  below = np.minimum(places.astype(int), max(len(values) - 2, 0))
  share = (places - below)[:, None].astype(np.float32)
  return values[below] * (1 - share) + values[np.minimum(below + 1, len(values) - 1)] * share


@dataclasses.dataclass(frozen=True)
class _SoundMaker(Maker):
  """Maker of the training rows of a sound column. Decoded clips are cached."""

  column: Sound
  name: str
  making: Making

  def begin(self, rows: int) -> np.ndarray:
    return np.empty((rows, self.column.num_frames, self.column.features.size), np.float32)

  def fill(self, buffer: np.ndarray, row: int, example: Example) -> None:
    def make() -> tuple[np.ndarray, int]:
      samples = self.column.clip(example.record)
      return samples, samples.nbytes

    samples = self.making.memory.image((example.index, f"{self.name} at {self.column.features.rate} Hz"), make)
    buffer[row] = self.column.processed(samples, example.rng, self.making.fitted.get(self.name))

  def end(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
    return {self.name: buffer}
