"""Runs that begin from a checkpoint: its model, tokenizer and image preprocessing become the run's, or are compared."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from mmjax.data import Image, NativeImage, Records, make_tokenizer
from mmjax.data.config import DataConfig
from mmjax.data.features import run_columns
from mmjax.data.text.config import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import EvalImage, eval_transform, native_patches
from mmjax.encoders import NaFlexConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.interop.agreement import Difference, derived_model, refuse
from mmjax.interop.architecture import differences
from mmjax.interop.errors import InteropError
from mmjax.interop.hub import download
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import read_transform
from mmjax.interop.run_image import CheckpointImage, ImageTransform, nearest_preprocess, sized
from mmjax.interop.run_tokenizer import checkpoint_tokenizer
from mmjax.interop.source import Source, open_source
from mmjax.models.config import image_size, towers

_SENTENCES = (
  "a photo of a cat and two dogs running on the green grass near some water",
  "The man with his red umbrella is standing beside a large brown wooden table",
  "naïve café 東京 💕 it's (1) #tag 3.5x, isn't it?",
  "children playing football under blue sky while people watch them from behind",
)
_TEXTS = ("", *_SENTENCES, *" ".join(_SENTENCES).split(), "word " * 200)  # words alone: a short length cuts sentences
_IMAGE = ("mean", "std", "trim", "preprocess")
"""Settings of `data` that prepare images."""


def adopted(experiment: Experiment, *, unnamed: Experiment | None = None, say: bool = True) -> Experiment:
  """Replace the parts of an experiment that a checkpoint brings along: model, tokenizer and image preprocessing.

  Args:
    experiment: a run with pretrained.path.
    unnamed: only parts that are equal to those of this experiment are replaced. None: all.
    say: print what is replaced.
  Returns: the experiment. Settings that only training uses are kept.
  Raises: InteropError: the checkpoint or its tokenizer cannot be read, or its tower does not fit.
  """
  config = experiment.pretrained
  assert config.path is not None
  if config.download:
    download(config.path)
  source = open_source(config.path, tower=config.into)
  other = experiment if unnamed is None else unnamed
  model, data = experiment.model, experiment.data
  if "model" not in config.allow and model == other.model:
    model = derived_model(model, source, config.into)
  if model != experiment.model and data.columns == other.data.columns:
    data = _with_native_column(data, model)
  if _brings(source, config, "text", "tokenizer") and data.tokenizer == other.data.tokenizer and _has_text(model):
    data = dataclasses.replace(data, tokenizer=_tokenizer_config(source))
  if _brings(source, config, "image", "preprocess") and all(getattr(data, n) == getattr(other.data, n) for n in _IMAGE):
    data = _with_preprocess(data, source, image_size(model))
  new = dataclasses.replace(experiment, model=model, data=data)
  if say and new != experiment:
    _say(experiment, new)
  return new


def with_checkpoint(experiment: Experiment) -> Experiment:
  """Take the parts that have their default values (model, tokenizer, image preprocessing) from the checkpoint."""
  if experiment.pretrained.path is None:
    return experiment
  return adopted(experiment, unnamed=Experiment())


def run_tokenizer(data: DataConfig, source: Records, *, more: Sequence[tuple[DataConfig, Records]] = ()) -> Tokenizer:
  """Make the tokenizer of a run: that of a checkpoint, if data.tokenizer.path is a folder.

  Args:
    data: settings of the data.
    source: the training records.
    more: settings and records of further streams of the run, as for make_tokenizer.
  """
  path = None if data.tokenizer.path is None else Path(data.tokenizer.path).expanduser()
  if path is not None and (path.is_dir() or path.suffix in (".safetensors", ".npz")):
    return checkpoint_tokenizer(data.tokenizer)
  return make_tokenizer(data, source, more=more)


def run_image(data: DataConfig, size: int) -> ImageTransform | None:
  """Make the image transform of evaluation. None for a model without images.

  Raises: InteropError: the checkpoint that data.preprocess names cannot be read. ConfigError: its colours are others.
  """
  if not size:
    return None
  if data.preprocess is None:
    return eval_transform(data, size)
  found = sized(read_transform(open_source(data.preprocess), size), size)
  if isinstance(found, EvalImage):
    found = dataclasses.replace(found, max_pixels=data.max_pixels)
  else:
    found = CheckpointImage(_native(nearest_preprocess(found), data), data.max_pixels, data.trim)
  theirs = _colors(found)
  for name, value in zip(("mean", "std", "trim"), theirs, strict=True):
    if getattr(data, name) != value:
      raise ConfigError(
        f"data.{name} is {getattr(data, name)}, but the preprocessing of {data.preprocess} (data.preprocess) has "
        f"{value}: make them equal, or leave out --data.preprocess"
      )
  return found


def check_agreement(experiment: Experiment, tokenizer: Tokenizer | None, image: ImageTransform | None) -> None:
  """Compare a run's tokenizer and image preprocessing with those of its checkpoint.

  Args:
    experiment: the run.
    tokenizer: its tokenizer. None for a run without text.
    image: its image transform. None for a run without images.
  Raises: ConfigError: they differ, and pretrained.allow does not name the difference.
  """
  config = experiment.pretrained
  if config.path is None:
    return
  source = open_source(config.path, tower=config.into)
  found: list[Difference] = []
  if tokenizer is not None and _brings(source, config, "text", "tokenizer"):
    found += _other_ids(source, tokenizer)
  if image is not None and _brings(source, config, "image", "preprocess"):
    found += _other_pixels(source, image)
  refuse(str(source.path), found, config.allow)


def _brings(source: Source, config: PretrainedConfig, modality: str, part: str) -> bool:
  """True if the checkpoint initialises the tower of a modality, and `part` may not differ from it."""
  here = config.into == modality or (not config.into and modality in towers(source.config))
  return here and part not in config.allow


def _with_preprocess(data: DataConfig, source: Source, size: int) -> DataConfig:
  """Set the settings that prepare images. mmjax's own transform needs no checkpoint."""
  found = read_transform(source, size)
  mean, std, trim = _colors(found)
  path = None if isinstance(found, EvalImage) else str(source.path)
  return dataclasses.replace(data, mean=mean, std=std, trim=trim, preprocess=path)


