"""Tokenizer of a configuration. It is trained on the texts of the data at first use, and stored in the data folder."""

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from mmjax.data.columns.answer import Answer
from mmjax.data.columns.text import Text, TextColumn
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.features import run_columns
from mmjax.data.opening import make_source
from mmjax.data.records import Records, text_reader
from mmjax.data.text.config import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, read_vocabulary, same_answer, train_vocabulary
from mmjax.kinds import option_name

_MAX_RECORDS = 100_000
_SAMPLE, _MANY = 1000, 0.1
log = logging.getLogger(__name__)


def make_tokenizer(
  config: DataConfig, source: Records | None = None, *, more: Sequence[tuple[DataConfig, Records]] = ()
) -> Tokenizer:
  """Make the tokenizer of a configuration.

  Args:
    config: the configuration.
    source: the training records. None: they are opened.
    more: configurations and records of further streams of the run. Their texts and answers count, too.
  Returns: the tokenizer.
  Raises:
    DataError: tokenizer.json cannot be read, a special token is missing, a record is bad, or the folder cannot be
      written.
  """
  given = config.tokenizer.path
  if given is not None and not any(_has_answers(each, records) for each, records in [(config, source), *more]):
    return Tokenizer(read_vocabulary(given), config.tokenizer)
  texts: dict[str, None] = {}  # used as a set that keeps the order
  shown: dict[str, None] = {}
  answers: Counter[str] = Counter()
  source = make_source(config, "train") if source is None else source
  for each, records in [(config, source), *more]:
    _collect(each, records, texts, shown, answers)
  classes = most_frequent(answers, config.num_answers)
  if given is not None:
    return Tokenizer(read_vocabulary(given), config.tokenizer, classes)
  name = f"{option_name(type(config.source))}-{_fingerprint(texts, config.tokenizer)}.json"
  path = Path(config.dir).expanduser() / "tokenizers" / name
  engine = read_vocabulary(path) if path.exists() else _train(texts, config.tokenizer, path)
  tokenizer = Tokenizer(engine, config.tokenizer, classes)
  _warn_of_cuts(tokenizer, list(shown))
  return tokenizer


def _has_answers(config: DataConfig, source: Records | None) -> bool:
  return any(isinstance(column, Answer) for column in run_columns(config, source).values())


def _collect(
  config: DataConfig, source: Records, texts: dict[str, None], shown: dict[str, None], answers: Counter[str]
) -> None:
  """Add the texts of the records, those that a batch shows, and the counts of the answers."""
  written = [column for column in run_columns(config, source).values() if isinstance(column, TextColumn)]
  has_answers = _has_answers(config, source)
  fields = any(isinstance(column, Text) for column in written)
  for record in _records(source, config, len(source) if has_answers else _MAX_RECORDS, fields=fields):
    texts.update(dict.fromkeys(_texts(record)))
    for column in written:
      texts.update(dict.fromkeys(column.texts(record)))
      shown.update(dict.fromkeys(column.texts(record) if isinstance(column, Text) else ()))
    shown.update(dict.fromkeys([record["question"]] if "question" in record else _texts(record)))
    answers.update([same_answer(record["answer"])] if has_answers else [])


def _records(source: Records, config: DataConfig, most: int, *, fields: bool) -> Iterator[Mapping[str, Any]]:
  """Iterate over the texts of the first `most` records. Bad records are left out if on_bad_record is "skip".

  Images are not read if the source has a method `without_image` or, where captions are all that is needed (`fields` is
  False), `captions`.
  """
  read = getattr(source, "without_image", source.__getitem__) if fields else text_reader(source)
  for index in range(min(len(source), most)):
    try:
      yield read(index)
    except DataError:
      if config.on_bad_record != "skip":
        raise


def _texts(record: Mapping[str, Any]) -> Iterator[str]:
  """Iterate over all texts of a record, not only those that one batch contains."""
  for texts in record.get("captions", {}).values():
    yield from texts
  for field in ("question", "answer", "first", "second"):
    if field in record:
      yield record[field]


def _warn_of_cuts(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
  """Log a warning if many texts are longer than max_length. A question without its last words has no meaning."""
  share = tokenizer.share_cut(texts[:: max(1, len(texts) // _SAMPLE)])
  if share > _MANY:
    log.warning(
      "%.0f%% of the texts are longer than --data.tokenizer.max-length %d and lose their end. Raise it, or raise "
      "--data.tokenizer.vocab-size so that words take fewer tokens.",
      100 * share,
      tokenizer.config.max_length,
    )


def most_frequent(answers: Mapping[str, int], number: int) -> tuple[str, ...]:
  """The `number` most frequent answers, most frequent first. Ties are in alphabetical order."""
  return tuple(sorted(answers, key=lambda answer: (-answers[answer], answer))[:number])


def _fingerprint(texts: Iterable[str], config: TokenizerConfig) -> str:
  relevant = dataclasses.asdict(config)
  del relevant["max_length"], relevant["answer_length"]  # do not change the vocabulary
  for name in ("cls_token", "sep_token", "mask_token"):  # nor do these if they are not set
    if relevant[name] is None:
      del relevant[name]
  del relevant["image_token"], relevant["chunk_token"]  # the tokenizer adds them to the trained vocabulary
  digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode())
  for text in texts:
    digest.update(text.encode() + b"\0")
  return digest.hexdigest()[:16]


def _train(texts: Iterable[str], config: TokenizerConfig, path: Path) -> tokenizers.Tokenizer:
  engine = train_vocabulary(texts, config)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(engine.to_str(), encoding="utf-8")
    partial.replace(path)  # atomic: another process never reads an incomplete file
  except OSError as error:
    raise DataError(
      f"Cannot store the tokenizer at {path}: {error}. Choose a writable directory with --data.dir DIR."
    ) from error
  return engine
