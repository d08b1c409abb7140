"""Checked access to JSON configurations of other libraries. Every error names the file and the field."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mmjax.data.downloads import instead
from mmjax.interop.errors import InteropError

T = TypeVar("T")
_LARGEST = 2**24  # a larger width or vocabulary is a mistake, or an attempt to exhaust memory
_MAX_JSON = 10_000_000


class Fields:
  """A JSON object whose fields are checked when they are read.

  Every getter raises InteropError if the value is wrong, or if the field is missing and has no default. It also notes
  the field as used, so that `finish` finds the fields that nothing reads.

  Args:
    values: the parsed object.
    where: file and parent fields, for error messages.
  Raises: InteropError: `values` is not a dictionary.
  """

  def __init__(self, values: Any, where: str):
    if not isinstance(values, dict):
      raise InteropError(f"{where} is not a JSON object")
    self.values: Mapping[str, Any] = values
    self.where = where
    self.used: set[str] = set()
    self.nulls: set[str] = set()
    self.parts: dict[str, Fields] = {}

  def __contains__(self, name: str) -> bool:
    return self.get(name) is not None

  def get(self, name: str, default: Any = None) -> Any:
    """Value of a field as it stands in the file, unchecked; the default if it is missing."""
    self.used.add(name)
    if default is not None and self.values.get(name, default) is None:
      self.nulls.add(name)  # null is not the default: it says something
    return self.values.get(name, default)

  def with_defaults(self, **defaults: Any) -> "Fields":
    """The same object, in which missing fields have these values. What is read of it is noted here as well."""
    whole = Fields({**defaults, **self.values}, self.where)
    whole.used, whole.nulls, whole.parts = self.used, self.nulls, self.parts
    return whole

  def object(self, name: str) -> "Fields":
    """Nested object, or an empty one if the field is missing."""
    if name not in self.parts:
      self.parts[name] = Fields(self.get(name) or {}, f"{self.where}: {name}")
    return self.parts[name]

  def finish(self, without_effect: Mapping[str, str]) -> None:
    """Raise InteropError for a field that was not read and is not known to have no effect.

    Args:
      without_effect: names of fields that change no result, and the reason of each. null, {} and [] never have one.
    """
    for name, value in self.values.items():
      if value not in (None, {}, []) and name not in self.used and name not in without_effect:
        raise InteropError(
          f"{self.where}: mmjax does not know the field {name!r} (its value is {_short(value)}), so it may change the "
          "results. Remove it from the file if it does not"
        )

  def account(self, without_effect: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the fields by their use: "used", "without effect: REASON", or "not read"."""
    found: dict[str, list[str]] = {}
    for name, value in self.values.items():
      use = "without effect: no value" if value in (None, {}, []) else "not read"
      if name in without_effect:
        use = f"without effect: {without_effect[name]}"
      if name in self.nulls or (name in self.used and value not in (None, {}, [])):
        use = "used"
      found.setdefault(use, []).append(name if isinstance(value, dict) else f"{name} = {_short(value)}")
    return found

  def integer(self, name: str, default: int | None = None, *, least: int = 1) -> int:
    """Integer from `least` to 2**24."""
    value = self._get(name, default)
    if type(value) is not int or not least <= value <= _LARGEST:
      raise self.wrong(name, f"an integer from {least} to {_LARGEST}")
    return value

  def square(self, name: str, default: int | None = None) -> int:
    """Side of a square in pixels, written as a number or as [side, side]."""
    value = self._get(name, default)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
      value = value[0]
    if type(value) is not int or not 1 <= value <= _LARGEST:
      raise self.wrong(name, "the side of a square in pixels (other shapes are not supported)")
    return value

  def number(self, name: str, default: float | None = None) -> float:
    """Number between -1e9 and 1e9."""
    value = self._get(name, default)
    if not _is_number(value):
      raise self.wrong(name, "a number")
    return float(value)

  def colors(self, name: str, default: Collection[float]) -> tuple[float, float, float]:
    """Three numbers, for red, green and blue."""
    value = self._get(name, list(default))
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(_is_number(n) for n in value):
      raise self.wrong(name, "three numbers")
    return float(value[0]), float(value[1]), float(value[2])

  def flag(self, name: str, default: bool) -> bool:
    """Boolean."""
    value = self._get(name, default)
    if not isinstance(value, bool):
      raise self.wrong(name, "true or false")
    return value

  def switch(self, name: str, default: bool) -> bool:
    """Boolean of a step that null leaves out, as in the image processors of transformers."""
    if name in self.values and self.values[name] is None:
      self.used.add(name)
      self.nulls.add(name)
      return False
    return self.flag(name, default)

  def text(self, name: str, default: str | None = None) -> str:
    """String."""
    value = self._get(name, default)
    if not isinstance(value, str):
      raise self.wrong(name, "a string")
    return value

  def choice(self, name: str, choices: Mapping[Any, T], default: Any = None) -> T:
    """Entry of `choices` (external value to mmjax value) for the field's value."""
    value = self._get(name, default)
    if isinstance(value, dict | list) or value not in choices:
      raise self.wrong(name, f"one of {', '.join(map(repr, choices))}")
    return choices[value]

  def only(self, name: str, supported: Any, default: Any) -> None:
    """Raise InteropError unless the field has the one value that mmjax supports."""
    value = self.get(name, default)
    if value != supported:
      raise InteropError(f"{self.where}: {name} is {value!r}; mmjax supports only {supported!r}")

  def known(self, names: Collection[str]) -> None:
    """Raise InteropError for fields outside `names`: an unknown field may change the results."""
    for name in self.values:
      if name not in names:
        raise InteropError(f"{self.where}: unknown field {name!r}; known are {', '.join(sorted(names))}")

  def wrong(self, name: str, wanted: str) -> InteropError:
    """Error for a field whose value is wrong."""
    return InteropError(f"{self.where}: {name} is {self.values.get(name)!r}, but must be {wanted}")

  def _get(self, name: str, default: Any) -> Any:
    value = self.get(name)
    if value is None:
      value = default
    if value is None:
      raise InteropError(f"{self.where}: the field {name!r} is missing")
    return value


def _is_number(value: Any) -> bool:
  """True for a number between -1e9 and 1e9. JSON of Python may hold NaN and Infinity."""
  return type(value) in (int, float) and abs(value) <= 1e9


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."


def read_json(path: Path) -> Fields:
  """Read a JSON object from a file.

  Raises: InteropError: the file cannot be read, is not a JSON object, or is too large for a configuration (10 MB).
  """
  try:
    if path.stat().st_size > _MAX_JSON:
      raise InteropError(f"{path} is larger than {_MAX_JSON} bytes, which is too large for a configuration")
    return Fields(json.loads(path.read_text(encoding="utf-8")), str(path))
  except (OSError, ValueError, RecursionError) as error:
    if isinstance(error, InteropError):
      raise
    content = path.read_bytes()[:1000] if path.is_file() else b""
    raise InteropError(f"{path} {instead(content) or f'cannot be read as JSON: {error}'}") from error
