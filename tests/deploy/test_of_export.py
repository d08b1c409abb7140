"""An export is served as it computes, and by the command as a run is."""

import argparse
import asyncio
import json

import numpy as np
import pytest

from mmjax.data.images.decoding import decode
from mmjax.deploy import export, load
from mmjax.deploy.serving import command
from mmjax.deploy.serving.of_export import fingerprint, is_export, of_export
from mmjax.deploy.serving.options import add_serve_options
from mmjax.deploy.serving.served import ANSWER, CLASSIFY, CLASSIFY_TEXT, EMBED_IMAGE, EMBED_TEXT
from mmjax.deploy.serving.service import Service
from mmjax.errors import UserError
from tests.deploy import runs
from tests.deploy.served import png, preprocess
from tests.skips import REFERENCES

TEXTS = ["a heart", "a cat", "x"]
IMAGES = [png("red", (9, 7)), png("blue"), png((9, 200, 30))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  runs.needs_stablehlo()
  return export(runs.two_towers(tmp_path_factory.mktemp("exports") / "tiny"), "stablehlo")


def asked(served, *works):
  async def inside():
    service = Service(served)
    service.start()
    try:
      return await asyncio.gather(*(work(service) for work in works))
    finally:
      await service.stop()

  return asyncio.run(inside())


def test_an_export_is_served_as_it_computes(folder):
  served, model = of_export(load(folder), 4), load(folder)
  assert set(served.abilities) == {EMBED_IMAGE, EMBED_TEXT} and served.name == "tiny" and served.step == 2
  assert served.abilities[EMBED_TEXT].sizes == (1, 2, 4) and served.logit_scale == model.logit_scale
  rows, columns = asked(served, lambda one: one.embed_images(IMAGES), lambda one: one.embed_texts(TEXTS))
  np.testing.assert_allclose(rows, model.encode_image([decode(image) for image in IMAGES]), atol=1e-6)
  np.testing.assert_allclose(columns, model.encode_text(TEXTS), atol=1e-6)
  command.compile_all(served)


@pytest.mark.references
def test_onnx_is_served_too(tmp_path):
  pytest.importorskip("jax2onnx", reason=REFERENCES)
  pytest.importorskip("onnxruntime", reason=REFERENCES)
  run = runs.two_towers(tmp_path / "tiny")
  served = of_export(load(export(run, "onnx", tmp_path / "out")), 2)
  rows, columns = asked(served, lambda one: one.embed_images(IMAGES), lambda one: one.embed_texts(TEXTS))
  np.testing.assert_allclose(rows, run.encode_image(IMAGES), atol=1e-5)
  np.testing.assert_allclose(columns, run.encode_text(TEXTS), atol=1e-5)


class Stub:
  """What `load` returns, with parts that answer with the sum of an image, or the length of a text."""

  folder, logit_scale, classes = "stub", 1.0, ("few", "many")

  def __init__(self, **parts):
    spec = {"image": {"shape": ["batch", 2, 2, 3], "prepare": "image"}, "text": {"shape": ["batch", 4]}}
    spec["text"]["prepare"] = "text"
    spec["age"] = {"shape": ["batch"], "prepare": "array"}
    self.parts = {
      name: {"file": f"{name}.onnx", "inputs": [spec[one] for one in inputs]} for name, inputs in parts.items()
    }
    self.manifest = {"run": {"name": "stub", "step": 3}, "files": {}}
    self.preprocess = preprocess

  def encode_image(self, images):
    return images.sum((1, 2))

  def encode_text(self, texts):
    return np.array([[len(text), 1.0] for text in texts])

  def classify(self, items):
    return self.encode_text(items) if isinstance(items[0], str) else self.encode_image(items)

  def answer(self, images, questions):
    return [f"{question} {image.sum():.0f}" for image, question in zip(images, questions, strict=True)]


def test_classes_and_answers_of_exports():
  served = of_export(Stub(classify=["image"]), 2)
  assert set(served.abilities) == {CLASSIFY} and served.classes == ("few", "many") and served.preprocess
  (shares,) = asked(served, lambda one: one.classify([png("white"), png("red")]))
  np.testing.assert_array_equal(shares, [[4, 4, 4], [4, 0, 0]])
  served = of_export(Stub(classify=["text"]), 2)
  assert set(served.abilities) == {CLASSIFY_TEXT} and served.preprocess is None
  np.testing.assert_array_equal(asked(served, lambda one: one.classify(["abc", "a"]))[0], [[3, 1], [1, 1]])
  served = of_export(Stub(answer=["image", "text"]), 2)
  assert set(served.abilities) == {ANSWER}
  assert asked(served, lambda one: one.answers([png("white")], ["a", "b"])) == [["a 12", "b 12"]]
  with pytest.raises(UserError, match="has nothing to serve: its parts are predict, classify"):
    of_export(Stub(predict=["image"], classify=["age"]))


def test_the_fingerprint_is_that_of_what_embeddings_depend_on(folder, tmp_path):
  model = load(folder)
  first = fingerprint(model)
  assert fingerprint(load(folder)) == first
  model.manifest["files"]["run.py"] = "other"  # says nothing of embeddings
  assert fingerprint(model) == first
  model.manifest["files"]["weights.npz"] = "other"
  assert fingerprint(model) != first


def test_options_of_runs_are_refused_and_the_index_lies_beside(folder):
  parser = argparse.ArgumentParser()
  add_serve_options(parser)
  assert is_export(folder) and not is_export(folder.parent)
  served, index = command._loaded(parser.parse_args([str(folder)]))
  assert index == folder.parent / f"{folder.name}.search_index.npz" and served.step == 2
  for option in (["--step", "1"], ["--script", "x.py"]):
    with pytest.raises(UserError, match=f"{option[0]} is an option of runs"):
      command._loaded(parser.parse_args([str(folder), *option]))
  manifest = json.loads((folder / "manifest.json").read_text())
  assert "search_index.npz" not in manifest["files"]
