"""DataError, and suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


class DataError(ValueError):
  """Bad input. The message names the file, field or record, and the remedy."""


def unknown(what: str, name: str, known: Iterable[str]) -> DataError:
  """The error for a name that does not exist: says which do, and which one was probably meant."""
  names = sorted(known)
  near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  hint = f" Did you mean {near[0]!r}?" if near else ""
  shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
  return DataError(f"Unknown {what} {name!r}.{hint} Known: {shown or 'none'}.")
