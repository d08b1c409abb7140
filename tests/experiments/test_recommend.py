"""The study of recommendation runs tiny on a miniature of MovieLens' files."""

import dataclasses
import json

import numpy as np
import pytest

from mmjax.evaluate.evaluator import measured
from mmjax.study import main, members
from mmjax.train.setup import check_model


@pytest.fixture
def script(monkeypatch, request):
  monkeypatch.syspath_prepend(str(request.config.rootpath / "experiments"))
  import recommend

  return recommend


@pytest.fixture
def experiment(script, tmp_path):
  rng = np.random.default_rng(0)
  rows = [f"{user}\t{item}\t3\t{rng.integers(99)}" for user in range(12) for item in rng.permutation(15)[:6]]
  files = {
    "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *rows],
    "user": [
      "user_id:token\tage:token\tgender:token\toccupation:token",
      *(f"{user}\t{20 + user}\tF\twriter" for user in range(12)),
    ],
    "item": [
      "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
      *(f"{n}\tFilm {n}\t19{80 + n}\tDrama" for n in range(15)),
    ],
  }  # fmt: skip
  for end, lines in files.items():
    (tmp_path / f"ml-100k.{end}").write_text("\n".join(lines))
  source = dataclasses.replace(script.EXPERIMENT.data.source, folder=str(tmp_path))
  data = dataclasses.replace(script.EXPERIMENT.data, source=source, dir=str(tmp_path / "data"))
  run = dataclasses.replace(script.EXPERIMENT.run, workdir=tmp_path / "runs", steps=2, batch_size=8)
  return dataclasses.replace(script.EXPERIMENT, data=data, run=run)


def test_every_variant_has_the_columns_and_metrics_that_it_needs(script, experiment):
  measures = set()
  for member in members(dataclasses.replace(script.STUDY, seeds=1), experiment):
    check_model(member.experiment)
    measures |= {*measured(member.experiment)}
  assert {*script.STUDY.metrics.values()} <= measures


def test_the_study_runs(script, experiment, tmp_path, one_device, capsys):
  study = dataclasses.replace(script.STUDY, variants=script.STUDY.variants[1:2], seeds=1)
  study = dataclasses.replace(study, metrics={"HR@10": "movielens/hit_rate@10"})
  with pytest.raises(SystemExit) as stop:
    main(study, experiment, arguments=["train"])
  assert stop.value.code == 0, capsys.readouterr()
  (row,) = json.loads((tmp_path / "runs" / "comparison.json").read_text())
  assert row["variant"] == "logQ, mixed negatives" and 0 < row["HR@10"][0] <= 1
