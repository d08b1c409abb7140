"""What the tests of training share: compiled steps, and a data set of a few emoji."""

import signal
from collections.abc import Iterator
from types import FrameType

import jax
import pytest

from mmjax.train import loop
from mmjax.train.setup import prepare
from tests.train.shared import prepared


@pytest.fixture(scope="module", autouse=True)
def shared_compilations() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    shared = lambda experiment, core, *, kinds: prepared(experiment) if core is None else prepare(experiment, core)
    patch.setattr(loop, "prepare", shared)
    yield


@pytest.fixture(scope="module")
def quick_compilations() -> Iterator[None]:
  """Seconds instead of minutes: for steps that are small, and run twice."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
  return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def no_signal_ends_the_tests() -> Iterator[None]:
  """Runs are sent signals here; one that comes when no run listens fails its test, and does not end the process."""

  def late(number: int, _: FrameType | None) -> None:
    pytest.fail(f"{signal.Signals(number).name} came when no run was listening")

  before = {number: signal.signal(number, late) for number in (signal.SIGTERM, signal.SIGUSR1)}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)
