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
  """One word for the network: kind, width x depth; of an image tower, patch and picture size too."""
  tower = getattr(model, "image", None)
  if tower is None:
    return f"{type(model).__name__.removesuffix('Config')}-{model.text.width}x{model.text.depth}"
  kind = type(tower).__name__.removesuffix("Config")
  return f"{kind}-{tower.width}x{tower.depth}-p{tower.patch_size}-{tower.image_size}px"
