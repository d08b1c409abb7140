"""Tokenizer based on the library `tokenizers`: loads a tokenizer.json, or trains a byte-level BPE."""

import contextlib
import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int32

from mmjax.data.errors import DataError
from mmjax.data.text.config import TokenizerConfig
from mmjax.files import write_atomically

MAX_LENGTH = 65_536
_MAX_ID = 2**24
_VOCABULARY, _RECORD, _ANSWERS = "tokenizer.json", "tokenizer_config.json", "answers.json"


class Tokenizer:
  """Tokenizer of strings to ids of a fixed length, `[cls or bos] text eos pad pad ...`, and of answers to classes.

  Args:
    engine: vocabulary and merges.
    config: special tokens, case folding and length. They are saved with a checkpoint and restored by `load`.
    answers: answers of data with questions, in the order of their classes. Empty for other data.

  Attributes:
    pad_id, eos_id: ids of the padding token and the end token.
    bos_id, cls_id, sep_id, mask_id: ids of the other special tokens. None if the configuration does not name them.
    image_id, chunk_id: ids of the tokens for images among words. None if the configuration does not name them.
    begin_id: id of the token at the beginning of a text: cls_id if it is set, else bos_id.
    special_ids: ids of all special tokens. They are never masked or predicted as words.

  Raises:
    DataError: the vocabulary lacks a special token, the padding token is also a special token other than the end token,
      or a length is too short or too long.
  """

  def __init__(self, engine: tokenizers.Tokenizer, config: TokenizerConfig, answers: Sequence[str] = ()):
    self.config, self.answers = config, tuple(answers)
    engine = _with_tokens(engine, [token for token in (config.image_token, config.chunk_token) if token is not None])
    self.pad_id = _special_id(engine, config.pad_token, "pad_token")
    self.eos_id = _special_id(engine, config.eos_token, "eos_token")
    self.bos_id = _optional_id(engine, config.bos_token, "bos_token")
    self.cls_id = _optional_id(engine, config.cls_token, "cls_token")
    self.sep_id = _optional_id(engine, config.sep_token, "sep_token")
    self.mask_id = _optional_id(engine, config.mask_token, "mask_token")
    self.image_id = _optional_id(engine, config.image_token, "image_token")
    self.chunk_id = _optional_id(engine, config.chunk_token, "chunk_token")
    others = (self.eos_id, self.bos_id, self.cls_id, self.sep_id, self.mask_id, self.image_id, self.chunk_id)
    self.special_ids = tuple(sorted({self.pad_id, *(token for token in others if token is not None)}))
    if self.pad_id in others[1:]:
      raise DataError(
        f"--data.tokenizer.pad-token {config.pad_token!r} is also another special token, so padding would hide it. "
        "Name another token of the vocabulary."
      )
    self.begin_id = self.bos_id if self.cls_id is None else self.cls_id
    self._begin = [] if self.begin_id is None else [self.begin_id]
    self._room = config.max_length - 1 - len(self._begin)
    if self._room < 1:
      raise DataError(f"--data.tokenizer.max-length {config.max_length} leaves no room for text.")
    if max(config.max_length, config.answer_length) > MAX_LENGTH:
      raise DataError(f"--data.tokenizer.max-length and answer-length are at most {MAX_LENGTH}.")
    self._classes = {same_answer(answer): number for number, answer in enumerate(self.answers)}
    with refusing("The tokenizer.json cannot be used"):
      self._engine = tokenizers.Tokenizer.from_str(engine.to_str())  # a copy: do not change the caller's
      self._engine.no_padding()
      self._engine.no_truncation()
      self._engine.encode_special_tokens = True  # "<eos>" written in a caption is text
      if config.lowercase:
        self._engine.normalizer = _folding(self._engine.normalizer)

  @property
  def vocab_size(self) -> int:
    """Number of tokens in the vocabulary."""
    return self._engine.get_vocab_size()

  def __call__(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    """Ids of each string, padded or truncated to max_length. A truncated text also ends with the end token."""
    if isinstance(strings, str):
      raise TypeError("Tokenizer takes a sequence of strings; put a single string in a list.")
    rows = [[*self._begin, *words[: self._room], self.eos_id] for words in self._words(strings)]
    return self._padded(rows, self.config.max_length)

  def word_numbers(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    """Number of the word that each token of `self(strings)` is part of, counted from 0. -1 for special tokens.

    Raises:
      DataError: the tokenizer does not split texts into words before it makes tokens.
    """
    with refusing("The tokenizer cannot encode these texts"):
      encoded = self._engine.encode_batch(["a b", *self._shortened(strings)], add_special_tokens=False)
    words = [encoding.word_ids for encoding in encoded]
    if len(set(words[0])) < 2:
      raise DataError(
        "The tokenizer does not split texts into words, so whole words cannot be masked. Use one with a pre-tokenizer, "
        "or turn whole_words off."
      )
    begin = [-1] * len(self._begin)
    rows = [[*begin, *(-1 if word is None else word for word in row[: self._room])] for row in words[1:]]
    return self._padded(rows, self.config.max_length, -1)

  def share_cut(self, strings: Sequence[str]) -> float:
    """Share of the strings that are truncated to max_length."""
    return float(np.mean([len(words) > self._room for words in self._words(strings)])) if strings else 0.0

  def pairs(
    self, firsts: Sequence[str], seconds: Sequence[str]
  ) -> tuple[Int32[np.ndarray, "n t"], Int32[np.ndarray, "n t"]]:
    """Ids of pairs of texts, `[cls or bos] first sep second eos pad ...`, and their segments.

    If a pair is too long, the end of the longer text is cut (Devlin et al. 2019).

    Args:
      firsts: first text of each pair.
      seconds: second text of each pair.
    Returns: (ids, segments). Segments are 0 for `[cls or bos] first sep`, 1 for `second eos`, and 0 for padding.
    Raises:
      DataError: there is no sep token, or max_length leaves no room for one token of each text.
    """
    if self.sep_id is None:
      raise DataError("Pairs of texts need a token between them: set --data.tokenizer.sep-token '<sep>'.")
    if self._room < 3:
      raise DataError(f"--data.tokenizer.max-length {self.config.max_length} leaves no room for a pair of texts.")
    rows, segments = [], []
    for first, second in zip(self._words(firsts), self._words(seconds), strict=True):
      first, second = _fitted(first, second, self._room - 1)
      rows.append([*self._begin, *first, self.sep_id, *second, self.eos_id])
      segments.append([0] * (len(self._begin) + len(first) + 1) + [1] * (len(second) + 1))
    length = self.config.max_length
    return self._padded(rows, length), self._padded(segments, length, 0)

  def answer_ids(self, answers: Sequence[str]) -> Int32[np.ndarray, "n"]:
    """Class of each answer, or -1 if it is not among the classes. Case and spaces do not matter."""
    return np.array([self._classes.get(same_answer(answer), -1) for answer in answers], np.int32)

  def answer_text(self, answers: Sequence[str]) -> Int32[np.ndarray, "n a"]:
    """Ids of answers for a decoder, `[bos] answer eos pad ...`, of length answer_length.

    Raises:
      DataError: answer_length leaves no room for an answer.
    """
    begin = [] if self.bos_id is None else [self.bos_id]
    room = self.config.answer_length - 1 - len(begin)
    if room < 1:
      raise DataError(f"--data.tokenizer.answer-length {self.config.answer_length} leaves no room for an answer.")
    rows = [[*begin, *words[:room], self.eos_id] for words in self._words(answers)]
    return self._padded(rows, self.config.answer_length)

  def word_ids(self, strings: Sequence[str]) -> list[list[int]]:
    """Ids of each string, without special tokens, padding or truncation."""
    return self._words(strings)

  def _words(self, strings: Sequence[str]) -> list[list[int]]:
    """Ids without special tokens."""
    texts = self._shortened(strings)
    with refusing("The tokenizer cannot encode these texts"):
      return [encoding.ids for encoding in self._engine.encode_batch_fast(texts, add_special_tokens=False)]

  def _shortened(self, strings: Sequence[str]) -> list[str]:
    """The beginnings of very long texts.

    Encoding 1 MB of text takes 100 MB of memory. The limit of 256 characters per token never matters in practice.
    """
    longest = 4096 + 256 * max(self.config.max_length, self.config.answer_length)
    return [text[:longest] for text in strings]

  def _padded(self, rows: Sequence[Sequence[int]], length: int, fill: int | None = None) -> Int32[np.ndarray, "n t"]:
    ids = np.full((len(rows), length), self.pad_id if fill is None else fill, np.int32)
    for row, tokens in zip(ids, rows):
      row[: len(tokens)] = tokens
    return ids

  def decode(self, ids: Iterable[int]) -> str:
    """Text of one row of ids, without special tokens. Case folding is not undone."""
    return self._engine.decode([int(token) for token in ids if int(token) not in self.special_ids])

  def save(self, directory: str | Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and, if there are answers, answers.json."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = self._engine.to_str()
    record = dataclasses.asdict(self.config) | {"sha256": _digest(vocabulary)}
    write_atomically(directory / _VOCABULARY, vocabulary)
    write_atomically(directory / _RECORD, json.dumps(record, indent=2))
    if self.answers:
      write_atomically(directory / _ANSWERS, json.dumps(self.answers, indent=0, ensure_ascii=False))

  def same_ids(self, other: "Tokenizer") -> bool:
    """True if both give every text the same ids, up to its length."""
    same = dataclasses.replace(other.config, path=self.config.path, vocab_size=self.config.vocab_size)
    return self.config == same and self._engine.get_vocab() == other._engine.get_vocab()

  def extends(self, vocabulary: Mapping[str, int]) -> bool:
    """True if all tokens of a vocabulary have the same ids here."""
    mine = self._engine.get_vocab()
    return all(mine.get(token) == number for token, number in vocabulary.items())

  def check_saved(self, directory: str | Path) -> None:
    """Raise DataError if the tokenizer saved in a folder has another vocabulary or other answers, and so other ids."""
    saved = Tokenizer.load(directory)
    for name, mine, theirs in (
      ("tokenizer", self._engine.get_vocab(), saved._engine.get_vocab()),
      ("answer vocabulary", self.answers, saved.answers),
    ):
      if mine != theirs:
        raise DataError(
          f"The {name} made from the data is not the one in {directory}: the data has changed. Resume with the data "
          "of the run, or start in a new --run.workdir."
        )

  @classmethod
  def load(cls, directory: str | Path) -> "Tokenizer":
    """Load a tokenizer that `save` wrote.

    Raises:
      DataError: a file is missing or cannot be read, or tokenizer.json was not saved with tokenizer_config.json.
    """
    directory = Path(directory)
    expected, config = _read_record(directory / _RECORD)
    engine = read_vocabulary(directory / _VOCABULARY)
    if _digest((directory / _VOCABULARY).read_text(encoding="utf-8")) != expected:
      raise DataError(
        f"{directory / _VOCABULARY} is not the vocabulary that {_RECORD} was saved with. "
        "Restore both from the same run."
      )
    answers = directory / _ANSWERS
    return cls(engine, config, _read_answers(answers) if answers.exists() else ())


def read_vocabulary(path: str | Path) -> tokenizers.Tokenizer:
  """Load any tokenizer.json.

  Raises:
    DataError: the file cannot be read or parsed, or an id is larger than 2^24.
  """
  path = Path(path).expanduser()
  try:
    with refusing(f"{path} is not a tokenizer.json"):
      engine = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise DataError(
      f"Cannot read the tokenizer {path}: {error.strerror}. Give the path of a tokenizer.json."
    ) from error
  for token, id in engine.get_vocab().items():
    if id > _MAX_ID:  # to write the vocabulary, the library allocates memory for all smaller ids
      raise DataError(f"{path} is not a tokenizer.json: the id of {token!r} is over {_MAX_ID:,}")
  return engine


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
  """Convert any error of the library to a DataError. The library raises plain Exceptions, and also panics.

  Panics are BaseExceptions, but not Exceptions.
  """
  try:
    yield
  except (DataError, OSError, TypeError, KeyboardInterrupt, SystemExit, GeneratorExit):
    raise
  except BaseException as error:
    raise DataError(f"{what}: {error}") from error


def train_vocabulary(texts: Iterable[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
  """Train a byte-level BPE (Radford et al. 2019). It has no unknown tokens: every string of any language has ids."""
  engine = tokenizers.Tokenizer(tokenizers.models.BPE())
  engine.normalizer = _folding(None) if config.lowercase else tokenizers.normalizers.NFC()
  engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
  engine.decoder = tokenizers.decoders.ByteLevel()
  optional = (config.bos_token, config.cls_token, config.sep_token, config.mask_token)
  special = list(dict.fromkeys([config.pad_token, config.eos_token, *(token for token in optional if token)]))
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=config.vocab_size,
    special_tokens=special,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  engine.train_from_iterator(texts, trainer)
  return engine


def _folding(normalizer: tokenizers.normalizers.Normalizer | None) -> tokenizers.normalizers.Normalizer:
  """Put NFKC and lower case before a normalizer. A normalizer that already lowercases is returned unchanged."""
  folding = [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
  if normalizer is None:
    return tokenizers.normalizers.Sequence(folding)
  if "Lowercase" in str(normalizer):
    return normalizer
  return tokenizers.normalizers.Sequence([*folding, normalizer])


def _with_tokens(engine: tokenizers.Tokenizer, tokens: Sequence[str]) -> tokenizers.Tokenizer:
  """A tokenizer with further special tokens. Those that it has keep their ids; others get the ids after the last."""
  missing = [token for token in tokens if engine.token_to_id(token) is None]
  if not missing:
    return engine
  extended = tokenizers.Tokenizer.from_str(engine.to_str())
  extended.add_special_tokens(missing)
  return extended


def _special_id(engine: tokenizers.Tokenizer, token: str, field: str) -> int:
  try:
    found = engine.token_to_id(token)
  except UnicodeEncodeError:  # one half of a surrogate pair is not text
    found = None
  if found is None:
    raise DataError(
      f"The vocabulary has no token {token!r}. Set --data.tokenizer.{field.replace('_', '-')} to one it has."
    )
  return found


def _optional_id(engine: tokenizers.Tokenizer, token: str | None, field: str) -> int | None:
  return None if token is None else _special_id(engine, token, field)


def _fitted(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
  """Cut the end of the longer list, so that both together have at most `room` ids."""
  kept = min(len(second), max(room // 2, room - len(first)))
  return first[: room - kept], second[:kept]


def same_answer(answer: str) -> str:
  """Normal form of an answer. Answers that differ only in case or spaces have the same form."""
  return " ".join(answer.casefold().split())


def _digest(vocabulary: str) -> str:
  return hashlib.sha256(vocabulary.encode()).hexdigest()


def _read_record(path: Path) -> tuple[Any, TokenizerConfig]:
  """Read tokenizer_config.json: (digest of the vocabulary, settings)."""
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
    digest = record.pop("sha256", None)
    config = TokenizerConfig(**record)
    for name, kind in typing.get_type_hints(TokenizerConfig).items():
      value = getattr(config, name)
      if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{name} is {value!r}")
  except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
    raise DataError(f"Cannot read the tokenizer record {path}: {error}. Was it saved with the run?") from error
  return digest, config


def _read_answers(path: Path) -> list[str]:
  try:
    answers = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise DataError(f"Cannot read the answer vocabulary {path}: {error}. Restore it from the same run.") from error
  if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
    raise DataError(f"{path} is not a list of answers. Restore it from the same run.")
  return answers
