"""The main path needs no network: data, training, evaluation and report, in a process that has none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, socket, sys

def refuse(event, arguments):  # Python's own sockets and look-ups; whatever else there is finds no network here
  if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
    if event == "socket.connect" and arguments[0].family == socket.AF_UNIX:
      return
    with open(sys.argv[1], "a") as file:
      file.write(f"{event} {arguments[1:] if event == 'socket.connect' else arguments}\\n")
    raise OSError(f"refused: {event} {arguments}")

sys.addaudithook(refuse)
from mmjax.cli import main
from tests.tiny import EXPERIMENT

main(EXPERIMENT, arguments=sys.argv[2:])
"""


def without_network() -> list[str]:
  """What starts a command in a network namespace of its own, without an interface; empty where that is not allowed."""
  unshare = shutil.which("unshare")
  if unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode == 0:
    return [unshare, "-rn"]
  return []


def test_the_main_path_asks_nobody(tmp_path):
  tried, workdir = tmp_path / "tried.txt", tmp_path / "run"
  options = ["--data.dir", tmp_path / "data", "--run.workdir", workdir, "--run.steps", "2"]
  done = subprocess.run(
    [*without_network(), sys.executable, "-c", PROGRAM, tried, "train", *map(str, options)],
    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert done.returncode == 0, done.stdout
  assert not tried.exists(), tried.read_text()
  for name in ("metrics.jsonl", "results.json", "report.html"):
    assert (workdir / name).stat().st_size > 100
