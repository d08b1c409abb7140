"""Orbax checkpoints of a run: asynchronous, atomic, with checksums; the newest few and the best are kept."""

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
_PATIENCE = 30.0  # seconds for a save that failed to come to rest
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Restored:
  """What a checkpoint held: the state, and what the loop kept beside it (the data's position among others)."""

  state: TrainState
  data: Mapping[str, Any]


class Checkpoints:
  """The checkpoints of one run, under `directory`/STEP, each with a manifest of its files' checksums.

  Args:
    directory: created if need be.
    keep_last: how many of the newest to keep; the one with the best score (see `score`) is kept besides.
    planned: whether a step is one that an uninterrupted run saves. A checkpoint of another, made when somebody stopped
      the run, is kept while it is the newest or there are too few others: it never takes the place of a planned one.
    read_only: look only: nothing is created, and a run that is writing here just now is left in peace.
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
    # Orbax logs several lines a save at INFO, warns of its own defaults, and logs what it raises as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept,
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
        lightweight_initialize=True,  # reads no file of a checkpoint that may be damaged
        async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
      ),
      item_handlers={"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()},
    )

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def score(self, step: int, value: float) -> None:
    """Says how good the checkpoint of a step is: of those with a score, the best is kept."""
    self._kept.scores[step] = value

  def save(self, step: int, state: TrainState, data: Mapping[str, Any]) -> None:
    """Starts writing a checkpoint; returns once the state is copied, before it is on disk. Saves a step once.

    Args:
      step: optimiser steps taken.
      state: the state after that many steps.
      data: what goes with it (JSON), such as the data's position after the last batch that the state has seen.
    Raises: CheckpointError, also of the save before, which had not ended yet: the disk is full, for one.
    """
    self.wait()
    if step in self._manager.all_steps():
      return
    self._saving = step
    with self._answered():
      self._manager.save(
        step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(dict(data)))
      )

  def restore_params(self, shapes: Params, shardings: Params, step: int | None = None) -> tuple[Params, int]:
    """Reads the parameters to evaluate with (their moving average, where the run kept one), and nothing else.

    Returns: (parameters, optimiser steps they have seen). Raises: CheckpointError, as restore does; whichever
    optimiser the run used, it is not looked at.
    """
    step = self._intact(step)
    tree = self._manager.item_metadata(step).state.tree
    name = "ema" if tree.get("ema") is not None else "params"
    self._check_same(step, {name: shapes}, {name: tree.get(name)}, "model")
    return self._read(step, {name: shapes}, {name: shardings})[name], step

  def restore(self, shapes: TrainState, shardings: TrainState, step: int | None = None) -> Restored:
    """Reads a checkpoint (the newest intact one unless `step` is given) straight into its shards.

    A newer one that is damaged is reported, and set aside as STEP.damaged. The state's recent_losses are None where the
    checkpoint remembers another number of them.
    Raises:
      CheckpointError: there is none, or none is intact, or it is of another model or optimiser; the first fault or
        difference is named.
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
    """Raises what became of a save that ended in the meantime (CheckpointError where it failed)."""
    if not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Blocks until everything saved is on disk. Raises CheckpointError where that failed."""
    with self._answered():
      self._manager.wait_until_finished()

  def prune(self) -> None:
    """Deletes what need not be kept: scores may have come after the last save, or a kill before its deletions."""
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
    """Adds the manifest once all files are there, just before Orbax gives the folder its name (one process does)."""
    step = self._directory / str(self._saving)
    write_manifest(next(self._directory.glob(f"{step.name}{_PARTIAL}*"), step))

  @contextlib.contextmanager
  def _answered(self) -> Iterator[None]:
    """Turns what a save failed with into an answer to the user, and frees the disk of the half that was written."""
    try:
      yield
    except (ValueError, OSError, RuntimeError) as error:
      self._failed = True
      self._discard()
      good = self.latest_step
      kept = "there is no earlier one" if good is None else f"the last good one, of step {good}, is untouched"
      raise CheckpointError(
        f"the checkpoint of step {self._saving} could not be written to {self._directory}: {_reason(error)}; {kept}. "
        "When there is room again, the same command goes on from there."
      ) from error

  def _discard(self) -> None:
    """Removes the half of a checkpoint that failed, until TensorStore's threads have added nothing for a second.

    They outlive the failure, make the folder anew for what is left to write, and would meddle with the next save.
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
    """That step, or the newest that is intact. Raises CheckpointError where there is no such checkpoint."""
    self.wait()  # what was saved a moment ago may still be on its way to the disk
    steps = sorted(self._manager.all_steps(), reverse=True)
    if not steps or (step is not None and step not in steps):
      raise CheckpointError(f"{self._directory} holds no checkpoint{'' if step is None else f' of step {step}'}")
    # One process looks, and all do what it says: they must not choose different ones.
    chosen, faults = (0, {}) if jax.process_index() else self._inspect(steps if step is None else [step])
    if jax.process_count() > 1:
      chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
    if chosen < 0:
      found = "; ".join(f"{self._directory / str(bad)}: {fault}" for bad, fault in faults.items())
      raise CheckpointError(
        f"no checkpoint is intact ({found or 'process 0 names them'}). Copy one back from where you keep copies, "
        "or choose another --run.workdir to begin again"
      )
    self._manager.reload()
    return chosen

  def _inspect(self, steps: Sequence[int]) -> tuple[int, dict[int, str]]:
    """(the first of `steps` that is intact or -1, what is wrong with those before it), which are set aside."""
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
  """Keeps the newest few, planned ones first, and the best of those that have a score (the later of equals)."""

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
    """Those of `steps` (in order) that are kept."""
    scored = [step for step in steps if step in self.scores]
    best = max(scored, key=lambda step: (self.scores[step], step), default=None)
    newest = sorted(steps, key=lambda step: (self.planned(step), step))[-self.keep_last :]
    return {*steps[-1:], *newest, *([] if best is None else [best])}


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {parameter_path(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _reason(error: BaseException) -> str:
  """TensorStore quotes the whole path of its layers; the operating system's own words say more."""
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(code.group(1))) if code else str(error)
