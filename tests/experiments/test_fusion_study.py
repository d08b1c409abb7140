"""The study of fusions runs, tiny, shares its programs among seeds, and says what it found."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmjax.study import main, members
from mmjax.train import setup

ROOT = Path(__file__).parents[2]
TINY = """--model.image.width 8 --model.image.num-heads 2 --model.image.mlp-dim 8
  --model.fusion.width 8 --model.fusion.num-heads 2 --model.fusion.depth 1 --model.fusion.mlp-dim 8
  --optimizer.warmup-steps 1 --run.batch-size 16 --run.steps 2""".split()


@pytest.fixture
def script(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import fusion_study

  return fusion_study


def call(study, experiment, *arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    main(study, experiment, arguments=list(arguments))
  return stop.value.code


def test_variants_differ_in_their_fusion_and_nothing_else(script):
  runs = members(script.STUDY, script.EXPERIMENT)
  assert len(runs) == 3 * 22 and len({run.experiment.run.workdir for run in runs}) == len(runs)
  models = {run.variant.name: run.experiment.model for run in runs}
  assert {model.image for model in models.values()} == {script.EXPERIMENT.model.image}
  assert len(set(models.values())) == 22
  assert [name for name, model in models.items() if model.blind] == ["image only", "text only"]


def test_train_and_report(script, tmp_path, capsys, monkeypatch):
  chosen = [variant for variant in script.STUDY.variants if variant.name in ("late", "MLP")]
  study = dataclasses.replace(script.STUDY, variants=tuple(chosen), seeds=2)
  where = [*TINY, "--run.workdir", str(tmp_path)]
  prepared, prepare = [], setup.prepare
  monkeypatch.setattr(setup, "prepare", lambda *args, **named: (prepared.append(args), prepare(*args, **named))[1])
  assert call(study, script.EXPERIMENT, "train", *where) == 0
  assert len(prepared) == 2  # one for each variant, not one for each run
  records = json.loads((tmp_path / "comparison.json").read_text())
  assert [(record["variant"], record["seeds"], len(record["accuracy"])) for record in records] == [
    ("late", "2", 2),
    ("MLP", "2", 2),
  ]
  (result,) = json.loads((tmp_path / "MLP" / "seed1" / "results.json").read_text())
  assert result["n"] == 3500 and result["metrics"]["vqa_accuracy"] == records[1]["accuracy"][1]
  assert result["chance"]["vqa_accuracy"] == 0.5
  said = json.loads((tmp_path / "MLP" / "seed1" / "said.json").read_text())
  truth = script.DigitsWords.truth
  right = [p if true else 1 - p for row, trues in zip(said, truth) for p, true in zip(row, trues)]
  assert sum(right) / 100 == pytest.approx(result["metrics"]["vqa_accuracy"], abs=1e-4)
  config = json.loads((tmp_path / "MLP" / "seed1" / "config.json").read_text())["experiment"]
  assert config["model"]["fusion"]["kind"] == "mlp" and config["run"]["seed"] == 1
  lines = [(tmp_path / "late" / f"seed{seed}" / "metrics.jsonl").read_text().splitlines() for seed in (0, 1)]
  losses = [json.loads(only)["loss"] for (only,) in lines]
  assert losses[0] > 0 and losses[0] != losses[1]  # the seed reaches the shared program
  page = (tmp_path / "comparison.html").read_text()
  assert script.PICTURE in page and page.count("data:image/png") == 2
  assert not (tmp_path / "MLP" / "seed1" / "report.html").exists()
  capsys.readouterr()
  before = (tmp_path / "MLP" / "seed1" / "results.json").stat().st_mtime_ns
  assert call(study, script.EXPERIMENT, "train", *where) == 0  # everything is there: nothing is trained again
  assert (tmp_path / "MLP" / "seed1" / "results.json").stat().st_mtime_ns == before
  assert call(study, script.EXPERIMENT, "report", *where) == 0
  assert "| MLP | 16 | 2 |" in capsys.readouterr().out and (tmp_path / "MLP" / "seed1" / "report.html").exists()
