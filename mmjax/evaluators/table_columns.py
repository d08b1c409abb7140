"""Permutation importance of the fields of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array
from jaxtyping import Float

from mmjax.data.columns.table import Table, without_images
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, shown_examples
from mmjax.evaluate.forward import call
from mmjax.evaluate.outcome import outcome
from mmjax.models.joined import PRESENT

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class TableColumns(Evaluator):
  """Section of the report: permutation importance of the fields of a table (Breiman 2001; Fisher et al. 2019).

  It is the rise of the loss if the values of a field are exchanged among the examples. The field's missing values and
  unknown categories are counted as well.
  """

  repeats: int = 5
  """Number of permutations of each field."""

  def __post_init__(self) -> None:
    if self.repeats < 1:
      raise ValueError(f"repeats={self.repeats} must be at least 1")

  def applies(self, experiment: Experiment) -> bool:
    return outcome(experiment) is not None and bool(tables(experiment))

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    examples, found = shown_examples(run, shared), tables(run.experiment)
    return [
      Section(f"columns-{name}", f"Which columns of {name} matter", self._html(run, examples, name, column))
      for name, column in found.items()
    ]

  def _html(self, run: Run, examples: Examples, name: str, column: Table) -> str:
    rises = importance(run, examples, name, self.repeats)
    records, coded = list(without_images(examples.records)), column.coder(run.fitted[name])
    largest = max(float(np.max(rises.mean(axis=1))), 1e-12)
    lines = []
    for place in np.argsort(-rises.mean(axis=1)).tolist():
      field, rise = column.fields[place], rises[place]
      unknown = ""
      if field in column.categorical:
        unknown = str(sum(column.unknown(record, field, run.fitted[name]) for record in records))
      missing = np.mean([coded(record, field)[1] for record in records])
      width = 10 * max(float(rise.mean()), 0.0) / largest
      bar = f'<div style="background:var(--series-1);height:.8em;width:{width:.2f}em"></div>'
      lines.append(
        f"<tr><td>{escape(field)}</td><td>{rise.mean():+.4f} ± {rise.std():.4f}</td><td>{bar}</td>"
        f"<td>{missing:.0%}</td><td>{unknown}</td></tr>"
      )
    heads = ("field", "rise of the loss", "", "missing", "unknown categories")
    what: Any = outcome(run.experiment)
    unit = "squared error, in variances of the training data" if what.metric == "r2" else "log loss, in nats"
    note = (
      f"Rise of the {unit}, if the values of a field are exchanged among the {len(examples)} examples (mean and "
      f"standard deviation of {self.repeats} permutations). Fields that say the same share their importance."
    )
    table = f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(lines)}</table>"
    return f'<p class="note">{note}</p>{table}'


def tables(experiment: Experiment) -> dict[str, Table]:
  """Columns of tables that the model reads, by name."""
  found: Any = outcome(experiment)
  columns = experiment.data.columns or experiment.data.source.columns
  return {name: column for name, column in columns.items() if isinstance(column, Table) and name in found.inputs}


def importance(run: Run, examples: Examples, name: str, repeats: int) -> Float[np.ndarray, "fields repeats"]:
  """Rises of the loss by permutations of each field of a table.

  Args:
    run: the run.
    examples: the examples.
    name: name of the column.
    repeats: number of permutations of each field. They are the same ones in every call.
  """
  found: Any = outcome(run.experiment)
  kept = [[batch[each][batch["valid"]] for each in (name, found.target)] for batch in batches(run, examples)]
  rows, truth = (np.concatenate(parts) for parts in zip(*kept, strict=True))
  rng = np.random.default_rng(0)
  orders = [rng.permutation(len(rows)) for _ in range(repeats)]
  fields = range(rows.shape[1])
  changes = [(field, order) for field in fields for order in orders]
  outputs = np.concatenate(list(_permuted(run, examples, name, rows, changes)), axis=1)
  whole, *changed = (found.loss(each, truth) for each in outputs)
  return np.asarray(changed).reshape(len(fields), repeats) - whole


def _permuted(
  run: Run, examples: Examples, name: str, rows: Float[np.ndarray, "n fields 2"], changes: Sequence[Any]
) -> Iterator[Float[np.ndarray, "variants rows outputs"]]:
  """Outputs of each batch: with the table as it is, then with each (field, order) of `changes`."""
  found: Any = outcome(run.experiment)
  last = len(rows) - 1
  for batch in batches(run, examples):
    places = np.minimum(batch["index"], last)
    encoded = call(run, encode, {each: batch[each] for each in found.inputs})
    given = {PRESENT: batch[PRESENT]} if PRESENT in found.inputs else {}
    variants = [rows[places]]
    for field, order in changes:
      variants.append(rows[places])
      variants[-1][:, field] = rows[order[places], field]
    ask = Exchanged(name)
    outputs = [call(run, ask, {"encoded": encoded, "batch": {name: each, **given}}) for each in variants]
    yield np.stack(outputs)[:, batch["valid"]]


def encode(model: Any, batch: Any) -> Any:
  """Encodings of the towers."""
  return model.encode(batch)


@dataclasses.dataclass(frozen=True)
class Exchanged:
  """(model, {"encoded": encodings, "batch": other rows of one tower}) -> outputs with the encoding of these rows.

  Attributes:
    name: name of the tower.
  """

  name: str

  def __call__(self, model: Any, rows: Any) -> Array:
    return model.outputs({**rows["encoded"], **model.encode(rows["batch"])})
