"""Image transforms of runs and checkpoints, and their JSON in mmjax's own format, which holds all of them."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from cattrs.errors import BaseValidationError
from cattrs.v import transform_error
from jaxtyping import Float
from PIL import Image

from mmjax.configs import converter, to_json
from mmjax.data.errors import DataError
from mmjax.data.images.decoding import MAX_PIXELS, ImageLike, decode, open_image, trimmed
from mmjax.data.transforms import EvalImage
from mmjax.files import write_atomically
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.preprocess import Preprocess
from mmjax.kinds import TAG


@dataclasses.dataclass(frozen=True)
class CheckpointImage:
  """Image preprocessing of a checkpoint, as the transform of a run.

  Attributes:
    preprocess: the preprocessing.
    max_pixels: largest number of pixels of an image, as data.max_pixels.
    trim: cut off margins first, as data.trim.
  """

  preprocess: Preprocess
  max_pixels: int = MAX_PIXELS
  trim: bool = False

  @property
  def size(self) -> int:
    """Side of the output in pixels."""
    return self.preprocess.size

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the result."""
    return self.preprocess.shape

  def __call__(self, picture: ImageLike, *, record: str = "the image") -> Float[np.ndarray, "..."]:
    """Preprocess an image. Raises DataError, which names the record, if it cannot be read or is too large."""
    if isinstance(picture, bytes | str | os.PathLike):
      open_image(picture, record=record, max_pixels=self.max_pixels)
    try:
      return self.preprocess(trimmed(decode(picture)) if self.trim else picture)
    except DataError as error:
      raise DataError(f"{record}: {error}") from error

  def mask(self, mask: Image.Image) -> Float[np.ndarray, "h w"]:
    """Raise DataError: preprocessing of other libraries has no masks."""
    raise DataError("--data.preprocess prepares no relevance masks: leave it out.")


ImageTransform = Preprocess | EvalImage | CheckpointImage
PREPROCESS = "preprocess"
"""Entry of config.json in mmjax's own format."""
_CLASSES: dict[str, type] = {kind.__name__: kind for kind in (Preprocess, EvalImage, CheckpointImage)}


def transform_to_json(transform: ImageTransform) -> dict[str, Any]:
  """Write all fields of a transform, and the name of its class."""
  return {TAG: type(transform).__name__, **to_json(transform)}


def transform_from_json(fields: Fields, size: int) -> ImageTransform:
  """Read what `transform_to_json` wrote.

  Args:
    fields: the fields.
    size: side of the images that the model takes.
  Raises: InteropError: a field is unknown, missing or wrong.
  """
  kind = fields.choice(TAG, _CLASSES)
  rest = {name: value for name, value in fields.values.items() if name != TAG}
  try:
    return sized(converter(()).structure(rest, kind), size)
  except (BaseValidationError, ValueError, TypeError) as error:
    raise InteropError(f"{fields.where}: " + "; ".join(transform_error(error, path="preprocess"))) from error


def write_image(transform: ImageTransform, path: Path) -> None:
  """Write a transform to a file, for the workdir of a run."""
  write_atomically(path, json.dumps(transform_to_json(transform), indent=2))


def read_image(path: Path, size: int) -> ImageTransform | None:
  """Read a transform from a file. None if there is no such file. Raises InteropError if it is wrong."""
  return transform_from_json(read_json(path), size) if path.exists() else None


def sized(transform: ImageTransform, size: int) -> ImageTransform:
  """Set the side of the output."""
  if transform.size == size:
    return transform
  if isinstance(transform, CheckpointImage):
    return dataclasses.replace(transform, preprocess=transform.preprocess.at(size))
  return transform.at(size) if isinstance(transform, Preprocess) else dataclasses.replace(transform, size=size)


def nearest_preprocess(transform: ImageTransform) -> Preprocess:
  """Make the preprocessing of other libraries that comes nearest to a transform. It neither trims nor adds white."""
  if isinstance(transform, EvalImage):
    colors = transform.normalize.mean, transform.normalize.std
    if transform.patches:
      found = Preprocess(transform.size, "native", transform.interpolation, *colors, patches=transform.patches)
      return dataclasses.replace(found, grid=transform.size // transform.patch_size)
    return Preprocess(transform.size, "shortest", "bilinear", *colors)
  return transform.preprocess if isinstance(transform, CheckpointImage) else transform
