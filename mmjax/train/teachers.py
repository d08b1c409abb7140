"""Frozen teachers of loss terms: models that are loaded from a run or from published weights."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from mmjax.errors import ConfigError
from mmjax.kinds import Kind
from mmjax.models.config import image_size, init_params
from mmjax.models.sharding import SHARDING_RULES
from mmjax.objectives.terms.base import AVERAGE, Term
from mmjax.parallel.mesh import parameter_shardings

_RUN = "config.json"


@dataclasses.dataclass(frozen=True)
class Teachers:
  """The frozen teachers of a run, by the path that its terms name.

  Attributes:
    modules: the linen modules.
    shapes, shardings: shapes and shardings of their parameters.
    kinds: the classes that the script defines. They are needed to read the configurations of runs.
  """

  modules: Mapping[str, nn.Module] = MappingProxyType({})
  shapes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shardings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  kinds: tuple[type[Kind], ...] = ()

  @functools.cached_property
  def params(self) -> dict[str, Any]:
    """Parameters of the teachers, on the devices. They are read from disk at the first access."""
    return {path: jax.device_put(_params(path, self.kinds), self.shardings[path]) for path in self.modules}

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
  Raises: ConfigError: a teacher takes images of another size than the model.
  """
  paths = list(dict.fromkeys(o.teacher for o in objectives if o.teacher not in (None, AVERAGE)))
  modules, shapes, shardings = {}, {}, {}
  for path in paths:
    config = _config(path, kinds)
    if image_size(config) != image_size(model):
      raise ConfigError(
        f"the teacher {path} takes images of {image_size(config)} pixels, the model of {image_size(model)}: both read "
        "the same batch, so make them equal"
      )
    modules[path] = config.build()
    shapes[path] = jax.eval_shape(functools.partial(init_params, modules[path]), jax.random.key(0))
    shardings[path] = parameter_shardings(list(SHARDING_RULES), shapes[path], mesh)
  return Teachers(modules, shapes, shardings, kinds)


def _config(path: str, kinds: tuple[type[Kind], ...]) -> Any:
  folder = Path(path).expanduser()
  if (folder / _RUN).is_file() and (folder / "checkpoints").is_dir():
    from mmjax.experiment import read_experiment

    return read_experiment(folder / _RUN, kinds=kinds).model
  from mmjax.interop.source import open_source

  return open_source(path).config


def _params(path: str, kinds: tuple[type[Kind], ...]) -> Any:
  folder = Path(path).expanduser()
  if (folder / _RUN).is_file() and (folder / "checkpoints").is_dir():
    from mmjax.run import load_run

    return load_run(folder, kinds=kinds).params
  from mmjax.interop import load

  return load(path)[1]
