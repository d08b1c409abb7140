"""The short forms of scripts/benchmarks/fuzz.py, soak.py and decode.py."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks import fuzz, fuzz_inputs, soak
from scripts.benchmarks.fuzz import fuzz_targets

BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, timeout=300
  )


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> dict[str, dict]:
  """Every target's counts. In processes of their own: what crashes a library must not crash the tests."""
  done = run("fuzz.py", "--inputs", "150", "--seed", "1", "--out", str(tmp_path_factory.mktemp("fuzz")))
  assert done.stderr == "" or done.returncode == 0, done.stderr
  return {result["target"]: result for result in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_no_hostile_input_crashes_a_parser(name, fuzzed):
  result = fuzzed[name]
  assert result["crashed"] == 0, result
  assert result["accepted"] + result["refused"] == 150
  assert result["accepted"] > 0, "nothing gets past the first check, so nothing behind it is tested"


def test_an_input_that_a_process_dies_of_is_found_and_kept(tmp_path):
  program = f"""
import json, os, pathlib
from scripts.benchmarks import fuzz, fuzz_inputs
out = pathlib.Path({str(tmp_path)!r})
for name, run in (("aborts", lambda data: os.abort()), ("grows", lambda data: bytearray(5 << 30))):
  target = fuzz_inputs.Target([b"0123"], fuzz_inputs.mutated, run, (ValueError,))
  fuzz.fuzz_targets.TARGETS[name] = lambda _, target=target: target
  print(json.dumps(fuzz.isolated(name, 2, 0, out)))
"""
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=BENCHMARKS.parents[1])
  aborted, grown = map(json.loads, done.stdout.splitlines())
  assert aborted["kinds"] == {"SIGABRT": 1} and Path(aborted["input"]).stat().st_size > 0
  assert grown["kinds"] == {"MemoryError outside of mmjax": 2}


def test_a_crash_is_found_and_kept(tmp_path, monkeypatch):
  def broken(_):
    def run(data):
      if b"9" in data:
        raise KeyError(data)

    return fuzz_inputs.Target([b"0123456789"], fuzz_inputs.mutated, run, (ValueError,))

  monkeypatch.setitem(fuzz_targets.TARGETS, "broken", broken)
  result = fuzz.fuzz("broken", 50, seed=0, out=tmp_path)
  assert result["crashed"] > 10 and result["kinds"] == {"KeyError outside of mmjax": result["crashed"]}
  assert len(list(tmp_path.glob("broken-*.input"))) == 2


def test_mutations_are_a_function_of_the_seed_and_all_differ():
  seed = json.dumps({"a": [1, {"b": "c"}], "d": None}).encode()

  def some(number):
    rng = random.Random(number)
    return [fuzz_inputs.json_mutator(rng, seed, [seed]) for _ in range(200)]

  assert some(1) == some(1) != some(2)
  assert len(set(some(1))) > 120


def steps(rng: np.random.Generator, mb_per_minute: float) -> np.ndarray:
  """Five minutes of samples whose noise forgets itself in ten seconds, as memory's does."""
  noise, level = [], 0.0
  for jump in rng.normal(0, 0.3, 300):
    level = 0.9 * level + jump
    noise.append(level)
  return np.array([(s, 100 + mb_per_minute * s / 60 + noise[s], 200.0) for s in range(300)])


def test_growth_is_told_from_noise():
  rng = np.random.default_rng(0)
  flagged = {slope: np.mean([not soak.growth(steps(rng, slope), "main")["within_noise"] for _ in range(200)])
             for slope in (0.0, 1.0)}  # fmt: skip
  assert flagged[0.0] < 0.07  # 2.5%, were the stretches independent
  assert flagged[1.0] > 0.95
  found = soak.growth(steps(rng, 1.0), "main")
  assert abs(found["mb_per_minute"] - 1) < 4 * found["standard_error"] < 1
  assert soak.growth(steps(rng, 1.0), "workers") == {
    "mb": 200.0, "mb_per_minute": 0.0, "standard_error": 0.0, "within_noise": True
  }  # fmt: skip
  assert not soak.growth(steps(rng, 0.0)[:10], "main")["within_noise"], "nothing can be said"


def test_the_error_of_a_slope_is_what_it_scatters_by():
  rng = np.random.default_rng(1)
  minutes = np.arange(300) / 60
  found = [soak.slope(minutes, steps(rng, 0.0)[:, 1], 10) for _ in range(300)]
  slopes, errors = np.array(found).T
  assert 0.8 < errors.mean() / slopes.std() < 1.1


def test_the_soak_runs_kills_and_goes_on():
  done = run("soak.py", "--minutes", "0.1", "--workers", "1", "--kills", "1", "--records", "60", "--rate", "20")
  result = json.loads(done.stdout)
  assert result["kills"] == 1 and result["batches"] > 1 and result["bad_records_replaced"] > 0
  assert 0 < result["longest_after_a_kill_s"] < 60


def test_decoding_is_measured(tmp_path):
  done = run(
    "decode.py", "--size", "96x64", "--images", "4", "--rounds", "1", "--peers", "mmjax", "mmjax-loader",
    "--look", str(tmp_path / "look.png"),
  )  # fmt: skip
  assert json.loads(done.stdout)["per_cpu_s"].keys() == {"mmjax", "mmjax-loader"}, done.stderr
  assert (tmp_path / "look.png").stat().st_size > 10_000
