"""Nothing that can execute what it reads is used anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("mmjax", "experiments", "scripts") for path in (ROOT / folder).rglob("*.py"))
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def offences(tree: ast.AST) -> list[str]:
  """Imports of picklers; allow_pickle=True; calls of eval and exec; torch.load."""
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
      found.append(str(node.module))
    elif isinstance(node, ast.Call):
      name = ast.unparse(node.func)
      found += [name] if name in ("eval", "exec", "torch.load") else []
      found += [
        "allow_pickle"
        for keyword in node.keywords
        if keyword.arg == "allow_pickle" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
      ]
  return found


def test_no_file_unpickles_or_evaluates():
  assert len(FILES) > 100
  assert {str(path): bad for path in FILES if (bad := offences(ast.parse(path.read_text())))} == {}


@pytest.mark.parametrize(
  "source", ["import pickle", "from dill import loads", "np.load(f, allow_pickle=True)", "torch.load(f)", "eval(s)"]
)
def test_the_search_finds_them(source):
  assert offences(ast.parse(source))
