"""Start the planning process, follow its progress, and end it in all cases."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mmjax.errors import UserError
from mmjax.plan.compilers import WORKER, PlanError, require_compiler
from mmjax.plan.facts import Facts, from_json
from mmjax.plan.schedules import compiler_flags
from mmjax.plan.topologies import Topology


def compile_elsewhere(
  experiment: dict[str, Any], topology: Topology, say: Callable[[str], None], script: Path | None = None
) -> Facts:
  """Compile a step in a new process. JAX, the environment and the signal handlers of the caller do not change.

  Args:
    experiment: the experiment, from mmjax.experiment.to_json.
    topology: the machine.
    say: function that is called with the name of each phase, to show progress.
    script: the experiment script, if it defines classes or an optimiser that the step needs. The new process runs it,
      and its call of mmjax.cli.main passes them on. None: the step needs nothing from a script.
  Returns: the facts.
  Raises:
    PlanError: the compiler failed, or its package is missing.
    UserError: the experiment does not fit the machine.
  """
  require_compiler(topology.hardware.platform)
  with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory(prefix="mmjax-plan-") as folder:
    # The planning process has its own session. Ctrl-C reaches only this process, which then ends the other.
    process = subprocess.Popen(
      [sys.executable, *(["-m", "mmjax.plan.worker"] if script is None else [str(script), WORKER])],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=log,
      text=True,
      env=environment(topology, Path(folder)),
      start_new_session=True,
    )
    try:
      message = _follow(process, {"experiment": experiment, "topology": topology.name, "schedules": folder}, say)
    finally:
      process.kill()
      process.wait()
    return _outcome(message, topology, log)


def environment(topology: Topology, schedules: Path) -> dict[str, str]:
  """Environment of the planning process: that of this process, without variables that would disturb the compiler.

  Args:
    topology: the machine.
    schedules: folder to which a TPU compiler writes the schedules of kernels.
  """
  dropped = {"JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR"}
  if topology.hardware.platform != "cpu":
    dropped.add("XLA_FLAGS")  # set for this machine's backend; an unknown flag aborts
  inherited = {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("TPU_")}
  search = [str(Path(__file__).parents[2]), *(path for path in sys.path[1:] if path)]
  return inherited | {"PYTHONPATH": os.pathsep.join(search)} | _platform_variables(topology, schedules)


def _platform_variables(topology: Topology, schedules: Path) -> dict[str, str]:
  platform, variables = topology.hardware.platform, {"JAX_PLATFORMS": "cpu"}
  if platform == "cuda":
    # Autotuning needs a GPU, and an untuned Triton matrix product does not compile for a ViT's shapes.
    variables["XLA_FLAGS"] = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
  elif platform == "tpu":
    chip = "v5litepod" if topology.hardware.name == "v5e" else topology.hardware.name
    cores = topology.chips * (2 if chip in ("v4", "v5p", "tpu7x") else 1)
    variables |= {
      "TPU_SKIP_MDS_QUERY": "1",
      "TPU_WORKER_HOSTNAMES": "localhost",
      "TPU_ACCELERATOR_TYPE": f"{chip}-{cores}",
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several plans may run at once: none uses a chip
      "LIBTPU_INIT_ARGS": f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {compiler_flags(schedules)}".strip(),
      "TPU_LOG_DIR": "disabled",
      "TPU_MIN_LOG_LEVEL": "3",
      "TPU_STDERR_LOG_LEVEL": "3",
    }
  return variables


def _follow(process: subprocess.Popen[str], request: Any, say: Callable[[str], None]) -> dict[str, Any]:
  """Send the request, call `say` with each phase, and return the last message."""
  assert process.stdin is not None and process.stdout is not None
  last: dict[str, Any] = {}
  try:
    with process.stdin as stream:
      json.dump(request, stream)
  except BrokenPipeError:
    return last  # the process ended before it read the request; its log has the reason
  for line in process.stdout:
    if not line.startswith("{"):
      continue  # something that the script prints
    last = json.loads(line)
    if "phase" in last:
      say(last["phase"])
  return last


def _outcome(message: dict[str, Any], topology: Topology, log: IO[str]) -> Facts:
  if "facts" in message:
    return from_json(message["facts"])
  if message.get("wrong") == "experiment":
    raise UserError(message["error"])
  log.seek(0)
  said = message.get("error") or "\n".join(log.read().splitlines()[-12:])
  raise PlanError(f"the step could not be compiled for {topology.name}:\n{said}")
