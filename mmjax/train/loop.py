"""The one way to train: data, model, checkpoints and log are put together, and a session runs them."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import optax

from mmjax.data import Tokenizer, make_loader, make_source, make_tokenizer
from mmjax.data.features import source_features
from mmjax.data.feed import device_prefetch
from mmjax.errors import CheckpointError, UserError
from mmjax.experiment import Experiment
from mmjax.kinds import Kind
from mmjax.models.inputs import image_size
from mmjax.parallel.mesh import put_batch
from mmjax.run import CHECKPOINTS, CONFIG, TOKENIZER, Run
from mmjax.train.checkpoint import Checkpoints, Restored
from mmjax.train.evaluator import as_run
from mmjax.train.interrupt import graceful_interrupt
from mmjax.train.numerics import LossSpikeError, NotFiniteError
from mmjax.train.provenance import write_config
from mmjax.train.session import Session, restored
from mmjax.train.setup import Training, check_needs, check_tokenizers, prepare

__all__ = ["LossSpikeError", "NotFiniteError", "Outcome", "make_workdir", "train", "with_tokenizer"]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a call of `train` ended.

  Attributes:
    run: the model as it is now.
    exit_status: 0 when all steps are done; 128 + signal where the user or the scheduler stopped it (130 Ctrl-C, 138
      SIGUSR1, 143 SIGTERM): everything is saved, and the same command goes on, so 138 and 143 are to be queued again.
  """

  run: Run
  exit_status: int


def train(
  experiment: Experiment,
  core: optax.GradientTransformation | None = None,
  kinds: tuple[type[Kind], ...] = (),
) -> Outcome:
  """Trains to experiment.run.steps, from the newest checkpoint of the workdir if it holds one.

  Args:
    experiment: the run; the vocabulary of its text tower is taken from the data's tokenizer.
    core: an optax transformation in place of optimizer.algorithm.
    kinds: classes of the script's own, as in mmjax.cli.main.
  Raises:
    UserError: the configuration, the data or a checkpoint is wrong, or the numbers became NaN or jumped.
  """
  source = make_source(experiment.data, "train")
  tokenizer = make_tokenizer(experiment.data, source)
  experiment = with_tokenizer(experiment, tokenizer)
  objectives = tuple(term.fitted(num_records=len(source)) for term in experiment.objectives)
  experiment = dataclasses.replace(experiment, objectives=objectives)
  check_needs(experiment, source_features(source), tokenizer)
  training = prepare(experiment, core, kinds=kinds)
  check_tokenizers(training.step.teachers, tokenizer)
  workdir = make_workdir(experiment.run.workdir)
  loader = make_loader(
    experiment.data,
    source,
    tokenizer,
    image_size=image_size(experiment.model),
    batch_size=experiment.run.batch_size,
    seed=experiment.run.seed,
  )
  checkpoints = Checkpoints(workdir / CHECKPOINTS, keep_last=experiment.run.keep_last, planned=experiment.saves_after)
  feed = device_prefetch(loader, lambda batch: put_batch(batch, training.mesh))
  with contextlib.closing(checkpoints), feed:  # whatever happens, a save that has begun is finished
    start = _start(experiment, training, checkpoints)
    if start.data:
      tokenizer.check_saved(workdir / TOKENIZER)
    if jax.process_index() == 0:
      write_config(experiment, workdir / CONFIG)
      tokenizer.save(workdir / TOKENIZER)
    with graceful_interrupt() as interrupt:
      state = Session(training, tokenizer, workdir, checkpoints, feed, interrupt, start).run()
  return Outcome(as_run(training, workdir, tokenizer, state), interrupt.exit_status)


def with_tokenizer(experiment: Experiment, tokenizer: Tokenizer) -> Experiment:
  """The experiment whose model fits the tokenizer: vocabulary, length and special tokens of its text tower, answers."""
  model: Any = experiment.model
  fields = {field.name for field in dataclasses.fields(model.text)}
  found = {
    "vocab_size": tokenizer.vocab_size,
    "max_length": tokenizer.config.max_length,
    "pad_id": tokenizer.pad_id,
    "eos_id": tokenizer.eos_id,
    "mask_id": -1 if tokenizer.mask_id is None else tokenizer.mask_id,
    "special_ids": tokenizer.special_ids,
  }
  text = dataclasses.replace(model.text, **{name: value for name, value in found.items() if name in fields})
  answers = {"num_answers": len(tokenizer.answers)} if tokenizer.answers and hasattr(model, "num_answers") else {}
  return dataclasses.replace(experiment, model=dataclasses.replace(model, text=text, **answers))


def make_workdir(path: Path) -> Path:
  """Creates the workdir. Raises UserError where it cannot be written."""
  path = path.expanduser()
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".writable"
    probe.touch()
    probe.unlink(missing_ok=True)  # the other processes of a group try it as well
  except OSError as error:
    raise UserError(f"the workdir {path} cannot be written: {error}; choose another --run.workdir") from error
  return path


def _start(experiment: Experiment, training: Training, checkpoints: Checkpoints) -> Restored:
  """The state to go on from, and what was kept beside it (nothing, where the run begins)."""
  if checkpoints.latest_step is None:
    return Restored(training.initial_state(), {})
  if not experiment.run.resume:
    raise CheckpointError(
      f"{experiment.run.workdir} holds a run at step {checkpoints.latest_step}: go on with --run.resume, "
      "or choose another --run.workdir (or delete this one)"
    )
  return restored(training, checkpoints)
