"""The one training loop: feed, step, log, evaluate, save, stop."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax

from mmjax.data import Tokenizer, make_loader, make_source, make_tokenizer
from mmjax.data.feed import Feed, device_prefetch
from mmjax.errors import CheckpointError, UserError
from mmjax.evaluate import evaluate, flatten
from mmjax.experiment import Experiment, to_json
from mmjax.models.build import image_size
from mmjax.objectives.terms import PairLoss
from mmjax.parallel.host import trim_allocator
from mmjax.parallel.mesh import put_batch
from mmjax.run import CHECKPOINTS, CONFIG, TOKENIZER, Run
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.interrupt import Interrupt, graceful_interrupt
from mmjax.train.metrics import Fanout, JsonLines, TensorBoard, WeightsAndBiases, Writer
from mmjax.train.progress import TrainingProgress
from mmjax.train.provenance import write_config
from mmjax.train.setup import Training, prepare
from mmjax.train.state import TrainState
from mmjax.train.step import Metrics, first_bad_parameter


class NotFiniteError(UserError, FloatingPointError):
  """The loss or a gradient became NaN or infinite; the message names the step and the first bad parameter."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a call of `train` ended.

  Attributes:
    run: the model as it is now.
    exit_status: 0 when all steps are done, 128 + signal when the user or the scheduler stopped it.
  """

  run: Run
  exit_status: int


def train(
  experiment: Experiment,
  core: optax.GradientTransformation | None = None,
  losses: Mapping[str, PairLoss] = MappingProxyType({}),
) -> Outcome:
  """Trains to experiment.run.steps, from the newest checkpoint of the workdir if it holds one.

  Args:
    experiment: the run; the vocabulary of its text tower is taken from the data's tokenizer.
    core: an optax transformation in place of optimizer.algorithm.
    losses: pairwise losses of the caller's own, by the names its objectives give them.
  Raises:
    UserError: the configuration, the data or a checkpoint is wrong, or the numbers became NaN.
  """
  source = make_source(experiment.data, "train")
  tokenizer = make_tokenizer(experiment.data, source)
  experiment = with_tokenizer(experiment, tokenizer)
  training = prepare(experiment, core, losses=losses)
  workdir = make_workdir(experiment.run.workdir)
  loader = make_loader(
    experiment.data,
    source,
    tokenizer,
    image_size=image_size(experiment.model),
    batch_size=experiment.run.batch_size,
    seed=experiment.run.seed,
  )
  checkpoints = Checkpoints(workdir / CHECKPOINTS, keep_last=experiment.run.keep_last)
  feed = device_prefetch(loader, lambda batch: put_batch(batch, training.mesh))
  with contextlib.closing(checkpoints), feed:  # whatever happens, a save that has begun is finished
    state, start = _start(experiment, training, checkpoints, feed)
    if jax.process_index() == 0:
      write_config(experiment, workdir / CONFIG)
      tokenizer.save(workdir / TOKENIZER)
    with graceful_interrupt() as interrupt:
      loop = _Loop(training, tokenizer, workdir, checkpoints, feed, interrupt, start)
      state = loop.run(state)
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


def as_run(training: Training, workdir: Path, tokenizer: Tokenizer, state: TrainState) -> Run:
  """The state, ready for use."""
  return Run(
    experiment=training.experiment,
    workdir=workdir,
    model=training.model,
    params=state.evaluation_params,
    tokenizer=tokenizer,
    mesh=training.mesh,
    step=int(state.step),
  )


def _start(experiment: Experiment, training: Training, checkpoints: Checkpoints, feed: Feed) -> tuple[TrainState, int]:
  """The state to go on from and its step; a resumed run's data goes on where it was."""
  if checkpoints.latest_step is None:
    return training.initial_state(), 0
  if not experiment.run.resume:
    raise CheckpointError(
      f"{experiment.run.workdir} holds a run at step {checkpoints.latest_step}: go on with --run.resume, "
      "or choose another --run.workdir (or delete this one)"
    )
  restored = checkpoints.restore(training.shapes, training.shardings)
  feed.set_state(dict(restored.data))
  return restored.state, int(restored.state.step)


