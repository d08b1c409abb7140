"""Nothing that can execute what it reads is used anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("mmjax", "experiments", "scripts") for path in (ROOT / folder).rglob("*.py"))
PICKLERS = {
  "pickle",
  "_pickle",
  "cPickle",
  "dill",
  "cloudpickle",
  "joblib",
  "shelve",
  "marshal",
  "jsonpickle",
}
LISTS = {"pickletools": "mmjax/interop/torch_legacy_file.py"}
"""A module that lists the instructions of a pickle without following them, and the only file that may read such."""
EXECUTES = {"eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
METHODS = {
  "read_pickle",
  "to_pickle",
  "extractall",
}  # pandas; tarfile and zipfile, which write where a member's name says


def offences(tree: ast.AST) -> list[str]:
  """Imports of picklers, also by their name in a string; allow_pickle=True; calls that execute what they are given."""
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
      found.append(str(node.module))
    elif isinstance(node, ast.ImportFrom):
      found += [name for alias in node.names if (name := f"{node.module}.{alias.name}") in EXECUTES]
    elif isinstance(node, ast.Call):
      name = ast.unparse(node.func)
      found += [name] if name in EXECUTES or name.rpartition(".")[2] in METHODS else []
      found += [a.value for a in node.args if name.endswith("import_module") and getattr(a, "value", None) in PICKLERS]
      found += [
        "allow_pickle"
        for keyword in node.keywords
        if keyword.arg == "allow_pickle" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
      ]
  return found


def test_one_file_lists_pickles():
  using = {str(path.relative_to(ROOT)) for path in FILES if "pickletools" in path.read_text()}
  assert using == set(LISTS.values())


def test_no_file_unpickles_or_evaluates():
  assert len(FILES) > 100
  assert {str(path): bad for path in FILES if (bad := offences(ast.parse(path.read_text())))} == {}


@pytest.mark.parametrize(
  "source",
  [
    "import pickle", "import os, dill as d", "from dill import loads", "np.load(f, allow_pickle=True)", "torch.load(f)",
    "np.load(f, allow_pickle=flag)", "from torch import load", "eval(s)", "__import__('x')", "yaml.load(f)",
    "importlib.import_module('pickle')", "pd.read_pickle(f)", "tar.extractall(path)",
  ],
)  # fmt: skip
def test_the_search_finds_them(source):
  assert offences(ast.parse(source))
