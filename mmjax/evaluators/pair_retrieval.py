"""Retrieval between any two arrays that a contrastive term compares, such as sounds and texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.columns.base import Making
from mmjax.data.columns.text import TextColumn
from mmjax.data.places import spread
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, example_columns, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.metrics import recall_names
from mmjax.evaluate.results import RETRIEVAL, Result
from mmjax.evaluate.retrieval import Embedded, one_way
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import compared, entries, of_images_and_texts

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


class _Pairs(NamedTuple):
  """Examples, and their embeddings under both names. `places` are the examples of the gallery of the second."""

  examples: Examples
  first: Embedded
  second: Embedded
  places: Int[np.ndarray, " gallery"]


@dataclasses.dataclass(frozen=True)
class PairRetrieval(Evaluator):
  """Retrieval both ways between the two arrays of each contrastive term (audio, text), and with the pairs shuffled.

  With evaluation.counts "concept", all examples of a concept answer each other, and each text is in the gallery once.
  """

  examples: int = 12
  """Number of examples in the report, with their nearest items."""

  def applies(self, experiment: Experiment) -> bool:
    return bool(_names(experiment))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [
      f"{_result_name(experiment, names, shown_name(experiment.data))}/{metric}"
      for names in _names(experiment)
      for prefix in (f"{names[1]}_retrieval", f"{names[0]}_retrieval")
      for metric in recall_names(prefix)
    ]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    return [result for names in _names(run.experiment) for result in self._results(run, shared, names)]

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    return [self._section(run, shared, names) for names in _names(run.experiment)]

  def _results(self, run: Run, shared: Shared, names: tuple[str, str]) -> list[Result]:
    pairs, (first, second) = self._pairs(run, shared, names), names
    said = {"own": "the other array of the same example", "concept": "all examples of the same concept"}
    results = []
    for suffix, title, shown in (
      ("", pairs.examples.title, pairs.first),
      ("_shuffled", f"Control: {pairs.examples.name} shuffled", pairs.first.shuffled()),
    ):
      there, back = (
        one_way(shown, pairs.second, f"{second}_retrieval"),
        one_way(pairs.second, shown, f"{first}_retrieval"),
      )
      results.append(
        make_result(
          run, f"{_result_name(run.experiment, names, pairs.examples.name)}{suffix}", "retrieval",
          f"{title}: {first} and {second}", pairs.examples,
          (there[0] | back[0], there[1] | back[1]), table=RETRIEVAL, control=bool(suffix), gallery=len(pairs.second),
          skipped=pairs.examples.skipped, counts=said[run.experiment.evaluation.counts],
        )
      )  # fmt: skip
    return results

  def _section(self, run: Run, shared: Shared, names: tuple[str, str]) -> Section:
    from mmjax.report.page import Section

    pairs, (first, second) = self._pairs(run, shared, names), names
    columns = _columns(run.experiment.data, pairs.examples.features)
    cards = []
    for place in spread(len(pairs.examples), self.examples):
      nearest = np.argsort(-pairs.second.rows @ pairs.first.rows[place])[:3]
      lines = [
        f'<b class="{"good" if pairs.second.ids[each] == pairs.first.ids[place] else "bad"}">{number}.</b> '
        + _shown(columns[second], pairs.examples[pairs.places[each]])
        for number, each in enumerate(nearest.tolist(), 1)
      ]
      record = pairs.examples[place]
      caption = f"<figcaption>{escape(record['id'])}<br>{'<br>'.join(lines)}</figcaption>"
      cards.append(f'<figure style="width: 220px">{_shown(columns[first], record)}{caption}</figure>')
    title = f"Examples of {first}, and the nearest of {second}"
    name = _result_name(run.experiment, names, "pairs")
    return Section(name, title, f'<div class="tiles">{"".join(cards)}</div>')

  def _pairs(self, run: Run, shared: Shared, names: tuple[str, str]) -> _Pairs:
    def compute() -> _Pairs:
      examples = shown_examples(run, shared)
      found = [rows for _, rows in over_batches(run, PairEmbeddings(names), batches(run, examples), names)]
      rows = [np.concatenate([part[place] for part in found]) for place in range(2)]
      ids = np.array([int(record["concept"]) for record in examples.records])
      places = np.arange(len(ids))
      if run.experiment.evaluation.counts == "own":
        ids = places
      elif isinstance(_columns(run.experiment.data, examples.features)[names[1]], TextColumn):
        places = np.sort(np.unique(ids, return_index=True)[1])
      return _Pairs(examples, Embedded(rows[0], ids), Embedded(rows[1][places], ids[places]), places)

    return shared.once(f"pairs {names}", compute)


def _names(experiment: Experiment) -> list[tuple[str, str]]:
  """The pairs of arrays of the data that terms compare, but for images with texts, which have an evaluator."""
  there = set(entries(experiment.data))
  return [names for names in compared(experiment) if not of_images_and_texts(names) and set(names) <= there]


def _result_name(experiment: Experiment, names: tuple[str, str], name: str) -> str:
  """The name of a pair's result: that of the data, with those of the arrays for all but the first pair."""
  return name if names == _names(experiment)[0] else f"{name}_{'_'.join(names)}"


def _columns(data: DataConfig, features: tuple[str, ...]) -> dict[str, Any]:
  """The column that gives each array."""
  columns = example_columns(data, features)
  return {array: column for name, column in columns.items() for array in column.arrays(name, Making(data))}


@dataclasses.dataclass(frozen=True)
class PairEmbeddings:
  """(model, batch with both arrays) -> unit-norm embeddings of both."""

  names: tuple[str, str]

  def __call__(self, model: Any, batch: Any) -> tuple[Float[Any, "batch dim"], Float[Any, "batch dim"]]:
    rows = model.project(model.encode(batch))
    return rows[self.names[0]], rows[self.names[1]]


def _shown(column: Any, record: Any) -> str:
  return escape(column.texts(record)[0]) if isinstance(column, TextColumn) else column.show(record)
