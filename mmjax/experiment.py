"""Configuration of a run: one frozen dataclass, and its JSON form."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mmjax.catalogue import KINDS
from mmjax.configs import converter, to_json
from mmjax.data.config import DataConfig
from mmjax.errors import ConfigError, did_you_mean
from mmjax.evaluators.config import EvaluationConfig
from mmjax.kinds import Kind, check
from mmjax.models.config import ModelConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.objectives.terms.base import AVERAGE, Term
from mmjax.objectives.terms.contrastive import Contrastive
from mmjax.parallel.mesh import ParallelConfig
from mmjax.settings import (
  AdapterConfig,
  CompressionConfig,
  NumericsConfig,
  OptimizerConfig,
  PretrainedConfig,
  RunConfig,
)
from mmjax.upgrade import upgraded

__all__ = ["Experiment", "PretrainedConfig", "RunConfig", "from_json", "read_experiment", "to_json"]


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Complete configuration of a run. Raises ValueError if its parts do not fit together."""

  data: DataConfig = DataConfig()
  """Dataset, columns, augmentation, tokenizer and loader."""
  model: ModelConfig = TwoTowerConfig()
  """Model: its towers and its heads."""
  pretrained: PretrainedConfig = PretrainedConfig()
  """Weights to initialise from."""
  objectives: tuple[Term, ...] = (Contrastive(),)
  """The weighted terms of the loss."""
  balance: Literal["fixed", "uncertainty", "pcgrad", "gradnorm"] = "fixed"
  """Weighting of the loss terms: fixed weights; fixed weights times a learned uncertainty weight per term (Kendall et
  al. 2018); gradients that conflict lose the part that does (PCGrad, Yu et al. 2020); weights that bring the terms to
  the same rate of learning (GradNorm, Chen et al. 2018, alpha 1.5). The last two take a backward pass per term."""
  optimizer: OptimizerConfig = OptimizerConfig()
  """Optimiser, schedule and per-parameter rules."""
  numerics: NumericsConfig = NumericsConfig()
  """Reaction to a loss or gradient that is not finite, and to a spike of the loss."""
  parallel: ParallelConfig = ParallelConfig()
  """Device mesh, sharding of the parameters and microbatches."""
  evaluation: EvaluationConfig = EvaluationConfig()
  """Metrics and the steps between evaluations."""
  run: RunConfig = RunConfig()
  """Steps, batch size, seed and the workdir."""
  adapter: AdapterConfig = AdapterConfig()
  """Low-rank adapters (LoRA)."""
  compression: CompressionConfig = CompressionConfig()
  """Pruning and quantisation while the run trains."""

  def __post_init__(self):
    if not self.objectives:
      raise ValueError("objectives is empty: list at least one, such as Contrastive()")
    if self.balance != "fixed" and len(self.objectives) == 1:
      raise ValueError(f"balance={self.balance!r} is between terms, and there is one objective: leave it at fixed")
    if self.optimizer.ema_decay == 0 and any(term.teacher == AVERAGE for term in self.objectives):
      raise ValueError(
        "an objective uses the moving average of the model as its teacher: set --optimizer.ema-decay (ALBEF: 0.995)"
      )
    names = [objective.key for objective in self.objectives]
    if len(set(names)) < len(names):
      raise ValueError(f"objectives must differ in their loss or in the arrays that they compare; got {names}")
    for term in self.objectives:
      if term.needs_bias and getattr(self.model, "init_logit_bias", None) is None:
        raise ValueError(f"the objective {term.name} needs a bias: set --model.init-logit-bias (SigLIP uses -10)")

  def check_streams(self) -> None:
    """Check that terms and streams fit together, and that each stream has a whole number of rows.

    It is no check of a field, so that a command line may set terms and streams one after the other.

    Raises: ConfigError: they do not. The message lists the streams.
    """
    named, read = {"", *self.data.streams}, {term.stream for term in self.objectives}
    known = ", ".join(self.data.streams) or "none"
    for term in self.objectives:
      if term.stream not in named:
        raise ConfigError(
          f"the objective {term.name} reads the stream {term.stream!r}, which data.streams does not have; there are: "
          f"{known}.{did_you_mean(term.stream, list(self.data.streams))}"
        )
    for name in sorted(named - read):
      what = f"the stream {name!r} of data.streams ({known})" if name else "the rows of data.source"
      remedy = "remove the stream" if name else f"let the stream be data.source; data.streams has {known}"
      raise ConfigError(f"no objective reads {what}: add one with stream={name!r}, or {remedy}")
    for name, rows in self._rows().items():
      if rows < 1 or rows != int(rows):
        shares = ", ".join(f"{stream} {each.share}" for stream, each in self.data.streams.items())
        raise ConfigError(
          f"run.batch_size={self.run.batch_size} gives {rows:g} rows to {name or 'data.source'} with the shares "
          f"{shares}: choose shares and a batch size that give each stream a whole number of rows"
        )

  def _rows(self) -> dict[str, float]:
    """Rows of each stream in a batch, the main one first. Rounded only so far as floats are inexact."""
    rows = {name: round(each.share * self.run.batch_size, 6) for name, each in self.data.streams.items()}
    return {"": self.run.batch_size - sum(rows.values()), **rows}

  def by_stream(self) -> "dict[str, Experiment]":
    """One experiment per stream, as if the stream were the only data: its source, columns, terms and batch size.

    The rows of data.source have the name "". A run without streams is the only entry.

    Raises: ConfigError: terms and streams do not fit together.
    """
    self.check_streams()
    if not self.data.streams:
      return {"": self}
    return {
      name: dataclasses.replace(
        self,
        data=self.data.of_stream(name),
        objectives=tuple(dataclasses.replace(o, stream="") for o in self.objectives if o.stream == name),
        run=dataclasses.replace(self.run, batch_size=int(rows)),
      )
      for name, rows in self._rows().items()
    }

  def saves_after(self, step: int) -> bool:
    """True if an uninterrupted run saves a checkpoint after this step. Steps with an evaluation are always saved."""
    return step % self.run.save_every == 0 or step == self.run.steps or self.evaluation.after(step)


