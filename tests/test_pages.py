"""README.md and other pages: each Python block runs as written, and each command and option they name exists.

Python blocks run in a folder that has what they read, under the names that they use: nothing in them is replaced.
"""

import ast
import builtins
import contextlib
import dataclasses
import functools
import importlib
import inspect
import io
import re
import shlex
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.catalogue import KINDS
from mmjax.choosing import open_fields
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.experiment import Experiment, from_json, to_json
from mmjax.finetune import Finetune
from mmjax.kinds import Kind, base_of, of_base
from mmjax.models import TwoTower, TwoTowerConfig
from mmjax.models.config import init_params
from mmjax.plan.command import PlanOptions
from mmjax.train.loop import train
from mmjax.types import Encoded
from scripts.lock import asked
from tests import tiny

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/deployment.md")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
SMALL = dict(width=16, depth=1, num_heads=2)


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block of a page."""

  page: str
  line: int
  language: str
  text: str

  def __str__(self) -> str:
    return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
  text = (ROOT / page).read_text(encoding="utf-8")
  return [
    Block(page, text[: found.start()].count("\n") + 2, found["language"], textwrap.dedent(found["text"]))
    for found in FENCE.finditer(text)
  ]


def inline(page: str) -> list[str]:
  """The code spans between the blocks of a page."""
  text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
  return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language == "bash"]
COMMANDS = [(str(block), line) for block in SHELL for line in block.text.splitlines() if line.strip()]
COMMANDS += [
  (page, span) for page in PAGES for span in inline(page) if re.match(r"(python|pip|pre-commit) |\./|scripts/", span)
]
OPTIONS = [
  (page, name) for page in PAGES for span in inline(page) if span.startswith("--")
  for name in re.findall(r"(?<!\S)--([\w.-]+)", span)
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_nothing_on_a_page_escapes_the_tests_below(page):
  assert {block.language for block in blocks(page)} <= {"python", "bash"}
  assert any(block.language == "python" for block in blocks(page))
  outside = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
  assert "```" not in outside
  assert not re.findall(r"^ {4,}\S.*$", outside, re.MULTILINE), "fence code, and name its language"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
  """A working directory with what the blocks read: a run, a picture, published weights."""
  folder = tmp_path_factory.mktemp("folder")
  Image.new("RGB", (40, 30), (200, 90, 20)).save(folder / "cat.png")
  _train(folder / "runs" / "clip_emoji", folder / "data")
  image = ViTConfig(
    **SMALL, image_size=16, patch_size=8, pool="cls", input_norm=True, class_position=True, stem_bias=False,
    norm_epsilon=1e-5,
  )  # fmt: skip
  model = TwoTower(TwoTowerConfig(image, TextConfig(**SMALL, vocab_size=64, eos_id=63, norm_epsilon=1e-5), embed_dim=8))
  params = jax.jit(functools.partial(init_params, model))(jax.random.key(0))
  interop.save(model, params, folder / "clip-vit-base-patch32", "transformers")
  return folder


def _train(workdir: Path, data: Path) -> None:
  """One step of the smallest run, on one device: programs for one compile fastest."""
  experiment = tiny.experiment(data=dict(dir=str(data)), run=dict(workdir=workdir, steps=1))
  with pytest.MonkeyPatch.context() as patch:
    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: first)
    train(experiment)


@pytest.fixture
def module(folder, monkeypatch) -> types.ModuleType:
  """An empty module in that folder; experiments can be imported, as a script that lies among them can."""
  monkeypatch.chdir(folder)
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  module = types.ModuleType("page")
  monkeypatch.setitem(sys.modules, "page", module)
  return module


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_block_runs_and_what_it_defines_works(block, module):
  exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), vars(module))
  unknown = global_names(symtable.symtable(block.text, str(block), "exec")) - {*vars(module), *dir(builtins)}
  assert not unknown, f"{block} reads names that it does not define: a reader cannot run it"
  for value in list(vars(module).values()):
    use(value)


PUBLIC = {
  name: getattr(package, name)
  for package in map(importlib.import_module, ("mmjax.data", "mmjax.evaluators", "mmjax.models", "mmjax.objectives"))
  for name in package.__all__
}
CALLS = sorted({
  span for page in PAGES for span in inline(page)
  if re.fullmatch(r"[A-Z]\w+\(\S.*\)", span) and dataclasses.is_dataclass(PUBLIC.get(span.partition("(")[0]))
})  # fmt: skip
"""Values of configurations between the blocks, in tables too. `...` stands for any value of a field."""


@pytest.mark.parametrize("call", CALLS)
def test_a_value_in_the_text_or_in_a_table_can_be_made(call):
  made: Any = ast.parse(call, mode="eval").body
  kind = PUBLIC[made.func.id]
  assert {keyword.arg for keyword in made.keywords} <= {field.name for field in dataclasses.fields(kind)}
  names = {node.id for node in ast.walk(made) if isinstance(node, ast.Name)}
  if "..." in call or not names <= set(PUBLIC):  # classes that a block on the page defines
    return
  value = eval(call, dict(PUBLIC))
  for name, base in open_fields(value).items():
    assert "." in name or isinstance(getattr(value, name), base | tuple | dict | None), f"{name} is no {base.__name__}"


def test_the_text_has_values_to_make():
  assert 'Contrastive(loss=Unicl(), labels="group")' in CALLS and len(CALLS) > 8


def global_names(table: symtable.SymbolTable) -> set[str]:
  """Names that functions and classes read from the module. Those that the module itself reads were there: it ran."""
  names = set()
  for child in table.get_children():
    names |= {symbol.get_name() for symbol in child.get_symbols() if symbol.is_global()} | global_names(child)
  return names


def use(value: Any) -> None:
  """Uses what a block has defined, by its kind."""
  own = getattr(value, "__module__", None) == "page"
  if isinstance(value, Experiment):
    assert from_json(to_json(value)) == value
  elif own and isinstance(value, type) and issubclass(value, nn.Module):
    check_encoder(value)
  elif own and isinstance(value, type) and hasattr(value, "__getitem__"):
    check_source(value)
  elif own and inspect.isfunction(value) and "logit_scale" in inspect.signature(value).parameters:
    check_loss(value)


def check_loss(loss: Any) -> None:
  """It falls when it is followed downhill."""
  x, y = np.random.default_rng(0).standard_normal((2, 16, 4)).astype(np.float32)
  unit = lambda v: v / jnp.linalg.norm(v, axis=-1, keepdims=True)
  of = lambda x: loss(unit(x), unit(jnp.asarray(y)), logit_scale=jnp.float32(5.0))
  value, gradient = jax.jit(jax.value_and_grad(of))(x)
  assert of(x - 0.1 * gradient) < value


def check_source(source: Any) -> None:
  """Its records hold a picture, a caption and a number; of those looked at, no two are called the same."""
  seen = []
  for split in ("train", "validation"):
    records = source(split)
    for place in range(0, len(records), 100):
      record = records[place]
      Image.open(io.BytesIO(record["image"])).load()
      assert record["captions"]["name"] and record["concept"] >= 0
      seen.append(record["id"])
  assert len(set(seen)) == len(seen) > 2


def check_encoder(encoder: Any) -> None:
  """It encodes an input of the shape that its signature says, in which sizes are fields of its configuration, or 2."""
  config = encoder.__annotations__["config"](**SMALL)
  _, first, *_ = inspect.signature(encoder.__call__).parameters.values()
  size = lambda name: int(name) if name.isdigit() else getattr(config, name, 2)
  inputs = jnp.ones([size(name) for name in first.annotation.dim_str.split()])
  encoded, _ = jax.jit(encoder(config).init_with_output)(jax.random.key(0), inputs)
  assert isinstance(encoded, Encoded)
  assert encoded.tokens.shape[:2] == encoded.mask.shape and encoded.pooled.shape == (len(inputs), config.width)


class Understood(Exception):
  """Raised in place of doing what a command line says."""


@pytest.fixture
def nothing_is_run(monkeypatch):
  def stop(*_, **__):
    raise Understood

  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  for name in (
    "mmjax.cli.started",
    "mmjax.study.started",
    "mmjax.plan.command.fit_mesh",
    "mmjax.finetune.finetune",
    "mmjax.probe.probe",
    "mmjax.generate.generate",
    "mmjax.chat.chat",
    "mmjax.data.__main__._shard",
    "mmjax.data.__main__._inspect",
    "mmjax.deploy.__main__._benchmark",
    "mmjax.deploy.__main__._compare",
    "mmjax.deploy.__main__._export",
    "mmjax.deploy.__main__._prune",
    "mmjax.deploy.__main__._quantize",
    "mmjax.deploy.serving.command.serve",
    "mmjax.deploy.serving.drift.report",
    "mmjax.interop.__main__._convert",
    "mmjax.interop.__main__._inspect",
    "mmjax.interop.__main__._list",
    "mmjax.interop.__main__._package",
  ):
    monkeypatch.setattr(name, stop)


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[f"{where} {line[:40]}" for where, line in COMMANDS])
def test_a_command_is_understood(where, line, nothing_is_run, monkeypatch, pytestconfig):
  understand(shlex.split(line, comments=True), monkeypatch, pytestconfig)


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
  """Fails where a command does not exist, or does not take its options."""
  match words:
    case ["python", "-m", package, *arguments]:
      module = importlib.import_module(package)
      with parsed():
        (importlib.import_module(f"{package}.__main__") if hasattr(module, "__path__") else module).main(arguments)
    case ["python", script, *arguments]:
      with parsed():
        start(script, arguments)
    case ["./scripts/pretrain.sh", *arguments]:
      last = (ROOT / words[0]).read_text(encoding="utf-8").splitlines()[-1]
      assert last == 'exec python experiments/clip_emoji.py train "$@"'
      with parsed():
        start("experiments/clip_emoji.py", ["train", *arguments])
    case ["./scripts/test.sh", *options]:
      last = (ROOT / words[0]).read_text(encoding="utf-8").splitlines()[-1]
      assert last == 'exec "$root/scripts/run_tests.sh" "$@"'
      markers = {marker.partition(":")[0] for marker in pytestconfig.getini("markers")}
      assert not options or (options[0] == "-m" and {*options[1:]} <= markers)
    case ["scripts/launch/local.py", *_]:
      monkeypatch.setattr(sys, "argv", words)
      command = importlib.import_module("scripts.launch.local").parse().command
      assert (ROOT / command[0]).is_file()
    case ["pip", "install", "--no-deps", requirement]:
      ours = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "mmjax").rglob("*.py"))
      assert requirement in ours or requirement in {
        package.pip.removeprefix("--no-deps ") for package in interop.PACKAGES.values()
      }
    case ["pip", "install", *options]:
      extra = re.fullmatch(r"(?:\.|mmjax)\[([\w,-]+)\]", options[-1])
      assert extra and {*extra[1].split(",")} <= asked().keys() and options[:-1] in ([], ["-e"])
    case ["pre-commit", "install"]:
      assert (ROOT / ".pre-commit-config.yaml").is_file()
    case [path]:
      assert (ROOT / path).exists()
    case _:
      pytest.fail(f"{shlex.join(words)}: say here how to find out whether it is right")


def start(script: str, arguments: list[str]) -> None:
  """What the last line of an experiment's script does."""
  assert (ROOT / script).is_file()
  module = importlib.import_module(Path(script).stem)
  what = (module.STUDY, module.EXPERIMENT) if hasattr(module, "STUDY") else (module.EXPERIMENT,)
  module.main(*what, arguments=arguments)


