"""Choice of the classes of open fields on the command line. It runs before tyro parses the fields of these classes.

`--data.source folder --data.source.path photos` has two options. The first replaces the value of the open field
`data.source` by a Folder with its defaults. The second sets a field of that class.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mmjax.errors import ConfigError, did_you_mean
from mmjax.kinds import Kind, default, find, is_base, of_base, option_name

Config = TypeVar("Config")
_LONGEST_OPTION = 1000
"""In characters. No option has a tenth of this length."""


def chosen(config: Config, arguments: Sequence[str], kinds: Sequence[type[Kind]]) -> tuple[Config, list[str]]:
  """Apply the options that choose classes.

  Args:
    config: default configuration.
    arguments: options and values. `--objectives contrastive matching` replaces a tuple, `--objectives.0.loss hinge`
      one value, `--data.columns image=image text=caption` a mapping. A value that already has the chosen class is
      kept, with its settings.
    kinds: known classes.
  Returns: (configuration with the chosen classes, arguments that remain).
  Raises: ConfigError: a name is unknown, an option has no name or an impossible one, or a field belongs to another
    class.
  """
  for option in (argument.split("=", 1)[0] for argument in arguments):
    if option.startswith("-") and len(option) > _LONGEST_OPTION:  # the search for the nearest name would take seconds
      raise ConfigError(f"no option has {len(option):,} characters: {option[:40]}...")
  rest, waiting, fields = [], list(arguments), open_fields(config)
  while waiting:
    argument = waiting.pop(0)
    option, equals, value = argument.partition("=")
    path = option[2:].replace("-", "_") if option.startswith("--") else ""
    if path not in fields:
      rest.append(argument)
      continue
    names = [value] if equals else []
    while not equals and waiting and not waiting[0].startswith("--"):
      names.append(waiting.pop(0))
    steps = path.split(".")
    config = replaced(config, steps, _made(_value(config, steps), fields[path], names, kinds, option))
    fields = open_fields(config)
  _check_fields(config, rest, fields, kinds)
  return config, rest


def listing(config: Any, kinds: Sequence[type[Kind]]) -> str:
  """Text for --help: one line per open field of a configuration, with the classes that it may hold."""
  lines = []
  for path, base in open_fields(config).items():
    if not path.rpartition(".")[2].isdigit():
      names = ", ".join(option_name(kind) for kind in of_base(base, kinds))
      lines.append(f"  --{path.replace('_', '-')} {names}")
  return "Fields that hold one of several classes, chosen by name (--FIELD NAME):\n" + "\n".join(lines)


def open_fields(value: Any, prefix: str = "") -> dict[str, type[Kind]]:
  """{path: base} of every open field of a configuration, and of every element of a tuple or mapping in one."""
  found: dict[str, type[Kind]] = {}
  for name, annotation in _annotations(type(value)).items():
    path, inner = f"{prefix}{name}", getattr(value, name)
    base = annotation if is_base(annotation) else _element(annotation)
    if base is not None:
      found[path] = base
    for step, element in _elements(inner):
      found |= {f"{path}{step}": base} if base is not None and step else {}
      found |= open_fields(element, f"{path}{step}.") if dataclasses.is_dataclass(element) else {}
  return found


def check_listed(config: Any, kinds: Sequence[type[Kind]]) -> None:
  """Check that the class of every value in an open field is known. Otherwise the run could be trained, but not loaded.

  Args:
    config: default configuration of a script.
    kinds: known classes.
  Raises: ConfigError: one is not. The message names the field and the class.
  """
  for path in open_fields(config):
    value = _value(config, path.split("."))
    if isinstance(value, Kind) and type(value) not in kinds:
      name = type(value).__name__
      raise ConfigError(
        f"{_option(path)} holds a {name}, a class of the script that main does not know: call main(..., "
        f"kinds=({name},)), with all classes of the script, or the run could not be loaded"
      )


def replaced(value: Any, path: Sequence[str], new: Any) -> Any:
  """Replace the value at a path. The path consists of field names, tuple indices and mapping keys."""
  if not path:
    return new
  step, rest = path[0], path[1:]
  if isinstance(value, tuple):
    place = int(step)
    return (*value[:place], replaced(value[place], rest, new), *value[place + 1 :])
  if isinstance(value, Mapping):
    return {**value, step: replaced(value[step], rest, new)}
  return dataclasses.replace(value, **{step: replaced(getattr(value, step), rest, new)})


def _annotations(kind: Any) -> dict[str, Any]:
  if not dataclasses.is_dataclass(kind):
    return {}
  hints = typing.get_type_hints(kind)
  return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _element(annotation: Any) -> type[Kind] | None:
  """The base in tuple[Base, ...], Mapping[str, Base] or Base | None. None for any other annotation."""
  arguments = [argument for argument in typing.get_args(annotation) if is_base(argument)]
  return arguments[0] if len(arguments) == 1 else None


def _elements(value: Any) -> list[tuple[str, Any]]:
  if isinstance(value, tuple):
    return [("", value), *((f".{place}", element) for place, element in enumerate(value))]
  if isinstance(value, Mapping):
    return [("", value), *((f".{key}", element) for key, element in value.items())]
  return [("", value)]


def _value(config: Any, path: Sequence[str]) -> Any:
  for step in path:
    if isinstance(config, tuple):
      config = config[int(step)]
    else:
      config = config[step] if isinstance(config, Mapping) else getattr(config, step)
  return config


def _made(old: Any, base: type[Kind], names: Sequence[str], kinds: Sequence[type[Kind]], option: str) -> Any:
  """Make the new value of an open field: a value, a tuple of values or a mapping to values."""
  if isinstance(old, tuple):
    return tuple(_one(None, base, name, kinds, option) for name in names)
  if isinstance(old, Mapping):
    pairs = [name.partition("=") for name in names]
    if not all(equals for _, equals, _ in pairs):
      raise ConfigError(f"{option} takes NAME=KIND pairs, such as text=caption; got {' '.join(names)}")
    return {name: _one(old.get(name), base, kind, kinds, option) for name, _, kind in pairs}
  if len(names) != 1:
    known = ", ".join(option_name(kind) for kind in of_base(base, kinds))
    raise ConfigError(f"{option} takes one name, got {len(names)}; there are {known}")
  return _one(old, base, names[0], kinds, option)


def _one(old: Any, base: type[Kind], name: str, kinds: Sequence[type[Kind]], option: str) -> Any:
  if name == "None" and not isinstance(old, base):
    return None
  try:
    kind = find(base, name, kinds)
  except ConfigError as error:
    raise ConfigError(f"{option}: {error}") from error
  return old if type(old) is kind else default(kind, option)


def _check_fields(
  config: Any, arguments: Sequence[str], fields: Mapping[str, type[Kind]], kinds: Sequence[type[Kind]]
) -> None:
  """Raise ConfigError if an option sets a field that the chosen class lacks and another class has."""
  for argument in arguments:
    option = argument.partition("=")[0]
    path, _, name = option[2:].replace("-", "_").rpartition(".") if option.startswith("--") else ("", "", "")
    _check_keys(config, option, path, fields)
    if path not in fields:
      _check_place(config, option, path, name, fields, kinds)
    elif isinstance(here := _value(config, path.split(".")), Kind):
      having = _having(name, fields[path], kinds)
      if not _has(type(here), name) and having:
        names = ", ".join(option_name(kind) for kind in having)
        raise ConfigError(f"{option}: {option_name(type(here))} has no {name!r}; choose {_option(path)} {names}")


def _check_keys(config: Any, option: str, path: str, fields: Mapping[str, type[Kind]]) -> None:
  """Raise ConfigError if an option goes through a mapping of the configuration that has no such name."""
  for place, step in enumerate(steps := path.split(".")):
    if isinstance(config, Mapping) and step not in config:
      field = ".".join(steps[:place])
      known = ", ".join(config) or "none"
      choose = f"Choose all with {_option(field)} NAME=KIND" if field in fields else "Add it in the script"
      raise ConfigError(
        f"{option}: {_option(field)} has no {step!r}; there are: {known}.{did_you_mean(step, config)} {choose}."
      )
    if isinstance(config, Mapping):
      config = config[step]
    elif step in _annotations(type(config)):
      config = getattr(config, step)
    else:
      return


def _check_place(
  config: Any, option: str, path: str, name: str, fields: Mapping[str, type[Kind]], kinds: Sequence[type[Kind]]
) -> None:
  """Raises ConfigError for a field that is not at this path, and that the value of an open field beside it has.

  `--data.path` is `--data.source.path`, and `--data.scenes.size` is `--data.source.size`.
  """
  known: list[str] = []
  for step in path.split("."):
    if step not in _annotations(type(config)):
      break
    known.append(step)
    config = getattr(config, step)
  if not known or not dataclasses.is_dataclass(config) or _has(type(config), name):
    return
  for place in (place for place in fields if place.rpartition(".")[0] == ".".join(known)):
    if having := _having(name, fields[place], kinds):
      names = ", ".join(option_name(kind) for kind in having)
      new = _option(f"{place}.{name}")
      raise ConfigError(f"{option}: there is no such option; use {new}, a setting of {_option(place)} {names}")


def _having(name: str, base: type[Kind], kinds: Sequence[type[Kind]]) -> list[type[Kind]]:
  return [kind for kind in of_base(base, kinds) if _has(kind, name)]


def _has(kind: type, name: str) -> bool:
  fields = _annotations(kind)
  return name in fields or name.removeprefix("no_") in fields


def _option(path: str) -> str:
  return "--" + path.replace("_", "-")
