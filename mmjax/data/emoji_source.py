"""The emoji of one or more artists, as records."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data import emoji
from mmjax.data.config import DataConfig
from mmjax.data.emoji_draw import VENDORS
from mmjax.data.emoji_text import GROUPS, LANGUAGES
from mmjax.data.errors import DataError, unknown
from mmjax.data.sources import Record

_SPLITS = {
  "train": ("train",),
  "heldout": ("heldout",),
  "validation": ("heldout",),
  "all": ("train", "heldout"),
}


def is_flag(record: Mapping[str, Any]) -> bool:
  """True for every flag: reports leave them out, since colours alone find a flag."""
  return record["group"] == "flags"


class EmojiSource:
  """Several artists' emoji one after the other, each sorted by code point.

  Args:
    directory: where the data lives; it is built there at first use.
    vendors: the artists, of twemoji, openmoji and noto.
    split: "train", "heldout" (or "validation"), "all".
    skin_tones: with the skin-tone variants.
    languages: the captions kept besides the English name and keywords.
    groups: only emoji of these groups of Unicode's; empty: all.
    limit: about this many emoji per artist.

  Raises:
    DataError: unknown artist, language, group or split; missing package; unwritable directory.
  """

  def __init__(
    self,
    directory: str = emoji.DEFAULT_DIR,
    vendors: Sequence[str] = VENDORS,
    split: str = "all",
    *,
    skin_tones: bool = True,
    languages: Sequence[str] = LANGUAGES,
    groups: Sequence[str] = (),
    limit: int | None = None,
  ):
    _check(vendors, split, languages, groups)
    kinds = {"name", "keywords", *languages}
    self.records: list[Record] = []
    for vendor in vendors:
      builder = emoji.build(directory, vendor, limit=limit)
      found: list[Record] = [record for name in _SPLITS[split] for record in emoji.read(builder, name)]
      for record in sorted(found, key=lambda record: record["codepoint"]):
        if (skin_tones or not record["skin_tone"]) and record["group"] in (groups or GROUPS):
          record["captions"] = {kind: texts for kind, texts in record["captions"].items() if kind in kinds}
          self.records.append(record)
    self._same: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(self.records):
      self._same[record["codepoint"]].append(index)

  @classmethod
  def from_config(cls, config: DataConfig, split: str) -> "EmojiSource":
    """The artists, languages and variants that a configuration names."""
    return cls(
      config.dir,
      config.vendors,
      split,
      skin_tones=config.skin_tones,
      languages=config.languages,
      groups=config.groups,
      limit=config.limit,
    )

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]

  def siblings(self, index: int) -> list[int]:
    """The same code point by the other artists."""
    return [other for other in self._same[self.records[index]["codepoint"]] if other != index]


def _check(vendors: Sequence[str], split: str, languages: Sequence[str], groups: Sequence[str]) -> None:
  if not vendors:
    raise DataError(f"--data.vendors names no artist. Known: {', '.join(VENDORS)}.")
  for vendor in vendors:
    if vendor not in VENDORS:
      raise unknown("emoji vendor", vendor, VENDORS)
  for language in languages:
    if language not in LANGUAGES:
      raise unknown("caption language", language, LANGUAGES)
  for group in groups:
    if group not in GROUPS:
      raise unknown("emoji group", group, GROUPS)
  if set(groups) == {"flags"}:
    raise DataError("--data.groups flags: nothing is left to evaluate, since colours alone find a flag. Add a group.")
  if split not in _SPLITS:
    raise unknown("emoji split", split, _SPLITS)
