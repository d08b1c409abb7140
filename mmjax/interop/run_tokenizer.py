"""Tokenizer of a checkpoint as the tokenizer of a run. Its ids are those of the other library."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from mmjax.data.errors import DataError
from mmjax.data.text.config import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, refusing
from mmjax.files import write_atomically
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.finding import CONFIG, OPEN_CLIP_CONFIG
from mmjax.interop.pretrained_tokenizer import FILES, TOKENIZER_CONFIG, load_tokenizer
from mmjax.interop.shapes import text_tower
from mmjax.interop.source import open_source, tokenizer_fields

_RECORD = "checkpoint_tokenizer.json"
_COPIED = (*FILES, CONFIG, OPEN_CLIP_CONFIG)
_SPECIAL = ("pad_token", "eos_token", "bos_token", "cls_token", "mask_token")
_ADDED = ("image_token", "chunk_token")


class CheckpointTokenizer(Tokenizer):
  """Tokenizer of a checkpoint. It makes the ids of captions; pairs of texts and answers have no published form.

  Args:
    folder: folder of the checkpoint, or the folder that `save` wrote.
    config: settings of the run. `path` is the folder. Special tokens that are not the defaults must be those of the
      checkpoint.
    open_clip: text_cfg of an open_clip configuration. None for other formats.
    vocab_size: rows of the model's token embedding.

  Raises:
    InteropError: the folder has no tokenizer that mmjax can read.
    DataError: a setting contradicts the checkpoint's tokenizer.
  """

  def __init__(self, folder: Path, config: TokenizerConfig, *, open_clip: Fields | None, vocab_size: int):
    self.folder, self.config, self.answers = folder, config, ()
    self.open_clip, self._vocab_size = open_clip, vocab_size
    self._found: Any = load_tokenizer(folder, config.max_length, open_clip=open_clip)
    begin, self.eos_id, self.pad_id = _special_ids(self._found, folder)
    self.begin_id = self.bos_id = begin
    self.cls_id = self.sep_id = self.image_id = self.chunk_id = None
    self.mask_id = self._mask_id()
    ids = (self.pad_id, self.eos_id, begin, self.mask_id)
    self.special_ids = tuple(sorted({token for token in ids if token is not None}))
    self._check_settings()

  @property
  def vocab_size(self) -> int:
    """Rows of the model's token embedding."""
    return self._vocab_size

  @property
  def named(self) -> TokenizerConfig:
    """The settings with the names of the checkpoint's special tokens."""
    return dataclasses.replace(
      self.config,
      vocab_size=self.vocab_size,
      lowercase=False,
      pad_token=self._name(self.pad_id),
      eos_token=self._name(self.eos_id),
      bos_token=None if self.bos_id is None else self._name(self.bos_id),
      mask_token=None if self.mask_id is None else self._name(self.mask_id),
    )

  @property
  def published(self) -> Mapping[str, Any]:
    """Fields of the config.json that the tokenizer was published with."""
    path = self.folder / CONFIG
    return read_json(path).values if path.is_file() else {}

  def __call__(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    """Ids of each string, as the other library makes them with padding and truncation."""
    return self._found(strings)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of one row of ids, without special tokens. Changes that the tokenizer makes to texts are not undone."""
    words = [int(token) for token in ids if int(token) not in self.special_ids]
    return (self._found.engine if hasattr(self._found, "engine") else self._found.model).decode(words)

  def save(self, directory: str | Path) -> None:
    """Copy the files of the tokenizer, with a record that `load_saved` reads."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in _files(self.folder).items():
      write_atomically(directory / name, data)
    text = None if self.open_clip is None else dict(self.open_clip.values)
    record = {"config": dataclasses.asdict(self.config), "vocab_size": self.vocab_size, "open_clip": text}
    write_atomically(directory / _RECORD, json.dumps(record | {"sha256": _digests(self.folder)}, indent=2))

  def same_ids(self, other: Tokenizer) -> bool:
    """True if both are the same files with the same length."""
    mine = (self.config.max_length, _digests(self.folder))
    return isinstance(other, CheckpointTokenizer) and mine == (other.config.max_length, _digests(other.folder))

  def check_saved(self, directory: str | Path) -> None:
    """Raise DataError if the tokenizer saved in a folder is another one."""
    if not self.same_ids(load_saved(directory)):
      raise DataError(
        f"The tokenizer of {self.folder} is not the one in {directory}. Resume with the checkpoint that the run began "
        "from, or start in a new --run.workdir."
      )

  def _words(self, strings: Sequence[str]) -> list[list[int]]:
    raise DataError(
      f"The tokenizer of the checkpoint {self.folder} makes captions only, no pairs of texts and no answers: set "
      "--data.tokenizer.path to its tokenizer.json, and name its special tokens."
    )

  def _mask_id(self) -> int | None:
    path = self.folder / TOKENIZER_CONFIG
    token = read_json(path).values.get("mask_token") if path.is_file() else None
    token = token.get("content") if isinstance(token, dict) else token
    return self._found.engine.token_to_id(token) if token and hasattr(self._found, "engine") else None

  def _name(self, token: int) -> str:
    engine = getattr(self._found, "engine", None)
    return (self._found.model.id_to_piece if engine is None else engine.id_to_token)(token)

  def _check_settings(self) -> None:
    """Raise DataError for settings that the checkpoint's tokenizer would pass over."""
    if self.config.lowercase:
      raise DataError(
        f"The tokenizer of {self.folder} folds case by itself or not at all: set --data.tokenizer.no-lowercase"
      )
    for name in _ADDED:
      if getattr(self.config, name) is not None:
        raise DataError(
          f"--data.tokenizer.{name.replace('_', '-')} cannot be added to the files of {self.folder}: set "
          "--data.tokenizer.path to its tokenizer.json, and name its special tokens."
        )
    named, default = self.named, TokenizerConfig()
    for name in _SPECIAL:
      mine, theirs = getattr(self.config, name), getattr(named, name)
      if mine not in (theirs, getattr(default, name)):
        raise DataError(
          f"--data.tokenizer.{name.replace('_', '-')} is {mine!r}, but the tokenizer of {self.folder} has {theirs!r}: "
          "leave it out"
        )


def checkpoint_tokenizer(config: TokenizerConfig) -> CheckpointTokenizer:
  """Load the tokenizer of the checkpoint in the folder `config.path`.

  Raises: InteropError: the checkpoint or its tokenizer cannot be read. DataError: a setting contradicts it.
  """
  assert config.path is not None
  source = open_source(config.path)
  size = getattr(text_tower(source.config), "vocab_size", None)
  if size is None:
    raise InteropError(f"{source.path}: {type(source.config).__name__} takes no texts")
  return CheckpointTokenizer(source.folder, config, open_clip=tokenizer_fields(source), vocab_size=size)


def load_saved(directory: str | Path) -> Tokenizer:
  """Load the tokenizer that a run saved: its own or that of a checkpoint.

  Raises: DataError: a file is missing, damaged, or was not saved with the others.
  """
  directory = Path(directory)
  if not (directory / _RECORD).is_file():
    return Tokenizer.load(directory)
  try:
    record = read_json(directory / _RECORD)
    if _digests(directory) != record.values.get("sha256"):
      raise DataError(
        f"The files in {directory} are not those that {_RECORD} was saved with. Restore them from the run."
      )
    config = TokenizerConfig(**record.object("config").values)
    open_clip = record.object("open_clip") if "open_clip" in record else None
    return CheckpointTokenizer(directory, config, open_clip=open_clip, vocab_size=record.integer("vocab_size"))
  except (InteropError, TypeError) as error:
    raise DataError(f"Cannot read the tokenizer in {directory}: {error}. Was it saved with the run?") from error


def _files(folder: Path) -> dict[str, bytes]:
  return {name: (folder / name).read_bytes() for name in _COPIED if (folder / name).is_file()}


def _digests(folder: Path) -> dict[str, str]:
  return {name: hashlib.sha256(data).hexdigest() for name, data in _files(folder).items()}


def _special_ids(tokenizer: Any, folder: Path) -> tuple[int | None, int, int]:
  """Find (begin or None, end, padding) from the ids of an empty and of a short text.

  A text is `[begin] words end pad pad ...`. Without an end token, the end is the padding.
  """
  with refusing(f"The tokenizer of {folder} cannot be used"):
    empty, word = tokenizer(["", "a"]).tolist()
  pad = empty[-1]
  while empty and empty[-1] == pad:
    empty.pop()
  match empty:
    case []:
      return None, pad, pad
    case [token]:
      return (token, pad, pad) if word[0] == token else (None, token, pad)
    case [begin, end] if word[0] == begin:
      return begin, end, pad
  raise InteropError(f"{folder}: its tokenizer pads at the left, or adds more than a begin and an end token")
