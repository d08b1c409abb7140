"""Which trial of a search goes on: against the rule in words, and for any number of processes."""

import dataclasses

import numpy as np
import pytest

from mmjax.search.halving import Trial, next_job, ranked, rungs

AT = (10, 30, 90)


def trial(number, **scores):
  return Trial(number, {}, {int(name[1:]): score for name, score in scores.items()})


def test_rungs():
  assert rungs(270, 3, 3) == (30, 90, 270) and rungs(100, 1, 4) == (100,) and rungs(10, 2, 3) == (3, 10)
  with pytest.raises(ValueError, match="at least 27 steps, not 20"):
    rungs(20, 4, 3)


def test_a_third_goes_on_and_the_highest_rung_first():
  first = [trial(n, s10=score) for n, score in enumerate((0.1, 0.3, 0.2))]
  assert next_job(first[:2], AT, 3, maximize=True) is None  # a third of two is none
  assert next_job(first, AT, 3, maximize=True) == (first[1], 30)
  assert next_job(first, AT, 3, maximize=False) == (first[0], 30)
  second = [dataclasses.replace(one, scores={10: n / 10, 30: n / 10}) for n, one in enumerate(first)]
  assert next_job([*second, *(trial(n, s10=0.9) for n in range(3, 9))], AT, 3, maximize=True) == (second[2], 90)


def test_failed_trials_are_last_and_never_go_on():
  trials = [trial(0, s10=None), trial(1, s10=None), trial(2, s10=0.5)]
  assert [one.number for one in ranked(trials, 10, maximize=False)] == [2, 0, 1]
  assert next_job(trials, AT, 3, maximize=False) == (trials[2], 30)
  assert next_job([trial(n, s10=None) for n in range(3)], AT, 3, maximize=True) is None


def test_a_trial_whose_process_died_goes_on_first():
  trials = [trial(0, s10=1.0), trial(1, s10=0.1), trial(2, s10=0.2), Trial(3, {})]
  assert next_job(trials, AT, 3, maximize=True) == (trials[3], 10)
  busy = lambda one: one.number != 3
  assert next_job(trials, AT, 3, maximize=True, is_free=busy) == (trials[0], 30)
  assert next_job(trials, AT, 3, maximize=True, is_free=lambda one: False) is None


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_trials_take_all_steps(processes, seed):
  """Simulated processes that end in any order. Scores do not cross from rung to rung, so the best trial must win."""
  rng = np.random.default_rng(seed)
  quality = rng.permutation(27)
  trials, running = [], {}
  while True:
    while len(running) < processes:
      job = next_job(trials, AT, 3, maximize=True, is_free=lambda one: one.number not in running)
      if job is None and len(trials) < 27:
        trials.append(Trial(len(trials), {}))
        job = trials[-1], AT[0]
      if job is None:
        break
      running[job[0].number] = job[1]
    if not running:
      break
    number = int(rng.choice(list(running)))
    step = running.pop(number)
    scores = {**trials[number].scores, step: float(quality[number]) + step / 1000}
    trials[number] = dataclasses.replace(trials[number], scores=scores)
  assert {len(one.scores) for one in trials} == {1, 2, 3}
  for step in AT[:-1]:
    best = {one.number for one in ranked(trials, step, maximize=True)[: len(ranked(trials, step, maximize=True)) // 3]}
    assert best <= {one.number for one in trials if max(one.scores) > step}  # some more may have gone on, early
  assert 90 in trials[int(quality.argmax())].scores
  assert sum(one.steps for one in trials) < 27 * 90 / 2.5
