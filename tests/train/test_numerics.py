"""What becomes of steps whose numbers are wrong."""

import dataclasses
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.experiment import read_experiment
from mmjax.train import loop, session
from mmjax.train.numerics import LossSpikeError, NotFiniteError, NumericsConfig, Policy, judge, no_losses
from mmjax.train.setup import Training
from tests.tiny import experiment, host_batch
from tests.train.shared import prepared

STEPS = 6


def verdict(config, losses):
  """Which of these losses are applied, and which are jumps."""
  recent, applied, spikes = no_losses(config), [], []
  for loss in losses:
    ok, with_it, told = judge(config, jnp.float32(loss), jnp.float32(1), recent)
    recent = with_it if ok else recent
    applied.append(bool(ok))
    spikes.append(bool(told["spike"]))
  return applied, spikes


def test_a_jump_is_measured_by_the_median_of_a_full_window():
  skip = NumericsConfig(on_spike="skip", spike_factor=2.0, spike_window=3)
  # 9 comes before the window is full; the median of (9, 1, 1) is 1; 3 is skipped and not remembered; 1.9 is no jump.
  assert verdict(skip, [9, 1, 1, 3, 1.9, 2.1, float("nan")]) == (
    [True, True, True, False, True, False, False],
    [False, False, False, True, False, True, False],
  )
  log = dataclasses.replace(skip, on_spike="log")
  assert verdict(log, [1, 1, 1, 3]) == ([True] * 4, [False, False, False, True])
  # A loss below zero (learned variances): as far above the median as for the same loss above zero.
  assert verdict(skip, [-1, -1, -1, -0.1, 0.1])[1] == [False, False, False, False, True]


def test_too_many_in_a_row_or_in_a_run_stop_it():
  policy = Policy(NumericsConfig(on_not_finite="skip", on_spike="rollback", max_skips=2, max_rollbacks=1), {})
  bad, jump, good = dict(finite=False, spike=False), dict(finite=True, spike=True), dict(finite=True, spike=False)
  assert [policy.decide(**step) for step in (bad, bad, good, bad, bad, bad)] == [
    *("skip", "skip", "apply", "skip", "skip", "stop")
  ]
  assert "2 updates" in policy.exhausted
  again = Policy(policy._config, {"skips": 0, "rollbacks": 0})
  assert again.decide(**jump) == "rollback"
  assert Policy(policy._config, again.state).decide(**jump) == "stop"  # also after a restart


def test_settings_that_make_no_sense_are_named():
  with pytest.raises(ValueError, match=r"numerics\.spike_factor is 1\.0"):
    NumericsConfig(spike_factor=1.0)
  with pytest.raises(ValueError, match=r"numerics\.max_rollbacks is 0"):
    NumericsConfig(max_rollbacks=0)


@pytest.fixture(scope="module", autouse=True)
def one_device():
  first = jax.devices()[:1]
  with mock.patch("jax.devices", lambda *_: first):
    yield


@pytest.fixture
def run_of(data_dir):
  def config(workdir, **numerics):
    return experiment(
      data={"dir": data_dir}, run={"steps": STEPS, "save_every": 2, "workdir": workdir}, numerics=numerics
    )

  return config


def poison(monkeypatch, *batches):
  """Makes those batches bad that hold these examples."""
  place = loop.put_batch
  chosen = {tuple(batch) for batch in batches}

  def poisoned(batch, mesh):
    if tuple(batch["index"].tolist()) in chosen:
      batch = batch | {"image": np.full_like(batch["image"], np.nan)}
    return place(batch, mesh)

  monkeypatch.setattr(loop, "put_batch", poisoned)


@pytest.fixture(scope="module")
def order(tmp_path_factory, data_dir):
  """The batches of a run, by their examples' numbers."""
  seen = []
  original = session.Session._next_batch

  def next_batch(this):
    batch = original(this)
    seen.append(np.asarray(batch["index"]).tolist())
    return batch

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session.Session, "_next_batch", next_batch)
    loop.train(experiment(data={"dir": data_dir}, run={"steps": STEPS, "workdir": tmp_path_factory.mktemp("order")}))
  return seen


def lines(workdir, name):
  return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def replayed(workdir, batches):
  """The parameters after these batches, by the step alone: what the loop must come to."""
  training = prepared(read_experiment(workdir / "config.json"))
  state = training.initial_state()
  for batch in batches:
    state, _ = training.step(state, batch)
  return jax.device_get(state.params)


def test_a_skipped_batch_is_as_if_it_had_not_been_there(tmp_path, run_of, order, monkeypatch, capsys):
  """Two in a row, the second of them where a checkpoint is due; then again in a run killed in between."""
  config = run_of(tmp_path / "one", on_not_finite="skip")
  poison(monkeypatch, order[2], order[3])
  seen = []

  def recording(experiment, core, *, kinds):
    training = prepared(experiment)
    step = training.step
    recorded = lambda state, batch, frozen: (seen.append(batch), step.jitted(state, batch, frozen))[1]
    return dataclasses.replace(training, step=dataclasses.replace(step, jitted=recorded))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, "prepare", recording)
    outcome = loop.train(config)
  assert outcome.run.step == STEPS and len(seen) == STEPS + 2
  good = [batch for number, batch in enumerate(seen) if number not in (2, 3)]
  told = lines(tmp_path / "one", "events.jsonl")
  assert [(e["batch"], e["step"], e["event"], e["action"], e["loss"]) for e in told] == [
    *((3, 3, "not finite", "skip", "nan"), (4, 3, "not finite", "skip", "nan"))
  ]
  assert "not finite: loss nan" in capsys.readouterr().out
  assert [record["step"] for record in lines(tmp_path / "one", "metrics.jsonl")] == list(range(1, STEPS + 1))
  last = final_params(tmp_path / "one")
  jax.tree.map(np.testing.assert_array_equal, last, replayed(tmp_path / "one", good))
  kill_and_compare(tmp_path, run_of, monkeypatch, on_not_finite="skip")


