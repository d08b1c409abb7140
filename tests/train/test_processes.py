"""Two processes of jax.distributed train what one process trains."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from mmjax.parallel.distributed import start_distributed
start_distributed()
from mmjax.train.loop import train
from tests.tiny import experiment
train(experiment(data={"dir": sys.argv[1]}, run={"workdir": Path(sys.argv[2]), "steps": 4}))
"""


def start(data_dir: Path, workdir: Path, **group: str) -> subprocess.Popen:
  environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **group}
  command = [sys.executable, "-c", PROGRAM, str(data_dir), str(workdir)]
  return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def losses(workdir: Path) -> list[float]:
  return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_follow_one(tmp_path):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  group = {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": address}
  alone = start(tmp_path / "data", tmp_path / "one")
  assert alone.wait(timeout=240) == 0, alone.stdout.read()
  pair = [start(tmp_path / "data", tmp_path / "two", JAX_PROCESS_ID=str(i), **group) for i in range(2)]
  said = [process.communicate(timeout=240)[0] for process in pair]
  assert [process.returncode for process in pair] == [0, 0], said
  assert "batch 16 on 2 cpu device(s)" in said[0] and "batch 16" not in said[1]
  np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
