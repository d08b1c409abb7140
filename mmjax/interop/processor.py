"""Readers of the image preprocessing beside the weights: transformers' image processors and open_clip's settings."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

from mmjax.encoders import NaFlexConfig
from mmjax.interop import without_effect
from mmjax.interop.colors import Colors
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.preprocess import (
  CLIP_MEAN,
  CLIP_STD,
  HALF,
  IMAGENET_MEAN,
  IMAGENET_STD,
  INTERPOLATIONS,
  Preprocess,
  Resize,
  default_preprocess,
)
from mmjax.interop.shapes import image_tower
from mmjax.interop.source import Source
from mmjax.interop.supported import BRIDGETOWER, EFFICIENTNET, NAFLEX, PROCESSORS, VIDEOMAE, VILT
from mmjax.interop.supported import CONVNEXT as _CONVNEXT

PREPROCESSOR_CONFIG, PROCESSOR_CONFIG = "preprocessor_config.json", "processor_config.json"
_ON_WHITE = (5, 21)  # the version of transformers that began to put transparent images on white


@dataclasses.dataclass(frozen=True)
class _Class:
  """Defaults of one of transformers' image processors.

  Attributes:
    size: default of `size`.
    interpolation: default of `resample`, as Pillow's number.
    mean, std: defaults of `image_mean` and `image_std`.
    square: True if a number as `size` is both sides, False if it is the shorter side.
    crop: default of `do_center_crop`.
    rgb: default of `do_convert_rgb`.
  """

  size: dict[str, int]
  interpolation: int
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  square: bool = False
  crop: bool = False
  rgb: bool = True


_DINOV3, _FLAVA = "DINOv3ViTImageProcessor", "FlavaImageProcessor"
_HIDDEN = re.compile(
  r"codebook_|mask_group_|return_(image_mask|codebook_pixels)$|input_size_patches$|total_mask_patches$"
)
_MOST_PATCHES = 2**16  # a row of each image has this length
_CONVNEXT_SQUASHES = 384  # pixels, from which ConvNeXt's processor does not crop
_CLASSES = {
  "CLIPImageProcessor": _Class({"shortest_edge": 224}, 3, CLIP_MEAN, CLIP_STD, crop=True),
  "ChineseCLIPImageProcessor": _Class({"shortest_edge": 224}, 3, CLIP_MEAN, CLIP_STD, crop=True),
  "SiglipImageProcessor": _Class({"height": 224, "width": 224}, 3, HALF, HALF),
  "ViTImageProcessor": _Class({"height": 224, "width": 224}, 2, HALF, HALF, square=True, rgb=False),
  "BlipImageProcessor": _Class({"height": 384, "width": 384}, 3, CLIP_MEAN, CLIP_STD, square=True),
  "BeitImageProcessor": _Class({"height": 256, "width": 256}, 3, HALF, HALF, square=True, crop=True, rgb=False),
  "BitImageProcessor": _Class({"shortest_edge": 224}, 3, CLIP_MEAN, CLIP_STD, crop=True),
  EFFICIENTNET: _Class({"height": 346, "width": 346}, 3, HALF, HALF, square=True, rgb=False),
  BRIDGETOWER: _Class({"shortest_edge": 288}, 3, CLIP_MEAN, CLIP_STD, crop=True, rgb=False),
  VIDEOMAE: _Class({"shortest_edge": 224}, 2, HALF, HALF, crop=True, rgb=False),
  VILT: _Class({"shortest_edge": 384}, 3, HALF, HALF, rgb=False),
  "DeiTImageProcessor": _Class({"height": 256, "width": 256}, 3, HALF, HALF, square=True, crop=True, rgb=False),
  "OwlViTImageProcessor": _Class({"height": 768, "width": 768}, 3, CLIP_MEAN, CLIP_STD, square=True),
  _FLAVA: _Class({"height": 224, "width": 224}, 3, CLIP_MEAN, CLIP_STD, square=True, crop=True, rgb=False),
  _DINOV3: _Class({"height": 224, "width": 224}, 2, IMAGENET_MEAN, IMAGENET_STD, square=True, rgb=False),
  _CONVNEXT: _Class({"shortest_edge": 384}, 3, HALF, HALF, rgb=False),
  NAFLEX: _Class({}, 2, HALF, HALF, rgb=False),
}


def find_preprocess(folder: Path, form: str) -> Fields | None:
  """Image processor's settings in a folder, or None if the folder has none.

  Args:
    folder: folder of the checkpoint.
    form: format of the checkpoint. Only transformers' and mmjax's have these files.
  """
  return find_settings(folder, "image_processor") if form in ("transformers", "mmjax") else None


def find_settings(folder: Path, part: Literal["image_processor", "feature_extractor"]) -> Fields | None:
  """Settings of a part of the processor in a folder, or None if the folder has none."""
  if (folder / PROCESSOR_CONFIG).is_file():  # it has precedence, as in transformers
    both = read_json(folder / PROCESSOR_CONFIG)
    if part in both:
      both.finish(without_effect.PROCESSOR)
      return both.object(part)
  return read_json(folder / PREPROCESSOR_CONFIG) if (folder / PREPROCESSOR_CONFIG).is_file() else None


def from_transformers(fields: Fields, size: int, kind: str, version: str = "") -> Preprocess:
  """Read the preprocessing from preprocessor_config.json.

  Args:
    fields: the file.
    size: image size of the model.
    kind: name of the architecture. It decides the class of the image processor where the file names none.
    version: version of transformers that the folder names, or "".
  Returns: the preprocessing.
  Raises: InteropError: the file asks for another size than the model's, or for a step that mmjax does not support.
  """
  name = _class_name(fields, kind)
  defaults = _CLASSES[name]
  fields.only("use_square_size", False, False)
  interpolation = fields.choice("resample", INTERPOLATIONS, defaults.interpolation)
  if name == _DINOV3 and interpolation != "bilinear":
    raise fields.wrong("resample", f"2 (bilinear): {_DINOV3} resizes numbers, with filters that are not Pillow's")
  if fields.switch("do_pad", False) and "pad_size" in fields:
    raise fields.wrong("pad_size", "missing: mmjax does not pad images")
  if name == VILT and size % fields.integer("size_divisor", 32):
    raise fields.wrong("size_divisor", f"a divisor of the model's image size, {size}")
  grid, patches = _grid(fields, size) if name == NAFLEX else (0, 0)
  resize: Resize = "native"
  side: int | None = size
  if not grid:
    resize, side = _resize(fields, defaults)
  crop = fields.switch("do_center_crop", defaults.crop)
  if name == VILT and crop:
    raise fields.wrong("do_center_crop", f"false: {VILT} has the field, and does not crop")
  if name == _CONVNEXT:
    resize, side, crop = _convnext(fields, resize, side, size, crop)
  elif name == BRIDGETOWER:
    _check_bridgetower(fields, resize, size, crop)
  else:
    _check_size(fields, resize, side, size, crop)
  normalize = fields.switch("do_normalize", True)
  scale = fields.number("rescale_factor", 1 / 255) if fields.switch("do_rescale", True) else 1.0
  if not scale:
    raise fields.wrong("rescale_factor", "a number other than 0")
  mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
  if normalize:
    mean, std = _colors(fields, "image_mean", defaults.mean), _colors(fields, "image_std", defaults.std)
  if name == EFFICIENTNET:
    mean, std = _efficientnet(fields, mean, std, normalize)
  found = Preprocess(
    size,
    resize,
    interpolation,
    mean,
    std,
    odd="down",
    resize_to=None if side == size else side,
    crop=crop or (resize in ("squash", "native") and side == size),
    scale=scale,
    colors=_conversion(fields.switch("do_convert_rgb", defaults.rgb), version),
    grid=grid,
    patches=patches,
    divisor=fields.integer("size_divisor", 32) if name == BRIDGETOWER and resize == "shortest" else 0,
  )
  hidden = {n: "used only in training, to hide patches" for n in fields.values if name == _FLAVA and _HIDDEN.match(n)}
  fields.finish({**without_effect.PREPROCESSOR, **_unused(normalize), **hidden})
  return found


def _class_name(fields: Fields, kind: str) -> str:
  """Name of the image processor's class, without the suffix of its implementation."""
  older = fields.text("feature_extractor_type", "").replace("FeatureExtractor", "ImageProcessor")
  name = fields.text("image_processor_type", older or PROCESSORS.get(kind, "SiglipImageProcessor"))
  name = name.removesuffix("Fast").removesuffix("Pil")
  if name not in _CLASSES:
    raise fields.wrong("image_processor_type", f"one of {', '.join(_CLASSES)}: mmjax has no other image processors")
  return name


