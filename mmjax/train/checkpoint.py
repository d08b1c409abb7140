"""Orbax checkpoints of a run: asynchronous, atomic, with checksums. The newest few and the best are kept."""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from mmjax.errors import CheckpointError
from mmjax.parallel.rules import parameter_path
from mmjax.train.manifest import MANIFEST, first_fault, write_manifest
from mmjax.train.state import Params, TrainState

_PARTIAL = ".orbax-checkpoint-tmp"
_PATIENCE = 30.0  # seconds to wait for the threads of a failed save
_SMALLEST_PART = 2**20  # bytes
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Restored:
  """Contents of a checkpoint: the state, and other values of the loop, such as the position in the data."""

  state: TrainState
  data: Mapping[str, Any]


class Checkpoints:
  """The checkpoints of one run, in `directory`/STEP. Each has a manifest with the checksums of its files.

  Args:
    directory: folder of the checkpoints. It is created if needed.
    keep_last: number of newest checkpoints to keep. The one with the best score (see `score`) is kept as well.
    planned: True for the steps that an uninterrupted run saves. A checkpoint of another step, made when the run was
      stopped, is kept while it is the newest or there are fewer than keep_last planned ones. It never replaces a
      planned one.
    read_only: create and delete nothing, so that a run that is writing here is not disturbed.
  """

  def __init__(
    self,
    directory: Path,
    *,
    keep_last: int = 3,
    planned: Callable[[int], bool] = lambda step: True,
    read_only: bool = False,
  ):
    self._directory = directory.absolute()
    self._read_only = read_only
    self._saving, self._failed = -1, False
    self._kept = _NewestAndBest(keep_last, planned, {})
    # Orbax logs several lines per save at INFO, warns of its own defaults, and logs errors that it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept,
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
        lightweight_initialize=True,  # read no file of a checkpoint, which may be damaged
        async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
      ),
      item_handlers={
        "state": ocp.PyTreeCheckpointHandler(type_handler_registry=_handlers()),
        "data": ocp.JsonCheckpointHandler(),
      },
    )

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  @property
  def steps(self) -> list[int]:
    """Steps of all checkpoints, in order."""
    return sorted(self._manager.all_steps())

  def score(self, step: int, value: float) -> None:
    """Set the score of a checkpoint. The checkpoint with the highest score is kept."""
    self._kept.scores[step] = value

  def save(self, step: int, state: TrainState, data: Mapping[str, Any]) -> None:
    """Start to write a checkpoint. Returns when the state is copied, before it is on disk. A step is saved once.

    Args:
      step: number of optimiser steps taken.
      state: state after these steps.
      data: other values (JSON), such as the position in the data after the last batch of the state.
    Raises: CheckpointError: this save, or the save before it, failed. For example, the disk is full.
    """
    self.wait()
    if step in self._manager.all_steps():
      return
    self._saving = step
    with self._answered():
      self._manager.save(
        step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), data=ocp.args.JsonSave(dict(data)))
      )

  def restore_params(
    self, shapes: Params, shardings: Params, step: int | None = None, *, average: bool = True
  ) -> tuple[Params, int]:
    """Read only the parameters for evaluation.

    Args:
      shapes: shapes of the parameters.
      shardings: shardings of the parameters.
      step: step of the checkpoint. None: the newest intact one.
      average: True for the moving average of the parameters, if the run kept one.
    Returns: (parameters, number of their optimiser steps).
    Raises: CheckpointError: as for restore, but the optimiser of the run does not matter.
    """
    step = self._intact(step)
    tree = self._manager.item_metadata(step).state.tree
    name = "ema" if average and tree.get("ema") is not None else "params"
    self._check_same(step, {name: shapes}, {name: tree.get(name)}, "model")
    return self._read(step, {name: shapes}, {name: shardings})[name], step

  def restore(self, shapes: TrainState, shardings: TrainState, step: int | None = None) -> Restored:
    """Read a checkpoint into its shards.

    Newer checkpoints that are damaged are reported and renamed to STEP.damaged. If the checkpoint has another number of
    recent_losses, those of the restored state are None.

    Args:
      shapes: shapes of the state.
      shardings: shardings of the state.
      step: step of the checkpoint. None: the newest intact one.
    Raises:
      CheckpointError: there is no checkpoint, none is intact, or it is of another model or optimiser. The message names
        the first difference.
    """
    step = self._intact(step)
    tree = dict(self._manager.item_metadata(step).state.tree)
    if _leaf_shapes(tree.get("recent_losses")) != _leaf_shapes(shapes.recent_losses):  # another numerics.spike_window
      tree["recent_losses"] = None
      shapes, shardings = shapes.replace(recent_losses=None), shardings.replace(recent_losses=None)
    self._check_same(step, shapes, tree, "model or optimiser")
    data = self._manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore())).data
    return Restored(self._read(step, shapes, shardings), data)

  def check(self) -> None:
    """Raise CheckpointError if a save has ended since the last call and failed."""
    if not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Block until all saves are on disk. Raises CheckpointError if one failed."""
    with self._answered():
      self._manager.wait_until_finished()

  def prune(self) -> None:
    """Delete the checkpoints that need not be kept.

    A save also deletes them. But scores may be set after the last save, and a process may be killed before it deletes.
    """
    self.wait()
    steps = sorted(self._manager.all_steps())
    for step in set(steps) - self._kept.of(steps):
      self._manager.delete(step)

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._manager.close()
      if self._failed:
        self._discard()

  def _seal(self) -> None:
    """Write the manifest. Orbax calls this in one process, after it wrote all files, before it renames the folder."""
    step = self._directory / str(self._saving)
    write_manifest(next(self._directory.glob(f"{step.name}{_PARTIAL}*"), step))

  @contextlib.contextmanager
  def _answered(self) -> Iterator[None]:
    """Context that turns the error of a save into CheckpointError, and deletes the incomplete checkpoint."""
    try:
      yield
    except (ValueError, OSError, RuntimeError) as error:
      self._failed = True
      self._discard()
      good = self.latest_step
      kept = "there is no earlier one" if good is None else f"the last good one, of step {good}, is untouched"
      raise CheckpointError(
        f"the checkpoint of step {self._saving} could not be written to {self._directory}: {_reason(error)}; {kept}. "
        "When there is room again, the same command resumes from there."
      ) from error

  def _discard(self) -> None:
    """Delete a checkpoint that failed, until the threads of TensorStore have written nothing for a second.

    These threads still run after the failure. They create the folder again to write the rest, which would disturb the
    next save.
    """
    now = quiet = time.monotonic()
    deadline = now + _PATIENCE
    while jax.process_index() == 0 and now - quiet < 1 and now < deadline:
      for partial in self._directory.glob(f"{self._saving}{_PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)
        quiet = now
      time.sleep(0.05)
      now = time.monotonic()

  def _intact(self, step: int | None) -> int:
    """Return `step`, or the newest step with an intact checkpoint if it is None. Raises CheckpointError if none is."""
    self.wait()  # the last save may still be writing
    steps = sorted(self._manager.all_steps(), reverse=True)
    if not steps or (step is not None and step not in steps):
      raise CheckpointError(f"{self._directory} holds no checkpoint{'' if step is None else f' of step {step}'}")
    # One process chooses for all, because they must not choose different checkpoints.
    chosen, faults = (0, {}) if jax.process_index() else self._inspect(steps if step is None else [step])
    if jax.process_count() > 1:
      chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
    if chosen < 0:
      found = "; ".join(f"{self._directory / str(bad)}: {fault}" for bad, fault in faults.items())
      raise CheckpointError(
        f"no checkpoint is intact ({found or 'process 0 names them'}). Restore one from a backup, "
        "or choose another --run.workdir to start again"
      )
    self._manager.reload()
    return chosen

  def _inspect(self, steps: Sequence[int]) -> tuple[int, dict[int, str]]:
    """Find the first of `steps` whose checkpoint is intact, and rename the damaged ones before it.

    Returns: (step or -1, {step: fault} of the damaged ones).
    """
    folders = [self._directory / str(step) for step in steps]
    if not any((folder / MANIFEST).exists() for folder in folders):
      log.warning("%s: checkpoints without checksums, of an older version; unverified", self._directory)
      return steps[0], {}
    faults: dict[int, str] = {}
    for step, folder in zip(steps, folders, strict=True):
      fault = first_fault(folder)
      if fault is None:
        self._set_aside(faults, step)
        return step, faults
      faults[step] = fault
    return -1, faults

  def _set_aside(self, faults: Mapping[int, str], instead: int) -> None:
    for step, fault in faults.items():
      folder = self._directory / str(step)
      log.warning("The checkpoint %s is damaged: %s. Step %d is used instead.", folder, fault, instead)
      if not self._read_only:
        aside = folder.with_name(f"{step}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)

  def _read(self, step: int, shapes: Any, shardings: Any) -> Any:
    target = jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, shardings)
    args = ocp.args.PyTreeRestore(target, ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      return reader.restore(self._directory / str(step) / "state", args)

  def _check_same(self, step: int, shapes: Any, tree: Any, what: str) -> None:
    saved, wanted = _leaf_shapes(tree), _leaf_shapes(shapes)
    where = f"the checkpoint {self._directory / str(step)}"
    remedy = "run with the configuration in the workdir's config.json, or choose another --run.workdir"
    for path, shape in wanted.items():
      if path not in saved:
        raise CheckpointError(f"{where} is of another {what}: it has no {path!r}; {remedy}")
      if saved[path] != shape:
        raise CheckpointError(
          f"{where} is of another model: {path!r} has shape {saved[path]} there and {shape} here; {remedy}"
        )
    for path in saved:
      if path not in wanted:
        raise CheckpointError(f"{where} is of another {what}: {path!r} has no place here; {remedy}")


@dataclasses.dataclass
class _NewestAndBest(policies.PreservationPolicy):
  """Keep the newest few, with priority for planned ones, and the one with the best score (the later one of equals)."""

  keep_last: int
  planned: Callable[[int], bool]
  scores: dict[int, float]

  def should_preserve(
    self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
  ) -> Sequence[bool]:
    del context
    kept = self.of([checkpoint.step for checkpoint in checkpoints])
    return [checkpoint.step in kept for checkpoint in checkpoints]

  def of(self, steps: Sequence[int]) -> set[int]:
    """Return the steps to keep. `steps` are in order."""
    scored = [step for step in steps if step in self.scores]
    best = max(scored, key=lambda step: (self.scores[step], step), default=None)
    newest = sorted(steps, key=lambda step: (self.planned(step), step))[-self.keep_last :]
    return {*steps[-1:], *newest, *([] if best is None else [best])}


def _handlers() -> ocp.type_handlers.TypeHandlerRegistry:
  """Make the handlers of arrays: all devices that hold a copy write a large array, each a part, and one a small array.

  Orbax would cut the small ones as well, with a program to compile for every shape and place.
  """
  arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SMALLEST_PART)
  return ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {parameter_path(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _reason(error: BaseException) -> str:
  """Return the operating system's message if there is one. TensorStore's message is long and less clear."""
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(code.group(1))) if code else str(error)
