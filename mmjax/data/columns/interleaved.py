"""Column of texts with images among their words, and of dialogues about images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data.captions import text_fault
from mmjax.data.columns.base import Evaluating, Example, Maker, Making, Shapes
from mmjax.data.columns.text import TextColumn
from mmjax.data.columns.video import PADDED, Video
from mmjax.data.errors import DataError
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.images.decoding import decode
from mmjax.data.lazy_rows import LazyRows
from mmjax.data.transforms import premultiplied, train_transform

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig
  from mmjax.data.text.tokenizer import Tokenizer

PLACE = "<image>"
"""Stands in a text for an image or a video."""


@dataclasses.dataclass(frozen=True)
class Piece:
  """Part of a text.

  Attributes:
    text: the part, with `<image>` where an image is.
    said: True if a model learns to write this part.
    inner: True if a chunk token ends each of its texts but the last.
    last: True if a chunk token ends its last text.
  """

  text: str
  said: bool = True
  inner: bool = True
  last: bool = True


@dataclasses.dataclass(frozen=True)
class Interleaved(TextColumn):
  """Fields `text` and `images` of a record: NAME, int32 [length], and NAME_images, float32 [images, frames, h, w, 3].

  The text has `<image>` where an image is, as often as there are images. It becomes the image token of the tokenizer.
  A chunk token, if the tokenizer has one, ends the text after each image, and the text before the first. A row of a
  record with more images has some that follow each other, and their texts: random ones in training, the first in
  evaluation. Images that a row lacks are zeros, which nothing reads.
  """

  images: int = 4
  """Images of a row."""
  frames: int = 1
  """Frames of an image that is a video; an image has one, and the others are padding. 1: all are images."""
  copies: int = 1
  """Image tokens for each image. 1: Flamingo. Otherwise the tokens of an image that a projector model puts there."""
  augmentation: AugmentationConfig | None = None
  """Random changes of training images. None: those of data.augmentation."""

  def __post_init__(self) -> None:
    for name in ("images", "frames", "copies"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

  def arrays(self, name: str, making: Making) -> Shapes:
    side = making.image_size
    pixels = ((self.images, self.frames, side, side, 3), np.float32)
    return super().arrays(name, making) | {f"{name}_images": pixels}

  @property
  def fields(self) -> tuple[str, ...]:
    return ("text", "images")

  def check(self, record: Mapping[str, Any]) -> None:
    fault = text_fault(record["text"])
    if fault is not None:
      raise DataError(f"{record['id']}: the text {fault}. Correct the record, or use --data.on-bad-record skip.")
    check_places(record["text"].count(PLACE), len(record["images"]), record["id"])

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    return [text for piece in self.pieces(record) for text in piece.text.split(PLACE) if text.strip()]

  def pieces(self, record: Mapping[str, Any]) -> list[Piece]:
    """Parts of the text of a record, in order."""
    return [Piece(record["text"])]

  def maker(self, name: str, making: Making) -> Maker:
    data = dataclasses.replace(making.data, augmentation=self.augmentation or making.data.augmentation)
    return _InterleavedMaker(self, name, making, train_transform(data, making.image_size))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    assert evaluating.tokenizer is not None
    rows = [self.row_of(self.pieces(record), evaluating.tokenizer) for record in records]
    found = {array: np.stack([row[array] for row in rows])[places] for array in rows[0]}
    shown = self.lazy_images([(record["images"][: self.images], record["id"]) for record in records], evaluating.image)
    pixels = LazyRows(places, shown.shape[1:], lambda wanted: [shown[place] for place in wanted])
    return {f"{name}{array}": ids for array, ids in found.items()} | {f"{name}_images": pixels}

  def lazy_images(self, rows: Sequence[tuple[Sequence[Any], str]], transform: Any) -> LazyRows:
    """Images of rows, decoded when they are read.

    Args:
      rows: for each row, its images and the name of its record.
      transform: transform of images in evaluation. None for a model without images.
    Raises: DataError: the model takes no images.
    """
    if transform is None:
      raise DataError("a column Interleaved needs a model with an image tower, which sets the size of its images")
    shape = (self.images, self.frames, transform.size, transform.size, 3)

    def make(wanted: list[int]) -> list[np.ndarray]:
      return [pixels(*rows[place]) for place in wanted]

    def pixels(images: Sequence[Any], record: str) -> np.ndarray:
      made = np.zeros(shape, np.float32)
      for out, image in zip(made, images, strict=False):
        self.fill(out, image, record, lambda frame, at: np.copyto(at, transform(frame, record=record)))
      return made

    return LazyRows(np.arange(len(rows)), shape, make)

  def decode(self, record: Mapping[str, Any], data: "DataConfig") -> None:
    for image in record["images"]:
      for _ in self.frames_of(image, record["id"], data.max_pixels):
        pass

  def frames_of(self, image: Any, record: str, max_pixels: int | None = None) -> Sequence[Image.Image]:
    """Decode an image, or the frames of a video.

    Args:
      image: an encoded image, or with frames > 1 also what a column Video reads.
      record: name of the record.
      max_pixels: largest number of pixels of an image. None: the default of `decode`.
    """
    limit = {} if max_pixels is None else {"max_pixels": max_pixels}
    if self.frames == 1:
      return [decode(image, record=record, **limit)]
    if isinstance(image, bytes):
      from mmjax.data.video.headers import video_format

      image = [image] if video_format(image) is None else image
    clip = Video(frames=self.frames).clip({"id": record, "video": image}, None)[0]
    return list(clip)

  def fill(
    self, out: Float[np.ndarray, "frames h w 3"], image: Any, record: str, write: Callable[[Any, np.ndarray], Any]
  ) -> None:
    """Write an image, or the frames of a video, to its place. Frames that it lacks are PADDED.

    Args:
      out: the place.
      image: the image.
      record: name of the record.
      write: function that writes a frame to an array [height, width, 3].
    """
    frames = self.frames_of(image, record)
    for place, frame in zip(out, frames, strict=False):
      write(frame, place)
    out[len(frames) :] = PADDED

  def row_of(self, pieces: Sequence[Piece], tokenizer: "Tokenizer", first: int = 0) -> dict[str, np.ndarray]:
    """Make the arrays of a text by the ends of their names: "" are its ids, padded or cut to the length of a row.

    Args:
      pieces: parts of the text.
      tokenizer: tokenizer of the run.
      first: number of the first image of the row. Text before it is left out, unless it is 0.
    """
    ids, _ = self.ids(pieces, tokenizer, first=first)
    return {"": _padded(ids, tokenizer, tokenizer.pad_id)}

  def ids(
    self, pieces: Sequence[Piece], tokenizer: "Tokenizer", *, first: int = 0, end: bool = True
  ) -> tuple[list[int], list[bool]]:
    """Make the token ids of a text, of any length.

    Args:
      pieces: parts of the text.
      tokenizer: tokenizer of the run.
      first: number of the first image. Text before it is left out, unless it is 0.
      end: True to add the end token.
    Returns: (ids, True for those that a model learns to write).
    Raises: DataError: the tokenizer has no image token.
    """
    if tokenizer.image_id is None:
      raise DataError(f"Texts with images need a token for an image: set --data.tokenizer.image-token '{PLACE}'.")
    begin = [] if tokenizer.begin_id is None else [tokenizer.begin_id]
    ids, said, number = list(begin), [False] * len(begin), 0
    for piece in pieces:
      parts = piece.text.split(PLACE)
      for place, words in enumerate(tokenizer.word_ids([part.rstrip() for part in parts])):
        number += place > 0
        inside = first < number <= first + self.images or number == first == 0
        if not inside:
          continue
        added = [tokenizer.image_id] * self.copies if place else []
        ended = words and (piece.last if place == len(parts) - 1 else piece.inner)
        chunk = [tokenizer.chunk_id] if ended and tokenizer.chunk_id is not None else []
        ids += [*added, *words, *chunk]
        said += [False] * len(added) + [piece.said] * (len(words) + len(chunk))
    return ([*ids, tokenizer.eos_id], [*said, bool(pieces) and pieces[-1].said]) if end else (ids, said)

  def record(self, item: Any) -> Mapping[str, Any]:
    """Make a record of (text, images)."""
    text, images = item
    return {"text": text, "images": list(images), "id": "the text"}


@dataclasses.dataclass(frozen=True)
class Dialogue(Interleaved):
  """Fields `turns` and `images` of a record: the arrays of `Interleaved`, and NAME_said, bool [length].

  A turn is (role, text), and the roles are "user" and "assistant". NAME_said is True for the tokens of the assistant's
  turns and of the chunk token that ends each, which a model learns to write. The tokenizer must have a chunk token.
  """

  user: str = "user:"
  """Stands before a turn of the user."""
  assistant: str = "assistant:"
  """Stands before a turn of the assistant."""
  learn: str = "all"
  """Turns of the assistant that a model learns to write: all, or only the last one."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.learn not in ("all", "last"):
      raise ValueError(f"learn is {self.learn!r}: it must be all or last")

  def arrays(self, name: str, making: Making) -> Shapes:
    return super().arrays(name, making) | {f"{name}_said": ((making.data.tokenizer.max_length,), np.bool_)}

  @property
  def fields(self) -> tuple[str, ...]:
    return ("turns", "images")

  def check(self, record: Mapping[str, Any]) -> None:
    turns = record["turns"]
    if not turns:
      raise DataError(f"{record['id']}: there are no turns. Correct the record, or use --data.on-bad-record skip.")
    for role, text in turns:
      fault = "is of " + repr(role) if role not in ("user", "assistant") else text_fault(text)
      if fault is not None:
        raise DataError(
          f"{record['id']}: a turn {fault}. Turns are of user or assistant, and have a text: correct the record, or "
          "use --data.on-bad-record skip."
        )
    check_places(sum(text.count(PLACE) for _, text in turns), len(record["images"]), record["id"])

  def pieces(self, record: Mapping[str, Any]) -> list[Piece]:
    pieces, turns = [], record["turns"]
    for place, (role, text) in enumerate(turns):
      learnt = role == "assistant" and (self.learn == "all" or place == len(turns) - 1)
      name = self.user if role == "user" else self.assistant
      pieces += [Piece(name, False, last=False), Piece(f" {text.strip()}", learnt, inner=False)]
    return pieces

  def prompt(self, turns: Sequence[tuple[str, str]]) -> list[Piece]:
    """Parts of the text that the assistant's next turn follows."""
    return [*self.pieces({"turns": turns}), Piece(self.assistant, False, last=False)]

  def row_of(self, pieces: Sequence[Piece], tokenizer: "Tokenizer", first: int = 0) -> dict[str, np.ndarray]:
    if tokenizer.chunk_id is None:
      raise DataError("Dialogues need a token that ends a turn: set --data.tokenizer.chunk-token '<end>'.")
    ids, said = self.ids(pieces, tokenizer, first=first)
    room = tokenizer.config.max_length
    said[min(room, len(said)) - 1] = False  # the end token: a turn ends with its chunk token, and nobody says the end
    return {"": _padded(ids, tokenizer, tokenizer.pad_id), "_said": np.array((said + [False] * room)[:room])}

  def record(self, item: Any) -> Mapping[str, Any]:
    """Make a record of (turns, images)."""
    turns, images = item
    return {"turns": turns, "images": list(images), "id": "the dialogue"}


