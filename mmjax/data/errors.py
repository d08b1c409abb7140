"""DataError, and suggestions for misspelled names."""

from collections.abc import Iterable

from mmjax.errors import did_you_mean


class DataError(ValueError):
  """Bad input. The message names the file, field or record, and the remedy."""


def unknown(what: str, name: str, known: Iterable[str]) -> DataError:
  """The error for a name that does not exist: says which do, and which one was probably meant."""
  names = sorted(known)
  hint = did_you_mean(name, names, cutoff=0.5)
  shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
  return DataError(f"Unknown {what} {name!r}.{hint} Known: {shown or 'none'}.")
