"""Docstrings: plain first words, documented arguments, and examples that run."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOT = PROJECT / "mmjax"
UNCLEAR = {"What", "Whether", "Where", "How", "Which", "That", "As"}
FROM_ANOTHER = re.compile(r"[Aa]rguments (?:are )?(?:as for|those of) `([\w.]+)`")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files() -> list[Path]:
  return sorted(ROOT.rglob("*.py"))


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
  """(line, text) of every docstring, those of fields included: all strings that are statements."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
      yield node.lineno, node.value.value


def is_public(name: str) -> bool:
  return not name.startswith("_") or name in ("__call__", "__init__")


def functions(body: list[ast.stmt], prefix: str = "", document: str = "") -> Iterator[tuple[str, Function, str]]:
  """(name, function, docstring) of public functions and methods. A class's docstring documents its __init__ too.

  Methods without docstrings have those of the methods that they override.
  """
  for node in body:
    if isinstance(node, ast.ClassDef) and is_public(node.name):
      yield from functions(node.body, f"{prefix}{node.name}.", ast.get_docstring(node) or "")
    elif isinstance(node, Function) and is_public(node.name):
      own = ast.get_docstring(node) or ""
      if prefix and not own and node.name != "__init__":
        continue
      yield prefix + node.name, node, f"{document}\n{own}" if node.name == "__init__" else own


def parameters(function: Function) -> list[str]:
  a = function.args
  names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg is not None]
  return [name for name in names if name not in ("self", "cls")]


def documented(text: str) -> set[str]:
  """Names before the colons of an "Args:" section, whose entries are the least indented lines."""
  section = re.search(r"^( *)Args:\n((?:\1 +.*\n|\n)+)", text + "\n", re.MULTILINE)
  if section is None:
    return set()
  lines = [line for line in section.group(2).split("\n") if line.strip()]
  indent = min(len(line) - len(line.lstrip()) for line in lines)
  entries = [re.match(r" *(\**\w+(?:, \**\w+)*):", line) for line in lines if line[indent] != " "]
  return {name.strip(" *") for entry in entries if entry for name in entry.group(1).split(",")}


def test_first_words():
  others = [path for folder in ("experiments", "scripts") for path in sorted((PROJECT / folder).rglob("*.py"))]
  unclear = [
    f"{path.relative_to(PROJECT)}:{line}: {text.split()[0]}"
    for path in (*files(), *others)
    for line, text in docstrings(ast.parse(path.read_text()))
    if text.split()[0] in UNCLEAR
  ]
  assert not unclear


def test_arguments_of_long_signatures_are_documented():
  found = {path: list(functions(ast.parse(path.read_text()).body)) for path in files()}
  known = {name: set(parameters(function)) for named in found.values() for name, function, _ in named}
  missing = []
  for path, named in found.items():
    for name, function, text in named:
      names = parameters(function)
      if len(names) < 4:
        continue
      elsewhere = [known.get(other, set()) for other in FROM_ANOTHER.findall(" ".join(text.split()))]
      left = set(names) - documented(text) - set().union(*elsewhere)
      missing += [f"{path.relative_to(ROOT)}: {name}: {', '.join(sorted(left))}"] if left else []
  assert not missing


def modules_with_examples() -> list[str]:
  paths = [path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text()]
  return [path.relative_to(ROOT.parent).with_suffix("").as_posix().replace("/", ".") for path in paths]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name):
  failed, tried = doctest.testmod(importlib.import_module(name))
  assert tried and not failed
