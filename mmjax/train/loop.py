"""Function `train`: makes data, model, checkpoints and log, and runs a session with them."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import optax

from mmjax.data import DataError, Loader, Records, Tokenizer, make_loader, make_source
from mmjax.data.columns.fitting import check_fields, fit_columns, load_columns, of_stream, save_columns, stream_column
from mmjax.data.features import run_columns
from mmjax.data.feed import device_prefetch
from mmjax.data.streams import Streams, stream_seed
from mmjax.errors import CheckpointError, UserError
from mmjax.evaluate.evaluator import best_metric
from mmjax.experiment import Experiment
from mmjax.interop.run_image import write_image
from mmjax.kinds import Kind
from mmjax.models.config import image_size, with_vocabulary
from mmjax.parallel.mesh import put_batch
from mmjax.run import CHECKPOINTS, COLUMNS, CONFIG, PREPROCESS, TOKENIZER, Run
from mmjax.train.adopt import check_agreement, run_image, run_tokenizer, with_checkpoint
from mmjax.train.checkpoint import Checkpoints, Restored
from mmjax.train.evaluations import Made, as_run, check_begun
from mmjax.train.frozen_parts import check_vocabulary
from mmjax.train.interrupt import graceful_interrupt
from mmjax.train.numerics import LossSpikeError, NotFiniteError
from mmjax.train.provenance import write_config
from mmjax.train.session import Session, restored
from mmjax.train.setup import Training, check_model, check_needs, check_tokenizers, prepare

__all__ = ["LossSpikeError", "NotFiniteError", "Outcome", "fitted", "make_workdir", "train"]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Result of `train`.

  Attributes:
    run: the model at the end.
    exit_status: 0 if all steps are done. 128 + signal if the user or the scheduler stopped the run (130: Ctrl-C, 138:
      SIGUSR1, 143: SIGTERM). The run is then saved, and the same command resumes it. Queue a job that ended with 138 or
      143 again.
  """

  run: Run
  exit_status: int


def train(
  experiment: Experiment,
  core: optax.GradientTransformation | None = None,
  kinds: tuple[type[Kind], ...] = (),
  made_by: Callable[..., Training] | None = None,
  checks: Sequence[Callable[[Run], None]] = (),
  until: int | None = None,
) -> Outcome:
  """Train until experiment.run.steps. If the workdir has checkpoints, resume from the newest.

  Args:
    experiment: the run. The vocabulary of its text towers is set from the tokenizer.
    core: optax transformation that replaces optimizer.algorithm.
    kinds: the classes that the script defines, as in mmjax.cli.main.
    made_by: function called instead of mmjax.train.setup.prepare, so that runs can share compiled programs.
    checks: functions that are called with the run before its first step, whose parameters are shapes then. They raise
      an error if what follows the training would fail, such as mmjax.evaluate.check_ready.
    until: stop and save after this step. A later call goes on from there, as if the run had not stopped; the learning
      rate and other schedules are those of run.steps. None: run.steps.
  Raises:
    UserError: the configuration, the data or a checkpoint is wrong, or the run stopped because of its numerics
      (NotFiniteError, LossSpikeError).
  """
  experiment.check_streams()
  experiment = with_checkpoint(experiment)
  check_model(experiment)
  sources = {name: make_source(each.data, "train") for name, each in experiment.by_stream().items()}
  for name, each in experiment.by_stream().items():
    columns, skip = run_columns(each.data, sources[name]), each.data.reading.skip
    check_fields(columns, sources[name], skip=skip, stream=name)
  tokenizer = streams_tokenizer(experiment, sources)
  learnt = learn_columns(experiment, sources)
  sizes = {name: len(source) for name, source in sources.items()}
  experiment = fitted(experiment, tokenizer, num_records=sizes, learnt=learnt)
  for name, each in experiment.by_stream().items():
    check_needs(each, sources[name], tokenizer)
  experiment = with_best_metric(experiment)
  training = (made_by or prepare)(experiment, core, kinds=kinds)
  check_tokenizers(training.step.teachers, tokenizer)
  check_vocabulary(experiment, tokenizer)
  image = run_image(experiment.data, image_size(experiment.model))
  workdir = make_workdir(experiment.run.workdir)
  loader = make_loaders(experiment, sources, tokenizer, learnt)
  checkpoints = Checkpoints(workdir / CHECKPOINTS, keep_last=experiment.run.keep_last, planned=experiment.saves_after)
  feed = device_prefetch(loader, lambda batch: put_batch(batch, training.mesh))
  made = Made(workdir, tokenizer, learnt, image)
  check_begun(training, made, checks, step=checkpoints.latest_step or 0)
  with contextlib.closing(checkpoints), feed:  # also after an error, a running save is finished
    if checkpoints.latest_step is None and experiment.pretrained.path is not None:
      check_agreement(experiment, tokenizer, image)
    start = _start(experiment, training, checkpoints)
    if start.data:
      _check_data(workdir, tokenizer, learnt)
      feed.set_state(dict(start.data.get("feed", start.data)))  # before config.json is written: it may refuse
    if jax.process_index() == 0:
      write_config(experiment, workdir / CONFIG)
      save_columns(learnt, workdir / COLUMNS)
      if tokenizer is not None:
        tokenizer.save(workdir / TOKENIZER)
      if image is not None and experiment.data.preprocess is not None:
        write_image(image, workdir / PREPROCESS)
    with graceful_interrupt() as interrupt:
      state = Session(training, made, checkpoints, feed, interrupt, start).run(until)
  return Outcome(as_run(training, made, state), interrupt.exit_status)


