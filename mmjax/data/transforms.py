"""Transforms of a record's image and captions into the content of a batch: random in training, fixed in evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data.captions import caption_fault
from mmjax.data.errors import DataError
from mmjax.data.images import geometry
from mmjax.data.images.color import WHITE, Color, ColorJitter, ColorMatrix, Normalize, RandomBackground, RandomGreyscale
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.images.decoding import ImageLike, decode, trimmed
from mmjax.data.images.native import native_grid, row_width, to_row
from mmjax.data.records import PRIMARY

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig  # it has columns, whose makers use these transforms
  from mmjax.data.images.photo import Photo  # it imports OpenCV, which data without JPEGs does not need


_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class ExampleRng:
  """Random generators of examples. The numbers depend only on (seed, epoch, index).

  Each call sets the key of the same Philox generator, because making a new generator takes longer than cropping an
  image. The returned generator is valid until the next call. Each thread needs its own ExampleRng.
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
  """Set a random square to 0 with a probability (DeVries and Taylor 2017). Its side is 1/4 to 1/2 of the image's."""

  probability: float = 0.5

  def __call__(self, image: Float[np.ndarray, "h w 3"], rng: np.random.Generator) -> None:
    draws = rng.random(4).tolist()
    if draws[0] < self.probability:
      side = int(min(image.shape[:2]) * (0.25 + 0.25 * draws[1]))
      top, left = (int(draw * (length - side)) for draw, length in zip(draws[2:], image.shape[:2]))
      image[top : top + side, left : left + side] = 0.0


@dataclass(frozen=True)
class TrainImage:
  """Random transform of an image: crop, rotation, colours and background. The image is resampled only once."""

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
    """Transform an image.

    Args:
      image: a premultiplied image (mode "RGBa").
      rng: generator of this example.
      out: array for the result. None: a new array.
      mask: (mask of mode "L" in the size of the image, array for the transformed mask). The mask has the same geometric
        transform as the image. The array is set to 1 where the transformed mask is white, and to 0 elsewhere. Cutout
        does not change it.
    Returns: the normalised image, float32 [size, size, 3].
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

  def native(
    self, image: Image.Image, rng: np.random.Generator, patch_size: int, most: int
  ) -> Float[np.ndarray, "h w 3"]:
    """Transform an image and keep the shape of its crop.

    Args:
      image: a premultiplied image (mode "RGBa").
      rng: generator of this example. The random numbers are those of a square image.
      patch_size: side of a patch in pixels.
      most: largest number of patches.
    Returns: the normalised image, whose sides are whole patches.
    """
    box = self.crop.native_box(*image.size, rng)
    across, down = (2 * float(box[axis, axis]) for axis in (0, 1))  # width and height of the crop
    rows, columns = native_grid(across, down, patch_size, most)
    width, height = columns * patch_size, rows * patch_size
    # Rotations are in pixels, and the matrices in halves of the sides.
    sides = np.diag([width, height, 1.0])
    matrices = [np.linalg.inv(sides) @ transform.matrix(rng) @ sides for transform in self.geometry]
    pixels = np.asarray(geometry.warp(image, box, matrices, (width, height)))
    result = self.normalize(pixels, *self._colors(rng)[::-1])
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
    """Transform a JPEG that is not decoded yet.

    The random numbers are the same as for a decoded image. The result is the same, except for the rounding of the
    decoder.

    Args:
      photo: the JPEG.
      rng: generator of this example.
      out: array for the result, float32 [size, size, 3].
      decoder: mmjax.data.images.photo.decoded, or a variant with a cache.
    Returns: nothing; the result is in `out`.
    Raises: DataError: the JPEG is corrupt.
    """
    from mmjax.data.images.photo import seen

    matrix = self.crop.box(*photo.size, rng)
    for transform in self.geometry:
      matrix = matrix @ transform.matrix(rng)
    pixels = seen(photo, matrix, self.size, decoder)
    change, background = self._colors(rng)
    self.normalize.by_opencv(pixels, background, change, out)
    if self.cutout is not None:
      self.cutout(out, rng)

  def _colors(self, rng: np.random.Generator) -> tuple[ColorMatrix | None, Sequence[float]]:
    """Draw the colour matrix (None if there is no colour change) and the background colour."""
    matrix = None
    for color in self.colors:
      step = color.matrix(rng)
      matrix = step if matrix is None else step @ matrix
    return matrix, self.background.color(rng)


@dataclass(frozen=True)
class EvalImage:
  """Fixed transform of an image for evaluation and `load_run`: crop the middle square, resize it, put it on white.

  With `squash`, the whole image is resized to a square. With `patches`, the whole image keeps its shape, and the result
  is a row of at most this many patches (mmjax.data.images.native).
  """

  size: int
  normalize: Normalize
  max_pixels: int
  trim: bool = False
  interpolation: Literal["bilinear", "bicubic"] = "bilinear"
  squash: bool = False
  patch_size: int = 0
  patches: int = 0

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the result."""
    return (self.patches, row_width(self.patch_size)) if self.patches else (self.size, self.size, 3)

  def __call__(self, picture: ImageLike, *, record: str = "the image") -> Float[np.ndarray, "..."]:
    """Transform encoded bytes, a path, a Pillow image or uint8 [h, w, 3] to normalised float32 [size, size, 3].

    With `patches`, the result is a row float32 [patches, patch_size * patch_size * 3 + 2].

    Raises:
      DataError: the image cannot be read, or claims more than max_pixels.
    """
    image = decode(picture, record=record, max_pixels=self.max_pixels)
    image = premultiplied(trimmed(image) if self.trim else image)
    if self.patches:
      rows, columns = native_grid(*image.size, self.patch_size, self.patches)
      image = image.resize((columns * self.patch_size, rows * self.patch_size), _FILTERS[self.interpolation])
      return to_row(self.normalize(np.asarray(image), WHITE), self.patch_size, self.patches)
    pixels = image.resize((self.size, self.size), _FILTERS[self.interpolation], box=self._box(image))
    return self.normalize(np.asarray(pixels), WHITE)

  def mask(self, mask: Image.Image) -> Float[np.ndarray, "h w"]:
    """Transform a mask of mode "L" in the same way as its image. The result is 1 where it is white, and 0 elsewhere.

    Raises: DataError: images keep their own shape.
    """
    if self.patches:
      raise DataError("a relevance mask needs square images: use a column Image, not NativeImage")
    return binary(mask.resize((self.size, self.size), Image.Resampling.BILINEAR, box=self._box(mask)))

  def _box(self, image: Image.Image) -> tuple[float, float, float, float]:
    return (0, 0, *image.size) if self.squash else geometry.center_box(*image.size)


