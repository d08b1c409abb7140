"""Start of jax.distributed, if the environment names several processes."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from mmjax.parallel.watch import dead_after, watched


def process_count(environment: Mapping[str, str]) -> int:
  """Number of processes that the launcher started, from the variables that it sets; 1 if none is set.

  Supports JAX_NUM_PROCESSES (any launcher that sets it with JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS), SLURM, Open
  MPI, and the worker list of a Cloud TPU pod slice.

  Raises:
    ValueError: a variable is not a whole number.
  """
  for name in ("JAX_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
    if name in environment:
      return _count(name, environment[name])
  return len(environment.get("TPU_WORKER_HOSTNAMES", "").split(","))


@contextlib.contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
  """Context in which this process belongs to its group; does nothing for a single process.

  If one process of the group dies or raises an exception, all others end within $MMJAX_DEAD_AFTER_SECONDS (60). Each
  prints a message that names the process, and exits with status 75 (`mmjax.parallel.watch.STOPPED`).
  """
  seconds = dead_after(environment)
  start_distributed(environment)
  with watched(seconds):
    yield


def start_distributed(environment: Mapping[str, str] = os.environ) -> None:
  """Joins the group of processes that the environment names; does nothing for a single process.

  Raises:
    ValueError: a variable is missing or is not a whole number.
  """
  # In an interactive SLURM allocation, SLURM_NTASKS counts tasks that srun has not started.
  alone = "SLURM_NTASKS" in environment and "SLURM_STEP_ID" not in environment
  if process_count(environment) == 1 or (alone and "JAX_NUM_PROCESSES" not in environment):
    return
  # JAX's own heartbeat aborts without a clear message. It is kept for processes that cannot even run a thread.
  heartbeat = 2 * math.ceil(dead_after(environment))
  settings: Any = jax.config  # older releases define its names at run time
  if (settings.jax_platforms or "").split(",")[0] == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  if "JAX_NUM_PROCESSES" not in environment:
    jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)
    return
  for name in ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"):
    if name not in environment:
      raise ValueError(f"JAX_NUM_PROCESSES is set but {name} is not: set all three or none")
  jax.distributed.initialize(
    coordinator_address=environment["JAX_COORDINATOR_ADDRESS"],
    num_processes=process_count(environment),
    process_id=_count("JAX_PROCESS_ID", environment["JAX_PROCESS_ID"]),
    heartbeat_timeout_seconds=heartbeat,
  )


def _count(name: str, value: str) -> int:
  if not value.isdecimal():
    raise ValueError(f"the environment variable {name} is {value!r}: expected a whole number")
  return int(value)
