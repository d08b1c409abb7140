"""Edit distance (Levenshtein 1966), and the error rates of speech recognition that divide it by the right length."""

from collections.abc import Sequence
from typing import Any


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
  """Least number of insertions, deletions and substitutions that make one sequence the other.

  Example:
    >>> edit_distance("kitten", "sitting")
    3
  """
  row = list(range(len(second) + 1))
  for number, one in enumerate(first, 1):
    diagonal, row[0] = row[0], number
    for place, other in enumerate(second, 1):
      diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (one != other))
  return row[-1]


def error_rate(written: Sequence[Sequence[Any]], targets: Sequence[Sequence[Any]]) -> float:
  """Edits of all sequences divided by the length of all targets: word error rate of words, CER of characters.

  It can exceed 1. Without any target symbol it is 0 if nothing is written, else infinite.

  Args:
    written: written sequences.
    targets: the right ones.
  """
  edits = sum(edit_distance(one, target) for one, target in zip(written, targets, strict=True))
  length = sum(map(len, targets))
  return edits / length if length else (float("inf") if edits else 0.0)
