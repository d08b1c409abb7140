"""Open kinds: fields of a configuration that hold one of several frozen dataclasses.

A field is open if its annotation is a *base*, a direct subclass of Kind: `model: ModelConfig`, `objectives:
tuple[Term, ...]`. It may hold the subclasses of the base that are in `mmjax.catalogue.KINDS`, and those that a script
adds with `main(EXPERIMENT, kinds=(Mine,))`. There is no global registry.
"""

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from mmjax.errors import ConfigError, did_you_mean

TAG = "class"
"""Key of the class name in JSON. No field can have this name, because it is a keyword of Python."""


class Kind:
  """Parent of the frozen dataclasses that an open field may hold. Give every field a default, so that a class can be
  chosen by its name alone."""


AnyKind = TypeVar("AnyKind", bound=Kind)


def is_base(annotation: Any) -> bool:
  """True if an annotation is a direct subclass of Kind, and so the annotation of an open field."""
  return isinstance(annotation, type) and Kind in annotation.__bases__


def base_of(kind: type[Kind]) -> type[Kind]:
  """Return the base of a class."""
  return next(base for base in kind.__mro__ if is_base(base))


def option_name(kind: type[Kind]) -> str:
  """Name of a class on the command line: `easy_vqa` for EasyVqa, `two_tower` for TwoTowerConfig."""
  name = kind.__name__.removesuffix("Config")
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def of_base(base: type[AnyKind], kinds: Sequence[type[Kind]]) -> list[type[AnyKind]]:
  """List the classes in `kinds` that an open field of this base may hold."""
  return [kind for kind in kinds if issubclass(kind, base)]


def find(base: type[AnyKind], name: str, kinds: Sequence[type[Kind]]) -> type[AnyKind]:
  """Find a class by its Python name or its name on the command line.

  Args:
    base: annotation of the field.
    name: name of the class, such as `EasyVqa`, `easy_vqa` or `easy-vqa`.
    kinds: known classes.
  Raises: ConfigError: the name is unknown. The message lists the known names and the nearest one.
  """
  known = of_base(base, kinds)
  for kind in known:
    if _plain(name) in (_plain(kind.__name__), _plain(option_name(kind))):
      return kind
  names = [option_name(kind) for kind in known]
  raise ConfigError(
    f"unknown {_readable(base)} {name!r}.{did_you_mean(name.lower(), names)} There are: {', '.join(names)}. "
    f"Classes of a script must be passed in kinds=(...)."
  )


def default(kind: type[AnyKind], where: str) -> AnyKind:
  """Make a value of a class with the defaults of its fields.

  Args:
    kind: the class.
    where: the option, for the error.
  Raises: ConfigError: a field has no default.
  """
  required = [
    field.name
    for field in dataclasses.fields(typing.cast(Any, kind))
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
  ]
  if required:
    raise ConfigError(f"{where}: {kind.__name__} cannot be chosen by name, its field {required[0]!r} has no default")
  return kind()


def undefined(value: Kind, member: str) -> ConfigError:
  """The error for a value of a class that does not define a method or property which its base leaves to it.

  Args:
    value: the value.
    member: name of the method or property.
  """
  kind, base = type(value), base_of(type(value))
  return ConfigError(
    f"the {_readable(base)} {kind.__name__} must define `{member}`: see the docstring of {kind.__name__}.{member}, "
    f"which it inherits"
  )


def check(kinds: Sequence[type[Kind]]) -> tuple[type[Kind], ...]:
  """Check classes, and return them without duplicates.

  Raises: ConfigError: one of them is not a dataclass that inherits from a base, or two of one base have the same name.
  """
  seen: dict[tuple[type[Kind], str], type[Kind]] = {}
  for kind in dict.fromkeys(kinds):
    if not (isinstance(kind, type) and issubclass(kind, Kind) and dataclasses.is_dataclass(kind)):
      raise ConfigError(f"kinds: {kind!r} is not a dataclass that inherits from a base such as Term or Source")
    other = seen.setdefault((base_of(kind), _plain(option_name(kind))), kind)
    if other is not kind:
      raise ConfigError(
        f"kinds: {kind.__module__}.{kind.__qualname__} and {other.__module__}.{other.__qualname__} have the same name, "
        f"{option_name(kind)!r}; rename one"
      )
  return tuple(dict.fromkeys(kinds))


def _plain(name: str) -> str:
  return re.sub(r"[-_]", "", name).lower()


def _readable(base: type[Kind]) -> str:
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", base.__name__.removesuffix("Config")).lower()