def _with_native_column(data: DataConfig, model: Any) -> DataConfig:
  """Make the images of a run keep their shape, if its image tower now takes images of any shape."""
  tower, columns = towers(model).get("image"), dict(run_columns(data))
  if not isinstance(tower, NaFlexConfig) or columns.get("image") != Image():
    return data
  columns["image"] = NativeImage(tower.patch_size, (tower.patches,))
  return dataclasses.replace(data, columns=columns)


def _native(preprocess: Preprocess, data: DataConfig) -> Preprocess:
  """A checkpoint's preprocessing to rows of patches, with the longest row of the run."""
  patches = native_patches(data)[1]
  return dataclasses.replace(preprocess, patches=patches) if patches and preprocess.patches else preprocess


def _colors(transform: ImageTransform) -> tuple[Any, Any, bool]:
  """Mean, standard deviation and `trim` of a transform."""
  if isinstance(transform, EvalImage):
    return transform.normalize.mean, transform.normalize.std, transform.trim
  p = nearest_preprocess(transform)
  return p.mean, p.std, isinstance(transform, CheckpointImage) and transform.trim


def _has_text(model: Any) -> bool:
  return any(hasattr(tower, "vocab_size") for tower in towers(model).values())


def _tokenizer_config(source: Source) -> TokenizerConfig:
  length = towers(source.config).get("text", source.config).max_length
  try:
    return checkpoint_tokenizer(TokenizerConfig(path=str(source.path), max_length=length, lowercase=False)).named
  except InteropError as error:
    raise InteropError(
      f"{error}. To keep the run's own tokenizer, whose ids mean other words, set --pretrained.allow tokenizer"
    ) from error


def _other_ids(source: Source, tokenizer: Tokenizer) -> list[Difference]:
  try:
    length = tokenizer.config.max_length
    theirs = checkpoint_tokenizer(TokenizerConfig(path=str(source.path), max_length=length, lowercase=False))
  except InteropError as error:
    return [("tokenizer", "its own", f"unknown ({error})")]
  for text, mine, other in zip(_TEXTS, tokenizer(_TEXTS).tolist(), theirs(_TEXTS).tolist(), strict=True):
    if mine != other:
      return [("tokenizer", {text[:20]: mine[:8]}, {text[:20]: other[:8]})]
  return []


def _other_pixels(source: Source, image: ImageTransform) -> list[Difference]:
  theirs = sized(read_transform(source, image.size), image.size)
  mine = image.preprocess if isinstance(image, CheckpointImage) and not image.trim else image
  if type(mine) is not type(theirs):
    return [("preprocess", mine, theirs)]
  unseen = ("preprocess.max_pixels", "preprocess.patches")  # limits
  return [one for one in differences(mine, theirs, "preprocess") if one[0] not in unseen]


def _say(before: Experiment, after: Experiment) -> None:
  """Print what a checkpoint replaced."""
  console = Console(quiet=jax.process_index() != 0)
  changed = [f"{n} {b!r} (was {a!r})" for n, a, b in differences(before.model, after.model, "model")]
  data = [f"data.{n} {getattr(after.data, n)!r}" for n in _IMAGE if getattr(before.data, n) != getattr(after.data, n)]
  if before.data.tokenizer != after.data.tokenizer:
    t = after.data.tokenizer
    names = f"begin {t.bos_token!r}, end {t.eos_token!r}, padding {t.pad_token!r}"
    data.append(f"data.tokenizer: the checkpoint's, {t.max_length} tokens, {names}")
  said = "; ".join([*changed, *data])
  console.print(f"{after.pretrained.path}: {said}", highlight=False, soft_wrap=True, markup=False)
