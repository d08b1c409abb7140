"""Memory of steps on virtual CPU devices: what `plan` predicts, beside what runs of them take.

  python scripts/benchmarks/plan_memory.py

A run is a process that compiles the step, then takes two steps and says how far its resident memory rose meanwhile
(tests/plan/measure.py). On 23 November 2026 the 14 plans were 0.92 to 1.02 of what was measured, in two runs.
--check names each plan that is further off than 10%, and ends with status 1 if there is one.
"""

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from mmjax.experiment import Experiment, to_json
from mmjax.plan import plan
from mmjax.plan.api import as_planned
from mmjax.plan.process import environment
from mmjax.plan.table import size
from mmjax.plan.topologies import parse_topology
from mmjax.plan.variants import with_batch, with_mesh, with_microbatches

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_OFF, TINY_BATCH = 0.1, 16_384


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--check", action="store_true", help="fail where a plan is off by more than 10%%")
  parser.add_argument("--tiny", action="store_true", help="one step of the tests' model")
  options = parser.parse_args()
  sys.path[:0] = [str(REPOSITORY / "experiments"), str(REPOSITORY)]
  rows = []
  print("| step | devices | planned | measured | planned / measured |\n| --- | --- | --- | --- | --- |")
  chosen, console = list(tiny_steps() if options.tiny else steps()), Console(stderr=True)
  for name, experiment, devices in track(chosen, "planning and running", console=console):
    planned, measured = memory(experiment, devices)
    rows.append((name, devices, planned, measured))
    print(f"| {name} | {devices} | {size(planned)} | {size(measured)} | {planned / measured:.2f} |", flush=True)
  if options.check and (faults := missed(rows)):
    sys.exit("\n".join(faults))


def missed(rows: Sequence[tuple[str, int, int, int]]) -> list[str]:
  """A sentence for each plan that is too far off, of rows (name, devices, bytes planned, bytes measured)."""
  return [
    f"{name} on {devices} devices: planned {planned / measured:.2f} of what was measured; the bound is {MOST_OFF:.0%}"
    for name, devices, planned, measured in rows
    if abs(planned / measured - 1) > MOST_OFF
  ]


def tiny_steps() -> Iterator[tuple[str, Experiment, int]]:
  """One step of the tests' model, of a batch whose memory can be told from that of the process."""
  yield "tests/tiny.py", with_batch(importlib.import_module("tests.tiny").EXPERIMENT, TINY_BATCH), 1


def steps() -> Iterator[tuple[str, Experiment, int]]:
  """Steps of all kinds, small and large, and the number of devices for each."""
  for name in ("clip_emoji", "siglip_emoji", "coca_emoji", "albef_emoji", "blip_emoji", "bert_text", "vqa_scenes"):
    yield name, importlib.import_module(name).EXPERIMENT, 2
  clip = importlib.import_module("clip_emoji").EXPERIMENT
  yield "clip_emoji", clip, 1
  yield "clip_emoji", clip, 4
  yield "clip_emoji, batch 2,048", with_batch(clip, 2048), 8
  yield "clip_emoji, bfloat16", with_towers(clip, dtype="bfloat16"), 4
  yield "clip_emoji, scanned, remat full", with_towers(clip, scan=True, remat="full"), 2
  yield "clip_emoji, batch 1,024 in 4 pieces", with_microbatches(with_batch(clip, 1024), 4), 2
  wide = with_towers(clip, width=512, num_heads=8)
  yield "clip_emoji, 512 wide, fsdp 4", with_mesh(wide, fsdp=4, model=1), 4


def memory(experiment: Experiment, devices: int) -> tuple[int, int]:
  """Bytes of all devices together: planned, measured."""
  machine = parse_topology(f"cpu:{devices}")
  with tempfile.TemporaryDirectory() as folder:
    experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, dir=folder))
    planned = plan(experiment, machine.name, say=lambda phase: None)
    run = subprocess.run(
      [sys.executable, str(REPOSITORY / "tests/plan/measure.py"), str(devices)],
      input=json.dumps(to_json(as_planned(experiment, machine)[0])),
      env=environment(machine, Path(folder)),
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    )
  return devices * planned.peak_bytes, int(run.stdout)


def with_towers(experiment: Experiment, **changes: Any) -> Experiment:
  model: Any = experiment.model
  towers = {name: dataclasses.replace(getattr(model, name), **changes) for name in ("image", "text")}
  return dataclasses.replace(experiment, model=dataclasses.replace(model, **towers))


if __name__ == "__main__":
  main()
