"""A run of 2026-11-29 (Python 3.13, jax 0.12.0.1): it is read, it embeds and scores the same, and it goes on.

`workdir` holds what two steps of EXPERIMENT left; `python -m tests.golden.test_workdir FOLDER` made it. It stays as it
is: a format that is changed needs code that reads this one, and another folder beside it.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax import load_run
from mmjax.data import TokenizerConfig
from mmjax.evaluate import evaluate
from mmjax.evaluate.suite import measure
from mmjax.train.loop import fitted, train
from tests.golden.values import FOLDER, check, leaves, numbers
from tests.tiny import MODEL, experiment

SMALL = dict(width=8, mlp_dim=16)
EXPERIMENT = experiment(
  data=dict(tokenizer=TokenizerConfig(vocab_size=320, max_length=8)),
  model=dict(
    image=dataclasses.replace(MODEL.image, **SMALL), text=dataclasses.replace(MODEL.text, **SMALL), embed_dim=4
  ),
  optimizer=dict(warmup_steps=0),
  run=dict(steps=2),
)
WORKDIR = FOLDER / "workdir"
PICTURE = np.add.outer(np.arange(0, 160, 8), np.array([0, 40, 80]))[None].repeat(20, 0).astype(np.uint8)
TEXTS = ["a red heart", "cat", "Ein Käse"]


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


@pytest.fixture
def run(emoji):
  """The run, with the data of these tests."""
  found = load_run(WORKDIR)
  data = dataclasses.replace(found.experiment.data, dir=emoji.dir)
  return dataclasses.replace(found, experiment=dataclasses.replace(found.experiment, data=data))


def test_golden_workdir_is_read(run):
  assert run.step == 2
  assert fitted(EXPERIMENT, run.tokenizer, num_records={"": 1}) == dataclasses.replace(
    run.experiment, data=EXPERIMENT.data, run=EXPERIMENT.run
  )
  check("workdir", "ids", run.tokenizer(TEXTS).tolist())


def test_golden_workdir_embeds(run):
  check("workdir", "texts", run.encode_text(TEXTS).tolist(), abs=1e-5)
  check("workdir", "picture", run.encode_image([PICTURE]).tolist(), abs=1e-5)


def test_golden_workdir_scores(run):
  golden = json.loads((WORKDIR / "results.json").read_text(encoding="utf-8"))
  assert dict(leaves(numbers(evaluate(run)))) == pytest.approx(dict(leaves(numbers(golden))), abs=1e-6)


def test_golden_workdir_goes_on(run, tmp_path):
  workdir = shutil.copytree(WORKDIR, tmp_path / "copy")
  longer = dataclasses.replace(run.experiment.run, workdir=workdir, steps=3)
  assert train(dataclasses.replace(run.experiment, run=longer)).run.step == 3
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert [record["step"] for record in records] == [1, 2, 3]
  names = ("loss", "softmax_image_text", "logit_scale", "grad_norm", "learning_rate")
  check("workdir", "third step", {name: records[-1][name] for name in names}, rel=1e-5)


if __name__ == "__main__":
  measure(
    train(dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, workdir=Path(sys.argv[1])))).run
  )
