#!/usr/bin/env python3
"""Starts a command several times on this machine, as one group of jax.distributed, and keeps the group going.

  scripts/launch/local.py --processes 2 --max-restarts 3 experiments/clip_emoji.py train --run.workdir runs/two
  scripts/launch/local.py --processes 4 --devices 2 experiments/clip_emoji.py train      # CPU: 2 virtual devices each

What torchrun is to PyTorch. Each process gets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; its output
is printed with its number in front. When one process dies or fails, the others are stopped, and the group is started
again (--max-restarts times) and goes on from its newest checkpoint; a mistake of the user's (status 2) is not tried
again. SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM: all processes finish the same step, save, and stop.

One process with all the devices is the faster way to use one machine; this is for trying out, on a laptop, what will
run on many, and for hosts whose GPUs are to have a process each (--gpus: process N sees GPU N only).

Exit status: 0; 128 + signal when the group was told to stop; or the status of the first process that failed.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import NoReturn

USAGE = 2  # what mmjax exits with where the command line, the data or a checkpoint is wrong


class Group:
  """The processes of one attempt. Each leads a session of its own, so that its data workers end with it."""

  def __init__(self, options: argparse.Namespace):
    address = f"127.0.0.1:{options.port or free_port()}"
    self.processes = [start(options, index, address) for index in range(options.processes)]
    self._printers = [threading.Thread(target=relay, args=(i, p), daemon=True) for i, p in enumerate(self.processes)]
    for printer in self._printers:
      printer.start()

  def send(self, number: int) -> None:
    for process in self.processes:
      if process.poll() is None:
        os.killpg(process.pid, number)

  def failed(self) -> int | None:
    """The first process found to have ended with another status than 0."""
    return next((i for i, process in enumerate(self.processes) if process.poll() not in (None, 0)), None)

  def running(self) -> bool:
    return any(process.poll() is None for process in self.processes)

  def wait(self, seconds: float) -> bool:
    """True if all have ended within that time."""
    deadline = time.monotonic() + seconds
    while self.running() and time.monotonic() < deadline:
      time.sleep(0.05)
    return not self.running()

  def close(self) -> None:
    """Ends whatever is left, data workers too, and prints the rest of what was said."""
    for process in self.processes:
      with contextlib.suppress(ProcessLookupError):  # the whole session has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    for printer in self._printers:
      printer.join(timeout=5)


def start(options: argparse.Namespace, index: int, address: str) -> subprocess.Popen:
  environment = dict(os.environ, PYTHONUNBUFFERED="1", JAX_COORDINATOR_ADDRESS=address)
  environment |= {"JAX_NUM_PROCESSES": str(options.processes), "JAX_PROCESS_ID": str(index)}
  if options.devices:
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(options.devices)}
  if options.gpus:
    environment["CUDA_VISIBLE_DEVICES"] = str(index)
  if options.dead_after:
    environment["MMJAX_DEAD_AFTER_SECONDS"] = str(options.dead_after)
  return subprocess.Popen(
    [sys.executable, *options.command],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
    preexec_fn=die_with_parent,
  )


def die_with_parent() -> None:
  """Linux: should this launcher be killed with -9, its processes save and stop, as on SIGTERM."""
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def relay(index: int, process: subprocess.Popen) -> None:
  assert process.stdout is not None
  for line in process.stdout:
    sys.stdout.buffer.write(f"[{index}] ".encode() + line)
    sys.stdout.buffer.flush()


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def describe(status: int) -> str:
  return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def say(text: str) -> None:
  print(f"[local] {text}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace, told: list[int]) -> int:
  """One attempt. Returns the exit status of the group."""
  group = Group(options)
  forwarded = False
  try:
    while group.running() and group.failed() is None:
      time.sleep(0.05)
      if told and not forwarded:
        say(f"{signal.Signals(told[0]).name}: the group saves and stops")
        group.send(signal.SIGTERM)
        forwarded = True
      if told.count(signal.SIGINT) > 1:  # Ctrl-C twice: at once
        group.send(signal.SIGKILL)
    first = group.failed()
    if first is None:
      return 0
    status = group.processes[first].returncode
    # Where all were told to stop they end one after the other: the last of them may still be writing.
    if status != 128 + signal.SIGTERM:
      say(f"process {first} {describe(status)}; stopping the others")
      group.send(signal.SIGTERM)
    if not group.wait(options.grace):
      say(f"still running after {options.grace:g} s: killed")
    return status if status > 0 else 128 - status
  finally:
    group.close()


def main() -> NoReturn:
  options = parse()
  told: list[int] = []
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda received, _: told.append(received))
  for restarts in range(options.max_restarts + 1):
    status = run(options, told)
    if told or status in (0, USAGE):
      break
    if restarts < options.max_restarts:
      say(f"starting the group again ({restarts + 1} of at most {options.max_restarts} times)")
  sys.exit(128 + told[0] if told and status else status)


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("-n", "--processes", type=int, required=True, help="how many")
  parser.add_argument("--devices", type=int, help="virtual CPU devices of each process")
  parser.add_argument("--gpus", action="store_true", help="process N sees GPU N only")
  parser.add_argument("--max-restarts", type=int, default=0, help="how often a group that failed is started again")
  parser.add_argument("--grace", type=float, default=30, help="seconds that the others have to stop (default: 30)")
  parser.add_argument("--dead-after", type=float, help="seconds after which a silent process counts as dead (60)")
  parser.add_argument("--port", type=int, help="of the coordinator (default: one that is free)")
  parser.add_argument("command", nargs=argparse.REMAINDER, help="a Python script, or -m module, and its arguments")
  options = parser.parse_args()
  if options.processes < 1 or not options.command:
    parser.error("needs --processes of at least 1 and a script")
  return options


if __name__ == "__main__":
  main()
