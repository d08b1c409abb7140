"""Orbax checkpoints of a run: asynchronous, atomic, the newest few and the best kept."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from mmjax.errors import CheckpointError
from mmjax.parallel.rules import parameter_path
from mmjax.train.state import Params, TrainState


@dataclasses.dataclass(frozen=True)
class Restored:
  """What a checkpoint held: the state, and the data iterator's position."""

  state: TrainState
  data: Mapping[str, Any]


class Checkpoints:
  """The checkpoints of one run, under `directory`/STEP.

  Args:
    directory: created if need be.
    keep_last: how many of the newest to keep.
    best_metric: name of the evaluation metric whose largest value is kept as well; None keeps no best.
    read_only: look only: nothing is created, and a run that is writing here just now is left in peace.
  """

  def __init__(self, directory: Path, *, keep_last: int = 3, best_metric: str | None = None, read_only: bool = False):
    self._directory = directory.absolute()
    # Orbax logs several lines a save at INFO and warns of its own defaults: nothing a user can act on.
    logging.getLogger("absl").setLevel(logging.ERROR)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=_preservation(keep_last, best_metric),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
      ),
      item_handlers={"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()},
    )

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def save(self, step: int, state: TrainState, data: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Starts writing a checkpoint; returns once the state is copied, before it is on disk. Saves a step once.

    Args:
      step: optimiser steps taken.
      state: the state after that many steps.
      data: the data iterator's position (JSON), belonging to the last batch the state has seen.
      metrics: evaluation metrics at this step; empty where there was no evaluation.
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(dict(data))),
      metrics=dict(metrics) or None,
    )

  def restore_params(self, shapes: Params, shardings: Params, step: int | None = None) -> tuple[Params, int]:
    """Reads the parameters to evaluate with (their moving average, where the run kept one), and nothing else.

    Returns: (parameters, optimiser steps they have seen). Raises: CheckpointError, as restore does; whichever
    optimiser the run used, it is not looked at.
    """
    self.wait()
    step = self._existing(step)
    tree = self._manager.item_metadata(step).state.tree
    name = "ema" if tree.get("ema") is not None else "params"
    self._check_same(step, {name: shapes}, {name: tree.get(name)}, "model")
    target = {name: jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, shardings)}
    args = ocp.args.PyTreeRestore(target, ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      restored = reader.restore(self._directory / str(step) / "state", args)
    return restored[name], step

  def restore(self, shapes: TrainState, shardings: TrainState, step: int | None = None) -> Restored:
    """Reads a checkpoint (the newest unless `step` is given) straight into its shards.

    Raises:
      CheckpointError: there is none, or it is of another model or optimiser; the first difference is named.
    """
    self.wait()  # what was saved a moment ago may still be on its way to the disk
    step = self._existing(step)
    self._check_same(step, shapes, self._manager.item_metadata(step).state.tree, "model or optimiser")
    target = jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, shardings)
    items = self._manager.restore(
      step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore())
    )
    return Restored(items.state, items.data)

  def wait(self) -> None:
    """Blocks until everything saved is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()

  def _existing(self, step: int | None) -> int:
    """That step, or the newest. Raises CheckpointError where there is no such checkpoint."""
    wanted = self.latest_step if step is None else step
    if wanted is None or wanted not in self._manager.all_steps():
      raise CheckpointError(f"{self._directory} holds no checkpoint{'' if step is None else f' of step {step}'}")
    return wanted

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


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {parameter_path(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _preservation(keep_last: int, best_metric: str | None) -> policies.PreservationPolicy:
  newest = policies.LatestN(keep_last)
  if best_metric is None:
    return newest
  best = policies.BestN(get_metric_fn=lambda metrics: metrics[best_metric], n=1, keep_checkpoints_without_metrics=False)
  return policies.AnyPreservationPolicy([newest, best])
