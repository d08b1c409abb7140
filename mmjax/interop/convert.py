"""Conversion of a checkpoint to another format, and a listing of its tensors."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.finding import OPEN_CLIP_WEIGHTS, WEIGHTS
from mmjax.interop.formats import Format, find_format
from mmjax.interop.kept import image_notes, text_notes
from mmjax.interop.pretrained import Positions, Pretrained, Tower, load_pretrained, save
from mmjax.interop.pretrained_tokenizer import TOKENIZER, copy_tokenizer
from mmjax.interop.shapes import ModelConfig, image_tower, text_tower
from mmjax.interop.source import TEXT_CFG, open_source, tokenizer_fields
from mmjax.interop.speech_settings import copy_settings
from mmjax.interop.tensors import TensorFile
from mmjax.models.whisper import WhisperConfig

logger = logging.getLogger(__name__)


def convert_with_notes(
  source: str | Path,
  target: str | Path,
  format: str,
  *,
  image_size: int | None = None,
  max_length: int | None = None,
  positions: Positions = "open_clip",
  tower: Tower = "",
) -> tuple[Path, list[str]]:
  """Read a checkpoint and write it in another format, with its preprocessing and its tokenizer files.

  Args:
    source: anything that `load` reads.
    target: folder to write into, or a file for the formats "openai" and "big_vision".
    format: name of the format to write (see mmjax.interop.FORMATS).
    image_size: new image size; position embeddings are resampled. None: the checkpoint's.
    max_length: new number of text tokens; position embeddings are cut off or interpolated. None: the checkpoint's.
    positions: library whose filter resamples image positions.
    tower: "image", "audio" or "text": only this tower of a whole model. Empty: the whole model.
  Returns: (the file with the weights, sentences on the preprocessing of images and texts that the format cannot hold).
  Raises: InteropError: `load` or `save` fails, or the target is the source.
  """
  source, target = Path(source).expanduser(), Path(target).expanduser()
  if source.resolve() == target.resolve():
    raise InteropError(f"{target} is both the source and the target: write to another folder")
  found = load_pretrained(source, image_size=image_size, max_length=max_length, positions=positions, tower=tower)
  return save_like(found, found.model, found.params, target, format)


def save_like(found: Pretrained, model: nn.Module, params: Any, target: Path, format: str) -> tuple[Path, list[str]]:
  """Write a model that was made of a checkpoint's, with the preprocessing and the tokenizer files of the checkpoint.

  Args:
    found: the checkpoint.
    model: the model to write.
    params: its parameters.
    target: folder to write into, or a file for the formats "openai" and "big_vision".
    format: name of the format to write.
  Returns: (the file with the weights, sentences on what the format cannot hold), as for `convert_with_notes`.
  Raises: InteropError: as for `save`.
  """
  settings: Any = model
  config = settings.config
  preprocess = None if image_tower(config) is None else found.preprocess
  written = save(model, params, target, format, preprocess=preprocess)
  folder = written.parent
  copy_tokenizer(found.source.folder, folder)
  if isinstance(config, WhisperConfig):
    copy_settings(found.source.folder, folder)
  fields = found.source.fields.values
  form = find_format(format)
  name_tokenizer(form, folder, tokenizer_fields(found.source), config, fields)
  notes = [] if form.name == "mmjax" else image_notes(preprocess, form, folder)
  return written, [*notes, *_text_notes(found, written)]


def _text_notes(found: Pretrained, written: Path) -> list[str]:
  """Compare the tokenizer of a checkpoint with that of the folder that was written."""
  if getattr(text_tower(found.model.config), "max_length", None) is None:
    return []
  try:
    ours = found.tokenizer
  except InteropError:
    return []  # the source has none either
  alone = written if written.suffix == ".npz" or written.name not in (WEIGHTS, *OPEN_CLIP_WEIGHTS) else written.parent
  return text_notes(ours, lambda: dataclasses.replace(found, source=open_source(alone)).tokenizer)


def convert(
  source: str | Path,
  target: str | Path,
  format: str,
  *,
  image_size: int | None = None,
  max_length: int | None = None,
  positions: Positions = "open_clip",
  tower: Tower = "",
) -> Path:
  """Read a checkpoint and write it in another format. What the format cannot hold is logged as warnings.

  Args:
    source, target, format, image_size, max_length, positions, tower: as for `convert_with_notes`.
  Returns: the file with the weights.
  Raises: InteropError: as for `convert_with_notes`.
  """
  written, notes = convert_with_notes(
    source, target, format, image_size=image_size, max_length=max_length, positions=positions, tower=tower
  )
  for note in notes:
    logger.warning("%s: %s", written, note)
  return written


# Fields of config.json by which transformers chooses the tokenizer.
_CHOOSING = ("model_type", "tokenizer_class", "transformers_version")


def name_tokenizer(
  form: Format, folder: Path, text: Fields | None, config: ModelConfig, theirs: Mapping[str, Any]
) -> None:
  """Write which tokenizer the files in a folder are, if the format has fields for it.

  Without a name, open_clip uses its own CLIP tokenizer. A name in an open_clip source is kept. Otherwise, if the folder
  has a tokenizer.json and the vocabulary does not have CLIP's size, the name is the folder itself.

  Args:
    form: the format of the folder.
    folder: folder with the configuration and the tokenizer's files.
    text: text_cfg of open_clip that describes the tokenizer. None for a tokenizer of another library.
    config: configuration of the model.
    theirs: fields of the config.json that the tokenizer was published with.
  """
  if form.name_tokenizer is None:
    return
  names = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode")
  fields = {} if text is None else {n: v for n, v in text.values.items() if n in names}
  if text is not None and "hf_model_name" in text:  # its positions do not tell the length of the texts
    fields["context_length"] = text.integer("context_length", 77)
  if form.name == "mmjax":
    fields = {} if text is None else {TEXT_CFG: fields}
    fields |= {name: theirs[name] for name in _CHOOSING if name in theirs}
  elif text is None and (folder / TOKENIZER).is_file() and getattr(text_tower(config), "vocab_size", 0) != 49408:
    fields = {"hf_tokenizer_name": str(folder)}
  form.name_tokenizer(folder, fields)


def rows(file: TensorFile, ours: dict[str, list[str]]) -> list[tuple[str, str, str, str, str]]:
  """List the tensors of a file: name, shape, dtype, size, and the mmjax parameters stored in each."""
  return [
    (
      name,
      " x ".join(map(str, entry.shape)) or "scalar",
      "bfloat16" if entry.dtype.kind == "V" else str(entry.dtype),
      size_text(_bytes(entry)),
      ", ".join(ours.get(name, [])) or "-",
    )
    for name, entry in sorted(file.entries.items())
  ]


def total(file: TensorFile) -> tuple[int, int]:
  """Total size of all tensors, as (number of elements, number of bytes)."""
  counts = [(_bytes(e) // max(1, e.dtype.itemsize), _bytes(e)) for e in file.entries.values()]
  return sum(n for n, _ in counts), sum(b for _, b in counts)


def _bytes(entry: Any) -> int:
  count = entry.dtype.itemsize
  for side in entry.shape:
    count *= side
  return count


def size_text(size: float) -> str:
  """Format a number of bytes with a unit from B to GB."""
  for unit in ("B", "kB", "MB"):
    if size < 1000:
      return f"{size:.3g} {unit}"
    size /= 1000
  return f"{size:.3g} GB"
