"""Use of the files in a checkpoint's folder, and of their fields: what `python -m mmjax.interop inspect` says."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data import Sound
from mmjax.encoders import AstConfig, HtsatConfig
from mmjax.interop import without_effect
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.generation_file import FILE as GENERATION
from mmjax.interop.generation_file import generation_fields, read_generation
from mmjax.interop.pretrained import padding_of, read_transform
from mmjax.interop.pretrained_tokenizer import make_tokenizer
from mmjax.interop.processor import (
  PREPROCESSOR_CONFIG,
  PROCESSOR_CONFIG,
  find_preprocess,
  find_settings,
  from_transformers,
)
from mmjax.interop.run_image import PREPROCESS
from mmjax.interop.shapes import audio_tower, image_tower, text_tower
from mmjax.interop.sound_settings import read_sound
from mmjax.interop.source import Source, tokenizer_fields
from mmjax.interop.speech_settings import (
  FEATURE_FIELDS,
  GENERATION_FIELDS,
  check_features,
  parse_generation,
)
from mmjax.interop.tokenizer_files import FILES, SENTENCE, TokenizerFiles, read_tokenizer_files
from mmjax.models.gpt import GptConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.whisper import WhisperConfig

_SLOW = (
  "CLIPTokenizer is transformers' fast tokenizer. open_clip and transformers' slow CLIPTokenizer repair texts with "
  "ftfy first: control characters, full-width letters, mojibake and a final sigma get other ids there"
)
_UNREAD = {
  ".md": "a page for people",
  ".bin": "a pickle; the .safetensors file is read",
  ".pt": "a pickle",
  ".pth": "a pickle",
  ".ckpt": "a pickle",
  ".msgpack": "weights for Flax; the .safetensors file is read",
  ".h5": "weights for TensorFlow; the .safetensors file is read",
  ".onnx": "weights for ONNX; the .safetensors file is read",
}
_VOCABULARIES = ("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_UNREAD_NAMES = {
  GENERATION: "settings of text generation",
  "config_sentence_transformers.json": "versions, and prompts that are used by name only",
  "data_config.json": "data of the training",
  PREPROCESSOR_CONFIG: f"{PROCESSOR_CONFIG} has precedence, or the format has no such file",
}


class Use(NamedTuple):
  """Use of some fields of a file, or of a whole file.

  Attributes:
    place: file, and the object in it.
    use: "used", "without effect: REASON" or "not read: REASON".
    fields: the fields and their values; empty for a whole file.
  """

  place: str
  use: str
  fields: str


class Beside(NamedTuple):
  """Files beside the weights.

  Attributes:
    uses: use of each file and of its fields.
    notes: image preprocessing, tokenizer, and known differences, one sentence each.
  """

  uses: list[Use]
  notes: list[str]


def beside(source: Source) -> Beside:
  """Read all files beside the weights, and list the use of each. What is refused is in the notes."""
  uses, notes, read = list[Use](), list[str](), {Path(source.fields.where).name, source.file.path.name}
  tower = image_tower(source.config)
  if tower is not None:
    notes.append(_attempt("images", lambda: read_transform(source, tower.image_size)))
    found = find_preprocess(source.folder, source.format)
    if found is not None and PREPROCESS not in source.fields:
      read.add(Path(found.where.split(": ")[0]).name)
      _attempt("", lambda: from_transformers(found, tower.image_size, source.architecture.name))
      uses += _object_uses(found, source.folder, without_effect.PREPROCESSOR)
  audio = audio_tower(source.config)
  extractor = find_settings(source.folder, "feature_extractor") if isinstance(audio, AstConfig | HtsatConfig) else None
  if extractor is not None:
    read.add(Path(extractor.where.split(": ")[0]).name)
    notes.append(_attempt("sounds", lambda: _features_of(read_sound(source.folder, audio))))
  if isinstance(source.config, WhisperConfig):
    more, files, said = _speech(source, source.config)
    uses += more
    read |= files
    notes += said
  if getattr(text_tower(source.config), "max_length", None) is not None:
    more, files, said = _tokenizer(source)
    uses += more
    read |= files
    notes += said
  if isinstance(source.config, GptConfig | Seq2SeqConfig):
    fields, longest = generation_fields(source.folder), source.config.text.max_length
    notes.append(_attempt("generation", lambda: read_generation(fields, 1, longest)))
    uses += _object_uses(fields, source.folder, without_effect.GENERATION)
  # The last of all, because the other readers read fields of it too.
  uses = [*_object_uses(source.fields, source.folder, _table(source), deep=source.format != "mmjax"), *uses]
  return Beside([*uses, *_file_uses(source, read, {use.place.split(":")[0].split(" ")[0] for use in uses})], notes)


def _table(source: Source) -> Mapping[str, str]:
  if source.format == "open_clip":
    return {**without_effect.OPEN_CLIP_MODEL, **without_effect.OPEN_CLIP}
  return {**without_effect.MODEL, **source.architecture.without_effect}


def _speech(source: Source, config: WhisperConfig) -> tuple[list[Use], set[str], list[str]]:
  """Use of the files about sounds and generation, their names, and what is to be said of them."""
  uses, names, notes = list[Use](), {GENERATION}, list[str]()
  generation = read_json(source.folder / GENERATION) if (source.folder / GENERATION).is_file() else None
  if generation is not None:
    said = _attempt("generation", lambda: "greedy, and without times" if parse_generation(generation, config) else "")
    uses, notes = list(_object_uses(generation, source.folder, GENERATION_FIELDS)), [said]
  features = find_settings(source.folder, "feature_extractor")
  if features is not None:
    names.add(Path(features.where.split(": ")[0]).name)
    notes.append(_attempt("sounds", functools.partial(_features, features, config)))
    uses += _object_uses(features, source.folder, FEATURE_FIELDS)
  return uses, names, notes


def _features_of(column: Sound) -> str:
  return f"{type(column.features).__name__}, {column.num_frames} frames of {column.features.size} bands"


def _features(features: Fields, config: WhisperConfig) -> str:
  check_features(features, config)
  return f"Whisper's log-mel features, {config.audio.mel_bins} frequencies"


def _tokenizer(source: Source) -> tuple[list[Use], set[str], list[str]]:
  """Use of the tokenizer's files, their names, and what is to be said of the tokenizer."""
  open_clip = tokenizer_fields(source)
  length: Any = getattr(text_tower(source.config), "max_length", None)
  try:
    files = read_tokenizer_files(source.folder)
  except InteropError as error:
    return [], set(), [f"texts: refused: {error}"]
  own = open_clip is not None and not open_clip.get("hf_tokenizer_name")
  make = functools.partial(make_tokenizer, open_clip=open_clip, pad_id=padding_of(source.config))
  notes = [_attempt("texts", lambda: _described(files, make(files, length), own))]
  if files.kind == "CLIPTokenizer" and not own and "repair" not in notes[0]:
    notes.append(_SLOW)
  if own or not files.record.values:
    return [], {name for name in FILES if own and files.has(name)}, notes
  return list(_object_uses(files.record, source.folder, without_effect.TOKENIZER)), _read_files(files), notes


