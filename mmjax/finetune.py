"""Fine-tunes published weights on your own images: `python -m mmjax.finetune WEIGHTS --data DIR`."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import tyro
from rich.console import Console
from rich.table import Table

from mmjax.cli import run_module
from mmjax.errors import ConfigError
from mmjax.files import write_atomically

if TYPE_CHECKING:
  from mmjax.evaluate import Result
  from mmjax.experiment import Experiment
  from mmjax.run import Run

How = Literal["head", "lora", "top", "all"]
RATES: dict[How, float] = {"head": 3e-3, "lora": 1e-3, "top": 1e-4, "all": 1e-4}
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a drawing of a {}.")
_HEAD = "^class_projection/"


@dataclasses.dataclass(frozen=True)
class Finetune:
  """Fine-tune published weights on your own images, and compare them with probes and with zero-shot classification."""

  weights: tyro.conf.Positional[str]
  """Weights: a folder, a file, ORG/NAME in the hub's cache, the workdir of a run, or the name of weights in an
  installed package (python -m mmjax.interop package)."""
  data: str
  """Directory of the images: DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE, or DIR/CLASS/IMAGE."""
  task: Literal["classify"] = "classify"
  """Task of the new model."""
  how: How = "lora"
  """Trained parameters: the head alone, low-rank adapters of all linear layers, the top blocks, or all with a learning
  rate that decays towards the input. All of them train the head."""
  rank: int = 8
  """Rank of the adapters (lora)."""
  top_layers: int = 2
  """Number of trained blocks (top)."""
  layer_decay: float = 0.75
  """Factor of the learning rate from block to block (all)."""
  epochs: int = 10
  """Largest number of passes over the training images."""
  patience: int = 3
  """Stop after this many epochs without a better accuracy on the validation images. 0: never."""
  batch_size: int = 32
  """Images per step."""
  learning_rate: float | None = None
  """Peak learning rate. None: 3e-3 for head, 1e-3 for lora, 1e-4 for top and all (there, 1e-3 for the head)."""
  image_size: int | None = None
  """Side of the images in pixels. None: that of the weights."""
  workdir: Path = Path("runs/finetune")
  """Folder of the run. The same command resumes it."""
  seed: int = 0
  """Seed of the order of the images, of their augmentation and of the adapters."""

  def __post_init__(self) -> None:
    for name in ("rank", "top_layers", "epochs", "batch_size"):
      if getattr(self, name) < 1:
        raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}: it must be at least 1")
    if self.patience < 0:
      raise ValueError(f"--patience is {self.patience}: it must not be negative")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
  """Run the command line, and exit with its status.

  Args:
    arguments: the command line. None: sys.argv[1:].
  """
  run_module(Finetune, finetune, "mmjax.finetune", arguments)


def finetune(options: Finetune) -> int:
  """Measure the frozen weights, train, and compare. Returns the exit status, as `mmjax.train.loop.Outcome`."""
  from mmjax.evaluate import check_ready, evaluate, write_results
  from mmjax.loading import load_run
  from mmjax.report import check_report, write_report
  from mmjax.train.loop import train
  from mmjax.train.setup import Training, prepare

  path = weights_folder(options)
  experiment = finetuned(options, path)
  made: list[Training] = []

  def prepared(*parts: Any, **more: Any) -> Training:
    made.append(prepare(*parts, **more))
    return made[-1]

  kept = options.workdir.expanduser() / "finetune.json"
  save = lambda rows: write_atomically(kept, json.dumps(rows, indent=2) + "\n")

  def measured_before(run: "Run") -> None:
    if run.step == 0:
      save(_before(options, path, run, made[-1]))  # before training, so that a run that is stopped has them too

  checks = (check_ready, check_report, measured_before)
  outcome = train(experiment, made_by=prepared, checks=checks)
  if outcome.exit_status:
    return outcome.exit_status
  best = _best_step(outcome.run)
  run = load_run(options.workdir, step=best)
  results = evaluate(run)
  rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
  frozen = {name: row for name, row in rows.items() if not name.startswith("fine-tuned")}
  compared = [_of_frozen(results[0], name, row) for name, row in frozen.items()]
  write_results([*results, *compared], run.workdir / "results.json")
  write_report(run.workdir, run)
  rows = {**frozen, f"fine-tuned ({options.how}), step {best}": results[0]["metrics"]}
  save(rows)
  _show(rows, run)
  return 0


def weights_folder(options: Finetune) -> str:
  """Path of the weights as a checkpoint that mmjax.interop.load reads. A run is exported to WORKDIR-base."""
  from mmjax.interop import PACKAGES, export_run, from_package
  from mmjax.run import CHECKPOINTS, CONFIG

  given = Path(options.weights).expanduser()
  if options.weights in PACKAGES and not given.exists():
    return str(from_package(options.weights))
  if not ((given / CONFIG).is_file() and (given / CHECKPOINTS).is_dir()):
    return options.weights
  from mmjax.loading import load_run

  if given.resolve() == options.workdir.expanduser().resolve():
    raise ConfigError(f"{given} is the run to begin from, and also --workdir: choose another --workdir")
  base = options.workdir.expanduser()
  return str(export_run(load_run(given), "mmjax", base.with_name(f"{base.name}-base")))


def finetuned(options: Finetune, path: str) -> "Experiment":
  """Make the experiment of a fine-tuning.

  Args:
    options: the command line.
    path: the weights.
  Raises: UserError: the weights have no image tower, or the images cannot be read.
  """
  import jax

  from mmjax.data import ClassFolders, ClassLabel, DataConfig, Image, make_source
  from mmjax.evaluators import ClassAccuracy, EvaluationConfig
  from mmjax.experiment import Experiment, PretrainedConfig, RunConfig
  from mmjax.interop.source import open_source
  from mmjax.models import ClassifierConfig
  from mmjax.objectives import Classify
  from mmjax.settings import AdapterConfig, OptimizerConfig
  from mmjax.train.adopt import with_checkpoint

  tower: Any = open_source(path, tower="image").config
  if not hasattr(tower, "image_size"):
    raise ConfigError(f"{path} encodes no images: give weights with an image tower")
  data = DataConfig(source=ClassFolders(options.data), columns={"image": Image(), "label": ClassLabel()})
  records, devices = len(make_source(data, "train")), len(jax.devices())
  batch = max(1, min(options.batch_size, records) // devices) * devices
  epoch = max(1, records // batch)
  rate = options.learning_rate or RATES[options.how]
  slow = options.how in ("top", "all")
  allow: tuple[str, ...] = ()
  if options.image_size is not None and options.image_size != tower.image_size:
    try:
      tower, allow = dataclasses.replace(tower, image_size=options.image_size), ("model.image.image_size",)
    except ValueError as error:
      raise ConfigError(f"--image-size {options.image_size} does not fit these weights: {error}") from error
  return with_checkpoint(
    Experiment(
      data=data,
      model=ClassifierConfig(towers={"image": tower}),
      pretrained=PretrainedConfig(path=path, into="image", allow=allow),
      objectives=(Classify(),),
      optimizer=OptimizerConfig(
        learning_rate=rate,
        learning_rate_rules=((_HEAD, 10.0 if slow and options.learning_rate is None else 1.0), (".*", 1.0)),
        warmup_steps=min(epoch, 100),
        weight_decay=0.01,
        top_layers={"head": 0, "top": options.top_layers}.get(options.how),
        layer_decay=options.layer_decay if options.how == "all" else 1.0,
      ),
      adapter=AdapterConfig(
        rank=options.rank if options.how == "lora" else 0,
        alpha=2.0 * options.rank,
        kernels=("^image/.*kernel$",),
      ),
      evaluation=EvaluationConfig(
        every=epoch, patience=options.patience, batch_size=64, evaluators={"classes": ClassAccuracy()}
      ),
      run=RunConfig(
        workdir=options.workdir,
        steps=options.epochs * epoch,
        batch_size=batch,
        seed=options.seed,
        save_every=options.epochs * epoch,
        tensorboard=False,
      ),
    )
  )


def _before(options: Finetune, path: str, run: "Run", training: Any) -> dict[str, dict[str, float]]:
  """Metrics of the frozen weights: zero-shot, linear probe and nearest neighbours. Says how long the training takes."""
  from mmjax.evaluate.evaluator import Shared
  from mmjax.evaluators import Probe
  from mmjax.train.adapters import with_adapters

  say = lambda text: Console().print(text, highlight=False, soft_wrap=True)
  state = training.initial_state()
  frozen = dataclasses.replace(run, params=with_adapters(run.experiment, state.params))
  say("measuring the frozen weights")
  began = time.monotonic()
  results = Probe(shots=()).run(frozen, Shared())
  found = {"linear probe": results[0]["metrics"], "nearest neighbours": results[1]["metrics"]}
  encoding = time.monotonic() - began
  step = _seconds_per_step(training, state)
  config = run.experiment.run
  each = encoding / 2  # of the training and the validation images: an evaluation encodes the latter alone
  whole = config.steps * step + options.epochs * each
  say(
    f"{config.steps} steps of {step:.2f} s, {options.epochs} evaluations of at most {each:.0f} s: "
    f"about {_minutes(whole)} at most"
  )
  zero = _zero_shot(path, run) if options.image_size is None else None
  return found if zero is None else {"zero-shot": zero, **found}


def _of_frozen(tuned: "Result", name: str, metrics: dict[str, float]) -> "Result":
  """The result of a method on the frozen weights, for the table in which that of the fine-tuned model stands."""
  unlike = ("report", "confusion", "skipped", "missing", "metrics", "chance")
  found: Any = {field: value for field, value in tuned.items() if field not in unlike}
  return found | {
    "title": f"{tuned['title']}, frozen weights: {name}",
    "dataset": f"{tuned['dataset']}_frozen_{name.replace(' ', '_').replace('-', '_')}",
    "step": 0,
    "metrics": metrics,
    "chance": {metric: value for metric, value in tuned["chance"].items() if metric in metrics},
  }


def _seconds_per_step(training: Any, state: Any) -> float:
  """Seconds of a step after the first one, which compiles. The state is used up."""
  import jax
  import numpy as np

  from mmjax.data.batching import row_shapes
  from mmjax.models.config import image_size
  from mmjax.parallel.mesh import put_batch

  experiment = training.experiment
  shapes = row_shapes(experiment.data, image_size(experiment.model))
  rows = experiment.run.batch_size // jax.process_count()
  batch = put_batch({name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in shapes.items()}, training.mesh)
  state, _ = training.step(state, batch)
  jax.block_until_ready(state.params)
  began = time.monotonic()
  jax.block_until_ready(training.step(state, batch))
  return time.monotonic() - began


def _zero_shot(path: str, run: "Run") -> dict[str, float] | None:
  """Metrics of giving every validation image the class with the nearest name. None: the weights encode no texts."""
  import jax
  import numpy as np

  from mmjax.evaluate.examples import batches, validation_examples
  from mmjax.evaluate.zero_shot import class_embeddings, zero_shot
  from mmjax.interop import InteropError, load_pretrained
  from mmjax.interop.source import open_source
  from mmjax.models.shared_space import SpaceConfig

  config = open_source(path).config
  if not isinstance(config, SpaceConfig) or not {"image", "text"} <= set(config.members):
    return None
  found = load_pretrained(path)
  try:
    tokenizer = found.tokenizer
  except InteropError as error:
    Console().print(f"no zero-shot classification: {error}", highlight=False, soft_wrap=True, markup=False)
    return None
  ask = lambda method, rows: np.asarray(found.model.apply({"params": found.params}, rows, method=method))
  unit = lambda rows: rows / np.linalg.norm(rows, axis=-1, keepdims=True)
  names = [name.replace("_", " ").replace("-", " ") for name in run.fitted["label"]["classes"]]
  classes = class_embeddings(
    lambda texts: unit(ask("encode_text", np.asarray(tokenizer(list(texts))))), names, TEMPLATES
  )
  examples, rows, labels = validation_examples(run), [], []
  for batch in batches(run, examples):
    kept = len(batch["label"])
    rows.append(unit(ask("encode_image", jax.numpy.asarray(np.asarray(batch["image"]))))[:kept])
    labels.append(batch["label"])
  size = len(examples)
  return zero_shot(np.concatenate(rows)[:size], np.concatenate(labels)[:size], classes)[0]


def _best_step(run: "Run") -> int:
  """Step of the best evaluation, of equal ones the last: its checkpoint is kept."""
  from mmjax.train.writers import read_evaluations

  name = run.experiment.evaluation.best_metric
  scores = {step: found[name] for step, found in read_evaluations(run.workdir, run.step).items() if name in found}
  return max(scores, key=lambda step: (scores[step], step), default=run.step)


def _minutes(seconds: float) -> str:
  return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _show(rows: dict[str, dict[str, float]], run: "Run") -> None:
  table = Table("", "accuracy", "mean per class", title=f"{run.experiment.data.source.title}, validation")
  for name, metrics in rows.items():
    table.add_row(name, f"{metrics['acc1']:.3f}", f"{metrics['mean_per_class_recall']:.3f}")
  Console().print(table)
  Console().print(
    f"report: {run.workdir / 'report.html'}\n"
    f'classify: python -c "import mmjax; run = mmjax.load_run({str(run.workdir)!r}, step={run.step}); '
    "print(run.classes, run.classify(['image.png']))\"",
    highlight=False,
    soft_wrap=True,
    markup=False,
  )


if __name__ == "__main__":
  main()
