"""Reading other projects' JSON: every fault names the file and the field."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mmjax.interop.errors import InteropError

T = TypeVar("T")
_LARGEST = 2**24  # a width or a vocabulary above this is a mistake, or an attack on memory
_MAX_JSON = 10_000_000


class Fields:
  """An object of a JSON file; nested ones are `Fields` again, and remember where they stand."""

  def __init__(self, values: Any, where: str):
    if not isinstance(values, dict):
      raise InteropError(f"{where} is not a JSON object")
    self.values: Mapping[str, Any] = values
    self.where = where

  def __contains__(self, name: str) -> bool:
    return self.values.get(name) is not None

  def object(self, name: str) -> "Fields":
    """A nested object; an empty one where it is missing."""
    return Fields(self.values.get(name) or {}, f"{self.where}: {name}")

  def integer(self, name: str, default: int | None = None, *, least: int = 1) -> int:
    value = self._get(name, default)
    if type(value) is not int or not least <= value <= _LARGEST:
      raise self.wrong(name, f"an integer from {least} to {_LARGEST}")
    return value

  def square(self, name: str, default: int | None = None) -> int:
    """A side in pixels, written as a number or as [side, side]."""
    value = self._get(name, default)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
      value = value[0]
    if type(value) is not int or not 1 <= value <= _LARGEST:
      raise self.wrong(name, "one side in pixels (other shapes than squares are not supported)")
    return value

  def number(self, name: str, default: float | None = None) -> float:
    value = self._get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value or abs(value) > 1e9:
      raise self.wrong(name, "a number")
    return float(value)

  def colors(self, name: str, default: Collection[float]) -> tuple[float, float, float]:
    """Three numbers, for red, green and blue."""
    value = self._get(name, list(default))
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(type(n) in (int, float) for n in value):
      raise self.wrong(name, "three numbers")
    return float(value[0]), float(value[1]), float(value[2])

  def flag(self, name: str, default: bool) -> bool:
    value = self._get(name, default)
    if not isinstance(value, bool):
      raise self.wrong(name, "true or false")
    return value

  def text(self, name: str, default: str | None = None) -> str:
    value = self._get(name, default)
    if not isinstance(value, str):
      raise self.wrong(name, "a string")
    return value

  def choice(self, name: str, choices: Mapping[Any, T], default: Any = None) -> T:
    """What a value of theirs is called here."""
    value = self._get(name, default)
    if isinstance(value, dict | list) or value not in choices:
      raise self.wrong(name, f"one of {', '.join(map(repr, choices))}")
    return choices[value]

  def only(self, name: str, supported: Any, default: Any) -> None:
    """Refuses every value but one: what the others mean has no counterpart here."""
    value = self.values.get(name, default)
    if value != supported:
      raise InteropError(f"{self.where}: {name} is {value!r}; mmjax has no counterpart for other than {supported!r}")

  def known(self, names: Collection[str]) -> None:
    """Refuses fields outside `names`: an unknown one may change the numbers."""
    for name in self.values:
      if name not in names:
        raise InteropError(f"{self.where}: unknown field {name!r}; known are {', '.join(sorted(names))}")

  def wrong(self, name: str, wanted: str) -> InteropError:
    return InteropError(f"{self.where}: {name} is {self.values.get(name)!r}, but must be {wanted}")

  def _get(self, name: str, default: Any) -> Any:
    value = self.values.get(name)
    if value is None:
      value = default
    if value is None:
      raise InteropError(f"{self.where}: the field {name!r} is missing")
    return value


def read_json(path: Path) -> Fields:
  """A JSON object in a file. Raises InteropError where it is none, or too large to be a configuration."""
  try:
    if path.stat().st_size > _MAX_JSON:
      raise InteropError(f"{path} is larger than {_MAX_JSON} bytes: no configuration is")
    return Fields(json.loads(path.read_text(encoding="utf-8")), str(path))
  except (OSError, ValueError, RecursionError) as error:
    if isinstance(error, InteropError):
      raise
    raise InteropError(f"{path} cannot be read as JSON: {error}") from error
