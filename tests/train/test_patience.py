"""Training stops when evaluations are no better any more, and a resumed run knows."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmjax.evaluators import EvaluationConfig
from mmjax.train.evaluations import Evaluations, Made
from tests.tiny import EXPERIMENT, training_on


def evaluations(workdir: Path, values, patience, metric="data/acc1", up_to=100):
  lines = [json.dumps({"step": step, "eval": {metric: value}}) for step, value in enumerate(values, 1)]
  (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
  config = EvaluationConfig(every=1, patience=patience, best_metric=metric)
  training = training_on(1, EXPERIMENT)
  training = dataclasses.replace(training, experiment=dataclasses.replace(EXPERIMENT, evaluation=config))
  return Evaluations(training, Made(workdir, None, {}), score=lambda *_: None, up_to=up_to)


@pytest.mark.parametrize(
  ("values", "patience", "best", "stops"),
  [
    ([0.1, 0.5, 0.4, 0.5], 2, 2, True),  # equal is no better
    ([0.1, 0.5, 0.4], 2, 2, False),
    ([0.1, 0.5, 0.4, 0.6], 2, 4, False),
    ([0.5, 0.4, 0.3, 0.2], 0, 1, False),  # 0: never
    ([], 1, None, False),
  ],
)
def test_patience_counts_evaluations_since_the_best(values, patience, best, stops, tmp_path):
  found = evaluations(tmp_path, values, patience)
  assert (found.best, found.exhausted) == (best, stops)


def test_losses_are_better_when_they_fall(tmp_path):
  found = evaluations(tmp_path, [0.9, 0.5, 0.6, 0.7], 2, "data/token_loss")
  assert found.best == 2 and found.exhausted
  found.rewind(3)
  assert not found.exhausted


def test_evaluations_after_the_resumed_step_do_not_count(tmp_path):
  assert not evaluations(tmp_path, [0.9, 0.5, 0.6], 2, up_to=2).exhausted


def test_patience_needs_evaluations():
  with pytest.raises(ValueError, match="evaluation.patience counts evaluations, and there are none"):
    EvaluationConfig(patience=2)
