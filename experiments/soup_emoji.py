"""Soups of emoji models: averages of the weights of fine-tuned CLIPs, and the way from the beginning to a tuned one.

Wortsman et al. 2022 (model soups): the average of models that were fine-tuned from one beginning is at least as good as
their mean, at the cost of one. Wortsman et al. 2022 (WiSE-FT): between the beginning and a fine-tuned model lies one
that keeps what the beginning knew. Here the beginning is trained on Twemoji, and fine-tuned on Twemoji and OpenMoji
with four learning rates. All are tested on Noto, an artist that none has seen. The greedy soup chooses by the
held-out concepts of Twemoji.

    python experiments/soup_emoji.py                  (all of it, three seeds)

It has not been run to the end yet: there are no numbers.

Controls: the members alone, the mean of their cosines (an ensemble, at four times the cost), and the average of two
models with different beginnings, which collapses.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_emoji import EXPERIMENT as CLIP
from clip_emoji import NAMES

from mmjax.cli import COMMANDS, Call, Command, main, parse, started
from mmjax.evaluators import EmojiSuite, EvaluationConfig
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.objectives import Contrastive

if TYPE_CHECKING:
  from mmjax import Run

SEEDS = 3
FACTORS = (0.5, 0.35, 0.25, 0.15)
"""Learning rates of the fine-tuned models, as shares of that of the beginning."""
SHARES = (0.25, 0.5, 0.75)
"""Shares of the fine-tuned model on the way from the beginning (WiSE-FT)."""
METRICS = {
  "name to Noto, R@1": "emoji_noto/image_retrieval_recall@1",
  "held-out concepts of Noto, R@10": "emoji_heldout_noto/image_retrieval_recall@10",
}
CHOSEN_BY = "emoji_heldout_twemoji/image_retrieval_recall@10"
EXPERIMENT = dataclasses.replace(
  CLIP,
  data=NAMES,
  objectives=(Contrastive(mask_same_concept=True),),
  optimizer=dataclasses.replace(CLIP.optimizer, warmup_steps=20, ema_decay=0.0),
  evaluation=EvaluationConfig(evaluators={"emoji": EmojiSuite()}),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/soup_emoji"), steps=150, batch_size=128),
)


def compare(call: Call) -> int:
  """Train, average and test, for each seed. Seeds that are finished are read from results."""
  experiment = parse("compare", call)
  root = experiment.run.workdir.expanduser()
  with started():
    found = []
    for seed in range(experiment.run.seed, experiment.run.seed + SEEDS):
      path = root / f"seed{seed}" / "comparison.json"
      if not path.exists():
        run = dataclasses.replace(experiment.run, workdir=path.parent, seed=1000 * seed)
        numbers = one_seed(dataclasses.replace(experiment, run=run))
        path.write_text(json.dumps(numbers, indent=2), encoding="utf-8")
      found.append(json.loads(path.read_text(encoding="utf-8")))
    _show(found)
  return 0


def one_seed(experiment: Experiment) -> dict[str, dict[str, float]]:
  """Metrics of every model, by its name."""
  from mmjax.ensembles import average, combine, greedy_soup, interpolate
  from mmjax.evaluate import evaluate, flatten
  from mmjax.interop import export_run
  from mmjax.train import train

  root, seed = experiment.run.workdir, experiment.run.seed
  first: Any = experiment.data.source
  alone = dataclasses.replace(experiment.data, source=dataclasses.replace(first, vendors=("twemoji",)))

  def trained(name: str, **changes: Any) -> "Run":
    run = dataclasses.replace(experiment.run, workdir=root / name, **changes.pop("run", {}))
    outcome = train(dataclasses.replace(experiment, run=run, **changes))
    if outcome.exit_status:
      sys.exit(outcome.exit_status)
    return outcome.run

  start = trained("start", data=alone)
  other = trained("other", data=alone, run=dict(seed=seed + 99))
  begun = PretrainedConfig(path=str(export_run(start, "mmjax")))
  tuned = []
  for number, factor in enumerate(FACTORS):
    optimizer = dataclasses.replace(experiment.optimizer, learning_rate=experiment.optimizer.learning_rate * factor)
    run = dict(seed=seed + 1 + number, steps=max(1, experiment.run.steps // 3))
    tuned.append(trained(f"tuned_{number}", pretrained=begun, optimizer=optimizer, run=run))
  start = _of_the_same_data(start, tuned[0])
  other = _of_the_same_data(other, tuned[0])
  soup = greedy_soup(tuned, lambda run: flatten(evaluate(run))[CHOSEN_BY], root / "greedy")
  models: dict[str, Callable[[], "Run"]] = {
    "the beginning": lambda: start,
    **{
      f"fine-tuned, {factor} of the rate": functools.partial(tuned.__getitem__, n) for n, factor in enumerate(FACTORS)
    },
    "soup, uniform": lambda: average(tuned, root / "uniform"),
    "soup, greedy": lambda: soup.run,
    "mean of the cosines": lambda: combine(tuned, root / "ensemble"),
    **{f"WiSE-FT, {s}": functools.partial(interpolate, start, tuned[0], s, root / "wise") for s in SHARES},
    "average with another beginning": lambda: average([start, other], root / "collapsed"),
  }
  return {name: metrics(make()) for name, make in models.items()}


def _of_the_same_data(run: "Run", like: "Run") -> "Run":
  """The run, evaluated on the data of another one: both have the same tokenizer and preprocessing."""
  experiment = dataclasses.replace(run.experiment, data=like.experiment.data)
  return dataclasses.replace(run, experiment=experiment, image=like.image)


def metrics(run: "Run") -> dict[str, float]:
  """The compared metrics of a run."""
  from mmjax.evaluate import evaluate, flatten

  found = flatten(evaluate(run))
  return {name: found[metric] for name, metric in METRICS.items()}


def _show(found: list[dict[str, dict[str, float]]]) -> None:
  import numpy as np
  from rich.console import Console
  from rich.table import Table

  table = Table("", *METRICS, title=f"emoji, mean ± deviation of {len(found)} seeds")
  for name in found[0]:
    values = {metric: [numbers[name][metric] for numbers in found] for metric in METRICS}
    table.add_row(name, *(f"{np.mean(each):.3f} ± {np.std(each):.3f}" for each in values.values()))
  Console(width=120).print(table)


if __name__ == "__main__":
  text = "train, average and test, three seeds (default)"
  main(EXPERIMENT, description=__doc__, commands=(Command("compare", text, compare), *COMMANDS))
