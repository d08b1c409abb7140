"""Examples of the validation split in the report, drawn by their columns, with the class that the model gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from mmjax.data.columns.base import Column
from mmjax.data.features import run_columns
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import example_columns
from mmjax.evaluate.traits import terms
from mmjax.evaluators.classes import guesses
from mmjax.models.protocols import Classifies

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.objectives.terms.classify import Classify
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class ClassifiedExamples(Evaluator):
  """Examples with the class that the model gives, as their columns draw them (Column.show). They are not measured."""

  examples: int = 16
  """Number of examples. Half of them have a wrong class, if there are enough."""

  def applies(self, experiment: Experiment) -> bool:
    found, columns = terms(experiment, Classifies), run_columns(experiment.data)
    inputs: Sequence[str] = getattr(found[0], "inputs", ()) if found else ()
    return any(_draws(columns.get(name)) for name in inputs)

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    term: Classify = terms(run.experiment, Classifies)[0]  # type: ignore[assignment]
    found = shared.once("classes", lambda: guesses(run, shared))
    columns = example_columns(run.experiment.data, found.examples.features)
    drawing = [columns[name] for name in term.inputs if _draws(columns[name])]
    given = found.logits.argmax(axis=1)
    cards = []
    for place in _chosen(given == found.truth, self.examples):
      record, right = found.examples[place], given[place] == found.truth[place]
      names = f"{escape(found.names[found.truth[place]])}, given as {escape(found.names[given[place]])}"
      mark = '<b class="good">right</b>' if right else '<b class="bad">wrong</b>'
      drawn = "".join(column.show(record) for column in drawing)
      caption = f"<figcaption>{mark} {names}<br>{escape(record['id'])}</figcaption>"
      cards.append(f'<figure style="width: 220px">{drawn}{caption}</figure>')
    return [Section("examples", "Examples with their classes", f'<div class="tiles">{"".join(cards)}</div>')]


def _draws(column: Column | None) -> bool:
  return column is not None and type(column).show is not Column.show


def _chosen(right: np.ndarray, count: int) -> list[int]:
  """Places of examples: half of them wrong if there are so many, evenly spread."""
  wrong_places, right_places = np.flatnonzero(~right), np.flatnonzero(right)
  wrong = min(len(wrong_places), max(count // 2, count - len(right_places)))
  pick = lambda places, number: places[np.linspace(0, len(places) - 1, number).round().astype(int)] if number else []
  return [*map(int, pick(wrong_places, wrong)), *map(int, pick(right_places, min(count - wrong, len(right_places))))]
