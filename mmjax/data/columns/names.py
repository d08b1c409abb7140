"""Names of classes and categories: one name for what is the same."""

import bisect
import re
import unicodedata
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.(\d*))?")


def clean_name(text: str) -> str:
  """A name without spaces around it, in normal form of Unicode (NFC): é is one character."""
  return unicodedata.normalize("NFC", text.strip())


def meaning(name: str) -> str:
  """Equal for names that are the same value in other words: True and true, 1 and 1.0. "01" is not 1.

  Example:
    >>> meaning("TRUE"), meaning("1.0"), meaning("1.50"), meaning("01"), meaning("US")
    ('true', '1', '1.5', '01', 'US')
  """
  if name.casefold() in ("true", "false"):
    return name.casefold()
  number = _NUMBER.fullmatch(name)
  if number is None:
    return name
  decimals = (number[2] or "").rstrip("0")
  return f"{number[1]}.{decimals}" if decimals else number[1]


def two_of_one_meaning(names: Iterable[str]) -> tuple[str, str] | None:
  """Two names that are the same value in other words. None: there are none."""
  first: dict[str, str] = {}
  for name in names:
    if first.setdefault(meaning(name), name) != name:
      return first[meaning(name)], name
  return None


def place_of(name: str, names: Sequence[str]) -> int | None:
  """Place of a name among sorted names: as it is, or in other words. None: it is not there."""
  same = meaning(name)
  others = {"true": ("True", "TRUE"), "false": ("False", "FALSE")}.get(same, (f"{same}.0", f"{same}0"))
  decomposed = unicodedata.normalize("NFD", name)  # older runs kept names as they were
  for spelling in (name, same, *others, decomposed):
    place = bisect.bisect_left(names, spelling)
    if place < len(names) and names[place] == spelling and meaning(clean_name(spelling)) == same:
      return place
  return None
