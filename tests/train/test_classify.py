"""Classification from a folder per class to a report: trained, evaluated, loaded, and what is wrong said before."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data import AugmentationConfig, ClassFolders, DataConfig
from mmjax.errors import UserError
from mmjax.evaluate import evaluate, flatten, measure
from mmjax.evaluate.calibration import softmax as calibration_softmax
from mmjax.evaluate.evaluator import measured
from mmjax.evaluators import Probe
from mmjax.experiment import Experiment, RunConfig
from mmjax.interop import export_run, load_pretrained
from mmjax.loading import load_run
from mmjax.models import ClassifierConfig
from mmjax.objectives import Classify
from mmjax.report import write_report
from mmjax.run import Run
from mmjax.settings import OptimizerConfig
from mmjax.train.loop import train
from tests.tiny import MODEL

COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
  for split, size in (("train", 16), ("validation", 5)):
    for name, colour in COLOURS.items():
      (root / split / name).mkdir(parents=True)
      for number in range(size * (1 + (name == "red"))):
        pixels = np.clip(rng.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / split / name / f"{number}.png")
  return root


def experiment(folder, workdir, **term):
  return Experiment(
    data=DataConfig(
      source=ClassFolders(path=str(folder)),
      dir=str(workdir / "data"),
      augmentation=AugmentationConfig(crop_scale=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0),
    ),
    model=ClassifierConfig(towers={"image": dataclasses.replace(MODEL.image, patch_dropout=0.0)}),
    objectives=(Classify(**term),),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=5, weight_decay=0.0),
    run=RunConfig(workdir=workdir, steps=30, batch_size=16, log_every=1, tensorboard=False),
  )


def test_classes_of_folders_are_learned(folder, tmp_path):
  run = train(experiment(folder, tmp_path, balanced=True, mixup=0.2, cutmix=1.0, group=2)).run
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert lines[0]["loss"] == pytest.approx(np.log(3), rel=1e-5) == lines[0]["chance"]  # the head begins at zero
  assert run.experiment.model.num_classes == 3
  assert run.experiment.objectives[0].class_weights == pytest.approx((4 / 3, 4 / 3, 2 / 3))
  loaded = load_run(tmp_path)
  results = measure(loaded)
  found = flatten(results)
  assert sorted(found) == sorted(measured(loaded.experiment))
  name = f"{folder}_classes"
  assert found[f"{name}/acc1"] > 0.9
  assert results[0]["chance"]["acc1"] == 0.5 and results[0]["classes"] == 3
  assert results[0]["report"]["red"]["support"] == 10
  assert np.trace(results[0]["confusion"]) == round(found[f"{name}/acc1"] * 20)
  assert "Classes that are confused" in write_report(tmp_path, loaded).read_text()
  _answers(loaded, folder, tmp_path)
  _probes(loaded)


def _answers(run, folder, tmp_path):
  """A loaded run names its classes and gives their probabilities; its export has the names, as published ones do."""
  assert run.classes == tuple(COLOURS)
  images = [folder / "validation" / colour / "0.png" for colour in ("red", "blue")]
  found = run.classify(images)
  assert found.shape == (2, 3) and found.dtype == np.float32
  np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
  assert [run.classes[place] for place in found.argmax(1)] == ["red", "blue"]
  np.testing.assert_array_equal(run.classify({"image": images[:1]}), run.classify(images[:1]))
  assert run.classify([]).shape == (0, 3)
  with pytest.raises(UserError, match="reads image: pass as many items of each, as {'image': "):
    run.classify({"picture": images})
  published = load_pretrained(export_run(run, "transformers", tmp_path / "exported"))
  assert published.model.config.classes == run.classes
  pixels = np.stack([run.preprocess(image) for image in images])
  logits = published.model.apply({"params": published.params}, {"image": pixels})
  np.testing.assert_allclose(calibration_softmax(np.asarray(logits)), found, atol=1e-6)


def test_a_run_without_classes_says_so(tmp_path):
  contrasting = Experiment(data=DataConfig(source=ClassFolders(path=str(tmp_path))), model=MODEL)
  run = Run(contrasting, tmp_path, MODEL.build(), {}, None, None, 0)
  with pytest.raises(UserError, match="has no objective that classifies"):
    run.classify([])


def _probes(run):
  """The trained tower's features tell the colours apart, with few examples too; they are kept in the workdir."""
  evaluators = {"probe": Probe(shots=(1, 4), draws=2)}
  evaluation = dataclasses.replace(run.experiment.evaluation, evaluators=evaluators)
  run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, evaluation=evaluation))
  results = evaluate(run)
  found = flatten(results)
  assert sorted(found) == sorted(measured(run.experiment))
  assert all(value > 0.9 for name, value in found.items() if "linear" in name or "neighbours" in name)
  assert "± " in results[-1]["title"] and results[0]["chance"]["acc1"] == 0.5
  kept = sorted((run.workdir / "features").iterdir())
  assert [path.name.partition("-")[0] for path in kept] == ["train", "validation"]
  written = [path.stat().st_mtime_ns for path in kept]
  assert flatten(evaluate(run)) == found and [path.stat().st_mtime_ns for path in kept] == written
