"""The emoji of one or more artists, from packages on PyPI."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mmjax.data import emoji
from mmjax.data.emoji_draw import VENDORS
from mmjax.data.emoji_text import GROUPS, LANGUAGES
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import of_records
from mmjax.data.records import Record
from mmjax.data.sources.base import BUILT_SPLITS, Reading, Source


@dataclasses.dataclass(frozen=True)
class Emoji(Source):
  """Images, names and keywords of emoji, built at first use from PyPI packages.

  Splits: "train", "heldout" (or "validation": concepts that are never trained on), "all".
  """

  vendors: tuple[str, ...] = ("twemoji", "openmoji")
  """Artists to train on, of twemoji, openmoji and noto. Evaluation retrieves the images of the others."""
  languages: tuple[str, ...] = LANGUAGES
  """Languages of captions, besides English."""
  skin_tones: bool = True
  """Train on the skin-tone variants as well."""
  groups: tuple[str, ...] = ()
  """Train and evaluate on these groups of Unicode only, such as "people-and-body"; empty: all."""
  limit: int | None = None
  """Build and use about this many emoji only, for quick trials."""

  @property
  def has_group(self) -> bool:
    return True

  def open(self, split: str, reading: Reading) -> "EmojiRecords":
    return EmojiRecords(self, split, reading)


def is_flag(record: Mapping[str, Any]) -> bool:
  """True for every flag: reports leave them out, since colours alone find a flag."""
  return record["group"] == "flags"


class EmojiRecords:
  """The emoji of several artists one after the other, each sorted by code point. They are built at first use.

  Raises:
    DataError: unknown artist, language, group or split; missing package; unwritable directory.
  """

  def __init__(self, config: Emoji, split: str, reading: Reading):
    _check(config, split)
    kinds = {"name", "keywords", *config.languages}
    self.records: list[Record] = []
    for vendor in config.vendors:
      builder = emoji.build(reading.dir, vendor, limit=config.limit)
      found: list[Record] = [record for name in BUILT_SPLITS[split] for record in emoji.read(builder, name)]
      for record in sorted(found, key=lambda record: record["codepoint"]):
        if (config.skin_tones or not record["skin_tone"]) and record["group"] in (config.groups or GROUPS):
          record["captions"] = {kind: texts for kind, texts in record["captions"].items() if kind in kinds}
          self.records.append(record)
    self._same: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(self.records):
      self._same[record["codepoint"]].append(index)

  def __len__(self) -> int:
    return len(self.records)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the records and their order."""
    return of_records(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]

  def siblings(self, index: int) -> list[int]:
    """The same code point by the other artists."""
    return [other for other in self._same[self.records[index]["codepoint"]] if other != index]


def _check(config: Emoji, split: str) -> None:
  if not config.vendors:
    raise DataError(f"--data.source.vendors names no artist. Known: {', '.join(VENDORS)}.")
  for vendor in config.vendors:
    if vendor not in VENDORS:
      raise unknown("emoji vendor", vendor, VENDORS)
  for language in config.languages:
    if language not in LANGUAGES:
      raise unknown("caption language", language, LANGUAGES)
  for group in config.groups:
    if group not in GROUPS:
      raise unknown("emoji group", group, GROUPS)
  if set(config.groups) == {"flags"}:
    raise DataError(
      "--data.source.groups flags: nothing is left to evaluate, since colours alone find a flag. Add a group."
    )
  if split not in BUILT_SPLITS:
    raise unknown("emoji split", split, BUILT_SPLITS)
