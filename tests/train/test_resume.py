"""A run that is killed at any step goes on as if nothing had happened: states, data, log and events."""

import contextlib
import dataclasses
import functools
import json
import shutil
from unittest import mock

import jax
import numpy as np
import pytest

from mmjax.run import CHECKPOINTS
from mmjax.train import evaluations, loop, session
from mmjax.train.checkpoint import Checkpoints
from tests.tiny import experiment
from tests.train.shared import prepared

VOLATILE = {"seconds", "examples_per_second", "input_wait", "input_wait_share"}
STEPS = 6


class Killed(BaseException):
  """What kill -9 is to the rest of the program: nothing after it runs."""


@contextlib.contextmanager
def devices(count):
  first = jax.devices()[:count]
  with mock.patch("jax.devices", lambda *_: first):
    yield


class Recorder:
  """Every batch that a step was given, by the number of batches that its run had read."""

  def __init__(self, monkeypatch):
    self.seen = []
    original = session.Session._next_batch

    def next_batch(this):
      batch = original(this)
      self.seen.append((this._batches, *np.asarray(batch["index"]).tolist()))
      return batch

    monkeypatch.setattr(session.Session, "_next_batch", next_batch)


@pytest.fixture
def recorder(monkeypatch):
  return Recorder(monkeypatch)


def kill_at(monkeypatch, moment, turn):
  """Dies when `moment`, a method of Session, is called for the turn-th time, before or after it is done."""
  name, when = moment
  original, calls = getattr(session.Session, name), []

  def dying(this, *args):
    calls.append(name)
    if len(calls) == turn and when == "before":
      raise Killed
    result = original(this, *args)
    if len(calls) == turn:
      raise Killed
    return result

  monkeypatch.setattr(session.Session, name, dying)


def log(workdir, name="metrics.jsonl"):
  records = [json.loads(line) for line in (workdir / name).read_text().splitlines()]
  return [{key: value for key, value in record.items() if key not in VOLATILE} for record in records]


def final(workdir, config):
  """Everything in the last checkpoint: the state's arrays, and what was kept beside it."""
  training = prepared(config)
  checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
  found = checkpoints.restore(training.shapes, training.shardings)
  checkpoints.close()
  return jax.device_get(found.state), found.data


def same(one, two):
  jax.tree.map(np.testing.assert_array_equal, one[0], two[0])
  assert one[1] == two[1]


@pytest.fixture(scope="module", autouse=True)
def quick_evaluation():
  """A number that depends on every parameter, in place of the emoji suite (which test_loop runs)."""

  def measure(run):
    return {"mean_recall@1": float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(jax.device_get(run.params))))}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evaluations, "evaluate", measure)
    patch.setattr(evaluations, "flatten", lambda numbers: numbers)
    yield


# Two microbatches, an epoch of 32 records in batches of 16 that ends within the run, a moving average, evaluations.
@pytest.fixture(scope="module")
def config(data_dir):
  return functools.partial(
    lambda workdir, **data: experiment(
      data={"dir": data_dir, **data},
      parallel={"microbatches": 2},
      evaluation={"every": 4},
      run={"steps": STEPS, "save_every": 2, "workdir": workdir},
    )
  )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
  """An uninterrupted run: its workdir, its configuration and what its last checkpoint holds."""
  workdir = tmp_path_factory.mktemp("whole")
  patch = pytest.MonkeyPatch()
  recorder = Recorder(patch)
  outcome = loop.train(config(workdir))
  patch.undo()
  return workdir, outcome.run.experiment, recorder.seen