@contextlib.contextmanager
def parsed() -> Iterator[None]:
  """Inside, a command line is understood, or asks for help."""
  try:
    with pytest.raises(Understood):
      yield
  except SystemExit as end:
    assert end.code == 0


@functools.cache
def options_of_commands() -> str:
  """The options of `python -m mmjax.interop convert` and of the commands of `python -m mmjax.deploy`."""
  said = io.StringIO()
  deploy = [
    ("deploy", command) for command in ("export", "prune", "quantize", "compare", "benchmark", "serve", "report")
  ]
  for package, command in [("interop", "convert"), *deploy]:
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
      importlib.import_module(f"mmjax.{package}.__main__").main([command, "--help"])
  return said.getvalue()


OF_SCRIPTS = ("data.source.held-out", "objectives.0.loss.power")
"""Options of the classes that CONTRIBUTING.md defines."""


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, name in OPTIONS if name not in OF_SCRIPTS])
def test_an_option_exists(page, name, monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  value = importlib.import_module("clip_emoji").EXPERIMENT
  if "." not in name:
    others = {field.name for options in (PlanOptions, Finetune) for field in dataclasses.fields(options)}
    assert name in {"help", *others} or f"--{name}" in options_of_commands(), name
    return
  *parts, last = name.removesuffix(".FIELD").replace("-", "_").split(".")
  for part in parts:
    value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
  kinds = of_base(base_of(type(value)), KINDS) if isinstance(value, Kind) else [type(value)]
  assert any(last.removeprefix("no_") in {field.name for field in dataclasses.fields(kind)} for kind in kinds), name


@pytest.mark.parametrize("page", PAGES)
def test_a_script_that_is_named_exists(page):
  for name in (span for span in inline(page) if re.fullmatch(r"[a-z]\w*\.py", span)):
    assert (ROOT / "experiments" / name).is_file(), name


def test_the_tests_above_fail_where_they_should(nothing_is_run, module, monkeypatch, pytestconfig):
  late = "def f(image, text, *, logit_scale):\n  return jnp.sum(image)"
  assert global_names(symtable.symtable(late, "page", "exec")) == {"jnp"}
  for wrong in ("python experiments/clip_emoji.py --run.stepz 3", "python -m mmjax.data shard IN", "pip install .[no]"):
    with pytest.raises((AssertionError, SystemExit)):
      understand(shlex.split(wrong), monkeypatch, pytestconfig)
