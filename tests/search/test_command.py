"""A search as a command: trials are trained, stopped, gone on with and compared; mistakes are answered."""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import pytest

from mmjax.search import Choice, LogUniform, Search, Uniform, command, main
from mmjax.search.space import check_space
from tests.tiny import experiment

ROOT = Path(__file__).parents[2]
SPACE = {"optimizer.learning_rate": LogUniform(1e-4, 1.0), "optimizer.weight_decay": Uniform(0.0, 0.1)}
SEARCH = Search(SPACE)


def call(*arguments, search=SEARCH, of=None):
  with pytest.raises(SystemExit) as stop:
    main(search, of or experiment(run={"steps": 9}), arguments=[str(word) for word in arguments])
  return stop.value.code


@pytest.fixture
def trained(monkeypatch):
  """Jobs in their order. In place of training, a score that is best at a rate of .01."""
  jobs = []

  def train(search, base, trial, until, workdir):
    jobs.append((trial.number, until))
    rate = trial.values["optimizer.learning_rate"]
    if rate > 0.3:
      return dataclasses.replace(trial, scores={**trial.scores, until: None}, note="NaN < 0 & more"), 0
    return dataclasses.replace(trial, scores={**trial.scores, until: -abs(rate - 0.01) + until / 1000}), 0

  monkeypatch.setattr(command, "_trained", train)
  return jobs


def test_most_steps_go_to_what_does_well(trained, tmp_path, capsys):
  assert call("search", "--search.trials", 18, "--run.workdir", tmp_path) == 0
  records = json.loads((tmp_path / "trials.json").read_text())
  best = records[0]["values"]["optimizer.learning_rate"]
  assert len(records) == 18 and 9 in map(int, records[0]["scores"]) and sum(step for _, step in trained) < 18 * 9 / 2
  assert all(abs(best - 0.01) <= abs(one["values"]["optimizer.learning_rate"] - 0.01) for one in records)
  said = capsys.readouterr().out
  assert f"--optimizer.learning-rate {best}" in said and "the best of 18 trials" in said
  html = (tmp_path / "search.html").read_text()
  assert html.count("<tr") == 19 and f"--optimizer.learning-rate {best}" in html
  assert (tmp_path / "search.png").stat().st_size > 10_000
  failed = [one for one in records if one["note"]]
  assert len(failed) == html.count("NaN &lt; 0 &amp; more") > 0 and records[-1] in failed


def test_a_search_that_was_killed_anywhere_goes_on_as_if_it_had_not_been(trained, tmp_path, monkeypatch):
  class Killed(BaseException):
    pass

  arguments = ("search", "--search.trials", 9)
  assert call(*arguments, "--run.workdir", tmp_path / "whole") == 0
  whole = json.loads((tmp_path / "whole" / "trials.json").read_text())
  train, calls = command._trained, []

  def dying(*parts):
    calls.append(parts)
    if len(calls) % 2:
      raise Killed
    return train(*parts)

  monkeypatch.setattr(command, "_trained", dying)
  for _ in range(30):
    try:
      assert call(*arguments, "--run.workdir", tmp_path / "killed") == 0
      break
    except Killed:
      pass
  assert json.loads((tmp_path / "killed" / "trials.json").read_text()) == whole
  assert len(calls) == 2 * len(trained) // 2


def test_more_trials_may_be_asked_for_but_no_other_space(trained, tmp_path, capsys):
  assert call("search", "--search.trials", 4, "--run.workdir", tmp_path) == 0
  assert call("search", "--search.trials", 6, "--run.workdir", tmp_path) == 0
  assert len(json.loads((tmp_path / "trials.json").read_text())) == 6
  capsys.readouterr()
  other = Search({**SPACE, "optimizer.weight_decay": Uniform(0.0, 0.2)})
  assert call("search", "--run.workdir", tmp_path, search=other) == 2
  assert "was begun with another space" in capsys.readouterr().err
  assert call("search", "--run.workdir", tmp_path, "--run.batch-size", 8) == 2
  assert "was begun with another run.batch_size: 16, not 8" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["seek"], "unknown command 'seek'; commands are search, report"),
    (["report"], "no trial has been measured yet"),
    (["search", "--search.rungs", "4"], "need at least 27 steps, not 9"),
  ],
)
def test_mistakes_are_answered_in_a_sentence(trained, tmp_path, capsys, arguments, said):
  assert call(*arguments, "--run.workdir", tmp_path) == 2
  assert said in " ".join(capsys.readouterr().err.split()) and not trained


def test_a_metric_that_is_not_measured_is_refused_before_training(trained, tmp_path, capsys):
  assert call("search", "--run.workdir", tmp_path, search=Search(SPACE, metric="emoji/recal")) == 2
  assert "'emoji/recal' is not among the metrics" in " ".join(capsys.readouterr().err.split()) and not trained


def test_trials_are_trained_measured_and_gone_on_with(tmp_path, monkeypatch, one_device):
  """Of two trials of the script, one has an infinite rate, so that the other goes on: three trainings."""
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  script = importlib.import_module("search_digits")
  check_space(script.EXPERIMENT, script.SEARCH.space)
  search = dataclasses.replace(script.SEARCH, space={"optimizer.learning_rate": Choice([1e-2, math.inf])})
  options = "--search.rungs 2 --search.reduction 2 --search.trials 2 --run.steps 20 --run.seed 1".split()
  small = "--optimizer.algorithm momentum --optimizer.warmup-steps 1 --run.log-every 1".split()
  assert call("search", *options, *small, "--run.workdir", tmp_path, search=search, of=script.EXPERIMENT) == 0
  good, bad = json.loads((tmp_path / "trials.json").read_text())
  assert list(good["scores"]) == ["10", "20"] and bad["scores"] == {"10": None} and "not finite" in bad["note"]
  (result,) = json.loads((tmp_path / "trials" / "0" / "results.json").read_text())
  assert good["scores"]["20"] == result["metrics"]["acc1"] and result["step"] == 20
  rates = [json.loads(line) for line in (tmp_path / "trials" / "0" / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in rates if "loss" in line] == list(range(1, 21))
