"""Conversion of configurations to JSON and back. Values of open fields are stored with the name of their class."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmjax.kinds import TAG, Kind, find, is_base

if TYPE_CHECKING:
  import cattrs


@functools.lru_cache(maxsize=16)
def converter(kinds: tuple[type[Kind], ...]) -> cattrs.Converter:
  """Make the converter for configurations whose open fields may hold these classes. Unknown fields are errors."""
  import cattrs  # here, so that --help does not wait for it

  made = cattrs.Converter(forbid_extra_keys=True)
  made.register_unstructure_hook(Path, str)
  made.register_structure_hook(Path, lambda value, _: Path(value))

  def unstructure(value: Any) -> dict[str, Any]:
    return {TAG: type(value).__name__, **made.unstructure(value)}

  def structure(fields: Any, base: type[Kind]) -> Any:
    if not isinstance(fields, dict) or not isinstance(fields.get(TAG), str):
      raise ValueError(f"a {base.__name__} is an object with an entry {TAG!r} that names its class")
    rest = {name: value for name, value in fields.items() if name != TAG}
    return made.structure(rest, find(base, fields[TAG], kinds))

  made.register_unstructure_hook_func(is_base, unstructure)
  made.register_structure_hook_func(is_base, structure)
  return made


def to_json(config: Any) -> dict[str, Any]:
  """Convert a configuration to nested dictionaries for json.dump."""
  return converter(()).unstructure(config)
