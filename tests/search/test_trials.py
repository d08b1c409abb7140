"""Trials on disk: several processes, and what a search that goes on must not change."""

import multiprocessing
import os
import signal

import pytest

from mmjax.errors import ConfigError
from mmjax.search.halving import Trial
from mmjax.search.trials import Trials


def test_trials_are_read_as_they_were_written(tmp_path):
  trials = Trials(tmp_path)
  written = [Trial(n, {"a.b": 0.1 * n, "c": "x"}, {3: 0.5, 9: None}, "a sentence") for n in range(12)]
  for one in written:
    trials.write(one)
  assert trials.all() == written


def _hold(folder, ready):
  trials = Trials(folder)
  assert trials.take(0)
  ready.set()
  signal.pause()


def test_a_trial_is_one_process_s_until_that_is_killed(tmp_path):
  trials, one = Trials(tmp_path), Trial(0, {})
  trials.write(one)
  context = multiprocessing.get_context("spawn")
  ready = context.Event()
  other = context.Process(target=_hold, args=(tmp_path, ready))
  other.start()
  assert ready.wait(60) and not trials.is_free(one) and not trials.take(0)
  os.kill(other.pid, signal.SIGKILL)
  other.join()
  assert trials.is_free(one) and trials.take(0) and not trials.is_free(one)
  trials.release(0)
  assert trials.is_free(one)


def test_a_search_goes_on_with_its_own_settings(tmp_path):
  settings = {"metric": "m", "space": {"a": {"Uniform": {"low": 0, "high": (1, 2)}}}, "run.steps": 9}
  Trials(tmp_path / "search").begin(settings)
  Trials(tmp_path / "search").begin(settings)
  with pytest.raises(ConfigError, match="was begun with another run.steps: 9, not 12. Take that again, or another"):
    Trials(tmp_path / "search").begin({**settings, "run.steps": 12})
