"""The benchmarks run, tiny, and --check fails where a claim does not hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import decode, generation, loss, plan_memory, plan_table, train_step, weights

BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess:
  command = [sys.executable, str(BENCHMARKS / script), "--tiny", *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_losses_are_measured_and_their_temporaries_bounded(tmp_path):
  done = run("loss.py", "--losses", "mmjax.clip", "dense.clip", "--out", tmp_path / "loss")
  assert done.returncode == 0, done.stderr
  result = json.loads((tmp_path / "loss.json").read_text())
  assert [row["loss"] for row in result["times"]] == ["mmjax.clip", "dense.clip"]
  assert all(row["cpu_s"] > 0 for row in result["times"])
  assert loss.missed({"times": [], "temporaries": result["temporaries"]}) == []  # by the compiler: no clock is read
  (row,) = result["temporaries"]
  assert row["dense.clip"] > 4 * row["mmjax.clip"]
  assert (tmp_path / "loss.png").stat().st_size > 10_000


def loss_row(name, n=8192, cpu_s=1.0, extra_mb=100.0, value=2.0):
  return {"loss": name, "n": n, "cpu_s": cpu_s, "extra_mb": extra_mb, "value": value}


def temporaries(devices, kib):
  return {"devices": devices, "mmjax.clip": kib * 1024, "mmjax.siglip": kib * 1024}


@pytest.mark.parametrize(
  ("times", "rows", "said"),
  [
    ([loss_row("mmjax.clip", cpu_s=1.3), loss_row("dense.clip", extra_mb=500)], [], "1.30 times the CPU time of dense"),
    ([loss_row("mmjax.siglip", cpu_s=1.1), loss_row("open_clip.siglip", extra_mb=500)], [], "of open_clip.siglip"),
    ([loss_row("mmjax.clip"), loss_row("dense.clip", extra_mb=150)], [], "0.67 times the memory of dense.clip"),
    ([loss_row("mmjax.clip", value=2.1), loss_row("dense.clip", extra_mb=500)], [], "is 2.1, dense.clip is 2.0"),
    ([{"loss": "mmjax.clip", "n": 64, "failed": "out of memory"}], [temporaries(1, 1)], "N = 64 failed: out of memory"),
    ([loss_row("mmjax.clip")], [], "nothing was compared"),
    ([], [temporaries(2, 10_241)], "10,241 KiB of temporaries"),
    ([], [temporaries(1, 100), temporaries(2, 400), temporaries(8, 410)], "grow with the devices"),
    ([], [{"devices": 2, "failed": "no memory"}], "no memory"),
  ],
)
def test_a_loss_that_misses_a_bound_is_named(times, rows, said):
  assert said in "\n".join(loss.missed({"times": times, "temporaries": rows}))


def test_losses_that_keep_their_bounds_pass():
  times = [loss_row("mmjax.clip", cpu_s=1.15), loss_row("dense.clip", extra_mb=210)]
  times += [loss_row("mmjax.clip", n=4096), loss_row("dense.clip", n=4096)]  # one tile: as large as dense
  times += [loss_row("mmjax.clip", n=32_768), {"loss": "open_clip.clip", "n": 32_768, "failed": "out of memory"}]
  assert loss.missed({"times": times, "temporaries": [temporaries(1, 1565), temporaries(2, 4649)]}) == []


def test_training_steps_are_measured(tmp_path):
  done = run("train_step.py", "--output", tmp_path / "steps.json")
  assert done.returncode == 0, done.stderr
  records = json.loads((tmp_path / "steps.json").read_text())
  assert [record["peer"] for record in records] == ["mmjax", "plain"]
  assert all(record["images_per_cpu_second"] > 0 for record in records)
  assert all(0 < record["last_loss"] < 10 for record in records)


def steps(**peers):
  """Records of peers: images per CPU second, peak MB."""
  return [
    {"peer": name.replace("_remat", "+remat"), "images_per_cpu_second": speed, "peak_mb": memory}
    for name, (speed, memory) in peers.items()
  ]


@pytest.mark.parametrize(
  ("records", "said"),
  [
    (steps(mmjax=(10, 1), open_clip=(11, 1)), "0.91 times the images per CPU second of open_clip"),
    (steps(mmjax=(10, 1), plain=(9, 1), big_vision=(11, 1)), "of big_vision"),
    (steps(mmjax=(10, 5), mmjax_remat=(8, 4)), "mmjax+remat makes 0.80 times"),
    (steps(mmjax=(10, 5), mmjax_remat=(10, 6)), "1.20 times the memory of mmjax"),
    (steps(mmjax=(10, 1)), "nothing was compared"),
  ],
)
def test_a_step_that_misses_a_bound_is_named(records, said):
  (fault,) = train_step.missed(records)
  assert said in fault


def test_steps_that_keep_their_bounds_pass():
  assert train_step.missed(steps(mmjax=(10, 5), mmjax_remat=(9.5, 4), open_clip=(9, 1), plain=(6, 9))) == []


def test_decoding_is_measured():
  done = run("decode.py", "--peers", "mmjax", "pillow")
  assert done.returncode == 0, done.stderr
  row = json.loads(done.stdout)
  assert row["ratios"]["mmjax to pillow"] == pytest.approx(
    row["per_cpu_s"]["mmjax"] / row["per_cpu_s"]["pillow"], rel=0.1
  )


def test_decoding_that_misses_a_bound_is_named():
  row = lambda **ratios: {"size": "500x375", "ratios": {name.replace("_to_", " to "): r for name, r in ratios.items()}}
  assert decode.missed([row(mmjax_to_torchvision=2.1), row(mmjax_to_pillow=1.6)]) == []
  (fault,) = decode.missed([row(mmjax_to_torchvision=2.1), row(mmjax_to_torchvision=1.7)])
  assert fault == "500x375: mmjax makes 1.70 times the images per CPU second of torchvision; the bound is 1.95"
  assert "nothing was compared" in decode.missed([row()])[0]


def test_generation_is_measured():
  done = run("generation.py", "--check")
  assert done.returncode == 0, done.stderr
  assert [line.split()[1] for line in done.stdout.splitlines()[2:]] == ["256", "512"]


def test_a_cache_that_misses_a_bound_is_named():
  good = [(32, 10.0, 4.0, 50.0), (512, 11.0, 11.0, 1000.0)]
  assert generation.missed(good) == []
  (fault,) = generation.missed([good[0], (512, 10.0, 10.0, 300.0)])
  assert fault == "at 512 tokens the cache makes one 30.0 times as fast; the bound is 32"
  assert generation.missed([good[0], (512, 10.0, 10.0, 300.0)], generation.LEAST_TINY_GAIN) == []
  (fault,) = generation.missed([good[0], (512, 10.0, 10.0, 30.0)], generation.LEAST_TINY_GAIN)
  assert "3.0 times as fast; the bound is 4" in fault
  (fault,) = generation.missed([good[0], (512, 16.0, 10.0, 1000.0)])
  assert "1.60 times what it takes at 32" in fault
  assert "one length" in generation.missed(good[:1])[0]


def test_planned_memory_is_measured():
  done = run("plan_memory.py", "--check")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith("| tests/tiny.py | 1 |")


def test_a_plan_that_is_far_off_is_named():
  assert plan_memory.missed([("a", 2, 91, 100), ("b", 1, 109, 100)]) == []
  (fault,) = plan_memory.missed([("a", 2, 91, 100), ("b", 1, 112, 100)])
  assert fault == "b on 1 devices: planned 1.12 of what was measured; the bound is 10%"


def test_configurations_are_planned(tmp_path):
  done = run(
    "plan_table.py", "--check", "--only", "clip_l14_1m", "--topologies", "cpu:2", "--data-dir", tmp_path,
    "--out", tmp_path / "plan.md",
  )  # fmt: skip
  (row,) = plan_table.table((tmp_path / "plan.md").read_text()).values()
  assert (row["configuration"], row["batch"], row["mesh (data x fsdp)"], row["pieces"]) == (
    "clip_l14_1m",
    "16",
    "1 x 2",
    "2",
  )
  assert done.returncode == 0, done.stderr
  (fault,) = plan_table.missed({("siglip_b16", "cpu:2"): row}, plan_table.TINY)
  assert fault == "siglip_b16 on cpu:2: there is no such row to compare with; there are clip_l14_1m on cpu:2"


def test_the_page_of_plans_keeps_its_own_bounds_and_a_worse_row_is_named():
  page = plan_table.table(plan_table.PAGE.read_text(encoding="utf-8"))
  assert len(page) == 28 and plan_table.missed(page, page) == []
  place = ("clip_l14", "v5e:16x16")
  worse = lambda **cells: plan_table.missed({place: {**page[place], **cells}}, page)
  assert worse(MFU="54.9%") == ["clip_l14 on v5e:16x16 reaches an MFU of 54.9%; the bound is 55.0%"]
  assert "fits in 2 pieces only; PLAN.md has 1" in worse(pieces="2")[0]
  assert "does not fit, as it did" in worse(fits="no")[0]
  assert "not planned: no compiler" in worse(fits="", MFU="", pieces="", jax="not planned: no compiler")[0]


def test_weights_are_loaded_and_embed(tmp_path):
  done = run(
    "weights.py", "--peers", "mmjax", "--readers", "safetensors", "mmjax", "--output", tmp_path / "weights.json"
  )
  assert done.returncode == 0, done.stderr
  result = json.loads((tmp_path / "weights.json").read_text())
  assert [row["reader"] for row in result["loading"]] == ["safetensors", "mmjax"]
  assert all(row["peak_mb"] > row["base_mb"] > 0 < row["cpu_seconds"] for row in result["loading"])
  assert [(row["tower"], row["peer"]) for row in result["embedding"]] == [("tiny", "mmjax")]


def weights_result(time=1.4, memory=1.2, speed=1.0):
  load = lambda reader, time, memory: {"reader": reader, "cpu_seconds": time, "peak_mb": memory * 100, "file_mb": 100}
  embed = lambda peer, speed: {"tower": "b32", "peer": peer, "images_per_cpu_second": speed}
  loading = [load("safetensors", 1.0, 2.0), load("mmjax", time, memory)]
  return {"loading": loading, "embedding": [embed("mmjax", speed), embed("transformers", 1.0)]}


def test_weights_that_miss_a_bound_are_named():
  assert list(weights.missed(weights_result())) == []
  assert list(weights.missed(weights_result(time=1.6, memory=1.4, speed=0.9))) == [
    "mmjax loads in 1.60 times the time of safetensors; the bound is 1.5",
    "mmjax peaks at 1.40 times the file; the bound is 1.3",
    "b32: mmjax embeds 0.90 times the images of transformers; the bound is 1",
  ]
  alone = {name: rows[:1] for name, rows in weights_result().items()}
  assert list(weights.missed(alone)) == [
    "loading was not compared with safetensors",
    "b32: embeddings were not compared with transformers",
  ]
