"""kill -9 of a process takes its workers with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import multiprocessing, time
from mmjax.data.orphans import end_with_parent

def work():
  end_with_parent(0, 1)
  print("working", flush=True)
  time.sleep(120)

if __name__ == "__main__":
  worker = multiprocessing.get_context("spawn").Process(target=work)
  worker.start()
  print(worker.pid, flush=True)
  time.sleep(120)
"""


def alive(pid: int) -> bool:
  try:
    return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
  except FileNotFoundError:
    return False


def test_a_worker_does_not_outlive_a_process_that_is_killed(tmp_path):
  script = tmp_path / "program.py"
  script.write_text(PROGRAM)
  environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
  with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as parent:
    worker = int(parent.stdout.readline())
    assert parent.stdout.readline() == "working\n" and alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
      time.sleep(0.05)
  assert not alive(worker)
