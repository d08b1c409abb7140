"""Planning for real: a process of its own, the compilers that are installed, and memory beside a measured run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import mmjax.plan
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.errors import ConfigError
from mmjax.experiment import to_json
from mmjax.parallel.mesh import make_mesh
from mmjax.plan import PlanError
from mmjax.plan.api import as_planned
from mmjax.plan.build import batch_arguments, lacks_memory, needed_bytes
from mmjax.plan.process import environment
from mmjax.plan.topologies import parse_topology
from mmjax.train.setup import prepare
from tests.compilers import needs_gpu_compiler, needs_tpu_compiler
from tests.tiny import EXPERIMENT, experiment

ROOT = Path(__file__).parents[2]
# Activations of some hundred megabytes, which a process's other memory does not drown.
MODEL = dataclasses.replace(
  EXPERIMENT.model,
  image=ViTConfig(image_size=64, patch_size=8, width=96, depth=2, num_heads=4, pool="map"),
  text=TextConfig(vocab_size=384, max_length=8, width=96, depth=1, num_heads=4, eos_id=1),
)
HEAVY = dataclasses.replace(EXPERIMENT, model=MODEL, run=dataclasses.replace(EXPERIMENT.run, batch_size=256))


def in_folder(base, folder):
  return dataclasses.replace(base, data=dataclasses.replace(base.data, dir=str(folder)))


def heavy_flops(plan):
  """Of a step of HEAVY over all devices.

  The model's count has two things that are not computed: the gradient of the pictures themselves, and the last text
  block (depth 1) at the 7 tokens that are not read, but for their keys and values.
  """
  pictures = 256 * 2 * 64 * (8 * 8 * 3) * 96
  unread = 3 * 256 * 2 * 7 * (2 + 8) * 96**2
  return plan.devices * plan.model_flops - pictures - unread


def test_predicted_memory_is_what_a_run_takes(tmp_path, monkeypatch):
  before = dict(os.environ), jax.device_count()
  heavy = in_folder(HEAVY, tmp_path)
  phases = []
  plan = mmjax.plan.plan(heavy, "cpu:2", say=phases.append)
  assert phases[-2:] == ["compiling", "reading the program"]
  assert (dict(os.environ), jax.device_count()) == before, "the caller's process stays as it was"
  planned, _ = as_planned(heavy, parse_topology("cpu:2"))
  command = [sys.executable, str(ROOT / "tests/plan/measure.py"), "2"]
  run = subprocess.run(
    command,
    input=json.dumps(to_json(planned)),
    env=environment(parse_topology("cpu:2"), tmp_path),
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0, run.stderr[-2000:]
  measured = int(run.stdout)
  assert 2 * plan.peak_bytes > 300e6
  assert 2 * plan.peak_bytes == pytest.approx(measured, rel=0.15)
  # What is known without a compiler: parameters are counted, nothing recomputes, gradients cross the data axis once.
  assert 2 * plan.flops == pytest.approx(heavy_flops(plan), rel=0.005)
  assert plan.memory.optimizer == pytest.approx(2 * plan.memory.parameters, rel=1e-3)
  reduced = [link for link in plan.collectives if link.kind == "all-reduce"]
  assert {link.axes for link in reduced} == {("data",)}
  assert plan.memory.parameters <= sum(link.bytes for link in reduced) < 1.3 * plan.memory.parameters


def test_shapes_planned_are_those_the_loader_gives(tmp_path):
  from mmjax.data import make_loader, make_source, make_tokenizer

  small = in_folder(experiment(data=dict(views=2)), tmp_path)
  source = make_source(small.data, "train")
  tokenizer = make_tokenizer(small.data, source)
  size = small.model.image.image_size
  loader = make_loader(small.data, source, tokenizer, image_size=size, batch_size=16, seed=0)
  batch = next(iter(loader))
  planned, _ = as_planned(small, parse_topology("cpu:8"))
  shapes = batch_arguments(prepare(planned))
  assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
    name: (shape.shape, np.dtype(shape.dtype)) for name, shape in shapes.items()
  }


def test_the_text_tower_is_planned_as_the_tokenizer_will_make_it():
  planned, notes = as_planned(EXPERIMENT, parse_topology("cpu:8"))
  assert (planned.model.text.vocab_size, planned.model.text.max_length, notes) == (384, 8, ())


def test_a_mesh_made_for_other_machines_follows_this_one():
  planned, notes = as_planned(experiment(parallel=dict(data=4, fsdp=2)), parse_topology("cpu:16"))
  assert make_mesh(planned.parallel, [*jax.devices(), *jax.devices()][:8]).shape["data"] == 4
  assert planned.parallel.data == -1 and "parallel.data=4 became 8" in notes[0]
  planned, notes = as_planned(experiment(parallel=dict(fsdp=24, model=2)), parse_topology("cpu:16"))
  assert planned.parallel.fsdp == 8 and "train there with --parallel.fsdp 8" in notes[0]
  with pytest.raises(ConfigError, match=r"parallel.model=3 .* --parallel.model 2"):
    as_planned(experiment(parallel=dict(model=3)), parse_topology("cpu:16"))


def test_mistakes_of_the_experiment_come_back_as_such(tmp_path):
  with pytest.raises(ValueError, match=r"run.batch_size=16 cannot be divided over 32 devices"):
    mmjax.plan.plan(in_folder(EXPERIMENT, tmp_path), "cpu:32")
  assert not list((tmp_path / "plan").glob("*")) if (tmp_path / "plan").exists() else True


@pytest.mark.parametrize(("topology", "extra"), [("v5e:4x4", "tpu"), ("h100x8", "cuda12-local")])
def test_a_missing_compiler_is_answered_with_the_command_that_installs_it(topology, extra, tmp_path, monkeypatch):
  installed = {"jax": "0.12.0.1"}
  monkeypatch.setattr("mmjax.plan.compilers.package_version", installed.get)
  with pytest.raises(PlanError, match=rf"pip install 'jax\[{extra}\]==0.12.0.1'"):
    mmjax.plan.plan(in_folder(EXPERIMENT, tmp_path), topology)


def test_what_a_tpu_compiler_says_when_it_gives_up():
  total = (
    "Ran out of memory in memory space hbm. Used 15.75G of 15.75G hbm. Exceeded hbm capacity by 5.74M. Total >= 16G"
  )
  assert needed_bytes(total, 0) == int(15.75 * 2**30) + int(5.74 * 2**20)
  parts = "the total memory required for HLO temporaries (63.59G) exceeds available HBM (15.75G)"
  assert needed_bytes(parts, 2**30) == int(63.59 * 2**30) + 2**30
  assert needed_bytes("RESOURCE_EXHAUSTED: something else", 2**30) == 0


def test_a_kernel_s_mistake_is_not_taken_for_a_step_that_does_not_fit():
  assert lacks_memory("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 15.75G of 15.75G hbm.")
  vmem = "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom: Ran out of memory in memory space vmem while allocating"
  assert not lacks_memory(vmem) and not lacks_memory("INTERNAL: something else")


@needs_tpu_compiler
def test_the_tpu_compiler_gets_the_tpus_program(tmp_path):
  plan = mmjax.plan.plan(in_folder(HEAVY, tmp_path), "v5e:2x2")
  assert plan.fits and plan.mesh == {"data": 4, "fsdp": 1, "model": 1}
  assert plan.time_source == "compiler" and 0 < plan.compiler_seconds < 1 and 0 < plan.mfu < 1
  assert 4 * plan.flops == pytest.approx(heavy_flops(plan), rel=0.05)
  assert "libtpu" in plan.versions


@needs_tpu_compiler
def test_the_command_plans_our_kernels_for_a_tpu(tmp_path):
  """The compiler takes the kernels as this JAX writes them, and says how long they take."""
  options = ["--topology", "v5e:2x2", "--data.dir", tmp_path, "--out", tmp_path / "out", "--run.batch-size", 32]
  towers = ["--model.image.depth", 1, "--model.text.depth", 1, "--fresh", "--json"]
  command = [sys.executable, ROOT / "experiments" / "clip_emoji.py", "plan", *options, *towers]
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr[-3000:]
  plan = json.loads(done.stdout)
  assert plan["fits"] and plan["time_source"] == "compiler" and plan["notes"] == []
  kernels = {name.split("/")[-2].partition("_16x16")[0] for name, _, _ in plan["kernels"] if "pallas_call" in name}
  assert {"attention_forward", "attention_backward"} <= kernels
  assert (tmp_path / "out" / "v5e-2x2.png").exists()


@needs_gpu_compiler
def test_the_gpu_compiler_gets_the_gpus_program(tmp_path):
  plan = mmjax.plan.plan(in_folder(HEAVY, tmp_path), "h100x2")
  assert plan.fits and plan.time_source == "roofline"
  assert 2 * plan.flops == pytest.approx(heavy_flops(plan), rel=0.05)


def children(process: int) -> list[int]:
  return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_ctrl_c_ends_the_compilation_too(tmp_path):
  code = f"""
import signal, sys; sys.argv = ["tiny.py"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell would ignore it
from mmjax.cli import main
from tests.plan.test_plan import HEAVY
main(HEAVY, arguments=["plan", "--topology", "cpu:2", "--fresh", "--data.dir", {str(tmp_path)!r}])
"""
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
  deadline = time.monotonic() + 60
  while not (workers := children(process.pid)) and time.monotonic() < deadline:
    time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  _, said = process.communicate(timeout=30)
  assert process.returncode == 130 and "interrupted" in said
  assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
