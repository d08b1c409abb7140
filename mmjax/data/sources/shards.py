"""Source of shards: WebDataset tars and ArrayRecord files as one sequence of records, with a share per pattern."""

import dataclasses
import functools
import logging
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column
from mmjax.data.columns.text import Caption
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import sample
from mmjax.data.records import Media, Part, Record, concept_number
from mmjax.data.shards.open_files import plain_files
from mmjax.data.shards.paths import expand, missing_parts
from mmjax.data.shards.reading import ARRAY_RECORD, TAR, ArrayRecordShard, Shard, TarShard, array_record_files
from mmjax.data.shards.tar_headers import DIRECTORY, LABEL
from mmjax.data.shards.tar_index import tar_index
from mmjax.data.shards.tar_samples import Faults
from mmjax.data.sources.base import Reading, Source, media_columns

SPLITS = ("train", "validation", "all")
HELD_OUT = 20
"""Without validation shards, the last of each HELD_OUT records of a shard is for validation."""
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shards(Source):
  """WebDataset .tar and .array_record files.

  Splits: "all"; "train" and "validation", which are the two sets of shards where `validation` names any. Otherwise
  "validation" is every 20th record of each shard, and "train" the other records.
  """

  patterns: tuple[str, ...] = ()
  """Files to train on: paths, globs, braces ("DIR/{00000..00099}.tar"), quoted. Each pattern has a share of its own."""
  weights: tuple[float, ...] = ()
  """Relative frequency of examples from each pattern; empty: in proportion to the numbers of records."""
  repeats: tuple[int, ...] = ()
  """Times that an epoch has the records of each pattern (instead of weights); empty: once."""
  validation: tuple[str, ...] = ()
  """Files to evaluate on; empty: every 20th record of each shard is kept for it."""
  caption_key: str | None = None
  """Field of the caption in JSON; default: caption, text, title or captions."""
  media: Media = "image"
  """Content of the files: images, or sounds (.wav, .flac, .ogg, .mp3). Files of the other medium are passed over."""

  @property
  def columns(self) -> dict[str, Column]:
    return {**media_columns(self.media), "text": Caption()}

  def open(self, split: str, reading: Reading) -> "ShardRecords":
    records = ShardRecords(self, split, reading)
    for pattern, part in zip(records.patterns, records.parts):
      if part.size == 0:
        raise DataError(
          f"--data.source.patterns {pattern!r} has no record in this split. Check it, or give --data.source.validation."
        )
    return records


