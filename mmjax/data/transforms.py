"""A record's picture and captions made into what a batch holds: in training random, in evaluation fixed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data import geometry
from mmjax.data.color import WHITE, Color, ColorJitter, ColorMatrix, Normalize, RandomBackground, RandomGreyscale
from mmjax.data.config import AugmentationConfig, DataConfig
from mmjax.data.errors import DataError
from mmjax.data.images import Picture, decode, trimmed
from mmjax.data.records import PRIMARY

if TYPE_CHECKING:  # it brings OpenCV, which data without JPEGs does without
  from mmjax.data.photo import Photo


class ExampleRng:
  """All the randomness of one example: a function of (seed, epoch, index) and of nothing else.

  A call re-keys one Philox generator, because making a new one takes longer than cropping a picture. The
  generator is good until the next call; threads need one ExampleRng each.
  """

  def __init__(self, seed: int):
    self._seed = seed & 0xFFFFFFFF
    self._bits = np.random.Philox(key=0)
    self._state = self._bits.state
    self._generator = np.random.Generator(self._bits)

  def __call__(self, epoch: int, index: int) -> np.random.Generator:
    self._state["state"]["key"] = np.array([index, self._seed << 32 | epoch & 0xFFFFFFFF], np.uint64)
    self._bits.state = self._state
    return self._generator


@dataclass(frozen=True)
class Cutout:
  """Greys out a square, a quarter to a half of the side, with a probability (DeVries and Taylor 2017)."""

  probability: float = 0.5

  def __call__(self, image: Float[np.ndarray, "h w 3"], rng: np.random.Generator) -> None:
    draws = rng.random(4).tolist()
    if draws[0] < self.probability:
      side = int(image.shape[0] * (0.25 + 0.25 * draws[1]))
      top, left = (int(draw * (image.shape[0] - side)) for draw in draws[2:])
      image[top : top + side, left : left + side] = 0.0


@dataclass(frozen=True)
class TrainImage:
  """Random crop, rotation, colours and background, resampled once and converted once."""

  size: int
  normalize: Normalize
  crop: geometry.RandomResizedCrop
  geometry: tuple[geometry.Geometry, ...]
  colors: tuple[Color, ...]
  background: RandomBackground
  cutout: Cutout | None = None

  def __call__(
    self,
    image: Image.Image,
    rng: np.random.Generator,
    out: Float[np.ndarray, "h w 3"] | None = None,
    mask: tuple[Image.Image, Float[np.ndarray, "h w"]] | None = None,
  ) -> Float[np.ndarray, "h w 3"]:
    """A premultiplied picture (mode "RGBa") to normalised float32 [size, size, 3], in `out` if given.

    `mask` is a picture of mode "L" as large as the image, and where to put what becomes of it: 1 where the output
    shows a white pixel of it, else 0. It moves as the picture does; cutout leaves it alone.
    """
    box = self.crop.box(*image.size, rng)
    matrices = [transform.matrix(rng) for transform in self.geometry]
    pixels = np.asarray(geometry.warp(image, box, matrices, self.size))
    if mask is not None:
      mask[1][...] = binary(geometry.warp(mask[0], box, matrices, self.size))
    result = self.normalize(pixels, *self._colors(rng)[::-1], out)
    if self.cutout is not None:
      self.cutout(result, rng)
    return result

  def photo(
    self,
    photo: "Photo",
    rng: np.random.Generator,
    out: Float[np.ndarray, "h w 3"],
    decoder: Callable[["Photo", int], Any],
  ) -> None:
    """A JPEG that is not decoded yet, into `out`: the same draws, and the same picture but for the decoder's rounding.

    `decoder` is mmjax.data.photo.decoded, or one that remembers. Raises DataError where the JPEG is corrupt.
    """
    from mmjax.data.photo import seen

    matrix = self.crop.box(*photo.size, rng)
    for transform in self.geometry:
      matrix = matrix @ transform.matrix(rng)
    pixels = seen(photo, matrix, self.size, decoder)
    change, background = self._colors(rng)
    self.normalize.by_opencv(pixels, background, change, out)
    if self.cutout is not None:
      self.cutout(out, rng)

  def _colors(self, rng: np.random.Generator) -> tuple[ColorMatrix | None, Sequence[float]]:
    """What happens to the colours, and the background."""
    matrix = None
    for color in self.colors:
      step = color.matrix(rng)
      matrix = step if matrix is None else step @ matrix
    return matrix, self.background.color(rng)


@dataclass(frozen=True)
class EvalImage:
  """The square in the middle, resized with antialiasing, on white: what evaluation and load_run see."""

  size: int
  normalize: Normalize
  max_pixels: int
  trim: bool = False

  def __call__(self, picture: Picture, *, record: str = "the picture") -> Float[np.ndarray, "h w 3"]:
    """Encoded bytes, a path, a Pillow picture or uint8 [h, w, 3] to normalised float32 [size, size, 3].

    Raises:
      DataError: the picture cannot be read, or claims more than max_pixels.
    """
    image = decode(picture, record=record, max_pixels=self.max_pixels)
    image = premultiplied(trimmed(image) if self.trim else image)
    box = geometry.center_box(*image.size)
    pixels = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
    return self.normalize(np.asarray(pixels), WHITE)

  def mask(self, mask: Image.Image) -> Float[np.ndarray, "h w"]:
    """A mask of mode "L" as the picture it belongs to: the square in the middle, 1 where it is white, else 0."""
    box = geometry.center_box(*mask.size)
    return binary(mask.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box))


@dataclass(frozen=True)
class SampleCaption:
  """One caption of a record, by kind: the kinds a record has are drawn in proportion to their weights."""

  weights: Mapping[str, float]
  """Per kind of caption; kinds without a weight are never drawn."""

  def __call__(self, captions: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    kind_draw, pick_draw, order = rng.random(3).tolist()
    kind = self._draw(self.weights, kind_draw)
    if not captions.get(kind):  # rare, and then drawn again among those that are there
      present = {name: weight for name, weight in self.weights.items() if captions.get(name)}
      kind = self._draw(present, order)
    texts = captions[kind]
    if kind != "keywords":
      return texts[int(pick_draw * len(texts))]
    number = 1 + int(pick_draw * min(4, len(texts)))
    return ", ".join(texts[place] for place in rng.permutation(len(texts))[:number].tolist())

  def _draw(self, weights: Mapping[str, float], point: float) -> str:
    """A kind with probability in proportion to its weight; the main caption where nothing has any."""
    point *= sum(weights.values())
    for kind, weight in weights.items():
      point -= weight
      if point < 0:
        return kind
    return PRIMARY


def premultiplied(image: Image.Image) -> Image.Image:
  """Colours multiplied by alpha, so that resampling does not bleed what is invisible."""
  if image.mode == "RGB":
    image = image.convert("RGBA")
  return image.convert("RGBa")


def check_captions(captions: Mapping[str, Sequence[str]], record: str) -> None:
  """Raises DataError where a record has no main caption, or an empty one."""
  if not captions.get(PRIMARY):
    raise DataError(f"{record}: has no caption. Add one, remove the record, or use --data.on-bad-record skip.")
  for kind, texts in captions.items():
    if any(not text.strip() for text in texts):
      raise DataError(f"{record}: the caption of kind {kind!r} is empty. Fill it in, or remove the record.")


def binary(mask: Image.Image) -> Float[np.ndarray, "h w"]:
  """1 where a mask of mode "L" is rather white than black, else 0."""
  return (np.asarray(mask) > 127).astype(np.float32)


def train_transform(config: DataConfig, image_size: int) -> TrainImage:
  """The random transform of a configuration; settings at zero cost nothing."""
  settings = config.augmentation
  shapes: list[geometry.Geometry] = []
  if settings.rotation or settings.shear:
    shapes.append(geometry.RandomRotation(settings.rotation, settings.shear))
  if settings.flip:
    shapes.append(geometry.RandomFlip(settings.flip))
  return TrainImage(
    size=image_size,
    normalize=Normalize(config.mean, config.std),
    crop=geometry.RandomResizedCrop(settings.crop_scale, settings.crop_ratio),
    geometry=tuple(shapes),
    colors=_colors(settings),
    background=RandomBackground(settings.background),
    cutout=Cutout(settings.cutout) if settings.cutout else None,
  )


def eval_transform(config: DataConfig, image_size: int) -> EvalImage:
  """The fixed transform of a configuration."""
  return EvalImage(image_size, Normalize(config.mean, config.std), config.max_pixels, config.trim)


def caption_transform(config: DataConfig) -> SampleCaption:
  """How a configuration samples captions: the weight of "another language" is shared among the languages."""
  weights = {PRIMARY: config.name_weight, "keywords": config.keywords_weight}
  languages = config.source.languages
  weights |= {language: config.languages_weight / len(languages) for language in languages}
  if config.name_weight < 0 or config.keywords_weight < 0 or config.languages_weight < 0:
    raise DataError("--data.name-weight, --data.keywords-weight and --data.languages-weight cannot be negative.")
  return SampleCaption(weights)


def _colors(settings: AugmentationConfig) -> tuple[Color, ...]:
  colors: list[Color] = []
  if settings.brightness or settings.contrast or settings.saturation or settings.hue:
    colors.append(ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue))
  if settings.greyscale:
    colors.append(RandomGreyscale(settings.greyscale))
  return tuple(colors)
