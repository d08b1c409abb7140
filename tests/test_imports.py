"""A command line is parsed without the libraries that only training, evaluation and data need."""

import ast
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_FOR_PARSING = (
  "array_record",
  "cv2",
  "grain",
  "jax.experimental.multihost_utils",
  "jax.experimental.pallas",
  "matplotlib",
  "orbax",
  "safetensors",
  "scipy",
  "simplejpeg",
  "sklearn",
  "tensorboardX",
  "tensorflow_datasets",
  "tensorstore",
  "tokenizers",
)
LAZY = (
  "mmjax",
  "mmjax.data",
  "mmjax.deploy",
  "mmjax.ensembles",
  "mmjax.evaluate",
  "mmjax.interop",
  "mmjax.plan",
  "mmjax.report",
)

PARSE = """
import contextlib, importlib, io, json, sys
from pathlib import Path

def status(main, *args, **named):
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
      return main(*args, **named)
    except SystemExit as end:
      return end.code

def loaded(names):
  return [name for name in names if name in sys.modules]

heavy, found = json.loads(sys.argv[1]), {}
from mmjax.data.__main__ import main as data
from mmjax.interop.__main__ import main as interop
helps = [status(main, [*command, "--help"]) for main, command in ((data, []), (data, ["shard"]), (interop, []))]
found["helps"] = {"statuses": helps, "modules": loaded([*heavy, "jax", "flax"])}

scripts = sorted(path.stem for path in Path("experiments").glob("*.py"))
for script in scripts:
  module = importlib.import_module(script)
  names = [*heavy, "optax"]
  found[script] = {"statuses": [], "modules": loaded(names)}
  if script == "clip_emoji":
    from mmjax.cli import main
    lines = ("--help", "--run.stepz 3", "--run.steps 0", "plan --help", "export --to onxx")
    found[script]["statuses"] = [status(main, module.EXPERIMENT, arguments=line.split()) for line in lines]
    found[script]["modules"] = loaded(names)
print(json.dumps(found))
"""


def test_parsing_imports_little():
  environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "experiments")))}
  command = [sys.executable, "-c", PARSE, json.dumps(NOT_FOR_PARSING)]
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
  found = json.loads(done.stdout)
  assert {name: entry["modules"] for name, entry in found.items() if entry["modules"]} == {}
  assert found["helps"]["statuses"] == [0, 0, 0]
  assert found["clip_emoji"]["statuses"] == [0, 2, 2, 0, 2]


@pytest.mark.parametrize("package", LAZY)
def test_a_lazy_package_has_the_names_that_it_lists(package):
  module = importlib.import_module(package)
  star: dict = {}
  exec(f"from {package} import *", star)
  for name in module.__all__:
    assert star[name] is getattr(module, name)
  assert set(module.__all__) <= set(dir(module))
  with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
    module.nonsense  # noqa: B018


@pytest.mark.parametrize("package", LAZY)
def test_no_name_of_a_lazy_package_is_hidden_by_a_submodule(package):
  module = importlib.import_module(package)
  submodules = {info.name for info in pkgutil.iter_modules(module.__path__)}
  assert submodules.isdisjoint(set(module.__all__))


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_imports_from_the_public_face_of_each_package(path):
  nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
  deeper = [
    node.module for node in nodes if node.module and node.module.startswith("mmjax.") and "." in node.module[6:]
  ]
  assert deeper == []


@pytest.mark.parametrize(
  "page", ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
)
def test_a_page_imports_from_the_public_face_of_each_package(page):
  text = (ROOT / page).read_text(encoding="utf-8")
  assert re.findall(r"^ *(?:from|import) mmjax\.\w+\.[\w.]+", text, re.MULTILINE) == []
