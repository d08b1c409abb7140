"""The records that evaluators show to a model, and their batches."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.data.records import Records, text_reader
from mmjax.data.sources.base import columns_of_features
from mmjax.evaluate.checked import readable
from mmjax.evaluate.traits import entries, has_emoji

if TYPE_CHECKING:
  from mmjax.data.columns.base import Column
  from mmjax.evaluate.evaluator import Shared
  from mmjax.run import Run

LEARNT_FROM = 20_000  # training records that priors are learnt from, at most


@dataclass(frozen=True)
class Examples:
  """Records in order; a source of mmjax.data.

  Attributes:
    name: of the data set, in results.
    title: for people.
    records: the examples.
    features: names of the arrays of a batch of them.
    skipped: number of bad records that were left out.
  """

  name: str
  title: str
  records: Sequence[Any]
  features: tuple[str, ...]
  skipped: int = 0

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Any:
    return self.records[index]


def shown_examples(run: Run, shared: Shared) -> Examples:
  """The examples that evaluators show to a model: of the emoji one artist's, of other data the validation split."""

  def compute() -> Examples:
    if has_emoji(run.experiment.data):
      from mmjax.evaluate.emoji import examples

      return examples(run)
    return validation_examples(run)

  return shared.once("examples", compute)


def shown_name(data: DataConfig) -> str:
  """The name of the examples that `shown_examples` gives for this data."""
  if has_emoji(data):
    from mmjax.evaluate.emoji import shown_vendor

    return f"emoji_{shown_vendor(data)}"
  return data.source.title


def validation_examples(run: Run) -> Examples:
  """The validation split of a run's data: at most evaluation.max_examples records, evenly spread over it."""
  from mmjax.data import make_source  # decodes images: imported by what reads data, not by what is configured

  data, name = run.experiment.data, run.experiment.data.source.title
  source = make_source(data, "validation")
  features = tuple(getattr(source, "features", entries(data)))
  places = spread(len(source), run.experiment.evaluation.max_examples)
  records, _ = readable(source.__getitem__, places, example_columns(data, features), data)
  return Examples(name, f"{name}, validation", records, features, len(places) - len(records))


@functools.lru_cache(maxsize=2)
def training_questions(data: DataConfig) -> tuple[list[str], list[list[str]]]:
  """(questions, everybody's answers) of the training split, or of an even sample of it."""
  _, records = training_records(data)
  return [record["question"] for record in records], [list(record["answers"]) for record in records]


def training_records(data: DataConfig) -> tuple[Records, list[Any]]:
  """(the training split, its records or an even sample of them, without images where these need not be read)."""
  from mmjax.data import make_source

  source, records = make_source(data, "train"), []
  read = text_reader(source)
  for place in spread(len(source), LEARNT_FROM):
    try:
      records.append(read(place))
    except DataError:
      if data.on_bad_record != "skip":
        raise
  return source, records


def example_columns(data: DataConfig, features: tuple[str, ...]) -> Mapping[str, Column]:
  """The columns of examples with these features."""
  return data.columns or (data.source.columns if features == data.source.features else columns_of_features(features))


def batches(run: Run, examples: Examples) -> Iterator[dict[str, np.ndarray]]:
  """Evaluation batches, as many rows in each as evaluation.batch_size says and the devices divide."""
  from mmjax.data import evaluation_batches

  data = run.experiment.data
  return evaluation_batches(
    examples,
    run.transform,
    run.tokenizer,
    batch_size=run.batch_size(len(examples)),
    columns=example_columns(data, examples.features),
    fitted=run.fitted,
  )
