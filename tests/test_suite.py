"""The test suite's own settings."""

import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxlib
import pytest
from jax import lax
from jax._src.lru_cache import LRUCache

from tests import compiled, platforms
from tests.fast import FAST

TESTS = Path(__file__).parent


def test_what_is_listed_as_fast_exists():
  for name in FAST:
    module, _, test = name.partition("::")
    assert f"def {test or 'test_'}" in (TESTS / f"{module}.py").read_text(encoding="utf-8"), name


def test_programs_are_kept_in_the_user_s_folder_for_this_jaxlib_and_processor(tmp_path):
  name = f"jaxlib-{jaxlib.__version__}-{compiled.processor()}"
  assert compiled.folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "mmjax" / "tests" / name
  assert compiled.folder({}) == Path.home() / ".cache" / "mmjax" / "tests" / name


def test_the_programs_that_nobody_used_for_longest_are_deleted_until_the_rest_is_small(tmp_path):
  for age, name in enumerate(("new/newest", "old/older", "new/oldest")):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x" * 10)
    os.utime(tmp_path / name, (1000 - age, 900))
  compiled.trim(tmp_path, largest=20)
  assert {path.name for path in tmp_path.glob("*/*")} == {"newest", "older"}


def test_a_program_is_read_when_all_of_it_is_written_and_not_before(tmp_path, monkeypatch):
  cache = LRUCache(str(tmp_path), max_size=-1)
  with monkeypatch.context() as patch:
    patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # killed after writing
    with pytest.raises(KeyboardInterrupt):
      cache.put("program", b"half")
  assert cache.get("program") is None
  (tmp_path / "program-cache").write_bytes(b"ha")  # by a process without this, which was killed while it wrote
  cache.put("program", b"whole")
  assert LRUCache(str(tmp_path), max_size=-1).get("program") == b"whole"


def test_what_failed_before_a_crash_runs_again(tmp_path, monkeypatch, pytestconfig):
  (hooks,) = (plugin for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "CRASHED"))
  monkeypatch.setattr(hooks, "PASSED", tmp_path / "passed")
  monkeypatch.setattr(hooks, "failures", set())
  monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
  for name, failing in (("good", None), ("bad", "call"), ("unmade", "setup"), ("untidy", "teardown")):
    for when in ("setup", "call", "teardown"):
      hooks.pytest_runtest_logreport(SimpleNamespace(nodeid=name, when=when, failed=when == failing))
  assert (tmp_path / "passed").read_text() == "good\n"


def test_a_cpu_s_branch_is_traced_and_the_others_must_give_the_same():
  double = lambda x: (x * 2.0).sum()
  other = lambda x: (x + x).sum()
  traced = lambda: str(jax.make_jaxpr(lambda x: lax.platform_dependent(x, cpu=double, default=other))(jnp.ones(3)))
  assert traced().count("reduce_sum") == 1
  assert float(lax.platform_dependent(jnp.ones(3), tpu=other, default=double)) == 6.0
  with pytest.raises(AssertionError, match="a CPU's branch"):
    lax.platform_dependent(jnp.ones(3), tpu=lambda x: x, default=double)
  with platforms.every():
    assert traced().count("reduce_sum") == 2
