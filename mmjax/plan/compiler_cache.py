"""Cache of compilers' results on disk. Searches, and their users, ask for the same step more than once."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cattrs.errors import BaseValidationError

import mmjax
from mmjax.experiment import Experiment, to_json
from mmjax.files import write_atomically
from mmjax.models.config import image_size
from mmjax.plan import facts
from mmjax.plan.compilers import COMPILER_PACKAGES, package_version
from mmjax.plan.facts import Facts
from mmjax.plan.topologies import Topology

# Besides the experiment and the machine, these determine how a step compiles.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", *COMPILER_PACKAGES)
_FOLDERS = ("nn", "encoders", "fusion", "models", "objectives", "parallel", "train", "plan")
_VARIABLES = ("LIBTPU_INIT_ARGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")


class CompilerCache:
  """Facts on disk. The key is the experiment, the machine, the sources of mmjax and the versions of the packages."""

  def __init__(self, folder: Path):
    self._folder = folder.expanduser()

  def read(self, experiment: Experiment, topology: Topology, script: Path | None = None) -> Facts | None:
    """Read the facts of an experiment on a machine. None if they are not in the cache."""
    path = self._path(experiment, topology, script)
    try:
      return facts.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
      return None
    except (
      OSError,
      ValueError,
      BaseValidationError,
    ):  # damaged or from another version: compile again
      return None

  def write(self, experiment: Experiment, topology: Topology, found: Facts, script: Path | None = None) -> None:
    """Write the facts. Does nothing if the folder cannot be written: the next plan then compiles again.

    Args:
      experiment: the run.
      topology: the machine.
      found: the facts to write.
      script: the experiment script that was run to compile the step. None: no script was run.
    """
    path = self._path(experiment, topology, script)
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      write_atomically(path, json.dumps(facts.to_json(found)))
    except OSError:
      return

  def _path(self, experiment: Experiment, topology: Topology, script: Path | None) -> Path:
    return self._folder / f"{_key(experiment, topology, script)}.json"


def _key(experiment: Experiment, topology: Topology, script: Path | None) -> str:
  parts = {
    "step": _step_fields(experiment),
    "topology": topology.name,
    "sources": _sources(),
    "script": None if script is None else _digest(sorted(script.resolve().parent.glob("*.py"))),
    "packages": {name: package_version(name) for name in _PACKAGES},
    "variables": {
      name: os.environ.get(name) for name in (*_VARIABLES, "XLA_FLAGS" if topology.name[:3] == "cpu" else "")
    },
  }
  return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _step_fields(experiment: Experiment) -> dict[str, Any]:
  """Fields of the experiment that can change the compiled step."""
  fields = to_json(experiment)
  run = {name: fields["run"][name] for name in ("steps", "batch_size", "seed")}
  data = {name: _rows(each) for name, each in experiment.by_stream().items()}
  kept = {name: fields[name] for name in ("model", "objectives", "optimizer", "parallel", "adapter")}
  return kept | {"run": run, "data": data}


def _rows(experiment: Experiment) -> dict[str, Any]:
  """Number of rows of a batch, and the shape and dtype of the rows of each array."""
  from mmjax.data.batching import row_shapes  # it imports tokenizers, which parsing the options does not need

  shapes = row_shapes(experiment.data, image_size(experiment.model))
  arrays = {name: [list(shape), np.dtype(dtype).name] for name, (shape, dtype) in shapes.items()}
  return {"rows": experiment.run.batch_size, "arrays": arrays}


def _sources() -> str:
  """Digest of the source code that determines the step. A git revision would miss changes that are not committed."""
  root = Path(mmjax.__file__).parent
  return _digest(sorted(path for folder in _FOLDERS for path in (root / folder).rglob("*.py")))


def _digest(paths: Sequence[Path]) -> str:
  digest = hashlib.sha256()
  for path in paths:
    digest.update(str(path).encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()
