"""A process that is gone ends its group: who notices, when, and what is said."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax.parallel.watch import STOPPED, GroupWatch, dead_after

DEAD_AFTER = 4
# Joins the group, adds numbers with the others until something happens to one of them, and then that.
PROGRAM = """
import os, signal, sys, time
import jax
from mmjax.parallel.distributed import process_group
with process_group():
  import jax.numpy as jnp
  from jax.experimental import multihost_utils
  for turn in range(300):
    multihost_utils.process_allgather(jnp.ones(2))
    if turn == 3 and jax.process_index() == int(sys.argv[1]):
      {act}
    time.sleep(0.1)
"""


def group(index: int, act: str, port: int, program: str = PROGRAM) -> list[subprocess.Popen]:
  """Two processes, of which process `index` does `act`."""
  environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_NUM_CPU_DEVICES": "1"}
  environment |= {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
  environment |= {"MMJAX_DEAD_AFTER_SECONDS": str(DEAD_AFTER)}
  command = [sys.executable, "-c", program.format(act=act), str(index)]
  output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
  return [subprocess.Popen(command, env=environment | {"JAX_PROCESS_ID": str(i)}, **output) for i in range(2)]


@pytest.fixture
def port():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def ended(processes: list[subprocess.Popen], first: int) -> tuple[str, float]:
  """(what the survivor said, how long it took it to stop after the first was gone)."""
  try:
    processes[first].wait(timeout=120)
    gone = time.monotonic()
    said = processes[1 - first].communicate(timeout=60)[0]
    return said, time.monotonic() - gone
  finally:
    for process in processes:
      process.kill()
      process.communicate()


def test_a_worker_that_is_killed_is_named_within_the_bound(port):
  processes = group(1, "os.kill(os.getpid(), signal.SIGKILL)", port)
  said, seconds = ended(processes, 1)
  assert processes[0].returncode == STOPPED, said
  assert f"process 1 (on {os.uname().nodename}, pid {processes[1].pid}) has sent no heartbeat" in said
  assert "start the whole group again" in said
  assert seconds < DEAD_AFTER + 10  # a second or two, and the machine's other work


def test_a_coordinator_that_is_killed_ends_the_others(port):
  processes = group(0, "os.kill(os.getpid(), signal.SIGKILL)", port)
  said, seconds = ended(processes, 0)
  # JAX's own watch is the quicker one here: it says that task 0 is gone, and aborts.
  assert processes[1].returncode in (STOPPED, -6), said
  assert "process 0" in said or "leader" in said
  assert seconds < DEAD_AFTER + 10


@pytest.mark.parametrize("index", [0, 1])
def test_an_error_in_one_process_ends_the_others_with_its_words(port, index):
  processes = group(index, "raise ValueError('the record cat.png is bad')", port)
  said, seconds = ended(processes, index)
  assert processes[index].returncode == 1 and processes[1 - index].returncode == STOPPED, said
  assert f"process {index} (on" in said and "stopped: ValueError: the record cat.png is bad" in said
  assert seconds < DEAD_AFTER + 10


STOPS = """
import os, signal, sys, time
import jax
from mmjax.parallel.distributed import process_group
from mmjax.train.interrupt import graceful_interrupt
with process_group():
  import jax.numpy as jnp
  from jax.experimental import multihost_utils
  with graceful_interrupt() as interrupt:
    step = 0
    while not interrupt.reached(step):
      multihost_utils.process_allgather(jnp.ones(2))
      step += 1
      if step == 3 and jax.process_index() == int(sys.argv[1]):
        os.kill(os.getpid(), signal.{act})
      time.sleep(0.02 * (1 + jax.process_index()))
  print("stopped after step", step)
sys.exit(interrupt.exit_status)
"""


@pytest.mark.parametrize(("index", "name"), [(0, "SIGTERM"), (1, "SIGINT")])
def test_all_stop_after_the_same_step_when_one_is_told_to(port, index, name):
  processes = group(index, name, port, STOPS)
  said = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [143, 143], said
  steps = [int(re.findall(r"stopped after step (\d+)", text)[0]) for text in said]
  assert steps[0] == steps[1] >= 3


class Store:
  """The coordinator's key-value store."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    self.values[key] = value

  def key_value_dir_get(self, prefix):
    return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


def test_only_the_silent_are_missed(monkeypatch):
  now = 100.0
  monkeypatch.setattr(time, "monotonic", lambda: now)
  store, left = Store(), []
  watches = [GroupWatch(store, index, 3, 10.0, leave=left.append) for index in range(3)]
  for now in (101.0, 109.0, 117.0):
    watches[1]._beat()
    watches[0]._beat()
    if now < 109.0:
      watches[2]._beat()
    elif now == 109.0:
      watches[2].finish()
  assert not store.key_value_dir_get("mmjax/verdict/")
  now = 128.0  # process 1 is silent since 117; process 2 has finished
  watches[0]._beat()
  ((_, verdict),) = store.key_value_dir_get("mmjax/verdict/")
  assert verdict.startswith("process 1 (on ") and "sent no heartbeat for 10 s" in verdict


def test_one_that_never_came_is_missed(monkeypatch):
  now = 100.0
  monkeypatch.setattr(time, "monotonic", lambda: now)
  store = Store()
  watch = GroupWatch(store, 0, 2, 10.0)
  now = 111.0
  watch._beat()
  assert "process 1 (never heard of)" in store.values["mmjax/verdict/0"]


def test_the_bound_is_checked():
  assert dead_after({}) == 60 and dead_after({"MMJAX_DEAD_AFTER_SECONDS": "2.5"}) == 2.5
  for text in ("soon", "0", "inf", "nan"):
    with pytest.raises(ValueError, match=f"is {text!r}: expected a number of seconds"):
      dead_after({"MMJAX_DEAD_AFTER_SECONDS": text})
