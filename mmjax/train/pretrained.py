"""Initial state from published weights. They are read into their shards, and only the rest is made at random."""

import re
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from mmjax.experiment import Experiment
from mmjax.parallel.rules import parameter_path
from mmjax.train.state import TrainState


def pretrained_state(
  fresh: Callable[[], TrainState], experiment: Experiment, shapes: TrainState, shardings: TrainState
) -> TrainState:
  """Make the state before the first step, with the parameters of a checkpoint and their moving average.

  Parameters that are read are not made at random before, and each device reads only its own shard. So no parameter is
  held twice in memory.

  Args:
    fresh: function that makes the random state. Only the parts that are not read are compiled.
    experiment: the run; `pretrained` names the checkpoint.
    shapes, shardings: shapes and shardings of the whole state.
  Raises:
    mmjax.interop.InteropError: the checkpoint cannot be read, or does not fit.
    ConfigError: a setting of the model differs from the checkpoint's and would change results.
  """
  from mmjax.interop.agreement import model_differences, refuse  # not needed by other runs
  from mmjax.interop.restoring import make_array, plan_restore
  from mmjax.interop.source import open_source

  config = experiment.pretrained
  assert config.path is not None
  sizes = {name: leaf.shape for name, leaf in _flat(shapes.params).items()}
  source = open_source(config.path, tower=config.into)
  taken = [path for path in sizes if any(re.search(expression, path) for expression in config.take)]
  refuse(config.path, list(model_differences(experiment.model, source, config.into, taken)), config.allow)
  plan = plan_restore(source, sizes, take=config.take, into=config.into)
  Console(quiet=jax.process_index() != 0).print(
    f"{config.path}: {_summary(plan.report)}", highlight=False, soft_wrap=True
  )

  def without(state: TrainState) -> TrainState:
    def rest(tree: Any) -> Any:
      return None if tree is None else {n: leaf for n, leaf in _flat(tree).items() if n not in plan.readers}

    return state.replace(params=rest(state.params), ema=rest(state.ema))

  made = jax.jit(lambda: without(fresh()), out_shardings=without(shardings))()

  def whole(made_part: Any, places: Any) -> Any:
    def leaf(key_path: Any, sharding: Any) -> Any:
      name = parameter_path(key_path)
      reader = plan.readers.get(name)
      return made_part[name] if reader is None else make_array(reader, sizes[name], sharding)

    return None if made_part is None else jax.tree_util.tree_map_with_path(leaf, places)

  return made.replace(params=whole(made.params, shardings.params), ema=whole(made.ema, shardings.ema))


def _flat(tree: Any) -> dict[str, Any]:
  return {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _summary(report: Any) -> str:
  kept = f"{len(report.reinitialised)} of the model initialised at random"
  return f"{len(report.taken)} parameters loaded ({len(report.resampled)} resampled), {len(report.left)} unused, {kept}"
