"""The tokenizer of a configuration: trained at first use on the data's captions, and stored beside it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers

from mmjax.data.config import DataConfig, TokenizerConfig
from mmjax.data.errors import DataError
from mmjax.data.sources import Source, make_source
from mmjax.data.tokenizer import Tokenizer, read_vocabulary, train_vocabulary

_MAX_RECORDS = 100_000


def make_tokenizer(config: DataConfig, source: Source | None = None) -> Tokenizer:
  """The tokenizer that a configuration describes.

  Args:
    config: with `tokenizer.path`, that file is loaded; without, a BPE is trained on the training captions
      once and kept in `config.dir`/tokenizers under a name made of the captions and the settings.
    source: the training records, when the caller has them already.

  Raises:
    DataError: unreadable tokenizer.json, missing special tokens, or a directory that cannot be written.
  """
  if config.tokenizer.path is not None:
    return Tokenizer(read_vocabulary(config.tokenizer.path), config.tokenizer)
  texts = list(dict.fromkeys(_captions(make_source(config, "train") if source is None else source, config)))
  path = Path(config.dir).expanduser() / "tokenizers" / f"{config.source}-{_fingerprint(texts, config.tokenizer)}.json"
  engine = read_vocabulary(path) if path.exists() else _train(texts, config.tokenizer, path)
  return Tokenizer(engine, config.tokenizer)


def _captions(source: Source, config: DataConfig) -> Iterator[str]:
  """All captions; those of bad records are left out where these are skipped. Pictures stay unread where they can."""
  read = getattr(source, "captions", None) or (lambda index: source[index]["captions"])
  for index in range(min(len(source), _MAX_RECORDS)):
    try:
      for texts in read(index).values():
        yield from texts
    except DataError:
      if config.on_bad_record != "skip":
        raise


def _fingerprint(texts: Iterable[str], config: TokenizerConfig) -> str:
  relevant = dataclasses.asdict(config)
  del relevant["max_length"]  # changes no vocabulary
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
    partial.replace(path)  # atomic: another process never reads half a file
  except OSError as error:
    raise DataError(
      f"Cannot store the tokenizer at {path}: {error}. Choose a writable directory with --data.dir DIR."
    ) from error
  return engine
