"""Results of an evaluation: one record per task, with chance beside every number."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

Metrics = dict[str, float]

MEAN_RECALL = "mean_recall@1"
"""The metric that `flatten` adds: the mean of every R@1."""


class Table(NamedTuple):
  """A table of the report. Results that name the same table stand in it together."""

  name: str
  heading: str


RETRIEVAL = Table("recall", "Retrieval")
ZERO_SHOT = Table("accuracy", "Zero-shot classification")
CLASSES = Table("classes", "Classification")
NUMBERS = Table("numbers", "Regression")
MODALITIES = Table("modalities", "With some modalities only")
ANSWERS = Table("answers", "Answers to questions")
MASKS = Table("masks", "Relevant pixels")
MATCHING = Table("matching", "Do image and text belong together?")
BOOTSTRAPPED = Table("bootstrapped", "Captions after CapFilt")
CAPTIONS = Table("captions", "Captions")
WORDS = Table("words", "Hidden words, next sentences")
LANGUAGE = Table("language", "Language modelling")
TEXTS = Table("texts", "Written texts")
PATCHES = Table("patches", "Hidden patches")
RECOMMENDATION = Table("recommendation", "Recommendation")
VERIFICATION = Table("verification", "One identity or two?")
_SEEN = (RETRIEVAL, ZERO_SHOT, CLASSES, NUMBERS, MODALITIES, ANSWERS, MASKS, MATCHING, BOOTSTRAPPED)
TABLES = (*_SEEN, CAPTIONS, WORDS, LANGUAGE, TEXTS, PATCHES, RECOMMENDATION, VERIFICATION)
"""The tables of the evaluators that come with mmjax, in the order of a report. Other tables come after them."""


class _Required(TypedDict):
  title: str
  dataset: str
  model: str
  pretrained: str
  task: str
  table: str
  heading: str
  language: str
  step: int
  n: int
  metrics: Metrics
  chance: Metrics


class Result(_Required, total=False):
  """CLIP_benchmark's fields (dataset, model, pretrained, task, metrics, language) and more.

  title: one line for people. table, heading: the table of the report, and its heading. step: optimiser steps of the
  model. n: examples measured. chance: scores of guessing, under the metrics' names. floor, floor_is: scores of a
  simpler method (raw pixels, bigrams), and its name. gallery: images to choose among; classes: classes to choose among.
  counts: right answers of a retrieval, in words. control: a negative control, which must be at chance. skipped:
  unreadable records left out. priors: scores of answering without a look. report: precision, recall, F1 and support by
  class. confusion: numbers of examples by true class (row) and likeliest class (column). missing: metrics that could
  not be computed, and why.
  """

  floor: Metrics
  floor_is: str
  gallery: int
  counts: str
  classes: int
  control: bool
  skipped: int
  priors: Metrics
  report: dict[str, Any]
  confusion: list[list[int]]
  missing: dict[str, str]


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
    values[MEAN_RECALL] = sum(recalls) / len(recalls)
  return values


def lower_is_better(metric: str) -> bool:
  """True for an error rate (wer, cer, eer), for a time (milliseconds...), and for a metric whose name ends with rank,
  loss, perplexity, error or distance."""
  name = metric.rpartition("/")[2]
  endings = ("rank", "loss", "perplexity", "error", "distance")
  return name in ("wer", "cer", "eer") or name.startswith("milliseconds") or name.endswith(endings)


def table_of(result: Mapping[str, Any]) -> Table:
  """The table of a result. Results of versions before tables were named are told by their task.

  A result of an unknown task stands in a table of its own.
  """
  if "table" in result:
    return Table(result["table"], result.get("heading", result["table"]))
  known = {
    "image_retrieval": RETRIEVAL,
    "zeroshot_retrieval": RETRIEVAL,
    "zeroshot_classification": ZERO_SHOT,
    "vqa": ANSWERS,
    "vqa_written": ANSWERS,
    "relevance": MASKS,
    "image_text_matching": MATCHING,
    "captioning": CAPTIONS,
    "masked_words": WORDS,
    "next_sentence": WORDS,
  }
  task = result["task"]
  return known.get(task, Table(task, task.replace("_", " ").capitalize()))
