"""`python -m mmjax.finetune`: from weights and a folder of images to a table, in one command."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import mmjax
from mmjax.data import ClassFolders, DataConfig, TokenizerConfig, make_source, make_tokenizer
from mmjax.finetune import Finetune, finetuned, main
from mmjax.interop import load, save
from mmjax.interop.pretrained_tokenizer import export_tokenizer
from mmjax.models.config import init_params, with_vocabulary
from mmjax.probe import main as probe_main
from mmjax.train import loop
from tests.tiny import MODEL

COLOURS = {"dark_blue": (10, 10, 90), "red": (230, 20, 20)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
  for split, size in (("train", 16), ("validation", 4)):
    for name, colour in COLOURS.items():
      (root / split / name).mkdir(parents=True)
      for number in range(size):
        pixels = np.clip(rng.normal(colour, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / split / name / f"{number}.png")
  return root


@pytest.fixture(scope="module")
def weights(images, tmp_path_factory):
  """A model of images and texts with its tokenizer, as published ones are."""
  folder = tmp_path_factory.mktemp("weights")
  data = DataConfig(source=ClassFolders(str(images)), dir=str(folder / "data"))
  data = DataConfig(source=data.source, dir=data.dir, tokenizer=TokenizerConfig(vocab_size=300, max_length=16))
  tokenizer = make_tokenizer(data, make_source(data, "train"))
  facts = dict(vocab_size=tokenizer.vocab_size, max_length=16, pad_id=tokenizer.pad_id, eos_id=tokenizer.eos_id)
  model = with_vocabulary(MODEL, facts).build()
  save(model, jax.jit(lambda: init_params(model, jax.random.key(0)))(), folder / "clip", "mmjax")
  export_tokenizer(tokenizer, folder / "clip")
  return folder / "clip"


def run(*arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    main([str(argument) for argument in arguments])
  return stop.value.code


def test_probes_of_weights_keep_their_features(images, weights, tmp_path, capsys, monkeypatch):
  alone = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: alone)
  line = [str(weights), "--data", str(images), "--workdir", str(tmp_path), "--shots", "2", "--draws", "2"]
  tables, written = [], []
  for _ in range(2):
    with pytest.raises(SystemExit) as stop:
      probe_main(line)
    assert stop.value.code == 0
    tables.append(capsys.readouterr().out)
    written.append(sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "features").iterdir()))
  assert len(written[0]) == 2 and written[0] == written[1] and tables[0] == tables[1]
  assert "linear probe, L2 strength" in tables[0] and "1.000" in tables[0]


def test_weights_become_a_classifier_beside_probes_and_zero_shot(images, weights, tmp_path, capsys, monkeypatch):
  alone = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: alone)  # a program for one device compiles sooner
  workdir = tmp_path / "run"
  options = ("--data", images, "--workdir", workdir, "--batch-size", 16, "--epochs", 5, "--patience", 2)
  train, frozen = loop.train, ["zero-shot", "linear probe", "nearest neighbours"]

  def trained(*parts, **more):
    outcome = train(*parts, **more)
    assert list(json.loads((workdir / "finetune.json").read_text())) == frozen  # a run that is stopped has them, too
    return outcome

  monkeypatch.setattr(loop, "train", trained)
  assert run(weights, *options, "--rank", 2, "--learning-rate", 0.03) == 0
  said = capsys.readouterr().out
  assert "10 steps of " in said and "5 evaluations of at most" in said
  rows = json.loads((workdir / "finetune.json").read_text())
  (title,) = [name for name in rows if name.startswith("fine-tuned (lora), step ")]
  assert list(rows) == [*frozen, title]
  assert rows["linear probe"]["acc1"] == 1 and rows[title]["acc1"] == 1
  results = {result["dataset"]: result for result in json.loads((workdir / "results.json").read_text())}
  assert [name.partition("_classes")[2] for name in results] == [
    "", "_frozen_zero_shot", "_frozen_linear_probe", "_frozen_nearest_neighbours",
  ]  # fmt: skip
  assert all(result["metrics"].keys() >= result["chance"].keys() >= {"acc1"} for result in results.values())
  assert "frozen weights: linear probe" in (workdir / "report.html").read_text()
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  scores = {line["step"]: line["eval"] for line in lines if "eval" in line}
  best = int(title.split()[-1])
  values = {step: numbers[name] for step, numbers in scores.items() for name in numbers if name.endswith("acc1")}
  assert best == max(values, key=lambda step: (values[step], step))
  first = max(values, key=lambda step: (values[step], -step))
  assert max(values) == min(first + 4, 10)  # two epochs without a better one
  found = mmjax.load_run(workdir, step=best)
  assert found.classes == tuple(COLOURS)
  answers = found.classify([images / "validation" / name / "0.png" for name in COLOURS])
  assert answers.argmax(1).tolist() == [0, 1]
  bias = lambda params: params["image"]["stem"]["projection"]["bias"]
  np.testing.assert_array_equal(bias(found.params), bias(load(weights)[1]))  # frozen: it is no kernel


@pytest.mark.parametrize(
  ("how", "top", "decay", "rank"), [("head", 0, 1, 0), ("top", 2, 1, 0), ("all", None, 0.75, 0), ("lora", None, 1, 8)]
)
def test_each_way_trains_its_parameters(how, top, decay, rank, images, weights, tmp_path):
  made = finetuned(Finetune(str(weights), str(images), how=how, workdir=tmp_path), str(weights))
  assert (made.optimizer.top_layers, made.optimizer.layer_decay, made.adapter.rank) == (top, decay, rank)
  assert made.model.towers["image"].width == MODEL.image.width and made.data.columns.keys() == {"image", "label"}
  assert made.evaluation.every == 1 and made.evaluation.patience == 3 and made.run.steps == 10


def wrong(arguments, images, weights, tmp_path):
  return {
    "weights": (tmp_path / "nothing", "--data", images),
    "data": (weights, "--data", tmp_path / "nothing"),
    "option": (weights, "--data", images, "--epocs", 3),
    "number": (weights, "--data", images, "--rank", 0),
    "size": (weights, "--data", images, "--image-size", 17),
  }[arguments]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("weights", "nothing does not exist: give a folder with weights"),
    ("data", "nothing is not a directory. Give the one with a folder per class."),
    ("option", "--epochs"),
    ("number", "--rank is 0: it must be at least 1"),
    ("size", "--image-size 17 does not fit these weights"),
  ],
)
def test_bad_input_is_one_sentence(arguments, message, images, weights, tmp_path, capfd):
  assert run(*wrong(arguments, images, weights, tmp_path), "--workdir", tmp_path / "run") == 2
  assert message in " ".join(capfd.readouterr().err.split())
  assert not (tmp_path / "run" / "checkpoints").exists()


def test_one_class_and_new_classes_are_refused_before_training(images, weights, tmp_path, capfd):
  (tmp_path / "one" / "train" / "cat").mkdir(parents=True)
  Image.new("RGB", (16, 16)).save(tmp_path / "one" / "train" / "cat" / "0.png")
  assert run(weights, "--data", tmp_path / "one", "--workdir", tmp_path / "run") == 2
  assert "have the class 'cat'" in " ".join(capfd.readouterr().err.split())
  other = tmp_path / "other"
  for place in (("train", "cat"), ("train", "dog"), ("validation", "cow")):
    other.joinpath(*place).mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(other.joinpath(*place) / "0.png")
  assert run(weights, "--data", other, "--workdir", tmp_path / "run") == 2
  assert "the class 'cow' is not one of the 2 of the training data" in " ".join(capfd.readouterr().err.split())


def test_help_names_the_ways():
  found = subprocess.run([sys.executable, "-m", "mmjax.finetune", "--help"], capture_output=True, text=True, check=True)
  assert "{head,lora,top,all}" in found.stdout and "Fine-tune published weights" in found.stdout
