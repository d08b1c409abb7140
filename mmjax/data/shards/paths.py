"""Expansion of shard patterns (paths, globs and brace patterns) to files in a fixed order."""

import glob
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmjax.data.errors import DataError

MAX_SHARDS = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_PART = re.compile(r"(.*-)(\d{1,12})-of-(\d{1,12})(\D*)")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")


def expand(pattern: str) -> list[Path]:
  """Expand a pattern to files.

  Args:
    pattern: a path that may contain {00000..00099} for each number, {a,b} for each word, and * ? [a-z] as in a glob.
      Numbers are padded to the width of the first one. If a file with the name `pattern` exists, nothing is expanded.
  Returns: absolute paths, in the order of the braces. The files of a glob are sorted. The files of a path or a brace
    pattern need not exist.
  Raises:
    DataError: a glob matches no file, braces do not match, or there are more than MAX_SHARDS names.
  """
  here = Path(pattern).expanduser()
  if here.exists():
    return [here.absolute()]
  names = list(itertools.islice(_braces(pattern), MAX_SHARDS + 1))
  if len(names) > MAX_SHARDS:
    raise DataError(f"--data.source.patterns {pattern!r} names more than {MAX_SHARDS} shards. Check its braces.")
  paths = [path for name in names for path in _globbed(str(Path(name).expanduser()))]
  if not paths:
    raise DataError(f"--data.source.patterns {pattern!r} matches no file. Check the path, and quote it for the shell.")
  return paths


def _braces(pattern: str) -> Iterator[str]:
  """Expand the braces of a pattern. The rightmost braces change fastest."""
  pieces = _BRACES.split(pattern)  # text, inside of braces, text, ...
  if any(brace in text for text in pieces[::2] for brace in "{}"):
    raise DataError(f"--data.source.patterns {pattern!r}: its braces do not match. Write DIR/{{00000..00099}}.tar.")
  choices = [_choices(piece, pattern) if place % 2 else [piece] for place, piece in enumerate(pieces)]
  yield from map("".join, itertools.product(*choices))


def _choices(inside: str, pattern: str) -> list[str]:
  numbers = _RANGE.fullmatch(inside)
  if numbers is None:
    return inside.split(",")
  first, last = int(numbers[1]), int(numbers[2])
  if last < first or last - first >= MAX_SHARDS:
    raise DataError(f"--data.source.patterns {pattern!r}: {{{inside}}} is not a range of 1 to {MAX_SHARDS} numbers.")
  return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]


def _globbed(name: str) -> list[Path]:
  if not glob.has_magic(name):
    return [Path(name).absolute()]
  return [Path(found).absolute() for found in sorted(glob.iglob(name, recursive=True))]


def missing_parts(paths: Iterable[Path]) -> list[Path]:
  """Files that the names of others say there are: NAME-00001-of-00002 beside NAME-00000-of-00002."""
  sets = {}
  for path in paths:
    found = _PART.fullmatch(path.name)
    if found and int(found[3]) <= MAX_SHARDS:
      sets[path.parent, found[1], found[3], found[4]] = len(found[2])
  names = (
    folder / f"{begin}{number:0{width}}-of-{count}{end}"
    for (folder, begin, count, end), width in sets.items()
    for number in range(int(count))
  )
  return [path for path in names if not path.exists()]