@dataclasses.dataclass(frozen=True)
class _InterleavedMaker(Maker):
  """Maker of the training rows of a column of texts with images. Decoded images are cached."""

  column: Interleaved
  name: str
  making: Making
  transform: Any

  def begin(self, rows: int) -> dict[str, np.ndarray]:
    shapes = self.column.arrays(self.name, self.making)
    return {name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in shapes.items()}

  def fill(self, buffer: dict[str, np.ndarray], row: int, example: Example) -> None:
    record, rng, column = example.record, example.rng, self.column
    spare = len(record["images"]) - column.images
    first = int(rng.random() * (spare + 1)) if spare > 0 else 0
    assert self.making.tokenizer is not None
    for end, values in column.row_of(column.pieces(record), self.making.tokenizer, first).items():
      buffer[f"{self.name}{end}"][row] = values
    for place, image in enumerate(record["images"][first : first + column.images]):
      state = rng.bit_generator.state

      def write(frame: Any, out: np.ndarray, state: Any = state) -> None:
        rng.bit_generator.state = state  # all frames of a video change in the same way
        self.transform(frame, rng, out)

      key = (record.get("picture", example.index), f"{self.name} {first + place}")
      frames = self.making.memory.image(key, functools.partial(self._decoded, image, record["id"]))
      out = buffer[f"{self.name}_images"][row, place]
      for frame, at in zip(frames, out, strict=False):
        write(frame, at)
      out[len(frames) :] = PADDED

  def end(self, buffer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return buffer

  def _decoded(self, image: Any, record: str) -> tuple[list[Image.Image], int]:
    frames = [premultiplied(one) for one in self.column.frames_of(image, record, self.making.data.max_pixels)]
    return frames, sum(frame.width * frame.height * 4 for frame in frames)


def check_places(places: int, images: int, record: str) -> None:
  """Raise DataError if a text does not have one `<image>` for each image.

  Args:
    places: number of `<image>` in the text.
    images: number of images.
    record: name of the record.
  """
  if places > images:
    raise DataError(
      f"{record}: the text has {places} {PLACE}, and there are {images} images: add images, or remove {PLACE}."
    )
  if images > places:
    raise DataError(
      f"{record}: there are {images} images, and {places} {PLACE} in the text: write {PLACE} where each image is."
    )


def _padded(ids: Sequence[int], tokenizer: "Tokenizer", fill: int) -> np.ndarray:
  """Ids at the length of a row. A text that is cut keeps the end token, as other texts do."""
  length = tokenizer.config.max_length
  kept = [*ids[: length - 1], tokenizer.eos_id] if len(ids) > length else list(ids)
  return np.array([*kept, *[fill] * (length - len(kept))], np.int32)
