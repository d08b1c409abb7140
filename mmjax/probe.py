"""Probes the features of frozen weights: `python -m mmjax.probe WEIGHTS --data DIR`, or of a file with features."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import tyro
from rich.console import Console
from rich.table import Table

from mmjax.cli import run_module
from mmjax.errors import ConfigError

if TYPE_CHECKING:
  from mmjax.evaluate.probe import Probed
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class ProbeOptions:
  """Probe the features of frozen weights on your own images, or of a file with features."""

  weights: tyro.conf.Positional[str]
  """Weights: a folder, a file, ORG/NAME in the hub's cache, the workdir of a run, or the name of weights in an
  installed package (python -m mmjax.interop package). Or a file .npz with the arrays train_rows, train_labels,
  test_rows and test_labels."""
  data: str | None = None
  """Directory of the images: DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE, or DIR/CLASS/IMAGE. None: the
  weights are a file with features."""
  image_size: int | None = None
  """Side of the images in pixels. None: that of the weights."""
  neighbours: int = 20
  """Number of neighbours that vote."""
  shots: tuple[int, ...] = (1, 2, 4, 8, 16)
  """Numbers of examples per class for the few-shot probes."""
  draws: int = 3
  """Number of random draws of the examples of a few-shot probe."""
  workdir: Path = Path("runs/probe")
  """Folder of the features. They are computed once for the same weights and images."""

  def __post_init__(self) -> None:
    if min(self.neighbours, self.draws, *self.shots, 1) < 1:
      raise ValueError("--neighbours, --draws and --shots must be at least 1")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
  """Run the command line, and exit with its status.

  Args:
    arguments: the command line. None: sys.argv[1:].
  """
  run_module(ProbeOptions, probe, "mmjax.probe", arguments)


def probe(options: ProbeOptions) -> None:
  """Probe features, and print a table."""
  from mmjax.evaluate.evaluator import Shared
  from mmjax.evaluate.metrics import commonest_share
  from mmjax.evaluate.probe import Probed, probes, read_features
  from mmjax.evaluators import Probe
  from mmjax.finetune import Finetune, finetuned, weights_folder

  settings = dict(neighbours=options.neighbours, shots=options.shots, draws=options.draws)
  if options.data is None:
    if not options.weights.endswith(".npz"):
      raise ConfigError(f"{options.weights} is no .npz file with features: give images with --data DIR")
    train, test = read_features(Path(options.weights).expanduser())
    show(probes(train, test, **settings), commonest_share(test.labels))  # type: ignore[arg-type]
    return
  begun = Finetune(options.weights, options.data, how="head", image_size=options.image_size, workdir=options.workdir)
  run = frozen_run(finetuned(begun, weights_folder(begun)))
  found = Probe(**settings).run(run, Shared())  # type: ignore[arg-type]
  rows = [Probed(each["dataset"], each["title"], each["metrics"], {}) for each in found]
  show(rows, found[0]["chance"]["acc1"])


def frozen_run(experiment: "Experiment") -> "Run":
  """Make the run of an experiment before its first step: published weights, ready to encode the experiment's data.

  Args:
    experiment: a run with pretrained.path, without texts.
  Returns: the run. Nothing is trained and no checkpoint is written.
  """
  from mmjax.data import make_source
  from mmjax.models.config import image_size
  from mmjax.train.adopt import run_image, with_checkpoint
  from mmjax.train.evaluations import Made, as_run
  from mmjax.train.loop import fitted, learn_columns, make_workdir
  from mmjax.train.setup import prepare

  experiment = with_checkpoint(experiment)
  source = make_source(experiment.data, "train")
  learnt = learn_columns(experiment, {"": source})
  training = prepare(fitted(experiment, None, num_records={"": len(source)}, learnt=learnt))
  image = run_image(experiment.data, image_size(experiment.model))
  made = Made(make_workdir(experiment.run.workdir), None, learnt, image)
  return as_run(training, made, training.initial_state())


def show(found: "Sequence[Probed]", chance: float) -> None:
  """Print the results of probes.

  Args:
    found: the results.
    chance: share of the commonest class.
  """
  table = Table("", "accuracy", "mean per class", caption=f"the commonest class: {chance:.3f}")
  for each in found:
    table.add_row(each.title, f"{each.metrics['acc1']:.3f}", f"{each.metrics['mean_per_class_recall']:.3f}")
  Console().print(table)


if __name__ == "__main__":
  main()
