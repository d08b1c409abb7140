"""Open kinds: fields of a configuration that hold one of several frozen dataclasses.

A field is open when its annotation is a *base*, a direct subclass of Kind: `model: ModelConfig`, `objectives:
tuple[Term, ...]`. It may hold the subclasses of the base that an explicit tuple lists: `mmjax.catalogue.KINDS`, and the
classes that a script adds with `main(EXPERIMENT, kinds=(Mine,))`. There is no registry.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from mmjax.errors import ConfigError

TAG = "class"
"""The key under which JSON names the class of a value. No field can have this name: it is a word of Python."""


class Kind:
  """A frozen dataclass that an open field may hold. Every field has a default, so that its name alone makes one."""


AnyKind = TypeVar("AnyKind", bound=Kind)


def is_base(annotation: Any) -> bool:
  """True for a direct subclass of Kind: the annotation of an open field."""
  return isinstance(annotation, type) and Kind in annotation.__bases__


def base_of(kind: type[Kind]) -> type[Kind]:
  """The base that a class belongs to."""
  return next(base for base in kind.__mro__ if is_base(base))


def option_name(kind: type[Kind]) -> str:
  """The name of a class on the command line: EasyVqa is `easy_vqa`, TwoTowerConfig is `two_tower`."""
  name = kind.__name__.removesuffix("Config")
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def of_base(base: type[AnyKind], kinds: Sequence[type[Kind]]) -> list[type[AnyKind]]:
  """The classes among `kinds` that an open field of this base may hold."""
  return [kind for kind in kinds if issubclass(kind, base)]


def find(base: type[AnyKind], name: str, kinds: Sequence[type[Kind]]) -> type[AnyKind]:
  """The class of a base by its own name or its name on the command line.

  Args:
    base: the annotation of the field.
    name: `EasyVqa`, `easy_vqa` or `easy-vqa`.
    kinds: the classes that are known.
  Raises: ConfigError for an unknown name. It lists the known ones and names the nearest.
  """
  known = of_base(base, kinds)
  for kind in known:
    if _plain(name) in (_plain(kind.__name__), _plain(option_name(kind))):
      return kind
  names = [option_name(kind) for kind in known]
  near = difflib.get_close_matches(name.lower(), names, n=1)
  hint = f" Did you mean {near[0]!r}?" if near else ""
  raise ConfigError(
    f"unknown {_readable(base)} {name!r}.{hint} There are: {', '.join(names)}. "
    f"A class of your own must be given in kinds=(...)."
  )


def default(kind: type[AnyKind], where: str) -> AnyKind:
  """A value of a class with every field at its default. Raises ConfigError where a field has none."""
  required = [
    field.name
    for field in dataclasses.fields(typing.cast(Any, kind))
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
  ]
  if required:
    raise ConfigError(f"{where}: {kind.__name__} cannot be chosen by name, its field {required[0]!r} has no default")
  return kind()


def check(kinds: Sequence[type[Kind]]) -> tuple[type[Kind], ...]:
  """The kinds, once each. Raises ConfigError for what is no kind, and for two classes of one base and one name."""
  seen: dict[tuple[type[Kind], str], type[Kind]] = {}
  for kind in dict.fromkeys(kinds):
    if not (isinstance(kind, type) and issubclass(kind, Kind) and dataclasses.is_dataclass(kind)):
      raise ConfigError(f"kinds: {kind!r} is not a dataclass that inherits from a base such as Term or Source")
    other = seen.setdefault((base_of(kind), _plain(option_name(kind))), kind)
    if other is not kind:
      raise ConfigError(
        f"kinds: {kind.__module__}.{kind.__qualname__} and {other.__module__}.{other.__qualname__} have one name, "
        f"{option_name(kind)!r}; rename one"
      )
  return tuple(dict.fromkeys(kinds))


def _plain(name: str) -> str:
  return re.sub(r"[-_]", "", name).lower()


def _readable(base: type[Kind]) -> str:
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", base.__name__.removesuffix("Config")).lower()
