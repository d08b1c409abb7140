"""Run as a script: trains a few steps of the experiment on standard input and prints how far resident memory grew.

  python tests/plan/measure.py DEVICES < experiment.json

The step is compiled beforehand, so that what grows is what the step's arguments, results and temporaries need.
"""

import ctypes
import json
import sys
from pathlib import Path


def status_bytes(key: str) -> int:
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith(key + ":"):
      return int(line.split()[1]) * 1024
  raise KeyError(key)


def main(devices: int) -> None:
  import jax
  import numpy as np

  from mmjax.experiment import from_json
  from mmjax.parallel.host import tune_compiler
  from mmjax.plan.build import batch_arguments
  from mmjax.train.setup import prepare

  tune_compiler()
  jax.config.update("jax_num_cpu_devices", devices)
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  training = prepare(from_json(json.load(sys.stdin)))
  arguments = batch_arguments(training)
  step = training.step.lower(training.shapes, arguments).compile()
  ctypes.CDLL(None).malloc_trim(0)
  before = status_bytes("VmRSS")
  Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark over

  def filled(shape, sharding):  # nothing is compiled for it
    fill = lambda index: np.ones(sharding.shard_shape(shape.shape), shape.dtype)
    return jax.make_array_from_callback(shape.shape, sharding, fill)

  state = jax.tree.map(filled, training.shapes, training.shardings)
  batch = {name: filled(shape, shape.sharding) for name, shape in arguments.items()}
  for _ in range(2):
    state, _ = jax.block_until_ready(step(state, batch, training.step.teachers.params))
  print(status_bytes("VmHWM") - before)


if __name__ == "__main__":
  main(int(sys.argv[1]))
