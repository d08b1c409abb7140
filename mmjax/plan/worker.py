"""The planning process: read a request from standard input, compile, and write the facts to standard output.

mmjax.plan.process starts it with its own environment, as a module or through an experiment script. Each line of output
is a JSON object: {"phase": ...} during the work, then {"facts": ...} or {"error": ..., "wrong": ...}. The output of
libraries goes to standard error.
"""

import ctypes
import json
import math
import os
import signal
import sys
from importlib import resources
from pathlib import Path
from typing import Any, TextIO


def main(core: Any = None, kinds: tuple[Any, ...] = ()) -> None:
  """Compile the step of one request. The exit status is 1 if this fails.

  Args:
    core: the script's own optimiser transformation, as in mmjax.cli.main.
    kinds: the classes that the script defines, as in mmjax.cli.main.
  """
  _die_with_parent()
  channel = _private_standard_output()
  request = json.load(sys.stdin)

  def tell(**message: Any) -> None:
    print(json.dumps(message), file=channel, flush=True)

  tell(phase="starting")
  from mmjax.errors import UserError
  from mmjax.plan.topologies import parse_topology

  topology = parse_topology(request["topology"])
  devices, hardware = make_devices(topology), topology.hardware
  from mmjax.experiment import from_json
  from mmjax.plan import facts
  from mmjax.plan.build import compile_step

  try:
    found = compile_step(
      from_json(request["experiment"], kinds=kinds),
      devices,
      lambda phase: tell(phase=phase),
      schedules=Path(request["schedules"]),
      bytes_per_cycle=hardware.hbm_bandwidth / hardware.clock if hardware.clock else math.inf,
      core=core,
      kinds=kinds,
    )
  except (UserError, ValueError) as error:
    tell(error=str(error), wrong="experiment" if isinstance(error, UserError) else type(error).__name__)
    sys.exit(1)
  tell(facts=facts.to_json(found))


def make_devices(topology: Any) -> list[Any]:
  """Make the devices of a machine. They need not be present."""
  import jax
  from jax.experimental import topologies

  from mmjax.parallel.host import tune_compiler

  hardware, grid = topology.hardware, "x".join(map(str, topology.grid))
  if hardware.platform == "cpu":
    tune_compiler()
    jax.config.update("jax_num_cpu_devices", topology.devices)
    return jax.devices()
  if hardware.platform == "cuda":
    config = resources.files("mmjax.plan").joinpath("target_configs", f"{hardware.name}.txtpb").read_text()
    return topologies.get_topology_desc("", "cuda", target_config=config, topology=f"1x{grid}").devices
  options: dict[str, Any] = {"chip_config_name": "megacore"} if hardware.name == "v4" else {}
  if topology.chips == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  return topologies.get_topology_desc(topology.name, "tpu", **options).devices


def _private_standard_output() -> TextIO:
  """Open standard output for the parent only. Later prints to standard output go to standard error."""
  channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)
  return channel


def _die_with_parent() -> None:
  """Let the kernel end this process when its parent dies. Linux only; does nothing elsewhere.

  A parent that is killed cannot stop a compilation, which may take minutes.
  """
  if sys.platform == "linux":
    pr_set_pdeathsig = 1  # from <sys/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
  main()
