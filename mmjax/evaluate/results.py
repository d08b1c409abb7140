"""What an evaluation found: one record per task, with what guessing gives beside it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from mmjax.errors import UserError

Metrics = dict[str, float]


class _Required(TypedDict):
  title: str
  dataset: str
  model: str
  pretrained: str
  task: str
  language: str
  step: int
  n: int
  metrics: Metrics
  chance: Metrics


class Result(_Required, total=False):
  """CLIP_benchmark's fields (dataset, model, pretrained, task, metrics, language) and more.

  title: one line for people. step: optimiser steps of the model. n: pictures measured. chance: what guessing
  scores, under the metrics' names. floor, floor_is: what the raw pixels score, and how that was measured.
  gallery: pictures to choose among; classes: classes to choose among. control: a negative control, which
  must be at chance. skipped: unreadable records left out. priors: what answering without a look scores. report:
  precision, recall, F1 and support by class. missing: metrics that could not be computed, and why.
  """

  floor: Metrics
  floor_is: str
  gallery: int
  classes: int
  control: bool
  skipped: int
  priors: Metrics
  report: dict[str, Any]
  missing: dict[str, str]


@dataclass(frozen=True)
class Cell:
  """One number with what it is to be compared with."""

  metric: str
  value: float
  chance: float
  floor: float | None


@dataclass(frozen=True)
class Row:
  """One direction of one result: a line of the table."""

  key: str
  title: str
  kind: str
  n: int
  control: bool
  cells: tuple[Cell, ...]


HEADINGS = {
  "recall": "Retrieval",
  "accuracy": "Zero-shot classification",
  "answers": "Answers to questions",
  "masks": "Relevant pixels",
  "matching": "Do picture and text belong together?",
  "captions": "Captions",
  "words": "Hidden words, next sentences",
}
"""The tables of a report, by the kind of their rows."""

_KINDS = {
  "vqa": "answers",
  "vqa_written": "answers",
  "relevance": "masks",
  "image_text_matching": "matching",
  "captioning": "captions",
  "masked_words": "words",
  "next_sentence": "words",
}
_DIRECTIONS = {
  ("zeroshot_retrieval", "image_retrieval"): "text to picture",
  ("zeroshot_retrieval", "text_retrieval"): "picture to text",
}


def flatten(results: Sequence[Result]) -> Metrics:
  """{"dataset/metric": value} of everything but the controls, and "mean_recall@1", the mean of every R@1."""
  values = {
    f"{result['dataset']}/{name}": value
    for result in results
    if not result.get("control")
    for name, value in result["metrics"].items()
  }
  recalls = [value for name, value in values.items() if name.endswith("recall@1")]
  if recalls:
    values["mean_recall@1"] = sum(recalls) / len(recalls)
  return values


def read_json(path: Path) -> Any:
  """A JSON file of a workdir; None where there is none. Raises UserError where it is not JSON."""
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise UserError(f"{path} is not JSON ({error}): remove it, or evaluate the run again") from error


def rows(results: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
  """The lines of the tables: every direction of every retrieval, every classification, and one for other results."""
  for result in results:
    metrics = result["metrics"]
    for family in ("image_retrieval", "text_retrieval"):
      names = [name for name in metrics if name.startswith(f"{family}_")]
      if names:
        direction = _DIRECTIONS.get((result["task"], family))
        yield _row(result, names, "recall", f"{result['title']}, {direction}" if direction else result["title"])
    if "acc1" in metrics:
      names = [name for name in ("acc1", "acc5", "mean_per_class_recall") if name in metrics]
      yield _row(result, names, "accuracy", result["title"])
    if result["task"] in _KINDS:
      yield _row(result, [n for n in metrics if n in result["chance"]], _KINDS[result["task"]], result["title"])


def short(metric: str) -> str:
  """The name of a column: "R@5", "median rank", "acc1"."""
  if "_recall@" in metric:
    return "R@" + metric.rpartition("@")[2]
  return "median rank" if metric.endswith("median_rank") else metric.replace("_", " ")


def _row(result: Mapping[str, Any], names: list[str], kind: str, title: str) -> Row:
  floor = result.get("floor", {})
  cells = tuple(Cell(name, result["metrics"][name], result["chance"][name], floor.get(name)) for name in names)
  return Row(result["dataset"], title, kind, result["n"], bool(result.get("control")), cells)
