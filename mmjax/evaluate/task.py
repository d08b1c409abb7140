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
  """One word for the network: kind, width x depth, patch size, image size, as far as it has them."""
  image, audio, text = (getattr(model, name, None) for name in ("image", "audio", "text"))
  # ViLT's patches and a recognizer's vocabulary have no width of their own.
  tower: Any = next((each for each in (image, text, audio) if hasattr(each, "width")), None)
  kind = type(model if tower is text else tower).__name__.removesuffix("Config")
  size = "" if tower is None else f"-{tower.width}" + (f"x{tower.depth}" if hasattr(tower, "depth") else "")
  fields = (("patch_size", "-p{}"), ("image_size", "-{}px"))
  return kind + size + "".join(form.format(getattr(image, name)) for name, form in fields if hasattr(image, name))
