"""Fills in the part of a result that is the same for every task."""

from collections.abc import Sized
from typing import Any, cast

from mmjax.evaluate.results import Metrics, Result


class Task:
  """Makes results of one Run."""

  def __init__(self, run: Any):
    self._run = run

  def result(
    self, dataset: str, task: str, title: str, items: Sized, found: tuple[Metrics, Metrics], **more: Any
  ) -> Result:
    """A result from (metrics, chance) over `items`."""
    metrics, chance = found
    fields = {
      "title": title,
      "dataset": dataset,
      "model": describe(self._run.experiment.model),
      "pretrained": str(self._run.workdir),
      "task": task,
      "language": "en",
      "step": self._run.step,
      "n": len(items),
      "metrics": metrics,
      "chance": chance,
    }
    return cast(Result, fields | more)


def describe(model: Any) -> str:
  """One word for the towers: kind, width x depth, patch and picture size of the image tower."""
  image = model.image
  kind = type(image).__name__.removesuffix("Config")
  return f"{kind}-{image.width}x{image.depth}-p{image.patch_size}-{image.image_size}px"
