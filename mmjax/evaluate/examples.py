"""The records that evaluators show to a model, and their batches."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data import evaluation_batches, make_source
from mmjax.data.config import DataConfig
from mmjax.data.features import source_features
from mmjax.data.transforms import eval_transform
from mmjax.models.config import image_size

_LEARNT_FROM = 20_000  # training records that priors are learnt from, at most


@dataclass(frozen=True)
class Examples:
  """Records in order; a source of mmjax.data.

  Attributes:
    name: of the data set, in results.
    title: for people.
    records: what is shown.
    features: what a batch of them holds.
  """

  name: str
  title: str
  records: Sequence[Any]
  features: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Any:
    return self.records[index]


def validation_examples(run: Any) -> Examples:
  """The validation split of a run's data: at most evaluation.max_examples records, evenly spread over it."""
  data = run.experiment.data
  source = make_source(data, "validation")
  name = data.source.title
  records = [source[place] for place in spread(len(source), run.experiment.evaluation.max_examples)]
  return Examples(name, f"{name}, validation", records, source_features(source))


@functools.lru_cache(maxsize=2)
def training_questions(data: DataConfig) -> tuple[list[str], list[list[str]]]:
  """(questions, everybody's answers) of the training split, or of an even sample of it."""
  source = make_source(data, "train")
  records = [source[place] for place in spread(len(source), _LEARNT_FROM)]
  return [record["question"] for record in records], [list(record["answers"]) for record in records]


def batches(run: Any, examples: Examples) -> Iterator[dict[str, np.ndarray]]:
  """Evaluation batches, as many rows in each as evaluation.batch_size says and the devices divide."""
  transform = eval_transform(run.experiment.data, image_size(run.experiment.model) or 1)
  return evaluation_batches(examples, transform, run.tokenizer, batch_size=run.batch_size(len(examples)))


def spread(size: int, limit: int) -> list[int]:
  """At most `limit` places, evenly spread over `size`."""
  return np.unique(np.linspace(0, size - 1, min(limit, size)).round().astype(int)).tolist() if size else []
