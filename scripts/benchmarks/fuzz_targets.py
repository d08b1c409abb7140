"""What is fuzzed: a parser, valid inputs to begin from, how they are mutated, and the errors it documents."""

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_inputs import headed, json_mutator, mutated, tar_mutator
from PIL import Image

from mmjax.data import DataConfig, DataError, Tokenizer, TokenizerConfig
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Target:
  """`run` raises `documented` errors, or none.

  Attributes:
    seeds: valid inputs.
    mutate: (random.Random, a seed, all seeds) to an input.
  """

  seeds: Sequence[bytes]
  mutate: Callable[..., bytes]
  run: Callable[[bytes], Any]
  documented: tuple[type[Exception], ...]


def csv(folder: Path) -> Target:
  (folder / "a.png").write_bytes(_picture("PNG"))
  seeds = [b'image,caption,split\r\na.png,"a, b",train\r\na.png,"x\r\ny",val\r\n', "file_name,text\na.png,é\n".encode()]
  return Target(seeds, mutated, lambda data: _folder(folder, "captions.csv", data), (DataError,))


def jsonl(folder: Path) -> Target:
  (folder / "a.png").write_bytes(_picture("PNG"))
  lines = [{"image": "a.png", "caption": ["x", "y"]}, {"file_name": "a.png", "text": "é", "split": "train"}]
  seeds = [json.dumps(line).encode() for line in lines]
  return Target(seeds, json_mutator, lambda data: _folder(folder, "captions.jsonl", data), (DataError,))


def tar(folder: Path) -> Target:
  from mmjax.data.shards_source import ShardsSource

  def run(data: bytes) -> None:
    """Indexes the tar anew, and reads every record of it."""
    path = folder / "x.tar"
    path.write_bytes(data)
    for index in (folder / "shards").glob("*"):
      index.unlink()
    source = ShardsSource([str(path)], directory=folder, skip=True, max_bytes=10_000)
    for index in range(len(source)):
      source[index]

  formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
  return Target([_tar(kind) for kind in formats], tar_mutator, run, (DataError,))


def array_record(_: Path) -> Target:
  from mmjax.data.shard_record import decode_record, encode_record

  seeds = [encode_record(b"\xff\xd8picture", ["one"], "k"), encode_record(b"", ["é", "two"], "")]
  mutate = headed(lambda length: length.to_bytes(4, "little"), 4, 4)
  return Target(seeds, mutate, lambda data: decode_record(data, "record 0"), (DataError,))


def array_record_file(folder: Path) -> Target:
  """The container itself, which a library reads."""
  from mmjax.data.shard_writer import write_shards
  from mmjax.data.shards_source import ShardsSource

  records = [{"image": _picture("PNG"), "captions": {"name": [f"{n}"]}, "id": "", "concept": 0} for n in range(3)]
  (path,) = write_shards(records, folder / "data", format="arrayrecord", per_shard=9)  # type: ignore[arg-type]
  seed = path.read_bytes()

  def run(data: bytes) -> None:
    path.write_bytes(data)
    source = ShardsSource([str(path)], directory=folder, skip=True)
    for index in range(min(len(source), 10)):
      source[index]

  return Target([seed], mutated, run, (DataError,))


def caption_json(_: Path) -> Target:
  from mmjax.data.shard_record import parse_json

  seeds = [b'{"caption": "a", "url": "b", "width": 3}', '{"captions": ["é", "ü"]}'.encode()]
  return Target(seeds, json_mutator, lambda data: parse_json(data, "x.json"), (DataError,))


def picture(_: Path) -> Target:
  """Decoded as evaluation does, and as training does."""
  from mmjax.data.geometry import box_matrix
  from mmjax.data.images import decode
  from mmjax.data.photo import open_photo, seen

  def run(data: bytes) -> None:
    photo = open_photo(data, record="r", max_pixels=10_000)
    if photo is not None:
      seen(photo, box_matrix(0, 0, *photo.size), 8)
    decode(data, record="r", max_pixels=10_000)

  kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
  seeds = [_picture(kind) for kind in kinds] + [b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>']
  return Target(seeds, mutated, run, (DataError,))


def tokenizer(folder: Path) -> Target:
  """tokenizer.json alone, as --data.tokenizer.path takes it, and used where it is accepted."""
  from mmjax.data.tokenizer import read_vocabulary, train_vocabulary

  config = TokenizerConfig(vocab_size=262, max_length=8)

  def run(data: bytes) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(data)
    Tokenizer(read_vocabulary(path), config)(["a text"])

  return Target([train_vocabulary(["a b"], config).to_str().encode()], json_mutator, run, (DataError,))


def tokenizer_record(folder: Path) -> Target:
  """tokenizer_config.json beside the vocabulary it was saved with."""
  from mmjax.data.tokenizer import train_vocabulary

  config = TokenizerConfig(vocab_size=262, max_length=8)
  Tokenizer(train_vocabulary(["a b"], config), config).save(folder)
  path = folder / "tokenizer_config.json"
  seed = path.read_bytes()

  def run(data: bytes) -> None:
    path.write_bytes(data)
    Tokenizer.load(folder)(["a text"])

  return Target([seed], json_mutator, run, (DataError,))


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

  records = [{"image": _picture("PNG"), "captions": {"name": ["a"]}, "id": "r", "concept": 0}] * 4
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

  from mmjax.cli import parse
  from mmjax.experiment import Experiment

  def run(data: bytes) -> None:
    arguments = data.decode("utf-8", "surrogateescape").split("\n")
    try:
      with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        parse(Experiment(), "train", None, arguments)
    except SystemExit as error:
      if error.code not in (0, 2):
        raise
      raise _Refused from error

  seeds = [
    b"--run.steps\n5\n--data.mean\n0.5\n0.5\n0.5\n--run.workdir\nx",
    b"--data.source\nshards\n--data.shards\na\nb\n--optimizer.learning-rate\n1e-3",
    b"--run.no-resume\n--data.tokenizer.path\nNone\n--data.views\n2",
  ]
  return Target(seeds, mutated, run, (_Refused,))


TARGETS: dict[str, Callable[[Path], Target]] = {
  function.__name__.replace("_", "-"): function
  for function in (
    csv, jsonl, tar, array_record, array_record_file, caption_json, picture, tokenizer, tokenizer_record, checkpoint,
    data_position, safetensors, config, command_line,
  )
}  # fmt: skip


class _Refused(Exception):
  """The command line said no."""


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


def _folder(folder: Path, name: str, data: bytes) -> None:
  from mmjax.data.folder_source import FolderSource

  (folder / name).write_bytes(data)
  source = FolderSource(folder, captions_file=name, skip=True)
  for index in range(len(source)):
    source[index]


def _picture(kind: str) -> bytes:
  data = io.BytesIO()
  Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)).save(data, kind)
  return data.getvalue()


def _tar(kind: int) -> bytes:
  data = io.BytesIO()
  long = "d/" * 60 + "k" if kind != tarfile.USTAR_FORMAT else "d/k"
  with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
    for name, content in (
      ("a.png", _picture("PNG")), ("a.txt", b"a caption"), (f"{long}.jpg", _picture("JPEG")),
      (f"{long}.json", b'{"caption": ["x", "y"]}'), ("b.pkl", b"cos\nsystem\n(S'false'\ntR."),
    ):  # fmt: skip
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return data.getvalue()
