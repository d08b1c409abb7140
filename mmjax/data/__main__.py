"""python -m mmjax.data shard IN OUT --format FORMAT;  python -m mmjax.data inspect PATTERN ..."""

import argparse
import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import track

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.records import Media
from mmjax.data.shards.tar_samples import Faults
from mmjax.data.sources.base import Reading, media_columns
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.shards import ShardRecords, Shards, listed


def main(arguments: Sequence[str] | None = None) -> int:
  """Parses the command line and runs the command; returns its exit status."""
  options = _parser().parse_args(arguments)
  logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
  try:
    return _shard(options) if options.command == "shard" else _inspect(options)
  except DataError as error:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m mmjax.data", description="Make shards, and see what is in them.")
  commands = parser.add_subparsers(dest="command", required=True)
  shard = commands.add_parser("shard", help="write images, sounds or videos, and captions, as shards")
  shard.add_argument(
    "source", metavar="IN", help="a folder with images or sounds and captions.csv or .jsonl, or a pattern of shards"
  )
  shard.add_argument(
    "target",
    metavar="OUT",
    type=Path,
    help="the directory for 00000.tar, 00001.tar, ...; with a column `split` for train/ and validation/ in it",
  )
  shard.add_argument(
    "--format", choices=("webdataset", "arrayrecord"), default="webdataset", help="default: %(default)s"
  )
  shard.add_argument("--per-shard", type=int, default=10_000, metavar="N", help="records a shard; default: %(default)s")
  inspect = commands.add_parser("inspect", help="count the records of shards, and what is wrong with them")
  inspect.add_argument("patterns", metavar="PATTERN", nargs="+", help="a path, a glob, or DIR/{00000..00099}.tar")
  inspect.add_argument("--read", action="store_true", help="also read every record and decode its image or sound")
  for command in (shard, inspect):
    command.add_argument("--skip", action="store_true", help="leave bad records out, and count them")
    command.add_argument("--media", choices=get_args(Media), default="image", help="files; default: %(default)s")
    command.add_argument("--dir", default=Reading.dir, help="where indices of tars are kept; default: %(default)s")
  return parser


def _open(patterns: Sequence[str], options: Any, split: str = "all") -> Any:
  """A folder, or shards."""
  reading = Reading(options.dir, "skip" if options.skip else "error")
  if len(patterns) == 1 and Path(patterns[0]).expanduser().is_dir():
    return Folder(patterns[0], media=options.media).open(split, reading)
  return ShardRecords(Shards(tuple(patterns), media=options.media), split, reading)


class _Records:
  """The records of a source, with a progress bar; bad ones raise, or are counted.

  Attributes:
    read, skipped: how many were given, and how many were not.
  """

  def __init__(self, source: Any, options: Any, *, decoded: bool = False):
    self._source, self._skip, self._media, self._decoded = source, options.skip, options.media, decoded
    self.read, self.skipped = 0, source.num_skipped

  def __iter__(self) -> Iterator[Any]:
    for index in track(range(len(self._source)), "records", transient=True, console=Console(stderr=True)):
      try:
        record = self._source[index]
        if self._decoded:
          _decode(record, self._media)
      except DataError as error:
        if not self._skip:
          raise
        logging.getLogger(__name__).warning("Skipped: %s", error)
        self.skipped += 1
        continue
      self.read += 1
      yield record


def _decode(record: Any, media: Media) -> None:
  """Raise DataError if the file of a record cannot be decoded."""
  for column in media_columns(media).values():
    column.decode(record, DataConfig())


def _shard(options: Any) -> int:
  """Write all records; of a folder with a column `split`, those of each split into a directory of its own."""
  source = _open([options.source], options)
  splits = getattr(source, "splits", ())
  if not splits:
    _write(source, options.target, options)
  for split in splits:
    _write(_open([options.source], options, split), options.target / split, options)
  if len(splits) == 2:
    patterns = {split: f"'{options.target / split}/*'" for split in splits}
    _say(f"Read with --data.source.patterns {patterns['train']} --data.source.validation {patterns['validation']}")
  return 0


def _write(source: Any, target: Path, options: Any) -> None:
  from mmjax.data.shards.writer import write_shards

  records = _Records(source, options)
  to = {"format": options.format, "per_shard": options.per_shard, "media": options.media}
  shards = list(write_shards(records, target, **to))
  if not shards:
    raise DataError(f"{options.source} has no record that can be used; {records.skipped} were skipped.")
  _say(f"{records.read} records in {len(shards)} shards, the last {shards[-1]}; {records.skipped} skipped")


def _inspect(options: Any) -> int:
  source = _open(options.patterns, options)
  records = _Records(source, options, decoded=True)
  if options.read:
    deque(records, maxlen=0)
  read = f", {records.read} of them read and decoded" if options.read else ""
  account = getattr(source, "account", Faults())
  _say(f"{len(source)} records{read}; {records.skipped} skipped; refused {listed(account.refused) or 'nothing'}")
  if account.members:
    members = {f"{options.media} or caption of a record": account.taken, "of a fault": account.faulty}
    _say(f"{account.members} members: {listed({**members, **account.passed, **account.refused})}")
  if account.bytes:
    used = ", ".join(f"{number} {use}" for use, number in account.bytes.items() if number)
    _say(f"{account.bytes.total()} bytes: {used}")
  return 0


def _say(text: str) -> None:
  Console().print(escape(text), highlight=False, soft_wrap=True)


if __name__ == "__main__":
  sys.exit(main())
