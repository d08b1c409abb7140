"""Frozen teachers of loss terms: models that are loaded from a run or from published weights."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, read_experiment
from mmjax.kinds import Kind
from mmjax.models.config import image_size, init_params
from mmjax.models.sharding import SHARDING_RULES
from mmjax.objectives.terms.base import AVERAGE, Term
from mmjax.parallel.mesh import parameter_shardings
from mmjax.run import CHECKPOINTS, CONFIG
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.parameters import initial_params


@dataclasses.dataclass(frozen=True)
class Teachers:
  """The frozen teachers of a run, by the path that its terms name.

  Attributes:
    modules: the linen modules.
    shapes, shardings: shapes and shardings of their parameters.
  """

  modules: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
  shapes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shardings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def params(self) -> dict[str, Any]:
    """Parameters of the teachers, on the devices. They are read from disk at the first access."""
    return {path: _read(path, self.shapes[path], self.shardings[path]) for path in self.modules}

  @property
  def placed_shapes(self) -> dict[str, Any]:
    """Shapes and shardings of the parameters, to compile without the parameters."""
    placed = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return {path: jax.tree.map(placed, self.shapes[path], self.shardings[path]) for path in self.modules}


NO_TEACHERS = Teachers()


def make_teachers(objectives: Sequence[Term], model: Any, mesh: Mesh, kinds: tuple[type[Kind], ...] = ()) -> Teachers:
  """Make the frozen teachers that terms name. Only their configurations are read here.

  Args:
    objectives: the terms of the run.
    model: configuration of the trained model.
    mesh: mesh for the parameters of the teachers.
    kinds: the classes that the script defines.
  Raises: ConfigError: a teacher takes images of another size than the model, or has adapters.
  """
  paths = list(dict.fromkeys(o.teacher for o in objectives if o.teacher not in (None, AVERAGE)))
  modules, shapes, shardings = {}, {}, {}
  for path in paths:
    run = _run(path, kinds)
    if run is not None and run.adapter.rank:
      raise ConfigError(f"the teacher {path} has adapters: export it (export --to mmjax), and name that folder instead")
    config = _published(path).config if run is None else run.model
    if image_size(config) != image_size(model):
      raise ConfigError(
        f"the teacher {path} takes images of {image_size(config)} pixels, the model of {image_size(model)}: both read "
        "the same batch, so make them equal"
      )
    module: Any = config.build()
    fresh = functools.partial(init_params, module) if run is None else functools.partial(initial_params, run, module)
    modules[path], shapes[path] = module, jax.eval_shape(fresh, jax.random.key(0))
    shardings[path] = parameter_shardings(list(SHARDING_RULES), shapes[path], mesh)
  return Teachers(modules, shapes, shardings)


def _run(path: str, kinds: tuple[type[Kind], ...]) -> Experiment | None:
  """Read the experiment of a teacher that is a run. None if the path is not the workdir of one."""
  return read_experiment(_folder(path) / CONFIG, kinds=kinds) if _is_run(path) else None


def _is_run(path: str) -> bool:
  return (_folder(path) / CONFIG).is_file() and (_folder(path) / CHECKPOINTS).is_dir()


def _folder(path: str) -> Path:
  return Path(path).expanduser()


def _published(path: str) -> Any:
  from mmjax.interop.source import open_source  # here, so that other runs need none of it

  return open_source(path)


def _read(path: str, shapes: Any, shardings: Any) -> Any:
  if _is_run(path):
    checkpoints = Checkpoints(_folder(path) / CHECKPOINTS, read_only=True)
    params, _ = checkpoints.restore_params(shapes, shardings)
    checkpoints.close()
    return params
  from mmjax.interop import load

  return jax.device_put(load(path)[1], shardings)
