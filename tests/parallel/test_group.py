"""Two processes with two devices each train what one process trains, whatever happens to one of them on the way.

scripts/benchmarks/processes.py does the same with four processes, and against a group that nothing happened to.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.data import make_loader, make_source, make_tokenizer
from mmjax.train.loop import train
from tests.tiny import experiment

HERE = Path(__file__).parent
PICTURES, STEPS = 240, 8
# What happens: process 1 is killed (-9); then process 0 gets a SIGTERM; then all goes well.
HURT = "kill 1 5, term 0 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Pictures enough for each to be seen once at most in these steps, so that no two processes share one."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  for number in range(PICTURES):
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
  rows = "".join(f"{number}.png,number {number} of them\n" for number in range(PICTURES))
  (folder / "captions.csv").write_text("image,caption\n" + rows)
  return folder


def small(folder: Path, workdir: Path):
  data = {"source": "folder", "path": str(folder), "dir": str(folder / "cache"), "limit": None, "prefetch": 1}
  return experiment(data=data, run={"workdir": workdir, "steps": STEPS, "save_every": 2})


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
  """The run of this one process, on its eight devices."""
  return train(small(folder, tmp_path_factory.mktemp("alone"))).run


@pytest.fixture(scope="module")
def group(folder, alone, tmp_path_factory):
  """(workdir, what was said) of the group that the launcher started three times. `alone` has made the tokenizer."""
  workdir = tmp_path_factory.mktemp("group")
  launcher = str(HERE.parents[1] / "scripts" / "launch" / "local.py")
  # The launcher does not wait until process 0 finds out by itself that process 1 is gone: test_watch.py does that.
  launch = [launcher, "--processes", "2", "--devices", "2", "--max-restarts", "3", "--grace", "5"]
  settings = {"data.source": "folder", "data.path": folder, "data.dir": folder / "cache", "data.limit": None}
  settings |= {"data.prefetch": 1, "run.workdir": workdir, "run.steps": STEPS, "run.save-every": 2}
  options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
  cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  done = subprocess.run(
    [sys.executable, *launch, str(HERE / "group_run.py"), "train", *options],
    env=os.environ | cache | {"HURT": HURT},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=500,
  )
  assert done.returncode == 0, done.stdout
  return workdir, done.stdout


def lines(workdir: Path) -> list[dict]:
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_group_follows_the_single_process(group, alone):
  found, wanted = lines(group[0]), lines(alone.workdir)
  assert [line["step"] for line in found] == list(range(1, STEPS + 1))  # no gap, no line twice
  np.testing.assert_allclose([line["loss"] for line in found], [line["loss"] for line in wanted], rtol=1e-5)


def test_the_group_was_killed_stopped_and_resumed(group):
  workdir, said = group
  assert said.count("4 cpu device(s) (data 4 x fsdp 1 x model 1)") == 3  # three starts, each said once
  assert "process 1 was killed by SIGKILL; stopping the others" in said
  stopped = re.findall(r"stopped after step (\d+)", said)
  resumed = re.findall(r"resumed after step (\d+)", said)
  # The SIGTERM of one process: both stopped at the same step, or the save, which is a common effort, would have hung.
  assert len(stopped) == 1 and resumed[-1] == stopped[0] and said.count("starting the group again") == 2
  assert resumed[0] in ("2", "4")  # what was on the disk when process 1 was killed, asking for its fifth batch
  assert sorted(path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())[-1] == str(STEPS)


def test_the_group_measures_its_model(group):
  (first, *_) = json.loads((group[0] / "results.json").read_text())
  assert first["step"] == STEPS and first["n"] > 5 and "image_retrieval_recall@1" in first["metrics"]


def test_each_process_reads_its_own_examples_only(group, folder, alone):
  data = small(folder, alone.workdir).data
  source = make_source(data, "train")
  tokenizer = make_tokenizer(data, source)
  batches = make_loader(data, source, tokenizer, image_size=16, batch_size=16, process_index=0, process_count=1)
  order = np.stack([next(batches)["index"] for _ in range(STEPS + 5)])  # and what is read ahead
  batches.close()
  asked = [{int(line) for line in (group[0] / f"asked-{i}.txt").read_text().split()} for i in range(2)]
  for process, rows in enumerate((slice(0, 8), slice(8, 16))):
    assert set(order[:STEPS, rows].ravel()) <= asked[process] <= set(order[:, rows].ravel())
  assert not asked[0] & asked[1]
