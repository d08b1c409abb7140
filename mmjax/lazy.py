"""Packages that import a submodule only when one of its names is first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
  package: str, submodules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """Returns `__getattr__` and `__dir__` for a package's `__init__.py`.

  The `__init__.py` also imports the names under `if TYPE_CHECKING`, for type checkers and for readers.

  Args:
    package: the package's `__name__`.
    submodules: {submodule: the public names it defines}. No public name may be the name of a submodule too: Python
      binds a submodule to its own name in the package as soon as anything imports it.
  """
  places = {name: submodule for submodule, names in submodules.items() for name in names}

  def get(name: str) -> Any:
    if name not in places:
      raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{package}.{places[name]}"), name)
    setattr(sys.modules[package], name, value)  # so that Python finds it without this function from now on
    return value

  def names() -> list[str]:
    return sorted({*vars(sys.modules[package]), *places})

  return get, names