def _resize(fields: Fields, defaults: _Class) -> tuple[Resize, int | None]:
  """Read the way to resize, and the side in pixels."""
  size = fields.get("size") or defaults.size
  square = fields.switch("default_to_square", defaults.square)
  if isinstance(size, int) and not isinstance(size, bool):
    size = {"height": size, "width": size} if square else {"shortest_edge": size}
  elif isinstance(size, list) and len(size) == 2:
    size = {"height": size[0], "width": size[1]}
  if not fields.switch("do_resize", True):
    return "none", None
  if not isinstance(size, dict) or not all(type(n) is int and 0 < n < 2**24 for n in size.values()):
    raise fields.wrong("size", "a number of pixels, or an object with shortest_edge, or with height and width")
  if set(size) == {"shortest_edge"}:
    return "shortest", size["shortest_edge"]
  if set(size) == {"height", "width"} and size["height"] == size["width"]:
    return "squash", size["height"]
  raise fields.wrong("size", "shortest_edge, or equal height and width: mmjax has no other way to resize")


def _convnext(fields: Fields, resize: Resize, side: int | None, size: int, crop: bool) -> tuple[Resize, int, bool]:
  """Way to resize, side and crop of ConvNeXt's processor: it crops small images, and squashes those of 384 pixels."""
  if resize != "shortest" or crop:
    raise fields.wrong(
      "size" if resize != "shortest" else "do_center_crop",
      "as ConvNeXt's files have it: shortest_edge, with do_resize and without do_center_crop",
    )
  if side != size:
    raise fields.wrong("size", f"the model's image size, {size} (or load the model with that image_size)")
  pct = fields.number("crop_pct", 224 / 256)
  if not 0 < pct <= 1:
    raise fields.wrong("crop_pct", "a number between 0 and 1")
  return ("squash", size, False) if size >= _CONVNEXT_SQUASHES else ("shortest", int(size / pct), True)


