"""The training loop: read a batch, step, log, save and evaluate, until all steps are done or the run is stopped."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from mmjax.data.feed import Feed
from mmjax.experiment import Experiment
from mmjax.parallel.host import trim_allocator
from mmjax.run import CHECKPOINTS
from mmjax.train.adapters import trained_besides
from mmjax.train.checkpoint import Checkpoints, Restored
from mmjax.train.clock import Clock
from mmjax.train.diagnosis import event, sentence, stopped
from mmjax.train.evaluations import Evaluations, Made
from mmjax.train.health import HealthWatch, single_rows
from mmjax.train.interrupt import Interrupt, Interrupted
from mmjax.train.loss import stream_rows
from mmjax.train.numerics import Policy, no_losses
from mmjax.train.optimizer import trainable
from mmjax.train.progress import TrainingProgress
from mmjax.train.setup import Training
from mmjax.train.state import TrainState
from mmjax.train.step import Metrics
from mmjax.train.writers import EVENTS, Fanout, Lines, Writer, make_writers
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class _Flight:
  """A step that was started: number of batches read, position in the data after them, and metrics (not ready yet)."""

  batches: int
  feed: Any
  metrics: Metrics


class Session:
  """The training loop of one process start. It holds everything between steps except the state.

  Args:
    training: model, mesh, optimiser and step.
    made: workdir, tokenizer and columns.
    checkpoints: checkpoints of the run.
    feed: batches on the devices.
    interrupt: requests to stop.
    start: state to start from, and the other values of its checkpoint (none for a new run).
  """

  def __init__(
    self,
    training: Training,
    made: Made,
    checkpoints: Checkpoints,
    feed: Feed,
    interrupt: Interrupt,
    start: Restored,
  ):
    workdir = made.workdir
    self._training, self._experiment, self._workdir = training, training.experiment, workdir
    self._checkpoints, self._feed, self._interrupt = checkpoints, feed, interrupt
    self._state = start.state
    # Step at the start, steps taken, step of the newest checkpoint; then batches read, which rollbacks do not reduce.
    self._start = self._step = self._saved = int(start.state.step)
    self._batches = start.data.get("batches", self._step)
    self._policy = Policy(self._experiment.numerics, start.data.get("numerics", {}))
    self._evaluations = Evaluations(training, made, score=checkpoints.score, up_to=self._step)
    self._clock = Clock(self._experiment.run.batch_size)
    self._streams = {name: each.objectives for name, each in self._experiment.by_stream().items()}
    self._turn = 0
    self._first = jax.process_index() == 0
    self._writer: Writer = make_writers(self._experiment, workdir, self._step) if self._first else Fanout([])
    self._events = Lines(workdir / EVENTS, counter="batch", up_to=self._batches) if self._first else None

  def run(self, until: int | None = None) -> TrainState:
    """Train until run.steps, step `until` or a request to stop. Raises UserError as `mmjax.train.loop.train`.

    Returns: the state.
    """
    run = self._experiment.run
    self._last = run.steps if until is None else min(until, run.steps)
    with TrainingProgress(run.steps, start=self._start, quiet=not self._first) as self._progress:
      warmup = self._experiment.optimizer.warmup_steps
      workers = self._experiment.data.workers
      self._watch = HealthWatch(self._warn, patience=500 + warmup, workers=workers, early=100 + warmup)
      self._greet()
      self._evaluate(self._state)  # if the run was killed between a save and its evaluation
      state = self._train(self._state)
      if self._step > self._saved:
        self._save(state)
      if self._step == run.steps or self._evaluations.exhausted:
        self._checkpoints.prune()
      self._farewell()
    self._writer.close()
    return state

  def _train(self, state: TrainState) -> TrainState:
    flight: _Flight | None = None
    while self._step < self._last and self._goes_on():
      batch = self._next_batch()
      if batch is None:
        break
      state, metrics = self._training.step(state, batch)
      before, flight = flight, _Flight(self._batches, self._feed.get_state(), metrics)
      # Check the metrics of the previous step while the device computes this one.
      back = self._land(before) if before else None
      if back is not None:
        state, flight = back, None
      elif self._step + 1 == self._last or self._experiment.saves_after(self._step + 1):
        state, flight = self._land(flight) or state, None
        if self._step > self._saved and self._experiment.saves_after(self._step):
          self._save(state)
          self._evaluate(state)
    return self._land(flight) or state if flight else state

  def _goes_on(self) -> bool:
    self._checkpoints.check()
    self._turn += 1
    return not self._interrupt.reached(self._turn) and not self._evaluations.exhausted

  def _next_batch(self) -> Batch | None:
    """Return the next batch, or None if the run is asked to stop while it waits."""
    try:
      with self._interrupt.at_once():
        batch = next(self._feed)
    except Interrupted:
      return None
    self._batches += 1
    self._clock.step(self._feed.seconds_waited)
    if self._turn == 1 or self._batches % self._experiment.run.log_every == 0:
      for name, terms in self._streams.items():
        self._watch.batch(self._step, stream_rows(batch, name), terms)
    return batch

  def _land(self, flight: _Flight) -> TrainState | None:
    """Check the metrics of a step. Count the step, or react by the policy.

    Returns: the state to go back to, or None if there is no rollback.
    """
    values = dict(jax.device_get(flight.metrics))
    bad, spike, usual = (values.pop(name) for name in ("bad_parameters", "spike", "usual_loss"))
    finite = bool(np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"]))
    action = self._policy.decide(finite=finite, spike=bool(spike))
    if action != "apply":
      numbers = {**values, "usual_loss": usual}
      happened = event(finite, action, batch=flight.batches, step=self._step + 1, values=numbers)
      self._progress.say(sentence(happened))
      if self._events:
        self._events.add(happened)
      if action == "stop":
        latest = self._checkpoints.latest_step
        kept = "none yet" if latest is None else f"step {latest} in {self._workdir / CHECKPOINTS}"
        shapes = self._training.shapes.params
        raise stopped(happened, shapes, bad, kept=kept, exhausted=self._policy.exhausted)
    if action == "rollback":
      return self._roll_back(flight)
    if action != "skip":
      self._count(values)
    return None

  def _count(self, values: Metrics) -> None:
    """Count a step, and log it every run.log_every steps."""
    self._step += 1
    self._progress.advance(self._step)
    if self._step == self._start + 1:
      trim_allocator()  # memory that the compilation used
    if self._step % self._experiment.run.log_every == 0 or self._step == self._experiment.run.steps:
      numbers = {name: float(value) for name, value in values.items()} | self._clock.numbers()
      numbers |= _chance(self._experiment)
      self._writer.write(self._step, numbers)
      self._progress.report(self._step, numbers)
      self._watch.numbers(self._step, numbers)
      self._watch.losses(self._step, numbers, _chances(self._experiment))
    elif self._watch.due(self._step, self._experiment.run.log_every):
      numbers = {name: float(value) for name, value in values.items()}
      self._watch.losses(self._step, numbers, _chances(self._experiment))

  def _roll_back(self, flight: _Flight) -> TrainState:
    """Return the state of the last checkpoint. Data continues after the bad batch, and the log after the checkpoint."""
    self._checkpoints.wait()
    begun = self._checkpoints.latest_step is None
    state = self._training.initial_state() if begun else restored(self._training, self._checkpoints).state
    self._feed.set_state(flight.feed)
    self._batches = flight.batches
    self._step = self._saved = int(state.step)
    self._evaluations.rewind(self._step)
    self._writer.rewind(self._step)
    self._progress.advance(self._step)
    return state

  def _save(self, state: TrainState) -> None:
    self._writer.sync()  # so that no checkpoint is newer than its log
    beside = {"feed": self._feed.get_state(), "batches": self._batches, "numerics": self._policy.state}
    self._checkpoints.save(self._step, state, beside)
    self._saved = self._step

  def _evaluate(self, state: TrainState) -> None:
    """Evaluate if it is due. The step is saved before, so a run that dies here loses nothing."""
    if not self._evaluations.due(self._step):
      return
    began = time.monotonic()
    try:
      with self._interrupt.at_once():
        numbers = self._evaluations.measure(state)
    except Interrupted:
      self._progress.say("the evaluation was interrupted; it is repeated when the run resumes")
      return
    self._progress.say(self._evaluations.record(self._step, numbers, self._writer))
    self._clock.exclude(time.monotonic() - began)

  def _warn(self, kind: str, step: int, message: str) -> None:
    """Say a warning. It is an event of the run, unless it is about the speed of the machine."""
    self._progress.say(f"warning: {message}")
    if self._events and kind != "input":
      self._events.add({"batch": self._batches, "step": step, "event": "warning", "about": kind, "message": message})

  def _greet(self) -> None:
    run, mesh = self._experiment.run, self._training.mesh
    shapes = self._training.shapes.params
    sizes = jax.tree.map(lambda leaf: int(np.prod(leaf.shape)), shapes)
    trained = trainable(trained_besides(self._experiment), shapes)
    count = sum(jax.tree.leaves(sizes))
    moved = sum(jax.tree.leaves(jax.tree.map(lambda size, mine: size * mine, sizes, trained)))
    some = f" ({moved / 1e6:.2f}M trained)" if moved < count else ""
    devices = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    self._progress.say(
      f"{count / 1e6:.2f}M parameters{some}, batch {run.batch_size} on {mesh.size} {mesh.devices.flat[0].platform} "
      f"device(s) ({devices}), {run.steps} steps, workdir {self._workdir}"
    )
    if self._start:
      self._progress.say(f"resumed after step {self._start}")
    for message in single_rows(self._experiment):
      self._warn("batch", self._step, message)

  def _farewell(self) -> None:
    if self._evaluations.exhausted:
      self._progress.say(
        f"stopped after step {self._step}: no evaluation since step {self._evaluations.best} was better"
      )
    if self._interrupt:
      self._progress.say(f"stopped after step {self._step}; saving")
      self._checkpoints.wait()
      saved = self._workdir / CHECKPOINTS / str(self._saved)
      self._progress.say(f"saved to {saved}; the same command resumes from here")


def restored(training: Training, checkpoints: Checkpoints) -> Restored:
  """Read the newest intact checkpoint. If numerics.spike_window has changed, its recent losses are reset."""
  found = checkpoints.restore(training.shapes, training.shardings)
  if found.state.recent_losses is not None:
    return found
  fresh = jax.jit(lambda: no_losses(training.experiment.numerics), out_shardings=training.shardings.recent_losses)()
  return Restored(found.state.replace(recent_losses=fresh), found.data)


def _chance(experiment: Experiment) -> dict[str, float]:
  """Chance level of each objective if it is known, and of their sum if it is known for all."""
  chances = _chances(experiment)
  known = {name: chance for name, chance in chances.items() if chance is not None}
  numbers = {f"{name}_chance": chance for name, chance in known.items()} if len(chances) > 1 else {}
  constant = experiment.balance in ("fixed", "pcgrad") and not any(o.schedule for o in experiment.objectives)
  if constant and len(known) == len(chances):
    numbers["chance"] = sum(o.weight * known[o.key] for o in experiment.objectives)
  return numbers


def _chances(experiment: Experiment) -> dict[str, float | None]:
  """Chance level of each objective, None if it is not known."""
  rows = {name: each.run.batch_size for name, each in experiment.by_stream().items()}
  return {o.key: o.chance(rows[o.stream], experiment.model) for o in experiment.objectives}
