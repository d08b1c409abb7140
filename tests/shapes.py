"""Checks the shapes and dtypes in mmjax's signatures whenever a test calls a function, also while it is traced.

`install` has every function of a package compare the arrays that it takes and returns with its jaxtyping annotations:
within a call, equal names are equal sizes. Arrays are found alone and in tuples, lists, mappings, unions and records
such as `Encoded`; a numpy array may stand for a JAX array. Other types are not looked at: a function without arrays
stays as it is, which is why this costs little where a type checker would cost much.
"""

import ast
import collections.abc
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

from jaxtyping import AbstractArray, AnnotationError, jaxtyped

Check = Callable[[Any], bool]
_NAME = "__checked__"
"""Of `checked` in the modules of the package."""


class ShapeError(TypeError):
  """An array is not what the signature says."""


def install(package: str) -> None:
  """Has the functions of a package checked. It must not have been imported."""
  assert package not in sys.modules, f"{package} was imported before its shapes could be checked"
  sys.meta_path.insert(0, _Finder(package))


def checked(function: Callable) -> Callable:
  """The function, checking its arrays; unchanged if its annotations name none.

  A function that refuses its arguments itself raises its own error; the others raise ShapeError.
  """
  hints = inspect.get_annotations(function)
  checks = {name: check for name, hint in hints.items() if (check := checker(hint))}
  if not checks:
    return function
  signature = inspect.signature(function)
  several = {name for name, p in signature.parameters.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

  def right(name: str, value: Any) -> bool | None:
    """None where nothing can be said yet: a size is computed from others that no array has shown."""
    values = value if name in several else (value,)
    try:
      return all(map(checks[name], values.values() if isinstance(values, dict) else values))
    except AnnotationError:
      return None

  @functools.wraps(function)
  def call(*args: Any, **kwargs: Any) -> Any:
    try:
      given = signature.bind(*args, **kwargs).arguments
    except TypeError:
      return function(*args, **kwargs)  # whose own error is the right one
    with jaxtyped("context"):
      given = {name: value for name, value in given.items() if name in checks}
      found = {name: right(name, value) for name, value in given.items()}
      found |= {name: right(name, given[name]) for name, answer in found.items() if answer is None}
      result = function(*args, **kwargs)
      if "return" in checks:
        given["return"], found["return"] = result, right("return", result)
    for name, answer in found.items():
      if answer is False:
        what = "its result" if name == "return" else name
        where = f"{function.__module__}.{function.__qualname__}"
        raise ShapeError(f"{where}: {what} is {shown(given[name])}, its annotation is {_named(hints[name])}")
    return result

  return call


@functools.cache
def checker(hint: Any) -> Check | None:
  """Tells whether a value's arrays are as a type hint says; None where it names no array."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if inspect.isclass(hint) and issubclass(hint, AbstractArray):
    of_any_library = hint.dtype[Any, hint.dim_str]
    return lambda value: isinstance(value, of_any_library)
  if dataclasses.is_dataclass(hint):
    return _record(hint)
  if origin in (collections.abc.Callable, typing.Literal):
    return None
  checks = [checker(part) for part in parts]
  if not any(checks):
    return None
  if origin in (typing.Union, types.UnionType):
    kinds = [check or _kind(part) for check, part in zip(checks, parts, strict=True)]
    return lambda value: any(kind(value) for kind in kinds)
  if origin is tuple and parts[-1] is not ...:
    every = [check or _kind(Any) for check in checks]
    fits = lambda value: len(value) == len(every) and all(check(one) for check, one in zip(every, value, strict=True))
    return lambda value: isinstance(value, tuple) and fits(value)
  check = checks[0] if origin is tuple else checks[-1]  # of a mapping, the values
  if check is None or not issubclass(origin, collections.abc.Collection):
    return None
  return lambda value: all(map(check, value.values() if hasattr(value, "values") else value))


def _kind(hint: Any) -> Check:
  """Tells whether a value is of a kind that has no arrays."""
  kind = typing.get_origin(hint) or hint
  return (lambda value: isinstance(value, kind)) if inspect.isclass(kind) and kind is not Any else lambda value: True


def _record(kind: Any) -> Check | None:
  """The check of a dataclass with arrays: its names of sizes are its own. Shardings may take the arrays' places."""
  checks = {field.name: check for field in dataclasses.fields(kind) if (check := checker(field.type))}

  def check(value: Any) -> bool:
    if not isinstance(value, kind):
      return False
    with jaxtyped("context"):
      held = [(check, getattr(value, name)) for name, check in checks.items()]
      return all(check(part) for check, part in held if hasattr(part, "shape") or dataclasses.is_dataclass(part))

  return check if checks else None


def shown(value: Any) -> str:
  """Dtypes and shapes of the arrays in a value."""
  if hasattr(value, "shape") and hasattr(value, "dtype"):
    return f"{value.dtype}{list(value.shape)}"
  if dataclasses.is_dataclass(value):
    parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return f"{type(value).__name__}({', '.join(f'{name}={shown(part)}' for name, part in parts.items())})"[:300]
  if isinstance(value, tuple | list):
    return f"[{', '.join(map(shown, value))}]"[:300]
  return f"{type(value).__name__} {value!r:.60}"


def _named(hint: Any) -> str:
  return hint.__name__ if inspect.isclass(hint) else str(hint)


class _Finder:
  """Finds the modules of a package, and has their functions checked."""

  def __init__(self, package: str):
    self._package = package

  def find_spec(self, name: str, path: Any, target: types.ModuleType | None = None) -> ModuleSpec | None:
    if name != self._package and not name.startswith(f"{self._package}."):
      return None
    spec = PathFinder.find_spec(name, path, target)
    if spec is not None and isinstance(spec.loader, SourceFileLoader):
      spec.loader = _Loader(spec.loader.name, spec.loader.path)
    return spec


class _Loader(SourceFileLoader):
  """Decorates every function that has annotations, below its other decorators. Its code is not kept on the disk."""

  def get_code(self, fullname: str) -> types.CodeType:
    tree = ast.parse(self.get_data(self.path), self.path)
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef) and (node.returns or _annotated(node.args)):
        node.decorator_list.append(ast.copy_location(ast.Name(_NAME, ast.Load()), node))
    return compile(tree, self.path, "exec", dont_inherit=True)

  def exec_module(self, module: types.ModuleType) -> None:
    vars(module)[_NAME] = checked
    super().exec_module(module)


def _annotated(arguments: ast.arguments) -> bool:
  every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
  return any(argument is not None and argument.annotation is not None for argument in every)
