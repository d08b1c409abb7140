"""The short form of scripts/benchmarks/fuzz_shards.py, and a proof that it finds what it is for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import fuzz_shards
from scripts.benchmarks.fuzz_shards import slow_shards

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "fuzz_shards.py"


@pytest.mark.parametrize(("kind", "cases"), [("tar", 120), ("array-record", 60)])
def test_the_readers_are_equal_on_random_shards(tmp_path, kind, cases):
  counts = fuzz_shards.fuzz(kind, cases, seed=1, out=tmp_path)
  assert counts["cases"] == cases and counts["differ"] == 0, list(tmp_path.iterdir())
  assert counts["records"] > cases and counts["faults"] > cases // 3


def test_a_difference_is_found_and_kept(tmp_path, monkeypatch):
  monkeypatch.setattr(slow_shards, "IMAGES", {"jpg", "jpeg", "png", "webp", "tif", "npy"})
  counts = fuzz_shards.fuzz("tar", 60, seed=1, out=tmp_path)
  assert 0 < counts["differ"] == len(list(tmp_path.glob("case-*.tar"))) < 20


def test_the_command_counts(tmp_path):
  command = [sys.executable, str(SCRIPT), "--cases", "3", "--out", str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  found = [json.loads(line) for line in done.stdout.splitlines()]
  assert [result["kind"] for result in found] == ["tar", "array-record"]
  assert all((result["cases"], result["differ"]) == (3, 0) for result in found)
