"""Checkpoint formats: the architectures that each holds, and the files that it consists of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.interop.errors import InteropError

# Architectures import encoders and models. They are imported in the functions, so that --help can list the formats.
if TYPE_CHECKING:
  from mmjax.data import Sound
  from mmjax.interop.architecture import Architecture
  from mmjax.interop.run_image import ImageTransform


@dataclasses.dataclass(frozen=True)
class Content:
  """Content of a checkpoint.

  Attributes:
    architecture: architecture in the format.
    config: configuration of the model.
    fields: external configuration.
    tensors: external tensors by name.
    preprocess: preprocessing of images; None: it is not written. Formats of other libraries get the nearest one they
      have.
    sound: column of sounds; None: it is not written.
  """

  architecture: Architecture
  config: Any
  fields: dict[str, Any]
  tensors: dict[str, np.ndarray]
  preprocess: ImageTransform | None
  sound: Sound | None = None


@dataclasses.dataclass(frozen=True)
class Format:
  """A format of checkpoints.

  Attributes:
    name: name on the command line.
    architecture: function from the configuration of a model to its architecture in this format. Raises InteropError if
      there is none.
    write: writes the files of a checkpoint into a folder, except for the weights.
    weights: file name of the weights: .safetensors or .npz.
    alone: True if the weights are the only file, so that a path may name it.
    library: library that reads the format, for the model card.
    code: Python code that loads the model. {folder!r} is the folder and {name!r} is "local-dir:FOLDER".
    notes: differences between this library and mmjax, for the model card.
    name_tokenizer: adds fields that describe the tokenizer to the configuration file in a folder. None: the format has
      no such fields.
  """

  name: str
  architecture: Callable[[Any], Architecture]
  write: Callable[[Path, Content], None]
  weights: str = "model.safetensors"
  alone: bool = False
  library: str = "mmjax"
  code: str = (
    "from mmjax import interop\nfound = interop.load_pretrained({folder!r})  # .model .params .preprocess .tokenizer"
  )
  notes: tuple[str, ...] = ()
  name_tokenizer: Callable[[Path, dict[str, Any]], None] | None = None


def find_format(name: str) -> Format:
  """Find a format by its name. Raises InteropError, which lists the formats, if there is none."""
  for one in FORMATS:
    if one.name == name:
      return one
  raise InteropError(f"unknown format {name!r}; formats are {', '.join(one.name for one in FORMATS)}")


def _transformers(config: Any) -> Architecture:
  from mmjax.encoders import NaFlexConfig
  from mmjax.interop.shapes import image_tower

  # Only Siglip2's classes take images of any shape. With one square resolution, "siglip2" has to be asked for.
  return _class(config, "siglip2" if isinstance(image_tower(config), NaFlexConfig) else "transformers")


def _siglip2(config: Any) -> Architecture:
  return _class(config, "siglip2")


def _class(config: Any, form: str) -> Architecture:
  from mmjax.interop.architecture import wrong_kind
  from mmjax.interop.supported import CLASSES, written_class

  found = written_class(config, form)
  if found is None:
    known = ", ".join(row.architecture.name for row in CLASSES if row.form == form and row.writes is not None)
    raise wrong_kind(form, known, config)
  return found


def _write_transformers(folder: Path, content: Content) -> None:
  from mmjax.encoders import TextConfig
  from mmjax.interop.sentence import write_pooling
  from mmjax.interop.speech_settings import FEATURES, write_features
  from mmjax.models.whisper import WhisperConfig

  _write_config(folder, content, {"dtype": "float32"})
  if isinstance(content.config, WhisperConfig):
    _write_json(folder / FEATURES, write_features(content.config))
  if isinstance(content.config, TextConfig) and content.config.pool == "mean":
    write_pooling(content.config, folder)


def _write_config(folder: Path, content: Content, more: dict[str, Any] | None = None) -> None:
  """Write config.json and preprocessor_config.json, as transformers reads them."""
  from mmjax.interop.finding import CONFIG
  from mmjax.interop.preprocess import Preprocess, to_transformers, version_of
  from mmjax.interop.run_image import CheckpointImage, nearest_preprocess
  from mmjax.interop.shapes import audio_tower
  from mmjax.interop.sound_settings import write_sound
  from mmjax.interop.supported import CONVNEXT, EFFICIENTNET, NAFLEX, PROCESSORS, VILT

  more = dict(more or {})
  if isinstance(content.preprocess, Preprocess | CheckpointImage):
    version = version_of(nearest_preprocess(content.preprocess))
    more |= {"transformers_version": version} if version else {}
  _write_json(folder / CONFIG, content.fields | more)
  if content.sound is not None:
    _write_json(folder / "preprocessor_config.json", write_sound(content.sound, audio_tower(content.config)))
  if content.preprocess is not None:
    p = nearest_preprocess(content.preprocess)
    processor = PROCESSORS.get(content.architecture.name, "SiglipImageProcessor")
    if processor == NAFLEX and p.resize != "native":
      processor = "SiglipImageProcessor"  # for a model with one square resolution
    if processor in (CONVNEXT, EFFICIENTNET):
      # ConvNeXt's own has no separate sizes of resizing and cropping, and EfficientNet's normalises in its own way.
      processor = "CLIPImageProcessor"
    record = to_transformers(p, processor)
    if processor == VILT:
      record["size_divisor"] = content.config.image.patch_size
    _write_json(folder / "preprocessor_config.json", record)


def _open_clip(config: Any) -> Architecture:
  from mmjax.interop.open_clip import OPEN_CLIP, OPEN_CLIP_HF
  from mmjax.interop.open_clip_coca import OPEN_CLIP_COCA
  from mmjax.interop.open_clip_hf import is_hf
  from mmjax.models import CocaConfig, OpenClipCocaConfig

  if isinstance(config, OpenClipCocaConfig | CocaConfig):
    return OPEN_CLIP_COCA
  return OPEN_CLIP_HF if is_hf(getattr(config, "text", None)) else OPEN_CLIP


def _write_open_clip(folder: Path, content: Content) -> None:
  from mmjax.interop.finding import OPEN_CLIP_CONFIG
  from mmjax.interop.preprocess import to_open_clip
  from mmjax.interop.run_image import nearest_preprocess

  preprocess = {} if content.preprocess is None else to_open_clip(nearest_preprocess(content.preprocess))
  _write_json(folder / OPEN_CLIP_CONFIG, {"model_cfg": content.fields, "preprocess_cfg": preprocess})


def _name_open_clip_tokenizer(folder: Path, fields: dict[str, Any]) -> None:
  from mmjax.interop.finding import OPEN_CLIP_CONFIG

  path = folder / OPEN_CLIP_CONFIG
  record = json.loads(path.read_text(encoding="utf-8"))
  record["model_cfg"]["text_cfg"] |= fields
  _write_json(path, record)


def _name_native_tokenizer(folder: Path, fields: dict[str, Any]) -> None:
  from mmjax.interop.finding import CONFIG

  record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
  _write_json(folder / CONFIG, record | fields)


def _openai(config: Any) -> Architecture:
  from mmjax.interop.openai import OPENAI

  return OPENAI


def _big_vision(config: Any) -> Architecture:
  from mmjax.interop.big_vision import BIG_VISION

  return BIG_VISION


def _native(config: Any) -> Architecture:
  from mmjax.interop.native import NATIVE

  return NATIVE


def _write_native(folder: Path, content: Content) -> None:
  """Write config.json with all of the preprocessing."""
  from mmjax.interop.finding import CONFIG
  from mmjax.interop.run_image import PREPROCESS, transform_to_json

  p = content.preprocess
  _write_json(folder / CONFIG, content.fields | ({} if p is None else {PREPROCESS: transform_to_json(p)}))


def _write_nothing(folder: Path, content: Content) -> None:
  """The weights are the only file."""


def _write_openai(folder: Path, content: Content) -> None:
  """Add the buffers that tell OpenAI's files, whose activation is known, from others with the same names."""
  from mmjax.interop.openai import buffers

  content.tensors.update(buffers(content.config))


def _write_json(path: Path, fields: dict[str, Any]) -> None:
  path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_TRANSFORMERS = Format(
  "transformers",
  _transformers,
  _write_transformers,
  library="transformers",
  code="from transformers import AutoModel\nmodel = AutoModel.from_pretrained({folder!r})",
)

FORMATS: tuple[Format, ...] = (
  _TRANSFORMERS,
  dataclasses.replace(_TRANSFORMERS, name="siglip2", architecture=_siglip2),
  Format(
    "open_clip",
    _open_clip,
    _write_open_clip,
    weights="open_clip_model.safetensors",
    library="open_clip",
    code="import open_clip\nmodel, _, preprocess = open_clip.create_model_and_transforms({name!r})\n"
    "tokenizer = open_clip.get_tokenizer({name!r})",
    notes=("open_clip repairs texts with ftfy before tokenizing. Training did not.",),
    name_tokenizer=_name_open_clip_tokenizer,
  ),
  Format("openai", _openai, _write_openai, alone=True),
  Format("big_vision", _big_vision, _write_nothing, weights="model.npz", alone=True),
  Format("mmjax", _native, _write_native, name_tokenizer=_name_native_tokenizer),
)
"""The formats that `save` and `export` write."""