def streams_tokenizer(experiment: Experiment, sources: Mapping[str, Records]) -> Tokenizer | None:
  """The tokenizer of a run, for the texts of all streams. None if no stream has a text column."""
  texts = [
    (each.data, sources[name])
    for name, each in experiment.by_stream().items()
    if any(column.tokenizes for column in run_columns(each.data, sources[name]).values())
  ]
  return run_tokenizer(*texts[0], more=texts[1:]) if texts else None


def learn_columns(experiment: Experiment, sources: Mapping[str, Records]) -> dict[str, Any]:
  """Values that the columns of all streams learn from the training data, by `stream_column`."""
  learnt: dict[str, Any] = {}
  for name, each in experiment.by_stream().items():
    found = fit_columns(run_columns(each.data, sources[name]), sources[name])
    learnt |= {stream_column(name, column): value for column, value in found.items()}
  return learnt


def make_loaders(
  experiment: Experiment, sources: Mapping[str, Records], tokenizer: Tokenizer | None, learnt: Mapping[str, Any]
) -> Loader | Streams:
  """Make the loader of a run, or the loaders of its streams.

  Args:
    experiment: the run.
    sources: the open sources, by stream.
    tokenizer: the tokenizer. None for a run without text.
    learnt: values that columns learned from the data, by `stream_column`.
  """
  loaders = {
    name: make_loader(
      each.data,
      sources[name],
      tokenizer,
      image_size=image_size(experiment.model),
      batch_size=each.run.batch_size,
      seed=stream_seed(experiment.run.seed, name),
      fitted=of_stream(learnt, name),
    )
    for name, each in experiment.by_stream().items()
  }
  return Streams(loaders) if experiment.data.streams else loaders[""]


def fitted(
  experiment: Experiment,
  tokenizer: Tokenizer | None,
  *,
  num_records: Mapping[str, int],
  learnt: Mapping[str, Any] = MappingProxyType({}),
) -> Experiment:
  """Set the fields of the model and the terms that depend on the data.

  Args:
    experiment: the run.
    tokenizer: its tokenizer: vocabulary, special tokens, number of answers. None for a run without text.
    num_records: number of training examples, by stream. The rows of data.source have the name "".
    learnt: values that columns learned from the data, by `stream_column`.
  """
  objectives = tuple(
    term.fitted(num_records=num_records[term.stream], learnt=of_stream(learnt, term.stream))
    for term in experiment.objectives
  )
  model: Any = experiment.model
  for stream in num_records:
    model = model.fitted(of_stream(learnt, stream))
  if tokenizer is not None:
    facts = {
      "vocab_size": tokenizer.vocab_size,
      "max_length": tokenizer.config.max_length,
      "pad_id": tokenizer.pad_id,
      "eos_id": tokenizer.eos_id,
      "mask_id": -1 if tokenizer.mask_id is None else tokenizer.mask_id,
      "special_ids": tokenizer.special_ids,
      "image_id": -1 if tokenizer.image_id is None else tokenizer.image_id,
    }
    model = with_vocabulary(model, facts)
    if tokenizer.answers and hasattr(model, "num_answers"):
      model = dataclasses.replace(model, num_answers=len(tokenizer.answers))
  return dataclasses.replace(experiment, model=model, objectives=objectives)


def _check_data(workdir: Path, tokenizer: Tokenizer | None, learnt: Mapping[str, Any]) -> None:
  """Raise DataError if a resumed run would read its data differently than before."""
  if tokenizer is not None:
    tokenizer.check_saved(workdir / TOKENIZER)
  saved = load_columns(workdir / COLUMNS)
  for name in learnt:
    if saved.get(name) != learnt[name]:
      raise DataError(
        f"The column {name!r} learned other values than those in {workdir / COLUMNS}: the data has changed. "
        "Resume with the data of the run, or start in a new --run.workdir."
      )


def with_best_metric(experiment: Experiment) -> Experiment:
  """The experiment with the name of the metric whose best checkpoint is kept, if it is evaluated while it trains.

  Raises: ConfigError where the run will not measure evaluation.best_metric.
  """
  evaluation = experiment.evaluation
  if not evaluation.every and evaluation.best_metric is None:
    return experiment
  named = dataclasses.replace(evaluation, best_metric=best_metric(experiment))
  return dataclasses.replace(experiment, evaluation=named)


def make_workdir(path: Path) -> Path:
  """Create the workdir. Raises UserError if it cannot be written."""
  path = path.expanduser()
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".writable"
    probe.touch()
    probe.unlink(missing_ok=True)  # other processes of a group do the same
  except OSError as error:
    raise UserError(f"the workdir {path} cannot be written: {error}; choose another --run.workdir") from error
  return path


def _start(experiment: Experiment, training: Training, checkpoints: Checkpoints) -> Restored:
  """Return the state to start from, and the other values of its checkpoint (none for a new run)."""
  if checkpoints.latest_step is None:
    return Restored(training.initial_state(), {})
  if not experiment.run.resume:
    raise CheckpointError(
      f"{experiment.run.workdir} holds a run at step {checkpoints.latest_step}: resume with --run.resume, "
      "or choose another --run.workdir (or delete this one)"
    )
  return restored(training, checkpoints)
