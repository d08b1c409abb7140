"""Ranges of settings, and values from them: at random, or where earlier trials did well."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.choosing import replaced
from mmjax.errors import ConfigError, UserError
from mmjax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Uniform:
  """Numbers from `low` to `high`, all equally likely."""

  low: float
  high: float

  def __post_init__(self) -> None:
    if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
      raise ValueError(f"a range goes from a number to a larger one, not from {self.low} to {self.high}")

  def draw(self, rng: np.random.Generator) -> float:
    """A value of the range."""
    return float(rng.uniform(self.low, self.high))

  @property
  def ends(self) -> tuple[Any, ...]:
    """Values that a field must accept if it accepts all of the range."""
    return self.low, self.high

  def place(self, value: Any) -> float:
    """Place of a value on an axis from 0 to 1."""
    return (value - self.low) / (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class Integers(Uniform):
  """Whole numbers from `low` to `high`, both included, all equally likely."""

  low: int
  high: int

  def __post_init__(self) -> None:
    super().__post_init__()
    if not (isinstance(self.low, int) and isinstance(self.high, int)):
      raise ValueError(f"a range of whole numbers has whole ends, not {self.low} and {self.high}")

  def draw(self, rng: np.random.Generator) -> int:
    """A value of the range."""
    return int(rng.integers(self.low, self.high + 1))


@dataclasses.dataclass(frozen=True)
class LogUniform(Uniform):
  """Numbers from `low` to `high` whose logarithms are equally likely: for learning rates and weight decays."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.low <= 0:
      raise ValueError(f"a range of logarithms begins above 0, not at {self.low}")

  def draw(self, rng: np.random.Generator) -> float:
    """A value of the range."""
    return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

  def place(self, value: Any) -> float:
    """Place of a value on an axis from 0 to 1."""
    return math.log(value / self.low) / math.log(self.high / self.low)


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of several values, such as numbers, names or whole configurations of a tower, all equally likely.

  Attributes:
    values: {name in tables and plots: value}, or the values themselves if they are numbers or strings.
  """

  values: Mapping[str, Any] | Sequence[Any]

  def __post_init__(self) -> None:
    if not self.values:
      raise ValueError("a choice needs at least one value")
    if odd := [name for name in self.values if not isinstance(name, int | float | str)]:
      raise ValueError(
        f"{odd[0]!r} is neither a number nor a string: give the values of a choice names, {{name: value}}"
      )

  def draw(self, rng: np.random.Generator) -> Any:
    """The name of one of the values; see `value`."""
    return self.names[int(rng.integers(len(self.names)))]

  @property
  def names(self) -> tuple[Any, ...]:
    """The names of the values, which are the values themselves if they have none."""
    return tuple(self.values)

  def value(self, name: Any) -> Any:
    """The value of a name."""
    return self.values[name] if isinstance(self.values, Mapping) else name

  @property
  def ends(self) -> tuple[Any, ...]:
    """The names of all values."""
    return self.names

  def place(self, name: Any) -> float:
    """Place of a value on an axis from 0 to 1."""
    return self.names.index(name) / max(1, len(self.names) - 1)


Range = Uniform | Choice
Space = Mapping[str, Range]
"""{path of a field, such as "optimizer.learning_rate" or "objectives.0.weight": its range}."""
Values = Mapping[str, Any]
"""{path of a field: a value of its range}. The values of a Choice are names."""


def drawn(space: Space, seed: int, number: int) -> dict[str, Any]:
  """Values of trial `number` of a random search. They depend on seed and number, and on nothing that was measured."""
  rng = np.random.default_rng((seed, number))
  return {path: space[path].draw(rng) for path in sorted(space)}


def suggested(
  space: Space, seed: int, number: int, found: Sequence[tuple[Values, float, bool]], *, maximize: bool
) -> dict[str, Any]:
  """Values of trial `number` by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

  Args:
    space: the ranges.
    seed: seed of the search.
    number: number of the trial. The first ten trials that are measured are random.
    found: the values of earlier trials, in the order of their numbers, with the score, and whether they took all
      steps. Optuna learns first from those that did.
    maximize: True if a higher score is better.
  Raises: UserError: Optuna is not installed.
  """
  try:
    import optuna
  except ImportError:
    raise UserError(
      "--search.sampler tpe needs Optuna: python -m pip install 'mmjax[sweep]', or take --search.sampler random"
    ) from None
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  axes = {path: _distribution(optuna, space[path]) for path in sorted(space)}
  sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
  study = optuna.create_study(sampler=sampler, direction="maximize" if maximize else "minimize")
  states = optuna.trial.TrialState
  for values, score, whole in found:
    outcome: dict[str, Any] = {"state": states.COMPLETE, "value": score}
    if not whole:
      outcome = {"state": states.PRUNED, "intermediate_values": {0: score}}
    study.add_trial(optuna.trial.create_trial(params=dict(values), distributions=axes, **outcome))
  return dict(study.ask(axes).params)


def _distribution(optuna: Any, one: Range) -> Any:
  if isinstance(one, Choice):
    return optuna.distributions.CategoricalDistribution(one.names)
  if isinstance(one, Integers):
    return optuna.distributions.IntDistribution(one.low, one.high)
  return optuna.distributions.FloatDistribution(one.low, one.high, log=isinstance(one, LogUniform))


def changed(experiment: Experiment, space: Space, values: Values) -> Experiment:
  """The experiment with the values of a trial.

  Raises: ConfigError: there is no such field, or it does not accept its value. The message names both.
  """
  for path, name in values.items():
    one = space[path]
    try:
      experiment = replaced(experiment, path.split("."), one.value(name) if isinstance(one, Choice) else name)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
      raise ConfigError(f"the search space names the field {path}, which the experiment does not have") from error
    except ValueError as error:  # from the check of a field
      others = ", ".join(f"{other}={value}" for other, value in values.items() if other != path)
      beside = f" beside {others}" if others else ""
      raise ConfigError(f"the search space has {path}={name}{beside}, which cannot be: {error}") from None
  return experiment


def check_space(experiment: Experiment, space: Space) -> None:
  """Check that the fields of a space exist, and accept the ends of their ranges.

  Raises: ConfigError: naming the field and the value.
  """
  if not space:
    raise ConfigError("the search space is empty: give it at least one field and its range")
  for path, one in space.items():
    for end in one.ends:
      changed(experiment, {path: one}, {path: end})
