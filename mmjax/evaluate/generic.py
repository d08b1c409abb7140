"""Picture-text retrieval on the validation split of any other source (a folder, a TFDS data set)."""

from typing import Any

import numpy as np

from mmjax.data import make_source
from mmjax.evaluate.pictures import Pictures
from mmjax.evaluate.results import Result
from mmjax.evaluate.retrieval import Embedded, image_text_retrieval
from mmjax.evaluate.task import Task
from mmjax.parallel.mesh import anywhere


class Captioned:
  """The validation split, every picture and every different caption embedded once.

  A caption answers every picture of its concept: of the same picture, or, where captions are class names, of
  the same class.
  """

  def __init__(self, run: Any):
    data, limit = run.experiment.data, run.experiment.evaluation.max_examples
    source = make_source(data, "validation")
    places = np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(int))
    records = [source[int(place)] for place in places]
    pictures = Pictures(records, data)
    rows = run.encode_image(pictures)
    bad = anywhere(np.isin(np.arange(len(records)), list(pictures.bad)))  # a process knows of those that it decoded
    good = np.flatnonzero(~bad)
    self.skipped = int(bad.sum())
    self.records = [records[place] for place in good]
    self.images = Embedded(rows[good], np.array([record["concept"] for record in self.records]))
    pairs = [(text, record["concept"]) for record in self.records for text in record["captions"]["name"]]
    pairs = list(dict.fromkeys(pairs))
    self.captions = [text for text, _ in pairs]
    self.texts = Embedded(run.encode_text(self.captions), np.array([concept for _, concept in pairs]))


def run(run: Any) -> list[Result]:
  """Retrieval both ways, and the control with the pairs shuffled."""
  task = Task(run)
  captioned = Captioned(run)
  images, texts = captioned.images, captioned.texts
  name = run.experiment.data.source.title
  more = {"gallery": len(images), "skipped": captioned.skipped}
  results = []
  for suffix, title, shown, control in (
    ("", f"{name}, validation", images, False),
    ("_shuffled", f"Control: {name} shuffled", images.shuffled(), True),
  ):
    found = image_text_retrieval(shown, texts)
    results.append(task.result(f"{name}{suffix}", "zeroshot_retrieval", title, images, found, control=control, **more))
  return results
