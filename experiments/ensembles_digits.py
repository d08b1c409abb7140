"""Ensembles of weak classifiers of digits: bagging, boosting, stacking, snapshots, soups and trees, side by side.

Breiman 1996: bagging is better than its members. Wolpert 1992: stacking is at least as good as averaging, if it learns
from examples that the members have not seen. Zhu et al. 2009: boosting works with members that are barely better than
chance. Wortsman et al. 2022: averages of weights work if the models have one beginning, and collapse if not.

The data is scikit-learn's 1,797 digits of 8 x 8 pixels: 300 to train on, 600 to test on, 400 to choose the temperature
and the members of the greedy soup.

    python experiments/ensembles_digits.py            (all of it, three seeds)

Measured so far on 2026-11-30, seed 0 alone (test accuracy; 600 digits, standard error about .02):

    bagging (vmap)      .680    its members: mean .542, best .617; by votes .658
    deep ensemble       .710    its members: mean .587, best .648; average of their weights .407
    boosting (SAMME)    .697    its five members: .605, then .385, .422, .417 and .278
    stacking            .920    three kinds of members: best .913, mean of their probabilities .882
    snapshots           .858    the last of the five cycles of 60 steps alone: .863
    soup of four        .685    uniform and greedy; its members: mean .685, best .690; mean of their probabilities .685
    trees on pixels     random forest .945, extremely randomised .967, gradient boosting .930, AdaBoost .903
    calibration error of the deep ensemble    .438, with a temperature .039
    a step of five members under vmap         3.7 times the processor time of one (batch 64, one core)

So bagging, the deep ensemble and boosting are better than their best member, stacking is as good as the best kind, and
the average of weights from five beginnings is worse than the mean member. Trees on the pixels are better than all of
them: the members are weak on purpose (60 steps). Stacking on predictions for the training examples gave .940, not less:
such weak members have learned little by heart. Snapshots and soups gained nothing here. The other seeds have not been
measured yet.

Controls: the members alone, stacking on predictions for the training examples (which `stack` refuses: its guard is
passed by), the average of weights from different beginnings, and scikit-learn's trees on the pixels.
"""

import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table

from mmjax import ensembles, evaluate, interop
from mmjax import train as training
from mmjax.cli import COMMANDS, Call, Command, main, parse, started
from mmjax.data import AugmentationConfig, ClassLabel, DataConfig, DataError, Image, Source, make_source
from mmjax.encoders import ViTConfig
from mmjax.experiment import Experiment, PretrainedConfig, RunConfig
from mmjax.models import ClassifierConfig, EnsembleConfig
from mmjax.objectives import Classify, ClassifyMembers
from mmjax.settings import OptimizerConfig

if TYPE_CHECKING:
  from mmjax import Run

SPLITS = {"validation": (0, 600), "select": (600, 1000), "train": (1000, 1797)}
SEEDS, MEMBERS = 3, 5


@dataclasses.dataclass(frozen=True)
class Digits(Source):
  """The digits of scikit-learn, in an order drawn once. Splits: train, select, validation."""

  examples: int = 300
  """Number of training examples."""

  @property
  def columns(self):
    return {"image": Image(), "label": ClassLabel()}

  def open(self, split, reading):
    from sklearn.datasets import load_digits

    if split not in SPLITS:
      raise DataError(f"there is no split {split!r} of the digits; there are {', '.join(SPLITS)}")
    digits, order = load_digits(), np.random.default_rng(0).permutation(1797)
    places = order[slice(*SPLITS[split])][: self.examples if split == "train" else None]
    return [_record(int(n), digits.images[n].astype(np.uint8) * 15, int(digits.target[n])) for n in places]


def _record(number: int, pixels: np.ndarray, digit: int) -> dict[str, Any]:
  png = io.BytesIO()
  PILImage.fromarray(pixels).save(png, "PNG")
  return {"id": f"digits/{number}", "concept": number, "image": png.getvalue(), "label": digit}


KINDS = (Digits,)
TOWER = ViTConfig(image_size=8, patch_size=4, width=16, depth=1, num_heads=2, mlp_dim=32, pool="mean")
EXPERIMENT = Experiment(
  data=DataConfig(
    source=Digits(),
    augmentation=AugmentationConfig(crop_scale=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0),
  ),
  model=ClassifierConfig(towers={"image": TOWER}),
  objectives=(Classify(),),
  optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=10, weight_decay=0.01),
  run=RunConfig(workdir=Path("runs/ensembles_digits"), steps=60, batch_size=64, log_every=20, tensorboard=False),
)


def compare(call: Call) -> int:
  """Train and test every ensemble, for each seed. Seeds that are finished are read from results."""
  experiment = parse("compare", call)
  root = experiment.run.workdir.expanduser()
  with started():
    found = []
    for seed in range(experiment.run.seed, experiment.run.seed + SEEDS):
      path = root / f"seed{seed}" / "comparison.json"
      if not path.exists():
        run = dataclasses.replace(experiment.run, workdir=path.parent, seed=1000 * seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one_seed(dataclasses.replace(experiment, run=run)), indent=2), encoding="utf-8")
      found.append(json.loads(path.read_text(encoding="utf-8")))
    _show(found)
  return 0


