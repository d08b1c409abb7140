"""A modality of a script's own trains, stops, resumes, evaluates, reports, plans, and is loaded."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmjax import load_run
from mmjax.errors import ConfigError
from mmjax.evaluate import measure
from mmjax.report import write_report
from mmjax.train import train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "own_modality.py"


@pytest.fixture(scope="module")
def script():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(SCRIPT.parent))
    import own_modality

    yield own_modality


def tiny(script, workdir, **run):
  table = script.TableConfig(width=8, depth=1, num_heads=2)
  settings = dict(workdir=workdir, steps=4, batch_size=16, log_every=1, tensorboard=False)
  run = dataclasses.replace(script.EXPERIMENT.run, **settings | run)
  constant = dataclasses.replace(script.EXPERIMENT.optimizer, schedule="constant", warmup_steps=0)
  return dataclasses.replace(script.EXPERIMENT, model=script.RegressorConfig(table), optimizer=constant, run=run)


@pytest.fixture(scope="module")
def trained(script, tmp_path_factory):
  """Two steps, then two more from the checkpoint."""
  workdir = tmp_path_factory.mktemp("own")
  train(tiny(script, workdir, steps=2), kinds=script.KINDS)
  return train(tiny(script, workdir), kinds=script.KINDS).run


def test_it_goes_on_as_if_it_had_not_stopped(script, trained, tmp_path):
  whole = train(tiny(script, tmp_path), kinds=script.KINDS)
  lines = [
    [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for folder in (trained.workdir, tmp_path)
  ]
  assert lines[0] == lines[1] and len(lines[0]) == 4 and whole.run.tokenizer is None


def test_it_is_evaluated_and_shown(script, trained):
  (result,) = measure(trained)
  predicted, true = script.predictions(trained)
  assert result["n"] == 110 and result["metrics"]["r2"] == pytest.approx(
    1 - np.square(predicted - true).mean() / np.square(true - true.mean()).mean(), rel=1e-5
  )
  page = write_report(trained.workdir, trained).read_text(encoding="utf-8")
  assert "<h3>Regression</h3>" in page and "Predictions" in page and "true progression" in page


def test_it_is_loaded_with_its_classes_and_refused_without(script, trained):
  run = load_run(trained.workdir, kinds=script.KINDS)
  assert run.experiment == trained.experiment and run.fitted == trained.fitted and run.tokenizer is None
  np.testing.assert_allclose(script.predictions(run)[0], script.predictions(trained)[0], rtol=1e-5, atol=1e-7)
  mean, std = run.fitted["outcome"]
  assert mean[0] == pytest.approx(153.87, abs=0.01) and std[0] == pytest.approx(79.75, abs=0.01)
  with pytest.raises(ConfigError, match=r"unknown source 'Patients'.*must be passed in kinds="):
    load_run(trained.workdir)


def test_the_control_shows_the_outcomes_of_others(script):
  own, others = (script.Patients(shuffled=shuffled).open("train", None) for shuffled in (False, True))
  same = [one["progression"] == two["progression"] for one, two in zip(own, others, strict=True)]
  assert np.mean(same) < 0.1 and all((a["measurements"] == b["measurements"]).all() for a, b in zip(own, others))


def test_the_command_line_knows_its_fields_and_plan_compiles_it(tmp_path):
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  call = lambda *line: subprocess.run(
    [sys.executable, str(SCRIPT), *line], env=environment, cwd=tmp_path, capture_output=True, text=True
  )
  wrong = call("--data.source.shufled")
  assert wrong.returncode == 2 and "--data.source.shuffled" in wrong.stdout + wrong.stderr
  done = call(
    "plan", "--topology", "cpu:2", "--json", "--data.dir", str(tmp_path), "--run.workdir", str(tmp_path / "run")
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)["fits"]
