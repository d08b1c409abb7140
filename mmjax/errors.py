"""Errors that the person at the command line can mend; the command line prints their message without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Something given from outside is wrong. The message says what, where, and what would be right."""


class ConfigError(UserError):
  """A configuration that cannot be run; the message names the field and the remedy."""


class CheckpointError(UserError):
  """A checkpoint that cannot serve this run; the message names it and the remedy."""


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
  """Sentence that suggests the nearest known name, with a space before it. Empty if none is near.

  Args:
    name: the unknown name.
    known: known names.
    cutoff: smallest similarity of a suggestion, from 0 to 1.
  """
  near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
  return f" Did you mean {near[0]!r}?" if near else ""
