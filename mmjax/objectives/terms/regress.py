"""Loss term for the prediction of a number, and the check of terms about towers that an example may lack."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.columns.table import Present
from mmjax.errors import ConfigError
from mmjax.models.joined import PRESENT
from mmjax.models.protocols import Encodes, Predicts
from mmjax.objectives.losses.regression import RegressionLoss, regression_loss
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


@dataclasses.dataclass(frozen=True)
class Regress(ExampleTerm):
  """Squared or Huber error of a number, in standard deviations of the training data."""

  inputs: tuple[str, ...] = ("table",)
  """Names of the arrays that the model reads."""
  target: str = "target"
  """Name of the column with the number (Number)."""
  kind: RegressionLoss = "squared"
  """"squared": the squared error. "huber": half of it up to `delta`, then linear."""
  delta: float = 1.0
  """Error from which the Huber loss is linear, in standard deviations."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not self.delta > 0:
      raise ValueError(f"delta={self.delta} must be above 0")

  @property
  def name(self) -> str:
    return "regress"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.inputs, self.target)

  @property
  def reads(self) -> tuple[str, ...]:
    return self.inputs

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Predicts)

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    check_inputs(self.name, self.inputs, model, columns)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    predicted = forward.model.predict(forward.encoded, rng=forward.fusion_rng)
    true = forward.batch[self.target]
    return {"loss": regression_loss(predicted, true, kind=self.kind, delta=self.delta)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return 1.0 if self.kind == "squared" else None


def check_inputs(term: str, inputs: Sequence[str], model: Any, columns: Mapping[str, Any]) -> None:
  """Raise ConfigError if a term does not read all towers, or not the column of the modalities that an example has.

  Args:
    term: name of the term.
    inputs: names of the arrays that the term reads.
    model: configuration of the model.
    columns: columns of the data, by name.
  """
  names = tuple(getattr(model, "towers", ()))
  lacking = [name for name in names if name not in inputs]
  if lacking:
    raise ConfigError(
      f"the objective {term} reads {', '.join(inputs)}, and the model has a tower {lacking[0]!r}: add it to the inputs "
      "of the objective, or remove the tower"
    )
  column = columns.get(PRESENT)
  if isinstance(column, Present) != (PRESENT in inputs):
    fault = "reads it, but the data has no" if PRESENT in inputs else "does not read it, but the data has a"
    raise ConfigError(
      f"the objective {term} {fault} column {PRESENT!r} (Present), which says which modalities an example has: have "
      f"both the column in data.columns and {PRESENT!r} in the inputs of the objective, or neither"
    )
  if isinstance(column, Present) and (column.modalities != names or not getattr(model, "chooses", False)):
    raise ConfigError(
      f"the column {PRESENT!r} is about {', '.join(column.modalities)}, and the model has the towers "
      f"{', '.join(names)}: name these in this order, and set --model.partial or --model.modality-dropout"
    )