def one_seed(experiment: Experiment) -> dict[str, float]:
  """Accuracy of every ensemble on the test digits, and other numbers, by name."""
  root, made_by = experiment.run.workdir, shared_programs()

  def trained(name: str, **changes: Any) -> "Run":
    run = dataclasses.replace(experiment.run, workdir=root / name, **changes.pop("run", {}))
    outcome = training.train(dataclasses.replace(experiment, run=run, **changes), kinds=KINDS, made_by=made_by)
    if outcome.exit_status:
      sys.exit(outcome.exit_status)
    return outcome.run

  model: Any = experiment.model
  numbers = {"time of five / time of one": _time_of_five(experiment)}
  ensemble = EnsembleConfig(models=(model,) * MEMBERS)
  bag = trained("bag", model=ensemble, objectives=(ClassifyMembers(),))
  alone = [test_accuracy(run) for run in members_of(bag)]
  numbers |= {"bagging: mean member": float(np.mean(alone)), "bagging: best member": max(alone)}
  numbers |= {"bagging": test_accuracy(bag), "bagging, votes": test_accuracy(voting(bag, root / "votes"))}
  deep = trained("deep", model=ensemble, objectives=(ClassifyMembers(sampling="all"),))
  singles = members_of(deep)
  alone = [test_accuracy(run) for run in singles]
  numbers |= {"deep: mean member": float(np.mean(alone)), "deep: best member": max(alone), "deep": test_accuracy(deep)}
  numbers["average of weights, five beginnings"] = test_accuracy(ensembles.average(singles, root / "collapsed"))
  numbers |= _calibration(deep, root)
  boosted = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, workdir=root / "boosted"))
  numbers["boosting (SAMME)"] = test_accuracy(ensembles.boost(boosted, MEMBERS, kinds=KINDS, made_by=made_by))
  numbers |= _stacking(trained, model, root)
  cycles = dataclasses.replace(experiment.optimizer, cycles=MEMBERS, warmup_steps=0)
  steps = MEMBERS * experiment.run.steps
  long = dict(steps=steps, save_every=experiment.run.steps, keep_last=MEMBERS)
  last = trained("cycles", optimizer=cycles, run=long)
  taken = ensembles.snapshots(root / "cycles", root / "snapshots", kinds=KINDS)
  numbers |= {"snapshots: last": test_accuracy(last), "snapshots": test_accuracy(taken)}
  numbers |= _soups(trained, experiment, root)
  train_, test = (_pixels(experiment, split) for split in ("train", "validation"))
  numbers |= {name: found["acc1"] for name, found in ensembles.tree_accuracy(train_, test, experiment.run.seed).items()}
  return numbers


def _stacking(trained: Callable[..., "Run"], model: Any, root: Path) -> dict[str, float]:
  """Stack three kinds of members, each trained on five folds. The control learns from training predictions."""
  tower, kinds = model.towers["image"], []
  for name, changes in {"patches": {}, "pixels": {"patch_size": 2}, "whole": {"patch_size": 8}}.items():
    changed = dataclasses.replace(model, towers={"image": dataclasses.replace(tower, **changes)})
    folds = EnsembleConfig(models=(changed,) * MEMBERS)
    kinds.append(trained(f"folds_{name}", model=folds, objectives=(ClassifyMembers(sampling="folds"),)))
  held_out = [ensembles.out_of_sample(run) for run in kinds]
  leaky = [
    dataclasses.replace(ensembles.predictions(run, "train"), seen=np.zeros(len(held_out[0].ids), bool)) for run in kinds
  ]
  return {
    "stacking: best kind": max(test_accuracy(run) for run in kinds),
    "stacking: mean of the kinds": test_accuracy(ensembles.combine(kinds, root / "mean")),
    "stacking": test_accuracy(ensembles.stack(kinds, held_out, root / "stack")),
    "stacking on training predictions": test_accuracy(ensembles.stack(kinds, leaky, root / "leaky")),
  }


def _soups(trained: Callable[..., "Run"], experiment: Experiment, root: Path) -> dict[str, float]:
  """Fine-tune one beginning with different orders of the data, and average the weights."""
  start = trained("start")
  begun = PretrainedConfig(path=str(interop.export_run(start, "mmjax")), allow=("model.classes",))
  optimizer = dataclasses.replace(experiment.optimizer, learning_rate=experiment.optimizer.learning_rate / 2)
  tuned = [
    trained(f"tuned_{n}", pretrained=begun, optimizer=optimizer, run=dict(seed=experiment.run.seed + 1 + n))
    for n in range(MEMBERS - 1)
  ]
  alone = [test_accuracy(run) for run in tuned]
  soup = ensembles.greedy_soup(tuned, lambda run: accuracy(ensembles.predictions(run, "select")), root / "greedy")
  return {
    "soup: mean member": float(np.mean(alone)),
    "soup: best member": max(alone),
    "soup, uniform": test_accuracy(ensembles.average(tuned, root / "uniform")),
    "soup, greedy": test_accuracy(soup.run),
    "mean of the probabilities of the same": test_accuracy(ensembles.combine(tuned, root / "tuned")),
  }


