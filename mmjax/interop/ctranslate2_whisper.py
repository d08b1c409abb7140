"""Whisper in CTranslate2's format: its weights and its files become a checkpoint of transformers."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.errors import DataError
from mmjax.data.text.tokenizer import read_vocabulary
from mmjax.encoders.speech import SpeechConfig
from mmjax.interop.ctranslate2_file import CTranslate2File
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.mapping import Table, check
from mmjax.interop.safetensors_file import write_safetensors
from mmjax.interop.shapes import flat_shapes
from mmjax.interop.speech_settings import FEATURES, GENERATION, write_features
from mmjax.interop.tensors import Entry, TensorFile
from mmjax.interop.tokenizer_files import TOKENIZER, TOKENIZER_CONFIG
from mmjax.interop.transformers_whisper import rules, write
from mmjax.models.whisper import WhisperConfig

_SETTINGS = {"decoder/pre_norm": 1, "decoder/activation": 3, "decoder/alibi": 0, "decoder/scale_embeddings": 0}
_SETTINGS |= {"decoder/start_from_zero_embedding": 0}
"""Settings that transformers' Whisper has too. Activation 3 is GELU."""
_IGNORED = ("decoder/alignment_heads", "decoder/alignment_layer", "encoder/num_heads", "decoder/num_heads", *_SETTINGS)

_NAMES = (
  (r"^(encoder|decoder)/layer_(\d+)/self_attention/layer_norm/", r"\1.layers.\2.self_attn_layer_norm."),
  (r"^decoder/layer_(\d+)/attention/layer_norm/", r"decoder.layers.\1.encoder_attn_layer_norm."),
  (r"^(encoder|decoder)/layer_(\d+)/ffn/layer_norm/", r"\1.layers.\2.final_layer_norm."),
  (r"^(encoder|decoder)/layer_(\d+)/ffn/linear_0/", r"\1.layers.\2.fc1."),
  (r"^(encoder|decoder)/layer_(\d+)/ffn/linear_1/", r"\1.layers.\2.fc2."),
  (r"^(encoder|decoder)/layer_(\d+)/self_attention/linear_0/", r"\1.layers.\2.self_attn.qkv_proj."),
  (r"^(encoder|decoder)/layer_(\d+)/self_attention/linear_1/", r"\1.layers.\2.self_attn.out_proj."),
  (r"^decoder/layer_(\d+)/attention/linear_0/", r"decoder.layers.\1.encoder_attn.q_proj."),
  (r"^decoder/layer_(\d+)/attention/linear_1/", r"decoder.layers.\1.encoder_attn.kv_proj."),
  (r"^decoder/layer_(\d+)/attention/linear_2/", r"decoder.layers.\1.encoder_attn.out_proj."),
  (r"^(encoder|decoder)/layer_norm/", r"\1.layer_norm."),
  (r"^encoder/conv([12])/", r"encoder.conv\1."),
  (r"^(encoder|decoder)/position_encodings/encodings$", r"\1.embed_positions.weight"),
  (r"^decoder/embeddings/", r"decoder.embed_tokens."),
)
_ENDS = {"gamma": "weight", "beta": "bias"}