def final_params(workdir):
  training = prepared(read_experiment(workdir / "config.json"))
  checkpoints = session.Checkpoints(workdir / "checkpoints", read_only=True)
  state = checkpoints.restore(training.shapes, training.shardings).state
  checkpoints.close()
  return jax.device_get(state.params)


def kill_and_compare(tmp_path, run_of, monkeypatch, **numerics):
  """The same run, killed after three, four and one steps of a sitting: parameters, log and events are `one`'s."""
  for turn in (3, 4, 1):

    def dying(this, now, turn=turn):
      if now > turn:
        raise Killed
      return False

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(session.Interrupt, "reached", dying)
      with pytest.raises(Killed):
        loop.train(run_of(tmp_path / "two", **numerics))
  loop.train(run_of(tmp_path / "two", **numerics))
  one, two = (final_params(tmp_path / name) for name in ("one", "two"))
  jax.tree.map(np.testing.assert_array_equal, one, two)
  assert lines(tmp_path / "two", "events.jsonl") == lines(tmp_path / "one", "events.jsonl")
  losses = [[(r["step"], r["loss"]) for r in lines(tmp_path / name, "metrics.jsonl")] for name in ("one", "two")]
  assert losses[0] == losses[1]


class Killed(BaseException):
  """kill -9."""


def test_a_rollback_goes_on_from_the_last_checkpoint_with_the_next_data(tmp_path, run_of, order, monkeypatch):
  """Batch 2 is bad before there is a checkpoint; batch 6 is after the checkpoint of step 2, made of batches 3 and 4."""
  numerics = dict(on_not_finite="rollback", max_rollbacks=2)
  config = run_of(tmp_path / "one", **numerics)
  poison(monkeypatch, order[1], order[5])
  outcome = loop.train(config)
  assert outcome.run.step == STEPS
  told = lines(tmp_path / "one", "events.jsonl")
  assert [(e["batch"], e["step"], e["action"]) for e in told] == [(2, 2, "rollback"), (6, 4, "rollback")]
  assert [record["step"] for record in lines(tmp_path / "one", "metrics.jsonl")] == list(range(1, STEPS + 1))
  kill_and_compare(tmp_path, run_of, monkeypatch, **numerics)
  shutil.rmtree(tmp_path / "one")
  with pytest.raises(NotFiniteError, match=r"step 4 is not finite.*went back 1 times \(numerics.max_rollbacks\)"):
    loop.train(run_of(tmp_path / "one", on_not_finite="rollback", max_rollbacks=1))


def remembering(monkeypatch, loss):
  """Runs begin as if all their last losses had been this one."""
  original = Training.initial_state

  def initial_state(this):
    state = original(this)
    return state.replace(recent_losses=jnp.full_like(state.recent_losses, loss))

  monkeypatch.setattr(Training, "initial_state", initial_state)


def test_a_jump_stops_the_run_or_is_logged_and_the_policy_may_change_on_resume(tmp_path, run_of, monkeypatch):
  remembering(monkeypatch, 0.5)
  with pytest.raises(LossSpikeError, match=r"the loss of step 1 jumped to .*usually 0\.5.*--numerics.on-spike"):
    loop.train(run_of(tmp_path, on_spike="stop", spike_window=2))
  assert [event["action"] for event in lines(tmp_path, "events.jsonl")] == ["stop"]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session.Interrupt, "reached", lambda this, turn: turn > 2)
    loop.train(run_of(tmp_path, on_spike="log"))
  assert [(event["step"], event["action"]) for event in lines(tmp_path, "events.jsonl")] == [(1, "log"), (2, "log")]
  outcome = loop.train(run_of(tmp_path, on_spike="stop", spike_window=2))  # its window begins empty
  assert outcome.run.step == STEPS and len(lines(tmp_path, "events.jsonl")) == 2


def test_a_jump_leaves_the_state_as_it_was(monkeypatch):
  training = prepared(experiment(run={"steps": STEPS}, numerics={"on_spike": "skip", "spike_window": 2}))
  remembering(monkeypatch, 0.5)
  before = jax.device_get(training.initial_state())
  state, metrics = training.step(training.initial_state(), loop.put_batch(host_batch(), training.mesh))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)
  assert metrics["spike"]


def test_what_is_decided_is_the_same_on_every_device(monkeypatch):
  """A function of the global loss, which lies whole on each of them, as does what is remembered."""
  with mock.patch("jax.devices", jax.local_devices):
    training = prepared(experiment(run={"steps": STEPS}))
  remembering(monkeypatch, 0.5)
  state, metrics = training.step(training.initial_state(), loop.put_batch(host_batch(), training.mesh))
  assert metrics["spike"] and training.mesh.size == 8
  for value in (state.recent_losses, metrics["spike"], metrics["usual_loss"]):
    assert value.sharding.is_fully_replicated
