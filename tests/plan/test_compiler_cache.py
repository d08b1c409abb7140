"""What is remembered, and for what."""

from pathlib import Path

import pytest

from mmjax.plan import compiler_cache as module
from mmjax.plan.compiler_cache import CompilerCache
from mmjax.plan.topologies import parse_topology
from tests.plan.test_derive import FACTS
from tests.tiny import EXPERIMENT, experiment

V5E = parse_topology("v5e:4x4")


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_sources", lambda: "these")
  cache = CompilerCache(tmp_path / "plan")
  cache.write(EXPERIMENT, V5E, FACTS)
  return cache


def test_the_same_step_is_known_wherever_its_run_is_kept(cache):
  assert cache.read(EXPERIMENT, V5E) == FACTS
  assert cache.read(experiment(run=dict(workdir=Path("elsewhere"), log_every=7)), V5E) == FACTS


@pytest.mark.parametrize(
  "other",
  [
    dict(run=dict(batch_size=32)),
    dict(parallel=dict(fsdp=2)),
    dict(data=dict(views=2)),
    dict(optimizer=dict(ema_decay=0.0)),
  ],
)
def test_another_step_is_not(cache, other):
  assert cache.read(experiment(**other), V5E) is None


def test_nor_is_another_machine_compiler_or_code(cache, monkeypatch):
  assert cache.read(EXPERIMENT, parse_topology("v5e:4x8")) is None
  with monkeypatch.context() as changed:
    changed.setattr(module, "_sources", lambda: "others")
    assert cache.read(EXPERIMENT, V5E) is None
  with monkeypatch.context() as changed:
    changed.setattr(module, "package_version", lambda package: "0.0")
    assert cache.read(EXPERIMENT, V5E) is None
  assert cache.read(EXPERIMENT, V5E) == FACTS


def test_code_that_decides_how_a_step_compiles_is_part_of_the_key(tmp_path, monkeypatch):
  monkeypatch.setattr(module.mmjax, "__file__", str(tmp_path / "__init__.py"))
  (tmp_path / "nn").mkdir()
  before = module._sources()
  (tmp_path / "nn" / "new.py").write_text("x = 1")
  assert module._sources() != before


def test_a_broken_file_or_folder_costs_a_compilation_and_nothing_else(cache, tmp_path):
  (path,) = (tmp_path / "plan").iterdir()
  path.write_text("{ half")
  assert cache.read(EXPERIMENT, V5E) is None
  path.write_text("{}")
  assert cache.read(EXPERIMENT, V5E) is None
  blocked = tmp_path / "file"
  blocked.write_text("")
  CompilerCache(blocked).write(EXPERIMENT, V5E, FACTS)
  assert CompilerCache(blocked / "plan").read(EXPERIMENT, V5E) is None
