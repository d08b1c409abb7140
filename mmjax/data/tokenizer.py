"""Text to ids with the `tokenizers` library: load a tokenizer.json, or train a byte-level BPE on captions."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32

from mmjax.data.config import TokenizerConfig
from mmjax.data.errors import DataError

_VOCABULARY, _RECORD = "tokenizer.json", "tokenizer_config.json"


class Tokenizer:
  """Strings to ids of a fixed length: `[bos] text eos pad pad ...`.

  Args:
    engine: the vocabulary and merges.
    config: padding, ends, case folding and length. Saved with a checkpoint; what `load` returns enforces it.

  Raises:
    DataError: the vocabulary lacks a special token, or padding cannot be told from the end token.
  """

  def __init__(self, engine: tokenizers.Tokenizer, config: TokenizerConfig):
    self.config = config
    self.pad_id = _special_id(engine, config.pad_token, "pad_token")
    self.eos_id = _special_id(engine, config.eos_token, "eos_token")
    self.bos_id = None if config.bos_token is None else _special_id(engine, config.bos_token, "bos_token")
    if self.pad_id in (self.eos_id, self.bos_id):
      raise DataError(
        f"--data.tokenizer.pad-token {config.pad_token!r} is also the end or begin token, so padding would "
        "hide it. Name another token of the vocabulary."
      )
    room = config.max_length - 1 - (self.bos_id is not None)
    if room < 1:
      raise DataError(f"--data.tokenizer.max-length {config.max_length} leaves no room for text.")
    self._room = room
    self._engine = tokenizers.Tokenizer.from_str(engine.to_str())  # the caller's stays as it is
    self._engine.no_padding()
    self._engine.no_truncation()
    self._engine.encode_special_tokens = True  # "<eos>" written in a caption is text
    if config.lowercase:
      self._engine.normalizer = _folding(self._engine.normalizer)

  @property
  def vocab_size(self) -> int:
    return self._engine.get_vocab_size()

  def __call__(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    """Ids of each string, padded to max_length; the end token survives truncation."""
    if isinstance(strings, str):
      raise TypeError("Tokenizer takes a sequence of strings; wrap a single one in a list.")
    ids = np.full((len(strings), self.config.max_length), self.pad_id, np.int32)
    begin = [] if self.bos_id is None else [self.bos_id]
    for row, encoding in zip(ids, self._engine.encode_batch_fast(list(strings), add_special_tokens=False)):
      tokens = [*begin, *encoding.ids[: self._room], self.eos_id]
      row[: len(tokens)] = tokens
    return ids

  def decode(self, ids: Iterable[int]) -> str:
    """The text of one row of ids, as far as it can be had back (case folding cannot be undone)."""
    special = {self.pad_id, self.eos_id, self.bos_id}
    return self._engine.decode([int(token) for token in ids if int(token) not in special])

  def save(self, directory: str | Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = self._engine.to_str()
    record = dataclasses.asdict(self.config) | {"sha256": _digest(vocabulary)}
    (directory / _VOCABULARY).write_text(vocabulary, encoding="utf-8")
    (directory / _RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")

  @classmethod
  def load(cls, directory: str | Path) -> "Tokenizer":
    """What `save` wrote.

    Raises:
      DataError: a file is missing or unreadable, or tokenizer.json is not the one saved with the record.
    """
    directory = Path(directory)
    record = _read_record(directory / _RECORD)
    expected = record.pop("sha256", None)
    engine = read_vocabulary(directory / _VOCABULARY)
    if _digest((directory / _VOCABULARY).read_text(encoding="utf-8")) != expected:
      raise DataError(
        f"{directory / _VOCABULARY} is not the vocabulary that {_RECORD} was saved with. "
        "Restore both from the same run."
      )
    return cls(engine, TokenizerConfig(**record))


def read_vocabulary(path: str | Path) -> tokenizers.Tokenizer:
  """Any tokenizer.json.

  Raises:
    DataError: there is none, or it cannot be parsed.
  """
  path = Path(path).expanduser()
  try:
    return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise DataError(
      f"Cannot read the tokenizer {path}: {error.strerror}. Give the path of a tokenizer.json."
    ) from error
  except Exception as error:  # the library raises bare Exception
    raise DataError(f"{path} is not a tokenizer.json: {error}") from error


def train_vocabulary(texts: Iterable[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
  """A byte-level BPE (Radford et al. 2019): every string of any language has ids, nothing is unknown."""
  engine = tokenizers.Tokenizer(tokenizers.models.BPE())
  engine.normalizer = _folding(None) if config.lowercase else tokenizers.normalizers.NFC()
  engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
  engine.decoder = tokenizers.decoders.ByteLevel()
  special = [config.pad_token, config.eos_token] + ([config.bos_token] if config.bos_token else [])
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=config.vocab_size,
    special_tokens=special,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  engine.train_from_iterator(texts, trainer)
  return engine


def _folding(normalizer: tokenizers.normalizers.Normalizer | None) -> tokenizers.normalizers.Normalizer:
  """NFKC and lower case, before whatever the vocabulary normalises itself; once is enough."""
  folding = [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
  if normalizer is None:
    return tokenizers.normalizers.Sequence(folding)
  if "Lowercase" in str(normalizer):
    return normalizer
  return tokenizers.normalizers.Sequence([*folding, normalizer])


def _special_id(engine: tokenizers.Tokenizer, token: str, field: str) -> int:
  found = engine.token_to_id(token)
  if found is None:
    raise DataError(
      f"The vocabulary has no token {token!r}. Set --data.tokenizer.{field.replace('_', '-')} to one it has."
    )
  return found


def _digest(vocabulary: str) -> str:
  return hashlib.sha256(vocabulary.encode()).hexdigest()


def _read_record(path: Path) -> dict:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, json.JSONDecodeError) as error:
    raise DataError(f"Cannot read the tokenizer record {path}: {error}. Was it saved with the run?") from error
