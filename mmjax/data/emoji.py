"""Build and read the emoji data: `python -m mmjax.data.emoji` draws every artist's pictures, once."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from mmjax.data.emoji_draw import VENDORS
from mmjax.data.errors import DataError, unknown
from mmjax.data.sources import Record

DEFAULT_DIR = "~/.cache/mmjax"


def build(directory: str | Path, vendor: str, *, limit: int | None = None) -> Any:
  """The TFDS builder of one artist's emoji, its data built if need be (seconds; nothing is downloaded).

  Args:
    directory: where the data of all artists lives.
    vendor: one of VENDORS.
    limit: about this many emoji instead of all 3,944, for tests and quick trials.

  Raises:
    DataError: unknown vendor, a missing package, or a directory that cannot be written.
  """
  if vendor not in VENDORS:
    raise unknown("emoji vendor", vendor, VENDORS)
  if limit is not None and limit < 1:
    raise DataError(f"--data.limit {limit} leaves no emoji. Give at least 1, or leave it out.")
  from mmjax.data import emoji_builder

  config = vendor if limit is None else emoji_builder.EmojiConfig(f"{vendor}_{limit}", vendor=vendor, limit=limit)
  directory = Path(directory).expanduser()
  try:
    directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory / "emoji.lock"):
      builder = emoji_builder.EmojiBuilder(data_dir=str(directory), config=config)
      if not builder.info.splits:
        total = sum(len(emoji_builder.selection(held_out, limit)) for held_out in (False, True))
        _prepare(builder, total)
  except OSError as error:
    raise DataError(
      f"Cannot build the emoji data in {directory}: {error}. Choose a writable directory with --data.dir DIR."
    ) from error
  return builder


def read(builder: Any, split: str) -> list[Record]:
  """All records of a split ("train" or "heldout"), pictures still encoded.

  The records are parsed here because TFDS's own reader takes 0.6 ms for one and this takes 0.1.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.proto import tf_example_pb2

  raw = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
  examples = (tf_example_pb2.Example.FromString(record) for record in raw.__getitems__(range(len(raw))))
  return [_record(example.features.feature) for example in examples]


def _record(features: Any) -> Record:
  def strings(name: str) -> list[str]:
    return [value.decode() for value in features[name].bytes_list.value]

  record: dict[str, Any] = {"image": features["image"].bytes_list.value[0]}
  for name in ("codepoint", "concept_group", "group", "subgroup", "vendor"):
    (record[name],) = strings(name)
  record["concept"] = features["concept"].int64_list.value[0]
  record["skin_tone"] = bool(features["skin_tone"].int64_list.value[0])
  kinds = [name.removeprefix("captions/") for name in features if name.startswith("captions/")]
  record["captions"] = {kind: strings(f"captions/{kind}") for kind in sorted(kinds)}
  record["id"] = f"{record['vendor']}/{record['codepoint']}"
  return cast(Record, record)


def _prepare(builder: Any, total: int) -> None:
  import tensorflow_datasets as tfds
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

  columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
  with Progress(*columns) as progress, contextlib.redirect_stdout(None), _without_bars(tfds):
    task = progress.add_task(f"Drawing emoji: {builder.builder_config.name}", total=total)
    builder.advance = lambda: progress.advance(task)
    builder.download_and_prepare(file_format="array_record")


@contextlib.contextmanager
def _without_bars(tfds: Any) -> Iterator[None]:
  """TFDS would draw a bar per split and warn that the configuration was written for it."""
  tfds.disable_progress_bar()
  try:
    yield
  finally:
    tfds.enable_progress_bar()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
  """One process builds, the others wait."""
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def main() -> None:
  """Builds the data of every artist and prints what there is."""
  import argparse

  parser = argparse.ArgumentParser(prog="python -m mmjax.data.emoji", description=__doc__)
  parser.add_argument("--dir", default=DEFAULT_DIR, help="where the data goes (default: %(default)s)")
  parser.add_argument("--limit", type=int, default=None, help="about this many emoji instead of all")
  arguments = parser.parse_args()
  try:
    for vendor in VENDORS:
      splits = build(arguments.dir, vendor, limit=arguments.limit).info.splits
      counts = ", ".join(f"{split.num_examples} {name}" for name, split in sorted(splits.items(), reverse=True))
      print(f"{vendor}: {counts} pictures in {Path(arguments.dir).expanduser()}")
  except DataError as error:
    parser.exit(1, f"{error}\n")


if __name__ == "__main__":
  main()