class Converted:
  """Tensors under transformers' names, as a `TensorFile`.

  Args:
    path: the file that they come from.
    tensors: the tensors by name.
  """

  def __init__(self, path: Path, tensors: dict[str, np.ndarray]):
    self.path, self.tensors = path, tensors
    self.entries = {name: Entry(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

  def read(self, name: str) -> np.ndarray:
    """Numbers of one tensor."""
    return self.tensors[name]


def converted(file: CTranslate2File) -> Converted:
  """The tensors under transformers' names. CTranslate2 joins the projections of an attention, and gives keys a bias.

  Raises: InteropError: a tensor has no place in transformers' Whisper, or a bias of keys is not zero.
  """
  found: dict[str, np.ndarray] = {}
  for name in file.entries:
    if name not in _IGNORED:
      for theirs, tensor in _split(_renamed(file, name), file.read(name)):
        if not theirs.endswith(".k_proj.bias"):
          found[f"model.{theirs}"] = tensor
        elif tensor.any():
          raise InteropError(f"{file.path}: {name!r} has a bias of keys, which Whisper does not have")
  return Converted(file.path, found)


def _renamed(file: CTranslate2File, name: str) -> str:
  for pattern, replacement in _NAMES:
    theirs, changed = re.subn(pattern, replacement, name)
    if changed:
      start, _, end = theirs.rpartition(".")
      return f"{start}.{_ENDS.get(end, end)}"
  raise InteropError(f"{file.path} has the tensor {name!r}, which mmjax does not know in a Whisper")


def _split(name: str, tensor: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
  joined = re.search(r"\.(qkv|kv)_proj\.", name)
  if joined is None:
    yield name, tensor
    return
  for letter, part in zip(joined[1], np.array_split(tensor, len(joined[1])), strict=True):
    yield name.replace(joined[0], f".{letter}_proj."), part


def read_config(file: CTranslate2File, ids: dict[str, int]) -> WhisperConfig:
  """Read the configuration of a Whisper from the shapes of its tensors.

  Args:
    file: the file.
    ids: numbers of the begin token ("begin") and of the end token ("end").
  Raises: InteropError: the model is another one, or has a setting that transformers' Whisper does not have.
  """
  if file.kind != "WhisperSpec" or file.same != {"decoder/projection/weight": "decoder/embeddings/weight"}:
    raise InteropError(f"{file.path} is a {file.kind}, or its scores have a table of their own; mmjax reads Whisper")
  for name, supported in _SETTINGS.items():
    if _scalar(file, name) != supported:
      raise InteropError(f"{file.path}: {name} is {_scalar(file, name)}; mmjax supports only {supported}")
  width, mels, _ = _shape(file, "encoder/conv1/weight", 3)
  audio = SpeechConfig(
    width=width,
    depth=_depth(file, "encoder"),
    num_heads=_scalar(file, "encoder/num_heads"),
    mlp_dim=_shape(file, "encoder/layer_0/ffn/linear_0/weight", 2)[0],
    mel_bins=mels,
    frames=2 * _shape(file, "encoder/position_encodings/encodings", 2)[0],
  )
  text = dataclasses.replace(
    WhisperConfig().text,
    width=width,
    depth=_depth(file, "decoder"),
    num_heads=_scalar(file, "decoder/num_heads"),
    mlp_dim=_shape(file, "decoder/layer_0/ffn/linear_0/weight", 2)[0],
    vocab_size=_shape(file, "decoder/embeddings/weight", 2)[0],
    max_length=_shape(file, "decoder/position_encodings/encodings", 2)[0],
    pad_id=ids["end"],
    eos_id=ids["end"],
  )
  return WhisperConfig(audio, text, ids["begin"])


def _shape(file: TensorFile, name: str, rank: int) -> tuple[int, ...]:
  shape = file.entries[name].shape if name in file.entries else ()
  if len(shape) != rank:
    raise InteropError(f"{file.path} has no tensor {name!r} with {rank} axes")
  return shape


def _scalar(file: CTranslate2File, name: str) -> int:
  _shape(file, name, 0)
  return int(file.read(name))


def _depth(file: TensorFile, stack: str) -> int:
  layers = {match[1] for name in file.entries if (match := re.match(rf"{stack}/layer_(\d+)/", name))}
  return len(layers)


def write_checkpoint(path: Path, folder: Path) -> None:
  """Write a Whisper of one language as a checkpoint of transformers, with tokenizer, features and settings.

  Args:
    path: model.bin, with config.json and tokenizer.json beside it.
    folder: folder to write into.
  Raises: InteropError: the model is of another kind, has several languages, or a file is damaged.
  """
  file, settings = CTranslate2File(path), read_json(path.parent / "config.json")
  try:
    engine = read_vocabulary(path.parent / TOKENIZER)
  except DataError as error:
    raise InteropError(str(error)) from error
  names = {"begin": "<|startoftranscript|>", "end": "<|endoftext|>", "no_times": "<|notimestamps|>"}
  ids: dict[str, Any] = {short: engine.token_to_id(token) for short, token in names.items()}
  if None in ids.values():
    raise InteropError(f"{path.parent / TOKENIZER} does not have Whisper's tokens {', '.join(names.values())}")
  try:
    config = read_config(file, ids)
  except ValueError as error:
    raise InteropError(f"{path}: {error}") from error
  if config.text.vocab_size > _ENGLISH:
    raise InteropError(f"{path} has {config.text.vocab_size} tokens: it is not one of Whisper's models for English")
  weights = converted(file)
  check(weights, Table(rules(config), flat_shapes(config)), ())
  folder.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(path.parent / TOKENIZER, folder / TOKENIZER)
  _write_json(folder / TOKENIZER_CONFIG, _TOKENIZER | {"model_max_length": config.text.max_length})
  _write_json(folder / FEATURES, write_features(config))
  _write_json(folder / GENERATION, _generation(settings, config, ids))
  _write_json(folder / "config.json", write(config))
  write_safetensors(folder / "model.safetensors", weights.tensors, {"format": "pt"})


_ENGLISH = 51_864  # tokens of the models for English; others have one more
_TOKENIZER = {"tokenizer_class": "WhisperTokenizer", "errors": "replace"}
_TOKENIZER |= {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "unk", "pad")}


def _generation(settings: Fields, config: WhisperConfig, ids: dict[str, int]) -> dict[str, Any]:
  """generation_config.json of transformers."""
  return {
    "decoder_start_token_id": config.begin_id,
    "eos_token_id": config.text.eos_id,
    "pad_token_id": config.text.pad_id,
    "is_multilingual": False,
    "no_timestamps_token_id": ids["no_times"],
    "suppress_tokens": settings.get("suppress_ids"),
    "begin_suppress_tokens": settings.get("suppress_ids_begin"),
    "max_length": config.text.max_length,
    "return_timestamps": False,
  }


def _write_json(path: Path, fields: dict[str, Any]) -> None:
  path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