MOMENTS = [(("_land", "after"), 1), (("_land", "before"), 3), (("_land", "after"), 3), (("_count", "after"), 5)]
MOMENTS += [
  (("_save", "before"), 1),
  (("_save", "after"), 2),
  (("_evaluate", "before"), 2),
  (("_evaluate", "after"), 3),
]


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_anywhere_it_ends_with_the_same_bits_and_the_same_log(whole, tmp_path, config, recorder, workers):
  """Each sitting is killed at another moment, until one gets through."""
  workdir, experiment, seen = whole
  moments = MOMENTS if workers == 0 else MOMENTS[1:2]
  for moment, turn in moments:
    with pytest.MonkeyPatch.context() as patch:
      kill_at(patch, moment, turn)
      with contextlib.suppress(Killed):
        loop.train(config(tmp_path, workers=workers))
    with (tmp_path / "metrics.jsonl").open("a") as file:
      file.write('{"step": 3, "lo')  # the line that it was writing
  loop.train(config(tmp_path, workers=workers))
  same(final(tmp_path, experiment), final(workdir, experiment))
  assert log(tmp_path) == log(workdir)
  assert len(recorder.seen) > STEPS and set(recorder.seen) == set(seen)  # the same batches in the same places
  assert recorder.seen[-1] == seen[-1]


def test_on_other_device_counts_the_data_are_the_same_and_the_losses_agree(whole, tmp_path, config, recorder):
  workdir, _, seen = whole
  for count, steps in ((8, 2), (4, 4), (1, 6)):
    with devices(count), pytest.MonkeyPatch.context() as patch:
      patch.setattr(session.Interrupt, "reached", lambda this, turn: turn > 2)
      assert loop.train(config(tmp_path)).run.step == steps
  assert recorder.seen == seen
  losses, expected = ([r["loss"] for r in log(folder) if "loss" in r] for folder in (tmp_path, workdir))
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  assert [record["step"] for record in log(tmp_path)] == [record["step"] for record in log(workdir)]


def test_in_several_calls_it_ends_with_the_same_bits_and_the_same_log(whole, tmp_path, config, recorder):
  workdir, experiment, seen = whole
  for until, steps in ((1, 1), (4, 4), (4, 4), (5, 5), (99, STEPS)):
    outcome = loop.train(config(tmp_path), until=until)
    assert (outcome.run.step, outcome.exit_status) == (steps, 0)
  same(final(tmp_path, experiment), final(workdir, experiment))
  assert log(tmp_path) == log(workdir) and recorder.seen == seen


@pytest.mark.parametrize("stop", [3, 5])
def test_a_stopped_run_leaves_the_same_checkpoints_as_one_that_nobody_stopped(whole, tmp_path, config, stop):
  """Stopped between two planned saves, it saves there; afterwards no planned checkpoint is missing for it."""
  workdir, experiment, _ = whole
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session.Interrupt, "reached", lambda this, turn: turn > stop)
    assert loop.train(config(tmp_path)).run.step == stop
  names = lambda folder: sorted(path.name for path in (folder / CHECKPOINTS).iterdir())
  assert str(stop) in names(tmp_path)
  loop.train(config(tmp_path))
  assert names(tmp_path) == names(workdir)
  same(final(tmp_path, experiment), final(workdir, experiment))


def test_the_best_checkpoint_is_remembered_over_a_restart(tmp_path, config, monkeypatch):
  """Evaluation gets worse; the best one's step stays on the disk, though the newest one alone is kept."""
  scores = iter([0.9, 0.5, 0.4])
  monkeypatch.setattr(evaluations, "evaluate", lambda run: {"mean_recall@1": next(scores)})
  short = config(tmp_path)
  short = dataclasses.replace(
    short,
    evaluation=dataclasses.replace(short.evaluation, every=2),
    run=dataclasses.replace(short.run, keep_last=1),
  )
  with pytest.MonkeyPatch.context() as patch:
    kill_at(patch, ("_land", "before"), 3)
    with pytest.raises(Killed):
      loop.train(short)
  loop.train(short)
  assert sorted(int(path.name) for path in (tmp_path / CHECKPOINTS).iterdir()) == [2, 6]


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(whole, tmp_path, config, caplog):
  workdir, experiment, _ = whole
  shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
  victim = max(
    (tmp_path / CHECKPOINTS / "6" / "state").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0
  )
  victim.write_bytes(victim.read_bytes()[:100])
  outcome = loop.train(config(tmp_path))
  assert outcome.exit_status == 0 and outcome.run.step == 6
  assert victim.name in caplog.text and "Step 4 is used instead" in caplog.text
  same(final(tmp_path, experiment), final(workdir, experiment))
  assert log(tmp_path) == log(workdir)