def _described(files: TokenizerFiles, tokenizer: Any, own: bool) -> str:
  kind = "open_clip's own tokenizer" if own else files.kind or "tokenizer.json as it stands"
  clean = f", texts cleaned up ({tokenizer.clean})" if getattr(tokenizer, "clean", "") else ""
  length = tokenizer.max_length
  cut = tokenizer.engine.truncation["max_length"] if hasattr(tokenizer, "engine") else length
  return f"{kind}, {length} tokens{clean}" + (f", texts cut at {cut} tokens" if cut < length else "")


def _read_files(files: TokenizerFiles) -> set[str]:
  """Names of the tokenizer files that are read."""
  if files.kind == "SiglipTokenizer":
    return {"spiece.model", "tokenizer_config.json"}
  names = {"tokenizer_config.json", SENTENCE}
  names |= {"tokenizer.json"} if files.engine is not None else set(_VOCABULARIES)
  if "with special_tokens_map.json" in files.record.where:
    names |= {"special_tokens_map.json", "added_tokens.json"}
  return names


def _object_uses(fields: Fields, folder: Path, table: Mapping[str, str], *, deep: bool = True) -> Iterator[Use]:
  place = fields.where.removeprefix(f"{folder}/")
  for use, names in sorted(fields.account(table).items(), key=lambda item: (item[0] != "used", item[0])):
    yield Use(place, use, ", ".join(names))
  for part in fields.parts.values() if deep else ():
    if part.values:
      yield from _object_uses(part, folder, table)


def _file_uses(source: Source, read: set[str], listed: set[str]) -> Iterator[Use]:
  """Use of the files whose fields are not listed. `read`: names of those that are used."""
  split = source.file.path.is_dir()
  for path in sorted(source.folder.iterdir()):
    if path.name in listed:
      continue
    weights = path.suffix == ".safetensors" or ".safetensors.index" in path.name
    if path.name in read or path.name in ("modules.json", "1_Pooling") or (weights and split):
      yield Use(path.name, "used", "")
    else:
      reason = _UNREAD_NAMES.get(path.name) or _UNREAD.get(path.suffix) or ("other weights" if weights else "")
      reason = "the tokenizer is made from other files" if path.name in FILES else reason
      yield Use(path.name, f"not read: {reason}" if reason else "not read", "")


def _attempt(name: str, read: Callable[[], Any]) -> str:
  try:
    return f"{name}: {read()}"
  except InteropError as error:
    return f"{name}: refused: {error}"
