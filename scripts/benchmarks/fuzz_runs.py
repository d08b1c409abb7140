"""Fuzz targets of a run: its tokenizer, checkpoints and configuration, weights of others, and the command line."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_inputs import Target, headed, json_mutator, lines_mutator

from mmjax.data import DataConfig, DataError, Tokenizer, TokenizerConfig
from mmjax.errors import UserError


def tokenizer(folder: Path) -> Target:
  """tokenizer.json alone, as --data.tokenizer.path takes it, and used where it is accepted."""
  from mmjax.data.text.tokenizer import read_vocabulary, train_vocabulary

  config = TokenizerConfig(vocab_size=262, max_length=8)

  def run(data: bytes) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(data)
    Tokenizer(read_vocabulary(path), config)(["a text"])

  return Target([train_vocabulary(["a b"], config).to_str().encode()], json_mutator, run, (DataError,))


def tokenizer_record(folder: Path) -> Target:
  """tokenizer_config.json beside the vocabulary it was saved with."""
  return _saved_tokenizer(folder, "tokenizer_config.json")


def answers(folder: Path) -> Target:
  """answers.json beside the vocabulary it was saved with."""
  return _saved_tokenizer(folder, "answers.json")


def checkpoint(folder: Path) -> Target:
  """The manifest of a checkpoint: a fault is an answer, not an error."""
  from mmjax.train.manifest import MANIFEST, first_fault, write_manifest

  (folder / "state").mkdir()
  (folder / "state" / "data").write_bytes(b"0123456789")
  write_manifest(folder)
  seed = (folder / MANIFEST).read_bytes()

  def run(data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    first_fault(folder)

  return Target([seed], json_mutator, run, ())


def data_position(folder: Path) -> Target:
  """The data iterator's position in a checkpoint."""
  from mmjax.data import make_loader, make_tokenizer

  records = [{"image": b"", "captions": {"name": ["a"]}, "id": "r", "concept": 0}] * 4
  config = DataConfig(dir=str(folder), tokenizer=TokenizerConfig(vocab_size=300, max_length=8))
  loader = make_loader(
    config, records, make_tokenizer(config, records), image_size=8, batch_size=2, process_index=0, process_count=1
  )  # fmt: skip
  seed = json.dumps(loader.get_state()).encode()
  return Target([seed], _parsing(json_mutator), lambda data: loader.set_state(json.loads(data)), (DataError,))


def safetensors(folder: Path) -> Target:
  from safetensors.numpy import save

  from mmjax.interop.safetensors_file import SafetensorsFile

  arrays = {"a": np.zeros((2, 3), np.float32), "b.c": np.zeros((0,), np.int8), "d": np.ones((5,), np.float16)}
  seeds = [save(arrays, {"format": "pt"}), save({"a": np.ones((1,), np.bool_)})]

  def run(data: bytes) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(data)
    file = SafetensorsFile(path)
    for name in file.entries:
      file.read(name).copy()

  return Target(seeds, headed(lambda length: length.to_bytes(8, "little"), 0, 8), run, (UserError,))


def config(folder: Path) -> Target:
  """A run's config.json."""
  from mmjax.experiment import Experiment, read_experiment, to_json

  path = folder / "config.json"

  def run(data: bytes) -> None:
    path.write_bytes(data)
    read_experiment(path)

  return Target([json.dumps({"experiment": to_json(Experiment())}).encode()], json_mutator, run, (UserError,))


def command_line(_: Path) -> Target:
  """Arguments, one a line. A refusal is exit status 2."""
  import contextlib

  from mmjax.cli import Call, parse
  from mmjax.experiment import Experiment

  def run(data: bytes) -> None:
    arguments = data.decode("utf-8", "surrogateescape").split("\n")
    try:
      with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        parse("train", Call(Experiment(), arguments))
    except SystemExit as error:
      if error.code not in (0, 2):
        raise
      raise _Refused from error

  _keep_parser()
  seeds = [
    b"--run.steps\n5\n--data.mean\n0.5\n0.5\n0.5\n--run.workdir\nx",
    b"--data.source\nshards\n--data.source.patterns\na\nb\n--optimizer.learning-rate\n1e-3",
    b"--run.no-resume\n--data.tokenizer.path\nNone\n--data.views\n2\n--run.seed\n3\n--optimizer.ema-decay\n0.9",
  ]
  return Target(seeds, lines_mutator, run, (_Refused,))


def _keep_parser() -> None:
  """tyro makes the parser of a configuration anew for every command line, which takes longer than all the rest."""
  from tyro._parsers import ParserSpecification

  make, kept = ParserSpecification.from_callable_or_type, []

  def made(*args: Any, **options: Any) -> Any:
    if options["intern_prefix"]:  # of a part
      return make(*args, **options)
    if not kept:
      kept.append(make(*args, **options))
    return kept[0]

  ParserSpecification.from_callable_or_type = staticmethod(made)  # type: ignore[method-assign,assignment]


def _parsing(mutate: Callable[..., bytes]) -> Callable[..., bytes]:
  """Mutations that are JSON objects: Orbax parses the file, and hands on what it finds."""

  def parsed(rng: Any, data: bytes, others: Sequence[bytes]) -> bytes:
    while True:
      out = mutate(rng, data, others)
      try:
        if isinstance(json.loads(out), dict):
          return out
      except (ValueError, RecursionError):
        continue

  return parsed


def _saved_tokenizer(folder: Path, name: str) -> Target:
  from mmjax.data.text.tokenizer import train_vocabulary

  config = TokenizerConfig(vocab_size=262, max_length=8)
  Tokenizer(train_vocabulary(["a b"], config), config, ["yes", "no"]).save(folder)
  path = folder / name
  seed = path.read_bytes()

  def run(data: bytes) -> None:
    path.write_bytes(data)
    Tokenizer.load(folder)(["a text"])

  return Target([seed], json_mutator, run, (DataError,))


class _Refused(Exception):
  """The command line said no."""
