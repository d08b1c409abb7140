"""Wrong captions that were put into the training data on purpose: does the match head know them from the right ones?"""

from typing import Any

import numpy as np

from mmjax.data import make_source
from mmjax.evaluate.examples import Examples, spread
from mmjax.evaluate.matching import match_scores
from mmjax.evaluate.pairs import Pairs
from mmjax.evaluate.results import Result
from mmjax.evaluate.task import Task
from mmjax.kinds import option_name


def run(run: Any) -> list[Result]:
  """Training pictures with the captions they were trained with, of which data.corrupt_captions are another's.

  At most evaluation.max_examples of them. The model has seen them all, so this says how good a filter it is, not how
  well it matches.
  """
  data = run.experiment.data
  source: Any = make_source(data, "train")  # CorruptedRecords, since data.corrupt_captions is set
  places = spread(len(source), run.experiment.evaluation.max_examples)
  right = ~source.corrupted[places]
  if right.all() or not right.any():
    return []
  records = [source[place] for place in places]
  name = f"{option_name(type(data.source))}_noisy"
  examples = Examples(name, f"Training captions, {1 - right.mean():.0%} wrong", records, ())
  pairs = Pairs(run, examples)
  found = match_scores(pairs.match(np.arange(len(records)), pairs.first), right)
  return [Task(run).result(examples.name, "image_text_matching", examples.title, examples, found)]
