"""The loop end to end on a handful of real emoji: resume, interruption, refusal."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import threading
import time

import chex
import jax
import numpy as np
import optax
import pytest

import mmjax
from mmjax.data import DataError, Tokenizer
from mmjax.data.text.tokenizer import train_vocabulary
from mmjax.errors import CheckpointError, UserError
from mmjax.train import evaluations, loop, session
from mmjax.train.numerics import NotFiniteError
from tests.tiny import experiment


@pytest.fixture(scope="module")
def run_of(data_dir):
  def config(workdir, **parts):
    parts = {"data": {}, "run": {}} | parts
    return experiment(
      **parts | {"data": {"dir": data_dir, **parts["data"]}, "run": {"steps": 6, "workdir": workdir, **parts["run"]}}
    )

  return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run_of):
  """An uninterrupted run of six steps."""
  workdir = tmp_path_factory.mktemp("whole")
  return loop.train(run_of(workdir)), workdir


def log(workdir):
  volatile = {"seconds", "examples_per_second", "input_wait", "input_wait_share"}
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [{name: value for name, value in record.items() if name not in volatile} for record in records]


def parameters_equal(one, two):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(one.params), jax.device_get(two.params))


def test_every_step_is_logged_beside_chance(whole):
  _, workdir = whole
  records = log(workdir)
  assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
  assert records[0]["chance"] == pytest.approx(np.log(16))
  assert {"loss", "softmax_image_text", "logit_scale", "grad_norm", "learning_rate"} <= records[0].keys()


def test_a_scripts_own_optimiser_is_the_one_that_trains(tmp_path, run_of):
  config = run_of(tmp_path, optimizer=dict(weight_decay=0.0), run=dict(steps=2))
  outcome = loop.train(config, core=optax.set_to_zero())
  begun = loop.prepare(outcome.run.experiment, None, kinds=()).initial_state()
  chex.assert_trees_all_close(outcome.run.params, begun.params, rtol=1e-6)  # a run holds the averages


def test_the_moving_average_is_evaluated_and_loaded_by_choice(tmp_path, run_of):
  config = run_of(tmp_path, run=dict(steps=2))
  outcome = loop.train(dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, average=False)))
  loaded, average = mmjax.load_run(tmp_path), mmjax.load_run(tmp_path, average=True)
  chex.assert_trees_all_equal(jax.device_get(loaded.params), jax.device_get(outcome.run.params))
  scales = [float(params["logit_scale"]) for params in (loaded.params, average.params)]
  assert scales[0] != scales[1]


def test_an_interrupted_run_goes_on_to_the_same_bits(whole, tmp_path, run_of, monkeypatch):
  outcome, workdir = whole
  interrupted = run_of(tmp_path)
  original = session.TrainingProgress.advance

  def interrupt_at_three(self, step):
    original(self, step)
    if step == 3:
      os.kill(os.getpid(), signal.SIGINT)

  monkeypatch.setattr(session.TrainingProgress, "advance", interrupt_at_three)
  first = loop.train(interrupted)
  assert first.exit_status == 128 + signal.SIGINT
  assert first.run.step == 4  # the bound: step 4 was under way when the signal came, and no other is begun
  monkeypatch.setattr(session.TrainingProgress, "advance", original)
  second = loop.train(interrupted)
  assert second.exit_status == 0
  parameters_equal(second.run, outcome.run)
  assert log(tmp_path) == log(workdir)


def test_a_loaded_run_is_the_trained_one(whole):
  outcome, workdir = whole
  loaded = mmjax.load_run(workdir)
  parameters_equal(loaded, outcome.run)
  assert loaded.step == 6 and loaded.experiment == outcome.run.experiment
  words = ["cat", "a red heart"]
  np.testing.assert_allclose(loaded.encode_text(words), outcome.run.encode_text(words), atol=1e-6)
  pictures = np.random.default_rng(0).integers(0, 255, (11, 20, 20, 3), np.uint8)
  embeddings = loaded.encode_image(list(pictures))
  assert embeddings.shape == (11, 8)
  np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
  np.testing.assert_allclose(loaded.encode_image(list(pictures[3:4])), embeddings[3:4], atol=1e-6)
  ready = np.stack([loaded.preprocess(picture) for picture in pictures])
  np.testing.assert_allclose(loaded.encode_image(ready), embeddings, atol=1e-6)


def test_one_string_is_not_a_list_of_strings(whole):
  with pytest.raises(TypeError, match="list of strings"):
    whole[0].run.encode_text("cat")


def test_a_finished_run_has_nothing_left_to_do(whole, run_of):
  outcome, workdir = whole
  before = (workdir / "metrics.jsonl").read_text()
  again = loop.train(run_of(workdir))
  parameters_equal(again.run, outcome.run)
  assert (workdir / "metrics.jsonl").read_text() == before


def test_a_run_does_not_go_on_with_another_vocabulary(whole, tmp_path, run_of):
  _, workdir = whole
  shutil.copytree(workdir, tmp_path / "copy")
  saved = Tokenizer.load(workdir / "tokenizer")
  Tokenizer(train_vocabulary(["something else"], saved.config), saved.config).save(tmp_path / "copy" / "tokenizer")
  with pytest.raises(DataError, match=r"The tokenizer made from the data is not the one in .*copy"):
    loop.train(run_of(tmp_path / "copy"))


def test_a_used_workdir_is_refused_without_resume(whole, run_of):
  _, workdir = whole
  with pytest.raises(CheckpointError, match="holds a run at step 6"):
    loop.train(run_of(workdir, run={"resume": False}))


def test_a_batch_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path, run_of, monkeypatch):
  config = run_of(tmp_path, run={"save_every": 2})
  place, calls = loop.put_batch, []

  def poisoned(batch, mesh):
    calls.append(1)
    if len(calls) == 4:
      batch = batch | {"image": np.full_like(batch["image"], np.nan)}
    return place(batch, mesh)

  monkeypatch.setattr(loop, "put_batch", poisoned)
  with pytest.raises(NotFiniteError, match=r"step 4 is not finite.*first parameter .* 'image.*step 2 in"):
    loop.train(config)
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdecimal()) == ["2"]
  monkeypatch.setattr(loop, "put_batch", place)
  assert loop.train(config).run.step == 6


def test_evaluation_while_training_keeps_the_best(tmp_path, run_of):
  config = run_of(tmp_path, evaluation={"every": 3}, run={"keep_last": 1})
  loop.train(config)
  evaluations = [record for record in log(tmp_path) if "eval" in record]
  assert [record["step"] for record in evaluations] == [3, 6]
  assert all(0 <= record["eval"]["mean_recall@1"] <= 1 for record in evaluations)


def test_a_workdir_that_cannot_be_made_is_named(tmp_path, run_of):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file/run cannot be written"):
    loop.train(run_of(tmp_path / "file" / "run"))


def test_an_unknown_best_metric_lists_the_metrics(tmp_path, run_of):
  config = run_of(tmp_path, evaluation={"every": 1, "best_metric": "accuracy"}, run={"steps": 2})
  with pytest.raises(UserError, match="best_metric='accuracy' is not among the metrics: .*recall@1"):
    loop.train(dataclasses.replace(config))


def test_sigterm_while_waiting_for_data_or_evaluating_stops_at_once_and_the_evaluation_is_made_up_for(
  whole, tmp_path, run_of, monkeypatch
):
  """The bound: whatever takes long (here a minute) is broken off, the step is saved, and the status says requeue."""
  config = run_of(tmp_path, evaluation={"every": 3})

  def slow(run):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    time.sleep(60)

  began = time.monotonic()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evaluations, "evaluate", slow)
    outcome = loop.train(config)
  assert (outcome.exit_status, outcome.run.step) == (128 + signal.SIGTERM, 3)
  assert not any("eval" in record for record in log(tmp_path))
  monkeypatch.setattr(evaluations, "evaluate", lambda run: {"mean_recall@1": float(run.step)})
  monkeypatch.setattr(evaluations, "flatten", lambda numbers: numbers)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session.Feed, "__next__", slow)
    outcome = loop.train(config)
  assert (outcome.exit_status, outcome.run.step) == (128 + signal.SIGTERM, 3) and time.monotonic() - began < 50
  outcome = loop.train(config)
  assert outcome.exit_status == 0
  assert [(record["step"], "eval" in record) for record in log(tmp_path)] == [
    *((1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (6, True))
  ]
  parameters_equal(outcome.run, whole[0].run)


def test_sigusr1_asks_for_the_same(tmp_path, run_of, monkeypatch):
  monkeypatch.setattr(session.Session, "_greet", lambda self: os.kill(os.getpid(), signal.SIGUSR1))
  assert loop.train(run_of(tmp_path)).exit_status == 128 + signal.SIGUSR1


def test_a_full_disk_ends_the_run_with_the_reason_and_the_last_good_checkpoint_goes_on(whole, tmp_path, run_of):
  config = run_of(tmp_path, run={"save_every": 2})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  original, calls = session.Session._save, []

  def save(self, state):
    calls.append(1)
    if len(calls) == 2:
      self._checkpoints.wait()
      resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # what a full disk is, to the state's larger files
    original(self, state)

  try:
    with (
      pytest.MonkeyPatch.context() as patch,
      pytest.raises(CheckpointError, match="step 4 could not be.*of step 2, is"),
    ):
      patch.setattr(session.Session, "_save", save)
      loop.train(config)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  time.sleep(0.5)  # threads that outlive the save would write now
  assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]  # the half that was written is gone
  parameters_equal(loop.train(config).run, whole[0].run)
  assert log(tmp_path) == log(whole[1])
