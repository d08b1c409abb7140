"""Names of splits and of columns, as people write them in files and folders."""

import re
from collections.abc import Sequence

from mmjax.data.errors import DataError

TRAINING = ("train", "training")
HELD_OUT = ("validation", "valid", "val", "dev", "eval", "test", "testing", "heldout", "held-out", "holdout")
"""Names of the split "validation", besides TRAINING for "train". The case of the letters does not matter."""


def split_of(name: str) -> str | None:
  """Split that a word names: "train" or "validation". None: it names none.

  Example:
    >>> split_of(" Training"), split_of("VAL"), split_of("tarin")
    ('train', 'validation', None)
  """
  word = name.strip().casefold()
  return "train" if word in TRAINING else "validation" if word in HELD_OUT else None


def split_within(name: str) -> str | None:
  """Split that a word in a name names ("seg_train", "test2014"). None: no word does."""
  return next((split for word in re.findall("[a-z]+", name.casefold()) if (split := split_of(word))), None)


def find_column(names: Sequence[str], wanted: str, place: str) -> str | None:
  """The column with a name: in this case of letters, or else in another one. None: there is none.

  Args:
    names: names of all columns.
    wanted: the name.
    place: the file, for the error.
  Raises: DataError: the column is there more than once, or in several cases of letters.
  """
  alike = [name for name in names if name.strip().casefold() == wanted.casefold()]
  found = [name for name in alike if name == wanted] or alike
  if len(found) > 1:
    shown = ", ".join(map(repr, found))
    raise DataError(f"{place}: the column {wanted!r} is there {len(found)} times ({shown}). Rename all but one.")
  return found[0] if found else None
