"""A run as one frozen record, and its JSON form."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cattrs.errors import BaseValidationError
from cattrs.v import format_exception, transform_error

from mmjax.catalogue import KINDS
from mmjax.configs import converter, to_json
from mmjax.data.config import DataConfig
from mmjax.errors import ConfigError
from mmjax.evaluate.config import EvaluationConfig
from mmjax.kinds import Kind, check
from mmjax.models.config import ModelConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.objectives.terms.base import AVERAGE, Term
from mmjax.objectives.terms.contrastive import Contrastive
from mmjax.parallel.mesh import ParallelConfig
from mmjax.train.config import NumericsConfig, OptimizerConfig
from mmjax.upgrade import upgraded

__all__ = ["Experiment", "PretrainedConfig", "RunConfig", "from_json", "read_experiment", "to_json"]


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """How long, how much, where, and what is kept."""

  workdir: Path = Path("runs/experiment")
  """Folder for everything the run writes: config, metrics, checkpoints, results, report."""
  steps: int = 1000
  """Optimiser steps."""
  batch_size: int = 256
  """Examples per step, over all devices and processes."""
  seed: int = 0
  """Data order, augmentation, initialisation and dropout are functions of it."""
  resume: bool = True
  """Continue from the newest checkpoint in the workdir; with --run.no-resume a workdir that holds one is refused."""
  log_every: int = 10
  """Steps between two lines of metrics.jsonl."""
  save_every: int = 500
  """Steps between two checkpoints (the last step, evaluations and Ctrl-C save as well)."""
  keep_last: int = 2
  """How many of the newest checkpoints to keep; the best one by evaluation.best_metric is kept besides."""
  tensorboard: bool = True
  """Write TensorBoard event files to WORKDIR/tensorboard."""
  wandb_project: str | None = None
  """Log to this Weights & Biases project as well (pip install 'mmjax[wandb]')."""

  def __post_init__(self):
    for name in ("steps", "batch_size", "log_every", "save_every", "keep_last"):
      if getattr(self, name) < 1:
        raise ValueError(f"run.{name} is {getattr(self, name)}: it must be at least 1")
    if self.seed < 0:
      raise ValueError(f"run.seed is {self.seed}: it must not be negative")


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
  """Weights to begin from, in place of random ones."""

  path: str | None = None
  """A folder or file that mmjax.interop.load reads (transformers, open_clip, big_vision, ...); None: all is random."""
  into: Literal["", "image", "text"] = ""
  """The tower they are for; empty: the whole model."""
  take: tuple[str, ...] = (".*",)
  """Expressions of the parameters to take; whatever none matches begins at random."""


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that decides what a run does. Raises ValueError where the parts do not fit each other."""

  data: DataConfig = DataConfig()
  """What is read, and how it is transformed."""
  model: ModelConfig = TwoTowerConfig()
  """The towers, and what reads them."""
  pretrained: PretrainedConfig = PretrainedConfig()
  """What the parameters begin from."""
  objectives: tuple[Term, ...] = (Contrastive(),)
  """The weighted terms of the loss."""
  balance: Literal["fixed", "uncertainty"] = "fixed"
  """How terms are weighed: as they say, or besides by a learned variance each (Kendall et al. 2018)."""
  optimizer: OptimizerConfig = OptimizerConfig()
  """Optimiser, schedule and per-parameter rules."""
  numerics: NumericsConfig = NumericsConfig()
  """What happens when a loss or a gradient is not finite, or the loss jumps."""
  parallel: ParallelConfig = ParallelConfig()
  """Mesh, placement and microbatches."""
  evaluation: EvaluationConfig = EvaluationConfig()
  """What is measured, and how often."""
  run: RunConfig = RunConfig()
  """Steps, batch size, seed and the workdir."""

  def __post_init__(self):
    if not self.objectives:
      raise ValueError("objectives is empty: list at least one, such as Contrastive()")
    if self.optimizer.ema_decay == 0 and any(term.teacher == AVERAGE for term in self.objectives):
      raise ValueError(
        "an objective learns from the moving average of the model: set --optimizer.ema-decay (ALBEF: 0.995)"
      )
    names = [objective.name for objective in self.objectives]
    if len(set(names)) < len(names):
      raise ValueError(f"objectives must differ in loss or in what they compare; got {names}")
    for term in self.objectives:
      if term.needs_bias and getattr(self.model, "init_logit_bias", None) is None:
        raise ValueError(f"the objective {term.name} needs a bias: set --model.init-logit-bias (SigLIP uses -10)")

  def saves_after(self, step: int) -> bool:
    """Whether the run saves a checkpoint after a step even if nobody stops it there; what it evaluates, it saves."""
    return step % self.run.save_every == 0 or step == self.run.steps or self.evaluation.after(step)


_LONGEST = 4096  # of a text or list in a configuration


def from_json(
  fields: dict[str, Any], *, source: str = "the configuration", kinds: Sequence[type[Kind]] = ()
) -> Experiment:
  """The experiment of a configuration that to_json, or an older version, wrote.

  Args:
    fields: the nested dictionaries.
    source: where they are from, for the error.
    kinds: classes of the script's own.
  Raises: ConfigError, which names `source` and the offending fields.
  """
  try:
    _check_sizes(fields)
    return converter(check((*KINDS, *kinds))).structure(upgraded(fields), Experiment)
  except (BaseValidationError, ValueError, TypeError, AttributeError, OverflowError) as error:  # as cattrs has it
    faults = "; ".join(transform_error(error, path="experiment", format_exception=_fault))
    raise ConfigError(f"{source} is not an experiment of this version of mmjax: {faults}") from error


def _check_sizes(fields: Any) -> None:
  """Raises ValueError where something is too long: cattrs takes a text for a list, and names every letter of it."""
  waiting = [fields]
  while waiting:
    value = waiting.pop()
    if isinstance(value, str | list | tuple | dict) and len(value) > _LONGEST:
      raise ValueError(f"a {type(value).__name__} of {len(value)} entries; up to {_LONGEST} are accepted")
    if isinstance(value, dict):
      waiting.extend(value.values())
    elif isinstance(value, list | tuple):
      waiting.extend(value)


def _fault(error: BaseException, kind: type | None) -> str:
  # cattrs words its own errors well; a field's own check says more than "invalid value".
  return str(error) if type(error) in (ValueError, ConfigError) else format_exception(error, kind)


def read_experiment(path: Path, kinds: Sequence[type[Kind]] = ()) -> Experiment:
  """The experiment in a workdir's config.json. Raises ConfigError, or FileNotFoundError with what to do."""
  if not path.exists():
    raise FileNotFoundError(f"{path} does not exist: is {path.parent} the workdir of a run?")
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
    fields = record["experiment"]
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ConfigError(f"{path} is not a run's config.json: {error!r}") from error
  return from_json(fields, source=str(path), kinds=kinds)