class ShardRecords:
  """Records of many shards, in the order of the patterns and of the shards.

  Memory: a few hundred bytes per shard, and nothing per record. The index of a tar is on disk, with 25 bytes per
  record. Making it needs that much memory for one shard at a time. Reading a record takes one or two reads of its
  file.

  Attributes:
    patterns, parts: each pattern, and its share of the records.
    num_skipped: shards, records, and images or captions without a record, left out with on_bad_record "skip".
    account: the members and bytes of all shards, by use.
    fingerprint: a number that depends on the split, the names and sizes of the shards, and their shares.
    sample: a number that depends on the captions of a sample of the records.

  Raises:
    DataError: a pattern, a shard, a record or a share is wrong. The message names it, and the remedy.
  """

  def __init__(self, config: Shards, split: str, reading: Reading):
    if split not in SPLITS:
      raise unknown("split of shards", split, SPLITS)
    held_out = split == "validation"
    patterns = config.validation if held_out and config.validation else config.patterns
    weights, repeats = ((), ()) if held_out else (config.weights, config.repeats)
    _check_shares(patterns, weights, repeats)
    _warn_of_shared(config)
    self.patterns = patterns
    self._split, self._skip = "all" if config.validation else split, reading.skip
    self._index = Path(reading.dir).expanduser() / "shards"
    self._field, self._max_bytes, self._media = config.caption_key, reading.max_bytes, config.media
    self._files, self._readers = plain_files(), array_record_files()
    self.num_skipped, self.account = 0, Faults()
    self.shards: list[Shard] = []
    groups = [self._open(pattern) for pattern in patterns]
    self._warn_of_passed(patterns)
    sizes = [self._size(len(shard)) for shard in self.shards]
    self._ends = np.cumsum(sizes, dtype=np.int64)
    self.parts = _parts(groups, sizes, weights, repeats)
    names = [shard.path.name for shard in self.shards]
    self.fingerprint = concept_number(repr((self._split, sizes, names, self.parts)))

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int) -> Record:
    shard, position = self._find(index)
    return shard.record(position)

  @functools.cached_property
  def sample(self) -> int:
    return sample(self)

  @property
  def refused(self) -> Counter[str]:
    """Number of members of tars that are never read, by kind."""
    return self.account.refused

  def captions(self, index: int) -> dict[str, list[str]]:
    """Read the captions of a record. In a tar, the image is not read."""
    shard, position = self._find(index)
    return {"name": shard.captions(position)}

  def _find(self, index: int) -> tuple[Shard, int]:
    """Find the shard of a record, and its position in the shard."""
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    number = int(np.searchsorted(self._ends, index, side="right"))
    position = index - (int(self._ends[number - 1]) if number else 0)
    if self._split == "train":
      position += position // (HELD_OUT - 1)
    elif self._split == "validation":
      position = position * HELD_OUT + HELD_OUT - 1
    return self.shards[number], position

  def _size(self, records: int) -> int:
    held_out = records // HELD_OUT
    return {"train": records - held_out, "validation": held_out, "all": records}[self._split]

  def _open(self, pattern: str) -> int:
    """Add the shards of a pattern. Returns their number."""
    from rich.progress import track  # a progress bar: indexing tars at first use may take long

    before = len(self.shards)
    paths = expand(pattern)
    for path in missing_parts(paths):
      if path not in paths:  # those are named below
        self._fault(f"{path}: the names of the shards beside it say that there is this one. Restore it")
    for path in track(paths, f"opening {pattern}", transient=True, disable=len(paths) < 8, console=_console()):
      if not path.is_file():
        self._fault(f"{path}: there is no such shard. Restore it")
        continue
      shard = self._shard(path)
      self._note(shard)
      if len(shard):
        self.shards.append(shard)
    return len(self.shards) - before

  def _shard(self, path: Path) -> Shard:
    if path.suffix.lower() == TAR:
      index = tar_index(
        path, self._index, json_first=self._field is not None, max_bytes=self._max_bytes, media=self._media
      )
      return TarShard(path, index, self._files, self._field, self._media)
    if path.suffix.lower() in ARRAY_RECORD or ".array_record-" in path.name:
      return ArrayRecordShard(path, self._readers, self._field, self._max_bytes, self._media)
    raise DataError(f"{path}: shards are {TAR} or {' or '.join(ARRAY_RECORD)} files. Rename it, or narrow the pattern.")

  def _note(self, shard: Shard) -> None:
    """Raise or count the faults of a shard."""
    faults = shard.faults
    if faults.broken:
      self._fault(f"{faults.broken} (the {len(shard)} records before are complete). Restore it")
    command = f"python -m mmjax.data inspect --skip {shlex.quote(str(shard.path))}"
    more = f" (the first of {faults.bad}, see {command})" if faults.bad > 1 else ""
    for message in faults.named:
      self._fault(f"{shard.path}, {message}", more)
    self.num_skipped += max(0, faults.bad - len(faults.named))
    self.account.merge(faults)
    if faults.refused:
      log.warning("Refused in %s, and never read: %s", shard.path, listed(faults.refused))

  def _fault(self, message: str, more: str = "") -> None:
    """Raise an error, or count it. The message ends with the remedy."""
    if not self._skip:
      raise DataError(f"{message}, or leave it out with --data.on-bad-record skip{more}.")
    self.num_skipped += 1
    log.warning("Skipped: %s", message)

  def _warn_of_passed(self, patterns: Sequence[str]) -> None:
    files = {kind: number for kind, number in self.account.passed.items() if kind not in (DIRECTORY, LABEL)}
    if files:
      log.warning("Passed over in %s: %s", ", ".join(patterns), listed(files))


def listed(numbers: Mapping[str, int]) -> str:
  """Text such as "2 x hard link, 1 x pickle"."""
  return ", ".join(f"{number} x {what}" for what, number in sorted(numbers.items()) if number)


def _check_shares(patterns: Sequence[str], weights: Sequence[float], repeats: Sequence[int]) -> None:
  if not patterns:
    raise DataError("--data.source shards needs --data.source.patterns PATTERN ..., such as 'DIR/{00000..00099}.tar'.")
  if weights and repeats:
    raise DataError("--data.source.weights and --data.source.repeats both set the shares. Give one of them.")
  for option, shares in (("--data.source.weights", weights), ("--data.source.repeats", repeats)):
    if shares and len(shares) != len(patterns):
      raise DataError(
        f"{option} has {len(shares)} numbers for {len(patterns)} patterns of --data.source.patterns. Give one each."
      )
    if any(not share > 0 or share == float("inf") for share in shares):
      raise DataError(f"{option} must be above 0. Leave a pattern out of --data.source.patterns instead.")


def _warn_of_shared(config: Shards) -> None:
  """Log a warning if a shard is for training and for validation, also under two names."""
  if not config.validation:
    return
  try:
    training, held_out = (
      {path.resolve() for pattern in patterns for path in expand(pattern)}
      for patterns in (config.patterns, config.validation)
    )
  except DataError:  # the shards of the other split are not on this machine
    return
  if both := sorted(training & held_out):
    log.warning(
      "%d shards are in --data.source.patterns and in --data.source.validation, so training sees what evaluation sees: "
      "%s. Give other shards, or leave out --data.source.validation.",
      len(both),
      ", ".join(map(str, both[:5])),
    )


def _parts(groups: Sequence[int], sizes: Sequence[int], weights: Sequence[float], repeats: Sequence[int]) -> list[Part]:
  parts, shard, start = [], 0, 0
  for place, number in enumerate(groups):
    size = sum(sizes[shard : shard + number])
    weight = float(weights[place]) if weights else None
    parts.append(Part(start, size, repeats[place] if repeats else 1, weight))
    shard, start = shard + number, start + size
  return parts


def _console() -> Any:
  from rich.console import Console

  return Console(stderr=True)
