"""The study of drawn scenes runs, tiny: tokenizer, CLIP, a model that draws, and the choice among its images."""

import dataclasses
import functools
import importlib
import json
from pathlib import Path

import pytest

from mmjax import load_run
from tests.experiments.tiny_study import call

SCRIPTS = Path(__file__).parents[2] / "experiments"
SMALL = dict(width=16, depth=1, num_heads=2)

pytestmark = pytest.mark.usefixtures("one_device")


def test_scenes_are_drawn_and_chosen(tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(SCRIPTS))
  script = importlib.import_module("dalle_scenes")

  def tiny(experiment, **model):
    return dataclasses.replace(
      experiment,
      data=dataclasses.replace(
        experiment.data, dir=str(tmp_path), source=dataclasses.replace(experiment.data.source, examples=60)
      ),
      model=dataclasses.replace(experiment.model, **model),
      run=dataclasses.replace(experiment.run, steps=1, batch_size=16, tensorboard=False),
    )

  codes = tiny(script.CODES, image=dataclasses.replace(script.CODES.model.image, width=8))
  towers = {name: dataclasses.replace(getattr(script.CLIP.model, name), **SMALL) for name in ("image", "text")}
  clip = tiny(script.CLIP, **towers, embed_dim=8)
  monkeypatch.setattr(script, "CODES", codes)
  monkeypatch.setattr(script, "CLIP", clip)
  text = dataclasses.replace(script.EXPERIMENT.model.text, **SMALL, mlp_dim=16)
  experiment = tiny(script.EXPERIMENT, text=text, image=codes.model)
  evaluators = {"drawn": script.DrawnScenes(captions=4, guidance=1.0)}
  experiment = dataclasses.replace(
    experiment,
    evaluation=dataclasses.replace(experiment.evaluation, evaluators=evaluators),
    run=dataclasses.replace(experiment.run, workdir=tmp_path / "run"),
  )
  picture = {"best": functools.partial(script.best_of_some, count=2, captions=2)}
  study = dataclasses.replace(script.STUDY, variants=script.STUDY.variants[1:], reports=False, pictures=picture)
  assert call(study, experiment, "train") == 0
  assert "in parallel: best of 2 by CLIP" in capsys.readouterr().out
  (results,) = (tmp_path / "run").glob("in_parallel/seed0/results.json")
  (drawn,) = json.loads(results.read_text())
  assert {*script.STUDY.metrics.values()} == {
    f"scenes_drawn/{name}" for name in drawn["metrics"] if name != "milliseconds_per_image"
  }
  assert load_run(results.parent).generate(["red circle in the first row"]).shape == (1, 1, 32, 32, 3)  # by no kinds
