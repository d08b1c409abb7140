"""Every test runs on eight virtual CPU devices, with strict promotion of dtypes and ranks, and checked shapes."""

import collections
import gc
import os
import socket
from pathlib import Path

from tests import compiled

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The programs are tiny and compiling them takes far longer than running them; this halves it and changes no HLO.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

# What one process has compiled, the others of this run and the next run read from its file, whatever the checkout.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled.folder()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis
import jax
import pytest

from tests import platforms, shapes
from tests.fast import FAST
from tests.skips import EXPECTED, REFERENCES

ROOT = Path(__file__).parents[1]
UNEXPECTED = "UNEXPECTED (not in tests/skips.py)"
CRASHED = 70
"""Exit status if the process of a worker crashed."""
PASSED = Path(os.environ["MMJAX_PASSED"]) if os.environ.get("MMJAX_PASSED") else None
"""File with the names of tests that have passed."""
crashes: list[str] = []
failures: set[str] = set()

# The same inputs every time, and no more than tests have time for: scripts/benchmarks/fuzz.py is the long form.
hypothesis.settings.register_profile("quick", max_examples=50, derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("quick")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
shapes.install("mmjax")  # before anything imports it
platforms.install()
compiled.write_whole()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  """Nothing here may reach beyond this machine: set-up is the only time that downloads."""
  connect = socket.socket.connect

  def local_only(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
      raise AssertionError(f"a connection to {address} was tried")
    return connect(self, address)

  monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def one_device(monkeypatch):
  """Runs as on a laptop: programs for one device compile in two thirds of the time of those for eight."""
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


@pytest.fixture(scope="module")
def every_platform():
  """Traces the branches of all platforms, as outside tests: for tests of what is in a program."""
  with platforms.every():
    yield


def pytest_collection_modifyitems(items):
  """Marks what tests/fast.py lists, and puts its modules last: workers that share the files end at the same time.

  Tests that have passed in the run before a crash are left out; see scripts/run_tests.sh.
  """
  fast = {*FAST}
  passed = set(PASSED.read_text(encoding="utf-8").splitlines()) if PASSED and PASSED.exists() else ()
  items[:] = [item for item in items if item.nodeid not in passed]
  items.sort(key=lambda item: item.nodeid.partition(".py")[0].removeprefix("tests/") in fast)
  for item in items:
    module, _, test = item.nodeid.removeprefix("tests/").partition("::")
    if {module.removesuffix(".py"), f"{module.removesuffix('.py')}::{test}"} & fast:
      item.add_marker(pytest.mark.fast)


def pytest_collection_finish():
  """Looks for garbage less often: what has been imported stays, and most of what tracing makes is in use."""
  gc.freeze()
  gc.set_threshold(10_000, 20, 20)


def pytest_runtest_teardown(item, nextitem):
  """Forgets compiled programs between modules where they take too many mappings of memory.

  Linux gives a process 65,530, of which a program takes several. The compiler crashes when there are no more.
  """
  if nextitem is None or nextitem.path == item.path or compiled.mappings() < compiled.MOST_MAPPINGS:
    return
  jax.clear_caches()
  gc.collect()


def skips(reporter) -> dict[str, int]:
  """{reason: number} of the tests and modules that were skipped; a reason that is not expected says so."""
  return dict(collections.Counter(map(reason, reporter.stats.get("skipped", ()))))


def reason(report) -> str:
  """The reason for a skip. One that tests/skips.py does not list may hide what stopped working."""
  text = report.longrepr[2].removeprefix("Skipped: ")
  if text not in EXPECTED:
    return f"{UNEXPECTED}, {report.nodeid}: {text}"
  marked = "mark.references" in (ROOT / report.nodeid.partition("::")[0]).read_text(encoding="utf-8")
  if text == REFERENCES and not (marked and "references" in getattr(report, "keywords", ["references"])):
    return f"{UNEXPECTED}, {report.nodeid} lacks the marker `references`: {text}"
  return text


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem):
  """Notes the test in which a worker's process crashed."""
  crashes.append(crashitem)


def pytest_runtest_logreport(report):
  """Notes the tests that passed, in the process that hears of all. Those that failed run again after a crash."""
  if report.failed:
    failures.add(report.nodeid)
  over = report.when == "teardown" and report.nodeid not in failures
  if PASSED and "PYTEST_XDIST_WORKER" not in os.environ and over:
    with PASSED.open("a", encoding="utf-8") as file:
      file.write(f"{report.nodeid}\n")


def pytest_sessionfinish(session):
  """Fails the run for an unexpected skip or a crash, and keeps the folders of compiled programs small."""
  if not hasattr(session.config, "workerinput"):
    compiled.trim(compiled.root())
  if crashes:
    session.exitstatus = CRASHED
    return
  reporter = session.config.pluginmanager.getplugin("terminalreporter")
  if session.exitstatus != pytest.ExitCode.OK or reporter is None:
    return
  if any(text.startswith(UNEXPECTED) for text in skips(reporter)):
    session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
  """Lists the skips by their reason."""
  for text, count in sorted(skips(terminalreporter).items()):
    terminalreporter.write_line(f"skipped {count}: {text}")
