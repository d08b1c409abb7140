"""The study of made-up names runs, tiny: language model, CLIP, and a Flamingo that reads both."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

import mmjax
from tests.experiments.tiny_study import call

SCRIPTS = Path(__file__).parents[2] / "experiments"
SMALL = dict(width=16, depth=1, num_heads=2)

pytestmark = pytest.mark.usefixtures("one_device")


def test_made_up_names_are_learnt_from_shots(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(SCRIPTS))
  script = importlib.import_module("flamingo_scenes")

  def tiny(experiment, examples, **model):
    data = dataclasses.replace(
      experiment.data, dir=str(tmp_path), source=dataclasses.replace(experiment.data.source, examples=examples)
    )
    run = dataclasses.replace(experiment.run, steps=1, batch_size=4, tensorboard=False)
    return dataclasses.replace(experiment, data=data, model=dataclasses.replace(experiment.model, **model), run=run)

  words = dataclasses.replace(script.LANGUAGE.model.text, **SMALL, mlp_dim=16)
  towers = {name: dataclasses.replace(getattr(script.CLIP.model, name), **SMALL) for name in ("image", "text")}
  monkeypatch.setattr(script, "LANGUAGE", tiny(script.LANGUAGE, 100, text=words))
  monkeypatch.setattr(script, "CLIP", tiny(script.CLIP, 20, **towers, embed_dim=8))
  model = script.EXPERIMENT.model
  experiment = tiny(
    script.EXPERIMENT,
    8,
    image=towers["image"],
    text=dataclasses.replace(model.text, **SMALL, mlp_dim=16),
    resampler=dataclasses.replace(model.resampler, **SMALL),
    cross_heads=2,
  )
  few = script.FewShot(demonstrations="validation", same="episode", shots=(0, 8), examples=4)
  experiment = dataclasses.replace(
    experiment,
    evaluation=dataclasses.replace(experiment.evaluation, evaluators={"few": few}),
    run=dataclasses.replace(experiment.run, workdir=tmp_path / "run"),
  )
  metrics = {name: script.STUDY.metrics[name] for name in ("0 shots", "8 shots")}
  assert call(dataclasses.replace(script.STUDY, metrics=metrics, reports=False, seeds=1), experiment, "train") == 0
  (results,) = (tmp_path / "run").glob("flamingo/seed0/results.json")
  found = {result["dataset"]: result for result in json.loads(results.read_text())}
  assert set(found) == {f"named_colours_{name}" for name in ("0_shots", "8_shots", "8_shots_shuffled")}
  assert all(result["chance"]["accuracy"] == 0.25 for result in found.values())
  run = mmjax.load_run(results.parent, kinds=script.KINDS)
  records = script.NamedColours(episodes=2).open("validation", None)
  used = {record["answer"] for record in records}
  trained = script.NamedColours(examples=50).open("train", None)
  assert not any(answer in record["text"] for answer in used for record in trained)
  said = run.answer([record["prompt"] for record in records[:2]], [record["images"] for record in records[:2]])
  assert len(said) == 2