def _check_bridgetower(fields: Fields, resize: Resize, size: int, crop: bool) -> None:
  """Raise InteropError if BridgeTower's processor does not crop the model's image size. It calls it shortest_edge."""
  if resize == "squash":
    raise fields.wrong("size", "shortest_edge, as BridgeTower's files have it")
  if not crop:
    raise fields.wrong("do_center_crop", "true: mmjax reads the model at one square resolution")
  cut: Any = fields.get("crop_size") or {"shortest_edge": 288}
  if cut not in (size, {"shortest_edge": size}):
    raise fields.wrong("crop_size", f"the model's image size, {size} (or load the model with that image_size)")


_Colors3 = tuple[float, float, float]


def _efficientnet(fields: Fields, mean: _Colors3, std: _Colors3, normalize: bool) -> tuple[_Colors3, _Colors3]:
  """Mean and deviation of EfficientNet's processor, which may move colours by 1, and divide by the deviation twice."""
  if fields.switch("rescale_offset", False) and fields.switch("do_rescale", True):
    mean = (mean[0] + 1, mean[1] + 1, mean[2] + 1)
  if fields.switch("include_top", True):
    own = std if normalize else _colors(fields, "image_std", HALF)
    std = (std[0] * own[0], std[1] * own[1], std[2] * own[2])
  return mean, std


def _grid(fields: Fields, size: int) -> tuple[int, int]:
  """Patches per side of the model's square image, and largest number of patches, of a NaFlex processor."""
  patch, number = fields.integer("patch_size", 16), fields.integer("max_num_patches", 256)
  if size % patch:
    raise fields.wrong("patch_size", f"a divisor of the side of the model's square image, {size}")
  if number > _MOST_PATCHES:
    raise fields.wrong("max_num_patches", f"at most {_MOST_PATCHES}")
  fields.only("do_resize", True, True)
  return size // patch, number


def _check_size(fields: Fields, resize: str, side: int | None, size: int, crop: bool) -> None:
  """Raise InteropError if the preprocessing does not end at the model's image size."""
  if not crop:
    if resize != "none" and side != size:
      raise fields.wrong("size", f"the model's image size, {size}, because the processor does not crop")
    return
  cut: Any = fields.get("crop_size") or {"height": 224, "width": 224}
  if isinstance(cut, dict) and set(cut) == {"height", "width"}:
    cut = [cut["height"], cut["width"]]
  if cut not in (size, [size, size]):
    raise fields.wrong("crop_size", f"the model's image size, {size} (or load the model with that image_size)")