_LONGEST = 4096  # longest text or list in a configuration


def from_json(
  fields: dict[str, Any], *, source: str = "the configuration", kinds: Sequence[type[Kind]] = ()
) -> Experiment:
  """Make an experiment from the dictionaries of to_json, of this or an older version.

  Args:
    fields: nested dictionaries.
    source: their origin, for the error.
    kinds: the classes that the script defines.
  Raises: ConfigError: a field is wrong. The message names `source` and the field.
  """
  from cattrs.errors import BaseValidationError  # here, so that --help does not wait for cattrs
  from cattrs.v import transform_error

  try:
    _check_sizes(fields)
    return converter(check((*KINDS, *kinds))).structure(upgraded(fields), Experiment)
  except (BaseValidationError, ValueError, TypeError, AttributeError, OverflowError) as error:  # from cattrs
    faults = "; ".join(transform_error(error, path="experiment", format_exception=_fault))
    raise ConfigError(f"{source} is not an experiment of this version of mmjax: {faults}") from error


def _check_sizes(fields: Any) -> None:
  """Raise ValueError for a very long text or list. Where cattrs expects a list, it reports every letter of a text."""
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
  from cattrs.v import format_exception

  # The messages of cattrs are clear, but it reports errors from the check of a field only as "invalid value".
  return str(error) if type(error) in (ValueError, ConfigError) else format_exception(error, kind)


def read_experiment(path: Path, kinds: Sequence[type[Kind]] = ()) -> Experiment:
  """Read the experiment from the config.json of a workdir.

  Args:
    path: the file.
    kinds: the classes that the script defines.
  Raises: FileNotFoundError: there is no such file. ConfigError: the file is wrong.
  """
  if not path.exists():
    raise FileNotFoundError(f"{path} does not exist: is {path.parent} the workdir of a run?")
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
    fields = record["experiment"]
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ConfigError(f"{path} is not a run's config.json: {error!r}") from error
  return from_json(fields, source=str(path), kinds=kinds)
