"""Two processes with two devices each train what one process trains, though one of them is killed on the way.

scripts/benchmarks/processes.py does more: four processes, SIGTERM, and comparison with a group nothing happened to.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmjax.data import Folder, make_loader, make_source, make_tokenizer
from mmjax.train.loop import train
from tests.parallel.group_run import start, write_pictures
from tests.tiny import experiment

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return write_pictures(tmp_path_factory.mktemp("pictures"))


def small(folder: Path, workdir: Path):
  data = {"source": Folder(str(folder)), "dir": str(folder / "cache"), "prefetch": 1}
  return experiment(data=data, run={"workdir": workdir, "steps": STEPS, "save_every": 2})


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
  """The run of this one process, on its eight devices."""
  return train(small(folder, tmp_path_factory.mktemp("alone"))).run


@pytest.fixture(scope="module")
def group(folder, alone, tmp_path_factory):
  """(workdir, what was said) of the group that the launcher started twice. `alone` has made the tokenizer."""
  workdir = tmp_path_factory.mktemp("group")
  # The launcher does not wait until process 0 finds out by itself that process 1 is gone: test_watch.py does that.
  launch = ["--processes", "2", "--devices", "2", "--max-restarts", "2", "--grace", "1"]
  done = start(launch, folder, workdir, STEPS, hurt="kill 1 5")
  assert done.returncode == 0, done.stdout
  return workdir, done.stdout


def lines(workdir: Path) -> list[dict]:
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_group_follows_the_single_process(group, alone):
  found, wanted = lines(group[0]), lines(alone.workdir)
  assert [line["step"] for line in found] == list(range(1, STEPS + 1))  # no gap, no line twice
  np.testing.assert_allclose([line["loss"] for line in found], [line["loss"] for line in wanted], rtol=1e-5)


def test_the_group_was_killed_and_went_on(group):
  workdir, said = group
  assert said.count("4 cpu device(s) (data 4 x fsdp 1 x model 1)") == 2  # two starts, each said by one process
  assert "process 1 was killed by SIGKILL; stopping the others" in said
  (resumed,) = re.findall(r"resumed after step (\d+)", said)
  assert resumed in ("2", "4")  # what was on the disk when process 1 was killed, asking for its fifth batch
  assert max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()) == STEPS


def test_the_group_measures_its_model(group):
  (first, *_) = json.loads((group[0] / "results.json").read_text())
  assert first["step"] == STEPS and first["n"] > 5 and "image_retrieval_recall@1" in first["metrics"]


def test_each_process_decodes_the_pictures_that_it_shows_only(group, folder, alone):
  """In evaluation, too: of the one batch a process has half of the rows, of which the last ones repeat a picture."""
  source = make_source(small(folder, alone.workdir).data, "validation")
  names = [record["id"] for record in source]
  size = 1 << (len(names) - 1).bit_length()
  decoded = [(group[0] / f"decoded-{i}.txt").read_text().splitlines() for i in range(2)]
  assert 4 < size // 2 < len(names)
  assert decoded[0] == names[: size // 2] and set(decoded[1]) == set(names[size // 2 :])


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