def _colors(fields: Fields, name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
  """Three numbers, or one for all channels."""
  value = fields.get(name)
  if isinstance(value, int | float) and not isinstance(value, bool):
    found = (fields.number(name),) * 3
  else:
    found = fields.colors(name, default)
  if name.endswith("std") and 0.0 in found:
    raise fields.wrong(name, "numbers other than 0")
  return found


def _conversion(rgb: bool, version: str) -> Colors:
  """Conversion to RGB that transformers of a version does. An unknown version is the newest."""
  if not rgb:
    return "none"
  try:
    major, minor = (int(part) for part in version.split(".")[:2])
  except ValueError:
    return "white"
  return "white" if (major, minor) >= _ON_WHITE else "drop"


def _unused(normalize: bool) -> dict[str, str]:
  """Fields that have no effect because of other fields."""
  unused = {"crop_size": "used only with do_center_crop", "size": "used only with do_resize"}
  unused |= {"rescale_factor": "used only with do_rescale", "pad_size": "used only with do_pad"}
  unused |= {"default_to_square": "used only with a number as size"}
  return unused if normalize else unused | dict.fromkeys(("image_mean", "image_std"), "used only with do_normalize")


def from_open_clip(fields: Fields, size: int) -> Preprocess:
  """Read the preprocessing from preprocess_cfg. The size is that of the model, as in open_clip itself."""
  if "mode" in fields:
    fields.only("mode", "RGB", "RGB")
  found = Preprocess(
    size=size,
    resize=fields.choice("resize_mode", {"shortest": "shortest", "squash": "squash", "longest": "longest"}, "shortest"),
    # "random" is random only in training.
    interpolation=fields.choice(
      "interpolation", {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}, "bicubic"
    ),
    mean=_colors(fields, "mean", CLIP_MEAN),
    std=_colors(fields, "std", CLIP_STD),
    fill=fields.integer("fill_color", 0, least=0),
    colors="late",
  )
  if found.fill > 255:
    raise fields.wrong("fill_color", "a grey level from 0 to 255")
  fields.finish(without_effect.OPEN_CLIP)
  return found


def read_preprocess(source: Source, size: int, own_size: int) -> Preprocess:
  """Image preprocessing of a checkpoint, from the files beside the weights or the architecture's default.

  Args:
    source: the checkpoint.
    size: image size of the loaded model.
    own_size: image size of the checkpoint's own configuration, which the files are for.
  Raises: InteropError: the files ask for another size, or for a step that mmjax does not support.
  """
  kind = source.architecture.name
  if source.format == "open_clip":
    return from_open_clip(source.fields.object("preprocess_cfg"), size)
  fields, version = find_preprocess(source.folder, source.format), source.fields.get("transformers_version")
  version = version if isinstance(version, str) else ""
  tower = image_tower(source.config)
  if fields is not None:
    found = _at_size(fields, size, own_size, kind, version)
    return found if isinstance(tower, NaFlexConfig) else _square(found, fields)
  default = default_preprocess(size, kind)
  if isinstance(tower, NaFlexConfig):
    default = dataclasses.replace(default, resize="native", grid=size // tower.patch_size, patches=tower.patches)
  if source.format != "transformers":
    return default
  return dataclasses.replace(default, odd="down", colors=_conversion(True, version))


def _square(found: Preprocess, fields: Fields) -> Preprocess:
  """The preprocessing of a NaFlex processor for a model with one square resolution. Others are returned unchanged."""
  if found.resize != "native":
    return found
  if found.patches != found.grid**2:
    raise fields.wrong("max_num_patches", f"the number of patches of the model's square image, {found.grid**2}")
  return dataclasses.replace(found, resize="patches", patches=0)


def _at_size(fields: Fields, size: int, own_size: int, kind: str, version: str) -> Preprocess:
  """Preprocessing for a model that may have been loaded with another image size than its own.

  The files may ask for either. DINOv2's do not ask for the size of its configuration.
  """
  try:
    return from_transformers(fields, own_size, kind, version).at(size)
  except InteropError:
    if size == own_size:
      raise
    return from_transformers(fields, size, kind, version)
