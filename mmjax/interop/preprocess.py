"""Image preprocessing of published models: size, resampling, crop and colours.

The settings are read and written as JSON of transformers and of open_clip.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from mmjax.data.errors import DataError
from mmjax.data.images.decoding import ImageLike
from mmjax.data.images.native import native_grid, row_width, to_row
from mmjax.interop.colors import Colors, converted, read_image, to_rgb
from mmjax.interop.errors import InteropError

Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Resize = Literal["shortest", "squash", "longest", "native", "patches", "none"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
INTERPOLATIONS: dict[int, Interpolation] = {
  0: "nearest",
  1: "lanczos",
  2: "bilinear",
  3: "bicubic",
  4: "box",
  5: "hamming",
}
"""Pillow's numbers of its filters."""
_REMEDY = 'Use the format "mmjax", which holds every preprocessing'
_PIL = {name: Image.Resampling(number) for number, name in INTERPOLATIONS.items()}


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """Preprocessing of an image to normalised float32 [size, size, 3], as torchvision does it with Pillow images.

  Attributes:
    size: side of the output in pixels.
    resize: "shortest" (resize the shorter side), "squash" (resize both sides), "longest" (resize the longer side, then
      pad), "native" (NaFlex: keep the shape, and make a row of patches), "patches" (for a model with one square
      resolution: as "squash", but refuse an image to which NaFlex gives another shape), or "none".
    interpolation: Pillow's filter. All but "nearest" antialias.
    mean, std: a colour c becomes (c - mean) / std.
    fill: grey level of the padding, from 0 to 255, for "longest".
    odd: rounding of the crop's offset when it is not an integer: "even" rounds half to even (torchvision, open_clip),
      "down" rounds down (transformers).
    resize_to: side in pixels that the image is resized to before the crop. None: `size`.
    crop: True: crop the square in the middle. False: refuse an image that is not a square of `size` after resizing.
    scale: factor from a byte to a colour; usually a colour is between 0 and 1.
    colors: conversion of images that are not opaque RGB (see mmjax.interop.colors).
    grid: patches per side of the square image of `size`, for "native" and "patches".
    divisor: the resized sides are rounded down to multiples of this number, and the longer side is at most 5/3 of the
      shorter, for "shortest" (BridgeTower). 0: neither.
    patches: largest number of patches of an image, and length of a row, for "native".
  """

  size: int
  resize: Resize = "shortest"
  interpolation: Interpolation = "bicubic"
  mean: tuple[float, float, float] = CLIP_MEAN
  std: tuple[float, float, float] = CLIP_STD
  fill: int = 0
  odd: Literal["even", "down"] = "even"
  resize_to: int | None = None
  crop: bool = True
  scale: float = 1 / 255
  colors: Colors = "drop"
  grid: int = 0
  patches: int = 0
  divisor: int = 0

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the result."""
    return (self.patches, row_width(self.patch_size)) if self.resize == "native" else (self.size, self.size, 3)

  @property
  def patch_size(self) -> int:
    """Side of a patch in pixels, for "native"."""
    return self.size // self.grid

  def __call__(self, picture: ImageLike) -> Float[np.ndarray, "..."]:
    """Preprocess a path, encoded bytes, a Pillow image or a uint8 array.

    Returns: normalised pixels [size, size, 3]; for "native", a row of patches (mmjax.data.images.native).
    Raises: DataError: the image cannot be read, or these settings do not make a square of it.
    """
    image = read_image(picture)
    image = image if self.colors == "late" else to_rgb(image, self.colors)
    image = self._resized(image)
    image = converted(image if self.resize == "native" else self._cropped(image))
    pixels = np.asarray(image, np.float32) / np.float32(1 / self.scale)
    normal = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
    return to_row(normal, self.patch_size, self.patches) if self.resize == "native" else normal

  def at(self, size: int) -> "Preprocess":
    """The same preprocessing for a model of another image size."""
    before = None if self.resize_to is None else round(self.resize_to * size / self.size)
    return dataclasses.replace(self, size=size, resize_to=before, grid=self.grid * size // self.size)

  def _resized(self, image: Image.Image) -> Image.Image:
    side, filter_ = self.resize_to or self.size, _PIL[self.interpolation]
    width, height = image.size
    if self.resize == "none":
      return image
    if self.resize == "native":
      rows, columns = native_grid(width, height, self.patch_size, self.patches)
      return image.resize((columns * self.patch_size, rows * self.patch_size), filter_)
    if self.resize == "patches":
      check_naflex(width, height, self.size, self.grid)
    if self.resize in ("squash", "patches"):
      return image.resize((side, side), filter_)
    if self.resize == "longest":
      ratio = max(width, height) / side
      return image.resize((round(width / ratio), round(height / ratio)), filter_)
    short = min(width, height)
    if self.divisor:
      return image.resize(_divisible(width, height, side, self.divisor), filter_)
    # The longer side is rounded down, as torchvision does.
    return image.resize((int(side * width / short), int(side * height / short)), filter_)

  def _cropped(self, image: Image.Image) -> Image.Image:
    if self.crop:
      return _cut(image, self.size, self.fill, self.odd)
    if image.size != (self.size, self.size):
      raise DataError(
        f"the image is {image.width} x {image.height} pixels after resizing, and the model takes {self.size} x "
        f"{self.size}. The folder's preprocessing does not crop it (do_center_crop, do_resize). Crop or resize the "
        "image to a square first"
      )
    return image


def check_naflex(width: int, height: int, size: int, grid: int) -> None:
  """Check that NaFlex, which keeps an image's shape, makes a square of patches of it.

  Args:
    width, height: size of the image in pixels.
    size: side of the model's images in pixels.
    grid: patches per side of the model.
  Raises: DataError: NaFlex makes another shape of it.
  """
  rows, columns = native_grid(width, height, size // grid, grid * grid)
  if (rows, columns) != (grid, grid):
    raise DataError(
      f"the image is {width} x {height} pixels, which the folder's NaFlex processor makes {columns} x {rows} patches "
      f"of. This model has one square resolution, {grid} x {grid} patches. Crop or resize the image to a "
      "square first"
    )


def _divisible(width: int, height: int, side: int, divisor: int) -> tuple[int, int]:
  """Width and height of an image with a shorter side of `side` pixels, or less if the longer side would be too long.

  Both are rounded down to multiples of `divisor`.
  """
  scale = side / min(width, height)
  longest, sizes = (
    int(1333 / 800 * side),
    [side if length == min(width, height) else scale * length for length in (width, height)],
  )
  if max(sizes) > longest:
    sizes = [size * longest / max(sizes) for size in sizes]
  across, down = (max(divisor, int(size + 0.5) // divisor * divisor) for size in sizes)
  return across, down


def _cut(image: Image.Image, side: int, fill: int, odd: str) -> Image.Image:
  """Crop the square in the middle. A smaller image is padded."""
  width, height = image.size
  if width < side or height < side:
    left, top = max(0, (side - width) // 2), max(0, (side - height) // 2)
    right, bottom = max(0, (side - width + 1) // 2), max(0, (side - height + 1) // 2)
    image = _padded(image, (left, top, right, bottom), fill)
    width, height = image.size
  begin = round if odd == "even" else int
  left, top = begin((width - side) / 2.0), begin((height - side) / 2.0)
  return image.crop((left, top, left + side, top + side))


def _padded(image: Image.Image, border: tuple[int, int, int, int], fill: int) -> Image.Image:
  """Pad an image of any mode, as torchvision does."""
  bands = len(image.getbands())
  padded = ImageOps.expand(image, border, fill=(fill,) * bands if bands > 1 else fill)
  if image.mode == "P":
    padded.putpalette(image.getpalette() or [])
  return padded


def to_transformers(p: Preprocess, processor: str) -> dict[str, Any]:
  """Make the content of preprocessor_config.json. `processor` is the class name of the image processor.

  Raises: InteropError: transformers' image processors have no such resizing.
  """
  if p.resize == "longest":
    raise InteropError(
      f"transformers' image processors cannot resize the longer side and pad (resize_mode 'longest'). {_REMEDY}"
    )
  if p.resize == "patches":
    p = dataclasses.replace(p, resize="squash")  # the same for every image that `p` takes
  if p.resize == "native":
    return {
      "image_processor_type": "Siglip2ImageProcessor",
      "do_resize": True,
      "resample": {name: number for number, name in INTERPOLATIONS.items()}[p.interpolation],
      "patch_size": p.patch_size,
      "max_num_patches": p.patches,
      **_colors_record(p),
    }
  side, square = p.resize_to or p.size, {"height": p.size, "width": p.size}
  crop = p.crop and (p.resize != "squash" or side != p.size)
  return {
    "image_processor_type": processor,
    "do_resize": p.resize != "none",
    "size": {"height": side, "width": side} if p.resize == "squash" else {"shortest_edge": side},
    "resample": {name: number for number, name in INTERPOLATIONS.items()}[p.interpolation],
    "do_center_crop": crop,
    **({"crop_size": square} if crop else {}),
    **_colors_record(p),
  }


def _colors_record(p: Preprocess) -> dict[str, Any]:
  """Fields of the colours, which all image processors have."""
  return {
    "do_rescale": True,
    "rescale_factor": p.scale,
    "do_normalize": True,
    "image_mean": list(p.mean),
    "image_std": list(p.std),
    "do_convert_rgb": p.colors != "none",
  }


def version_of(p: Preprocess) -> str:
  """Version of transformers that converts images to RGB as a preprocessing does. "": any that is new."""
  return "4.57.0" if p.colors == "drop" else ""


def to_open_clip(p: Preprocess) -> dict[str, Any]:
  """Make the content of preprocess_cfg.

  Raises: InteropError: open_clip has no such resizing, filter or scale.
  """
  if p.resize == "patches":
    p = dataclasses.replace(p, resize="squash")  # the same for every image that `p` takes
  held = (
    ("do_resize false", p.resize != "none"),
    ("a size_divisor", not p.divisor),
    ("rows of patches (NaFlex)", p.resize != "native"),
    ("a size before the crop that is not the model's", p.resize_to in (None, p.size)),
    ("a resizing without a crop", p.crop or p.resize == "squash"),
    ("another rescale_factor than 1 / 255", abs(p.scale * 255 - 1) < 1e-6),
    (f"the filter {p.interpolation!r}", p.interpolation in ("bicubic", "bilinear")),
  )
  for name, right in held:
    if not right:
      raise InteropError(f"open_clip's preprocess_cfg cannot hold this preprocessing: it has {name}. {_REMEDY}")
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

  CLIP and CoCa resize the shorter side and crop the middle. BLIP, OWL-ViT and FLAVA squash the image and have CLIP's
  colours. OWLv2 takes images of its own size only, and ViLT squares. DINO, ConvNeXt and ResNet have ImageNet's
  colours. The others (SigLIP, ViT) squash the image, with colours from -1 to 1.
  `kind` is the name of the architecture.
  """
  if kind in ("open_clip's CLIP", "open_clip's CoCa", "OpenAI's CLIP"):
    return Preprocess(size, colors="late")
  if kind.startswith(("CLIP", "ChineseCLIP", "AltCLIP", "Aimv2", "XCLIP")):
    return Preprocess(size)
  if kind.startswith(("Blip", "OwlViT", "Flava")):
    return Preprocess(size, "squash")
  if kind.startswith("Align"):
    return Preprocess(size, "squash", "bilinear", HALF, HALF, resize_to=round(size * 346 / 289))
  if kind.startswith("Vilt"):  # its processor keeps the shape of an image, and the model takes squares
    return Preprocess(size, "shortest", "bicubic", HALF, HALF, crop=False)
  if kind.startswith("Owlv2"):  # its processor has a resizing of its own
    return Preprocess(size, "none", crop=False)
  if kind.startswith("DINOv3"):
    return Preprocess(size, "squash", "bilinear", IMAGENET_MEAN, IMAGENET_STD)
  larger = round(size * 256 / 224)
  if kind.startswith("Dinov2"):
    return Preprocess(size, "shortest", "bicubic", IMAGENET_MEAN, IMAGENET_STD, resize_to=larger)
  if kind.startswith("ConvNext") and size >= 384:
    return Preprocess(size, "squash", "bicubic", IMAGENET_MEAN, IMAGENET_STD)
  if kind.startswith(("ConvNext", "ResNet")):
    return Preprocess(size, "shortest", "bicubic", IMAGENET_MEAN, IMAGENET_STD, resize_to=int(size * 256 / 224))
  if kind.startswith("DeiT"):
    return Preprocess(size, "squash", "bicubic", HALF, HALF, resize_to=larger)
  bicubic = kind.startswith("Siglip") and not kind.startswith("Siglip2")
  return Preprocess(size, "squash", "bicubic" if bicubic else "bilinear", HALF, HALF)