def _calibration(run: "Run", root: Path) -> dict[str, float]:
  """Calibration of an ensemble before and after temperature scaling, which learns from the split `select`."""
  chosen = ensembles.predictions(run, "select")
  cooled = ensembles.calibrated(run, chosen.logits, chosen.labels, root / "cooled")
  before, after = ensembles.predictions(run), ensembles.predictions(cooled)
  return {
    "deep: calibration error": _calibration_error(before),
    "deep, with a temperature: calibration error": _calibration_error(after),
  }


def _calibration_error(found: "ensembles.Predictions") -> float:
  """Difference between confidence and accuracy, weighted by the examples of each bin."""
  bins = evaluate.reliability(found.logits, found.labels)
  return float((np.abs(bins.confidence - bins.accuracy) * bins.examples).sum() / bins.examples.sum())


def members_of(run: "Run") -> list["Run"]:
  """The members of an ensemble, each in a workdir of its own name."""
  return [dataclasses.replace(one, workdir=run.workdir / str(n)) for n, one in enumerate(ensembles.members(run))]


def voting(run: "Run", workdir: Path) -> "Run":
  """The same members, voting."""
  return ensembles.combine(members_of(run), workdir, rule="vote")


def test_accuracy(run: "Run") -> float:
  """Accuracy on the test digits."""
  return accuracy(ensembles.predictions(run))


def accuracy(found: "ensembles.Predictions") -> float:
  """Share of the examples whose likeliest class is right."""
  return float((found.logits.argmax(1) == found.labels).mean())


def shared_programs() -> Callable[..., "training.Training"]:
  """mmjax.train.prepare, once for all runs that differ only in data, beginning, seed and workdir."""
  made: dict[Any, "training.Training"] = {}

  def prepared(experiment: Experiment, core: Any, *, kinds: Any) -> "training.Training":
    bare = dataclasses.replace(experiment.run, seed=0, workdir=Path())
    key = dataclasses.replace(experiment, run=bare, pretrained=PretrainedConfig(), data=DataConfig(source=Digits()))
    if key not in made:
      made[key] = training.prepare(experiment, core, kinds=kinds)
    return dataclasses.replace(made[key], experiment=experiment)

  return prepared


def _time_of_five(experiment: Experiment) -> float:
  """Time of a step of bagging five members, divided by that of a step of one of them."""
  import jax

  model: Any = experiment.model
  model = dataclasses.replace(model, num_classes=10)
  rows = experiment.run.batch_size
  batch: dict[str, Any] = {"image": np.zeros((rows, 8, 8, 3), np.float32), "label": np.zeros(rows, np.int32)}
  batch |= {name: np.arange(rows, dtype=np.int32) for name in ("index", "concept")}
  seconds = []
  bagged = dict(model=EnsembleConfig(models=(model,) * MEMBERS), objectives=(ClassifyMembers(),))
  variants: tuple[dict[str, Any], ...] = (dict(model=model), bagged)
  for changes in variants:
    made = training.prepare(dataclasses.replace(experiment, **changes), kinds=KINDS)
    state, _ = made.step(made.initial_state(), jax.device_put(batch))
    times = []
    for _ in range(5):
      began = time.perf_counter()
      for _ in range(20):
        state, _ = made.step(state, batch)
      jax.block_until_ready(state.params)
      times.append(time.perf_counter() - began)
    seconds.append(min(times))
  return seconds[1] / seconds[0]


def _pixels(experiment: Experiment, split: str) -> "evaluate.Features":
  """Pixels and classes of the digits of a split."""
  records: Any = make_source(experiment.data, split)
  images = [np.asarray(PILImage.open(io.BytesIO(record["image"]))).ravel() for record in records]
  return evaluate.Features(np.stack(images).astype(np.float32), np.array([record["label"] for record in records]))


def _show(found: list[dict[str, float]]) -> None:
  """Print the mean and the deviation of every number over the seeds."""
  table = Table("", "mean", "±", *(f"seed {n}" for n in range(len(found))), title="digits, test accuracy")
  for name in found[0]:
    values = [numbers[name] for numbers in found]
    table.add_row(name, f"{np.mean(values):.3f}", f"{np.std(values):.3f}", *(f"{value:.3f}" for value in values))
  Console(width=120).print(table)


if __name__ == "__main__":
  text = "train and test every ensemble and its controls, three seeds (default)"
  main(EXPERIMENT, description=__doc__, kinds=KINDS, commands=(Command("compare", text, compare), *COMMANDS))
