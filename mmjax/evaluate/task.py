"""Fills in the part of a result that is the same for every task."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any, cast

from mmjax.evaluate.results import TABLES, Metrics, Result, Table

if TYPE_CHECKING:
  from mmjax.run import Run


def make_result(
  run: Run,
  dataset: str,
  task: str,
  title: str,
  items: Sized,
  found: tuple[Metrics, Metrics],
  *,
  table: Table | str,
  **more: Any,
) -> Result:
  """Returns the result of a task.

  Args:
    run: the run that was measured.
    dataset: the name of the result. Metrics are called "dataset/metric".
    task: CLIP_benchmark's name of the task, or any other.
    title: one line for people.
    items: the examples that were measured. Their number is written down.
    found: (metrics, chance). Chance may be left out of a metric for which it is not known.
    table: the table of the report; the name of one that evaluators of mmjax use will do ("answers").
    more: other fields of Result.
  """
  metrics, chance = found
  if isinstance(table, str):
    table = next((known for known in TABLES if known.name == table), Table(table, table.capitalize()))
  fields = {
    "title": title,
    "dataset": dataset,
    "model": describe(run.experiment.model),
    "pretrained": str(run.workdir),
    "task": task,
    "table": table.name,
    "heading": table.heading,
    "language": "en",
    "step": run.step,
    "n": len(items),
    "metrics": metrics,
    "chance": chance,
  }
  return cast(Result, fields | more)


def describe(model: Any) -> str:
  """One word for the network: kind, width x depth; of an image tower, the sizes of patch and image too."""
  tower, text = getattr(model, "image", None), getattr(model, "text", None)
  if tower is not None:
    kind = type(tower).__name__.removesuffix("Config")
    if not hasattr(tower, "patch_size"):  # no transformer, such as a ResNet
      return f"{kind}-{tower.width}-{tower.image_size}px"
    return f"{kind}-{tower.width}x{tower.depth}-p{tower.patch_size}-{tower.image_size}px"
  kind = type(model).__name__.removesuffix("Config")
  return kind if text is None else f"{kind}-{text.width}x{text.depth}"
