"""Latency and throughput: numbers by hand, and a tiny export."""

import json

import numpy as np
import pytest

from mmjax.deploy import DeployError, export, load
from mmjax.deploy.__main__ import main
from mmjax.deploy.timing import _row, benchmark
from tests.deploy import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  runs.needs_stablehlo()
  return export(runs.classifier(tmp_path_factory.mktemp("runs") / "run"), "stablehlo")


def test_percentiles_and_throughput_of_known_times(folder):
  row = _row(load(folder), "classify", 8, np.arange(1, 102) / 1000)  # 1 ms to 101 ms
  assert row == {
    "part": "classify", "format": "stablehlo", "dtype": "float32", "batch": 8,
    "p50_ms": 51.0, "p95_ms": 96.0, "p99_ms": 100.0, "per_second": round(8 / 0.051, 1),
  }  # fmt: skip


def test_the_warm_up_is_not_timed(folder, monkeypatch):
  """The first call of a size compiles, which takes far longer than a call."""
  rows = benchmark(folder, (1, 2), calls=5, warm_up=1)
  assert [row["batch"] for row in rows] == [1, 2]
  assert all(0 < row["p50_ms"] <= row["p99_ms"] < 100 for row in rows)


def test_command(folder, tmp_path, capsys):
  numbers, plot = tmp_path / "a.json", tmp_path / "a.svg"
  options = ["--batches", "1", "4", "--calls", "3", "--warm-up", "1", "--json", str(numbers), "--plot", str(plot)]
  assert main(["benchmark", str(folder), *options]) == 0
  shown = capsys.readouterr().out
  assert "p99_ms" in shown and "classify" in shown
  assert [row["batch"] for row in json.loads(numbers.read_text())] == [1, 4]
  assert "examples per second" in plot.read_text()


def test_bad_numbers_are_refused(folder, tmp_path):
  with pytest.raises(DeployError, match="batch sizes go from 1 to 64"):
    benchmark(folder, (65,))
  with pytest.raises(DeployError, match="calls and the warm-up from 1"):
    benchmark(folder, (1,), warm_up=0)
  from mmjax.deploy.timing import draw

  with pytest.raises(DeployError, match=r"a plot is a file \.svg"):
    draw([], tmp_path / "plot.txt")