@dataclass(frozen=True)
class SampleCaption:
  """Random choice of one caption of a record.

  The kind of caption is drawn first, in proportion to the weights. For "keywords", one to four keywords are joined.
  """

  weights: Mapping[str, float]
  """Weight of each kind of caption. Kinds without a weight are never drawn."""

  def __call__(self, captions: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    kind_draw, pick_draw, order = rng.random(3).tolist()
    kind = self._draw(self.weights, kind_draw)
    if not captions.get(kind):  # the record does not have this kind (rare): draw from the kinds that it has
      present = {name: weight for name, weight in self.weights.items() if captions.get(name)}
      kind = self._draw(present, order)
    texts = captions[kind]
    if kind != "keywords":
      return texts[int(pick_draw * len(texts))]
    number = 1 + int(pick_draw * min(4, len(texts)))
    return ", ".join(texts[place] for place in rng.permutation(len(texts))[:number].tolist())

  def _draw(self, weights: Mapping[str, float], point: float) -> str:
    """Choose a kind with a probability in proportion to its weight. If all weights are 0, the main caption."""
    point *= sum(weights.values())
    for kind, weight in weights.items():
      point -= weight
      if point < 0:
        return kind
    return PRIMARY


def premultiplied(image: Image.Image) -> Image.Image:
  """Multiply the colours by alpha, so that resampling does not mix in colours of transparent pixels."""
  if image.mode == "RGB":
    image = image.convert("RGBA")
  return image.convert("RGBa")


def check_captions(captions: Mapping[str, Sequence[str]], record: str) -> None:
  """Raise DataError if a record has no main caption, or if any of its captions is no text (mmjax.data.captions)."""
  if not captions.get(PRIMARY):
    raise DataError(f"{record}: has no caption. Add one, remove the record, or use --data.on-bad-record skip.")
  for kind, texts in captions.items():
    if isinstance(texts, str) or not isinstance(texts, Sequence):
      fault: str | None = f"is {texts!r:.60}, not a list of texts"
    else:
      fault = next((wrong for text in texts if (wrong := caption_fault(text))), None)
    if fault is not None:
      raise DataError(f"{record}: the caption of kind {kind!r} {fault}. Correct it, or remove the record.")


def binary(mask: Image.Image) -> Float[np.ndarray, "h w"]:
  """1 where a mask of mode "L" is brighter than 127, else 0."""
  return (np.asarray(mask) > 127).astype(np.float32)


def train_transform(config: "DataConfig", image_size: int) -> TrainImage:
  """Make the random transform of a configuration. Augmentations whose setting is 0 are left out."""
  settings = config.augmentation
  shapes: list[geometry.Geometry] = []
  if settings.rotation or settings.shear:
    shapes.append(geometry.RandomRotation(settings.rotation, settings.shear))
  if settings.flip:
    shapes.append(geometry.RandomFlip(settings.flip))
  return TrainImage(
    size=image_size,
    normalize=Normalize(config.mean, config.std),
    crop=geometry.RandomResizedCrop(settings.crop_scale, settings.crop_ratio, config.square == "squash"),
    geometry=tuple(shapes),
    colors=_colors(settings),
    background=RandomBackground(settings.background),
    cutout=Cutout(settings.cutout) if settings.cutout else None,
  )


def eval_transform(config: "DataConfig", image_size: int) -> EvalImage:
  """Make the fixed transform of a configuration. With a column of images at their own shape, it makes their rows."""
  return EvalImage(
    image_size,
    Normalize(config.mean, config.std),
    config.max_pixels,
    config.trim,
    config.interpolation,
    config.square == "squash",
    *native_patches(config),
  )


def native_patches(config: "DataConfig") -> tuple[int, int]:
  """Side of a patch and longest row of the images at their own shape. (0, 0): the data has no such column."""
  columns = [column for _, column in sorted(config.columns.items())]
  found = [column.native_patches for column in columns if column.native_patches is not None]
  return found[0] if found else (0, 0)


def caption_transform(config: "DataConfig") -> SampleCaption:
  """Make the caption sampling of a configuration. `languages_weight` is divided equally among the languages.

  Raises: DataError: a weight is negative.
  """
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
