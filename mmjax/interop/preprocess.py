"""Image preprocessing of published models: size, resampling, crop and colours.

The settings are read and written as JSON of transformers and of open_clip.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from mmjax.data.images.decoding import ImageLike, decode
from mmjax.interop.fields import Fields

Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic"]
Resize = Literal["shortest", "squash", "longest"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_PIL = {name: Image.Resampling(number) for number, name in _INTERPOLATIONS.items()}
_KNOWN = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """Preprocessing of an image to normalised float32 [size, size, 3], as torchvision does it with Pillow images.

  Attributes:
    size: side of the output in pixels.
    resize: "shortest" (resize the shorter side to `size`, then crop the middle), "squash" (resize both sides), or
      "longest" (resize the longer side, then pad).
    interpolation: Pillow's filter. All but "nearest" antialias.
    mean, std: a colour c between 0 and 1 becomes (c - mean) / std.
    fill: grey level of the padding, from 0 to 255, for "longest".
    odd: rounding of the crop's offset when it is not an integer: "even" rounds half to even (torchvision, open_clip),
      "down" rounds down (transformers).
  """

  size: int
  resize: Resize = "shortest"
  interpolation: Interpolation = "bicubic"
  mean: tuple[float, float, float] = CLIP_MEAN
  std: tuple[float, float, float] = CLIP_STD
  fill: int = 0
  odd: Literal["even", "down"] = "even"

  def __call__(self, picture: ImageLike) -> Float[np.ndarray, "height width 3"]:
    """Preprocess a path, encoded bytes, a Pillow image or a uint8 array.

    Transparency is dropped, as in the other libraries.
    """
    image = decode(picture).convert("RGB")
    pixels = np.asarray(self._resized(image), np.float32) / np.float32(255)
    return (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

  def _resized(self, image: Image.Image) -> Image.Image:
    side, filter_ = self.size, _PIL[self.interpolation]
    width, height = image.size
    if self.resize == "squash":
      return image.resize((side, side), filter_)
    if self.resize == "longest":
      ratio = max(width, height) / side
      return _cut(image.resize((round(width / ratio), round(height / ratio)), filter_), side, self.fill, self.odd)
    short = min(width, height)
    # The longer side is rounded down, as torchvision does.
    sides = int(side * width / short), int(side * height / short)
    return _cut(image.resize(sides, filter_), side, self.fill, self.odd)


def _cut(image: Image.Image, side: int, fill: int, odd: str) -> Image.Image:
  """Crop the square in the middle. A smaller image is padded."""
  width, height = image.size
  if width < side or height < side:
    left, top = max(0, (side - width) // 2), max(0, (side - height) // 2)
    right, bottom = max(0, (side - width + 1) // 2), max(0, (side - height + 1) // 2)
    image = ImageOps.expand(image, (left, top, right, bottom), fill=(fill,) * 3)
    width, height = image.size
  begin = round if odd == "even" else int
  left, top = begin((width - side) / 2.0), begin((height - side) / 2.0)
  return image.crop((left, top, left + side, top + side))


def from_transformers(fields: Fields, size: int, default: Preprocess) -> Preprocess:
  """Read the preprocessing from preprocessor_config.json.

  Args:
    fields: the file.
    size: image size of the model.
    default: preprocessing of the architecture, used for missing fields.
  Returns: the preprocessing.
  Raises: InteropError: the file asks for another size than the model's, or for a step that mmjax does not support.
  """
  for name in ("do_resize", "do_rescale", "do_normalize"):
    fields.only(name, True, True)
  if "rescale_factor" in fields and abs(fields.number("rescale_factor") - 1 / 255) > 1e-9:
    raise fields.wrong("rescale_factor", "1 / 255")
  resize = default.resize
  if isinstance(fields.values.get("size"), dict):
    sides = fields.object("size")
    resize = "shortest" if "shortest_edge" in sides else "squash"
    short = sides.integer("shortest_edge") if resize == "shortest" else sides.integer("height")
    if short != size or (resize == "squash" and sides.integer("width") != short):
      raise fields.wrong("size", f"the model's image size, {size}")
    if resize == "shortest" and not fields.flag("do_center_crop", True):
      raise fields.wrong("do_center_crop", "true, because models in mmjax take square images")
  return dataclasses.replace(
    default,
    size=size,
    resize=resize,
    odd="down",
    interpolation=fields.choice(
      "resample", _INTERPOLATIONS, {v: k for k, v in _INTERPOLATIONS.items()}[default.interpolation]
    ),
    mean=fields.colors("image_mean", default.mean),
    std=fields.colors("image_std", default.std),
  )


def to_transformers(p: Preprocess, processor: str) -> dict[str, Any]:
  """Make the content of preprocessor_config.json. `processor` is the class name of the image processor."""
  shortest = p.resize == "shortest"
  square = {"height": p.size, "width": p.size}
  return {
    "image_processor_type": processor,
    "do_resize": True,
    "size": {"shortest_edge": p.size} if shortest else square,
    "resample": {name: number for number, name in _INTERPOLATIONS.items()}[p.interpolation],
    "do_center_crop": shortest,
    **({"crop_size": square} if shortest else {}),
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(p.mean),
    "image_std": list(p.std),
    "do_convert_rgb": True,
  }


def from_open_clip(fields: Fields, size: int) -> Preprocess:
  """Read the preprocessing from preprocess_cfg. The size is that of the model, as in open_clip itself."""
  fields.known(_KNOWN)
  return Preprocess(
    size=size,
    resize=fields.choice("resize_mode", {"shortest": "shortest", "squash": "squash", "longest": "longest"}, "shortest"),
    interpolation=fields.choice("interpolation", {"bicubic": "bicubic", "bilinear": "bilinear"}, "bicubic"),
    mean=fields.colors("mean", CLIP_MEAN),
    std=fields.colors("std", CLIP_STD),
    fill=fields.integer("fill_color", 0, least=0),
  )


def to_open_clip(p: Preprocess) -> dict[str, Any]:
  """Make the content of preprocess_cfg."""
  return {
    "size": p.size,
    "mode": "RGB",
    "mean": list(p.mean),
    "std": list(p.std),
    "interpolation": p.interpolation,
    "resize_mode": p.resize,
    "fill_color": p.fill,
  }


def default_preprocess(size: int, kind: str) -> Preprocess:
  """Preprocessing that an architecture was published with.

  CLIP and CoCa resize the shorter side and crop the middle. BLIP squashes the image and has CLIP's colours. The others
  (SigLIP, ViT) squash the image, with colours from -1 to 1. `kind` is the name of the architecture.
  """
  if kind in ("CLIPModel", "open_clip's CLIP", "open_clip's CoCa", "OpenAI's CLIP"):
    return Preprocess(size)
  if kind.startswith("Blip"):
    return Preprocess(size, "squash")
  interpolation: Interpolation = "bicubic" if kind == "SiglipModel" else "bilinear"
  return Preprocess(size, "squash", interpolation, _HALF, _HALF)