class _Loop:
  """What the loop keeps between steps; the state itself is passed along."""

  def __init__(
    self,
    training: Training,
    tokenizer: Tokenizer,
    workdir: Path,
    checkpoints: Checkpoints,
    feed: Feed,
    interrupt: Interrupt,
    start: int,
  ):
    self._training, self._tokenizer, self._workdir = training, tokenizer, workdir
    self._experiment = training.experiment
    self._checkpoints, self._feed, self._interrupt, self._start = checkpoints, feed, interrupt, start
    self._writer = Fanout(_writers(self._experiment, workdir, start) if jax.process_index() == 0 else [])
    self._clock = _Clock(self._experiment.run.batch_size)

  def run(self, state: TrainState) -> TrainState:
    run, evaluation = self._experiment.run, self._experiment.evaluation
    step = self._start
    pending: tuple[int, Metrics] | None = None
    with TrainingProgress(run.steps, start=self._start, quiet=jax.process_index() != 0) as self._progress:
      self._greet()
      while step < run.steps and not self._interrupt.reached(step):
        state, metrics = self._training.step(state, next(self._feed))
        step += 1
        self._clock.step(self._feed.seconds_waited)
        # The numbers of the step before are looked at while the device works on this one.
        if pending is not None:
          self._look(*pending)
        pending = step, metrics
        evaluating = evaluation.every > 0 and step % evaluation.every == 0
        if evaluating or step % run.save_every == 0:
          self._look(*pending)
          pending = None
          if evaluating:
            self._evaluate(state, step)
          self._checkpoints.save(step, state, self._feed.get_state())
      if pending is not None:
        self._look(*pending)
      if step > self._start:
        self._checkpoints.save(step, state, self._feed.get_state())
      self._farewell(step)
    self._writer.close()
    return state

  def _look(self, step: int, metrics: Metrics) -> None:
    """Stops the run at a step that is not finite; logs it if it is its turn."""
    values = jax.device_get(metrics)
    bad = values.pop("bad_parameters")
    if not (np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"])):
      raise NotFiniteError(self._diagnosis(step, values, bad))
    self._progress.advance(step)
    if step == self._start + 1:
      trim_allocator()  # what compiling took
    if step % self._experiment.run.log_every == 0 or step == self._experiment.run.steps:
      numbers = {name: float(value) for name, value in values.items()} | self._clock.numbers()
      numbers |= _chance(self._experiment)
      self._writer.write(step, numbers)
      self._progress.report(step, numbers)

  def _diagnosis(self, step: int, values: Metrics, bad: Any) -> str:
    name = first_bad_parameter(self._training.shapes.params, bad)
    where = f"the first parameter whose gradient is not finite is {name!r}" if name else "every gradient is finite"
    saved = self._checkpoints.latest_step
    kept = f"step {saved} in {self._workdir / CHECKPOINTS}" if saved is not None else "none yet"
    return (
      f"step {step} is not finite: loss {values['loss']}, gradient norm {values['grad_norm']}; {where}. Nothing was "
      f"saved over the last good checkpoint ({kept}). A lower --optimizer.learning-rate, a longer "
      "--optimizer.warmup-steps or a smaller --optimizer.clip-norm usually helps."
    )

  def _evaluate(self, state: TrainState, step: int) -> None:
    began = time.monotonic()
    numbers = flatten(evaluate(as_run(self._training, self._workdir, self._tokenizer, state)))
    self._writer.write_evaluation(step, numbers)
    best = self._experiment.evaluation.best_metric
    if best not in numbers:
      raise UserError(f"evaluation.best_metric={best!r} is not among the metrics: {', '.join(numbers)}")
    self._checkpoints.score(step, numbers[best])
    self._progress.say(f"step {step}  {best} {numbers[best]:.3f}")
    self._clock.exclude(time.monotonic() - began)

  def _greet(self) -> None:
    run, mesh = self._experiment.run, self._training.mesh
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self._training.shapes.params))
    devices = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    self._progress.say(
      f"{count / 1e6:.2f}M parameters, batch {run.batch_size} on {mesh.size} {mesh.devices.flat[0].platform} "
      f"device(s) ({devices}), {run.steps} steps, workdir {self._workdir}"
    )
    if self._start:
      self._progress.say(f"resumed after step {self._start}")

  def _farewell(self, step: int) -> None:
    if self._interrupt:
      self._progress.say(f"stopped after step {step}; saving")
      self._checkpoints.wait()
      self._progress.say(f"saved to {self._workdir / CHECKPOINTS / str(step)}; the same command goes on from here")


def _chance(experiment: Experiment) -> dict[str, float]:
  """What guessing gives for each objective where that is known, and for their sum where it is known of all."""
  chances = {o.name: o.chance(experiment.run.batch_size, experiment.model) for o in experiment.objectives}
  known = {name: chance for name, chance in chances.items() if chance is not None}
  numbers = {f"{name}_chance": chance for name, chance in known.items()} if len(chances) > 1 else {}
  constant = experiment.balance == "fixed" and not any(o.schedule for o in experiment.objectives)
  if constant and len(known) == len(chances):
    numbers["chance"] = sum(o.weight * known[o.name] for o in experiment.objectives)
  return numbers


class _Clock:
  """Throughput and input wait since the last line of the log."""

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self._began = time.monotonic()
    self._reset()

  def step(self, waited: float) -> None:
    self._steps += 1
    self._waited += waited

  def exclude(self, seconds: float) -> None:
    """Leaves time out of the throughput, such as that of an evaluation."""
    self._since += seconds

  def numbers(self) -> dict[str, float]:
    elapsed = max(time.monotonic() - self._since, 1e-9)
    steps = max(self._steps, 1)
    numbers = {
      "examples_per_second": self._steps * self._batch_size / elapsed,
      "input_wait": self._waited / steps,
      "input_wait_share": min(self._waited / elapsed, 1.0),
      "seconds": time.monotonic() - self._began,
    }
    self._reset()
    return numbers

  def _reset(self) -> None:
    self._steps, self._waited, self._since = 0, 0.0, time.monotonic()


def _writers(experiment: Experiment, workdir: Path, start: int) -> list[Writer]:
  run = experiment.run
  writers: list[Writer] = [JsonLines(workdir / "metrics.jsonl", resumed_from=start)]
  if run.tensorboard:
    writers.append(TensorBoard(workdir / "tensorboard", resumed_from=start))
  if run.wandb_project:
    writers.append(WeightsAndBiases(run.wandb_project, to_json(experiment), workdir))
  return writers
