"""Column of videos, as frames."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data.columns.base import Column, Evaluating, Example, Maker, Making, Shapes
from mmjax.data.errors import DataError
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.lazy_rows import LazyRows
from mmjax.data.transforms import TrainImage, premultiplied, train_transform
from mmjax.data.video.limits import Limits
from mmjax.data.video.reading import frames_alike, open_video
from mmjax.data.video.sampling import Sampling, sampled

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig

PADDED = -1e9
"""Value of the frames after the end of a clip with short="mask". Encoders leave out frames below PADDED / 2."""


@dataclasses.dataclass(frozen=True)
class Video(Column):
  """Video column: decodes frames of the field `video` of a record to normalised float32 [frames, height, width, 3].

  The size of the frames is that of the model's images. All frames of a clip get the same random changes. Randomness
  depends on (seed, epoch, index) of the example.
  """

  field: str = "video"
  """Field of the record: an encoded file, a path, a folder of images, a list of images, or a uint8 array."""
  frames: int = 12
  """Frames of a row."""
  sampling: Sampling = "uniform"
  """Choice of the frames. uniform: the middles of equal segments. random: in training a random frame of each segment
  (TSN). rate: `rate` frames a second, in training from a random beginning."""
  rate: float = 1.0
  """Frames a second of sampling="rate" (CLIP4Clip: 1)."""
  short: Literal["mask", "repeat"] = "mask"
  """Treatment of a clip with fewer frames. mask: frames of PADDED, which encoders leave out. repeat: its last frame."""
  order: Literal["time", "shuffled"] = "time"
  """Order of the frames. shuffled: an order that depends on the record alone (a control for models of order)."""
  frame_rate: float = 25.0
  """Frames a second of folders, lists and arrays, which do not say it."""
  longer: Literal["crop", "refuse"] = "crop"
  """Treatment of a clip beyond `max_seconds` or `max_frames`: crop reads its beginning, refuse is an error."""
  max_seconds: float = 600.0
  """Longest clip that is read."""
  max_frames: int = 20_000
  """Most frames of a clip that is read."""
  max_pixels: int = 9_000_000
  """A video whose header claims larger frames is refused before it is decoded (4K has 8.3 million pixels)."""
  augmentation: AugmentationConfig | None = None
  """Random changes of training clips. None: those of data.augmentation."""

  def __post_init__(self) -> None:
    if self.frames < 1 or self.rate <= 0 or self.frame_rate <= 0:
      raise ValueError(f"frames={self.frames}, rate={self.rate} and frame_rate={self.frame_rate} must be above 0")
    if self.max_seconds <= 0 or self.max_frames < 1 or self.max_pixels < 1:
      raise ValueError(
        f"max_seconds={self.max_seconds}, max_frames={self.max_frames} and max_pixels={self.max_pixels} must be above 0"
      )

  @property
  def limits(self) -> Limits:
    """Limits of a clip."""
    return Limits(self.max_pixels, self.max_seconds, self.max_frames, self.longer)

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((self.frames, making.image_size, making.image_size, 3), np.float32)}

  def decode(self, record: Mapping[str, Any], data: "DataConfig") -> None:
    for _ in self.clip(record, None)[0]:
      pass

  def maker(self, name: str, making: Making) -> Maker:
    data = dataclasses.replace(making.data, augmentation=self.augmentation or making.data.augmentation)
    return _VideoMaker(self, name, making, train_transform(data, making.image_size))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    image = evaluating.image
    if image is None:
      raise DataError(
        f"the column {name!r} (Video) needs a model with an image tower, which sets the size of its frames"
      )
    shape = (self.frames, image.size, image.size, 3)

    def rows(wanted: list[int]) -> list[np.ndarray]:
      return [row(records[place]) for place in wanted]

    def row(record: Mapping[str, Any]) -> np.ndarray:
      made = np.empty(shape, np.float32)
      frames, _ = self.clip(record, None)
      self.fill(made, frames, record, lambda frame, out: np.copyto(out, image(frame, record=record["id"])))
      return made

    return {name: LazyRows(places, shape, rows)}

  def record(self, item: Any) -> Mapping[str, Any]:
    return {self.field: item, "id": "the video"}

  def show(self, record: Mapping[str, Any]) -> str:
    from mmjax.data.video.drawing import strip

    frames, seconds = self.clip(record, None)
    return strip(list(frames), seconds)

  def clip(self, record: Mapping[str, Any], rng: np.random.Generator | None) -> tuple[Iterable[Image.Image], float]:
    """Decode the chosen frames of a record, one at a time, at most `frames` of them.

    Args:
      record: the record.
      rng: random numbers of the choice. None in evaluation.
    Returns: (frames in RGB or RGBA, all of one size, seconds of the clip).
    Raises: DataError: the video cannot be read. The message names the record.
    """
    video = open_video(record[self.field], record=record["id"], limits=self.limits, frame_rate=self.frame_rate)
    places = sampled(video.times, video.seconds, self.frames, self.sampling, self.rate, rng)

    def frames() -> Iterable[Image.Image]:
      with video:
        yield from frames_alike(video.read(places.tolist()), record["id"])

    return frames(), video.seconds

  def fill(
    self,
    out: Float[np.ndarray, "frames h w 3"],
    frames: Iterable[Image.Image],
    record: Mapping[str, Any],
    write: Callable[[Image.Image, np.ndarray], Any],
  ) -> None:
    """Write the frames of a clip, and what follows its end, to a row.

    Args:
      out: the row.
      frames: the frames in time.
      record: the record.
      write: function that writes a frame to an array [height, width, 3].
    """
    count = 0
    for frame in frames:
      write(frame, out[count])
      count += 1
    out[count:] = PADDED if self.short == "mask" else out[count - 1]
    if self.order == "shuffled":
      out[:count] = out[np.random.default_rng(record.get("concept", 0)).permutation(count)]


@dataclasses.dataclass(frozen=True)
class _VideoMaker(Maker):
  """Maker of the training rows of a video column. The frames of sampling="uniform" are cached."""

  column: Video
  name: str
  making: Making
  transform: TrainImage

  def begin(self, rows: int) -> np.ndarray:
    shape, dtype = self.column.arrays(self.name, self.making)[self.name]
    return np.empty((rows, *shape), dtype)

  def fill(self, buffer: np.ndarray, row: int, example: Example) -> None:
    frames, rng = self._frames(example), example.rng
    state = rng.bit_generator.state

    def write(frame: Image.Image, out: np.ndarray) -> None:
      rng.bit_generator.state = state  # the same random numbers, so that all frames change in the same way
      self.transform(frame, rng, out)

    self.column.fill(buffer[row], frames, example.record, write)

  def end(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
    return {self.name: buffer}

  def _frames(self, example: Example) -> Iterable[Image.Image]:
    def read() -> Iterable[Image.Image]:
      return map(premultiplied, self.column.clip(example.record, example.rng)[0])

    if self.column.sampling != "uniform":  # other frames in every epoch
      return read()

    def make() -> tuple[list[Image.Image], int]:
      frames = list(read())
      return frames, sum(frame.width * frame.height * 4 for frame in frames)

    return self.making.memory.image((example.index, f"{self.name}: {self.column.frames} frames"), make)
