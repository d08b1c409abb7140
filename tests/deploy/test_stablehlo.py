"""An export in StableHLO computes what the run does, for any batch size, without the code of the model."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.cli import main
from mmjax.data.errors import DataError
from mmjax.deploy import DeployError, export, load, programs, writing
from mmjax.deploy.__main__ import main as deploy
from mmjax.deploy.parts import check_rows, parts_of
from mmjax.deploy.standalone import Exported, ExportError
from mmjax.evaluate.questions import answer_logits
from mmjax.evaluators.captions import WriteCaptions, written
from mmjax.models import ClassifierConfig
from mmjax.models.gpt import GptConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives import Classify
from tests import tiny
from tests.deploy import runs

ROOT = Path(__file__).parents[2]
WITHOUT_MODELS = """
import sys
import numpy as np

class Blocked:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in sys.argv[2].split(","):
      raise ImportError(name)

sys.meta_path.insert(0, Blocked())
if sys.argv[3] == "run":
  sys.path.insert(0, sys.argv[1])
  from run import load
else:
  from mmjax.deploy import load
model = load(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3)).astype(np.uint8)
np.save(sys.argv[4], np.stack([*model.encode_image(list(images)), *model.encode_text(["a cat", "CAFÉ"])]))
"""


def without(folder: Path, blocked: str, how: str, out: Path) -> np.ndarray:
  """Embeddings of two images and two texts, computed by a process that cannot import some packages."""
  command = [sys.executable, "-c", WITHOUT_MODELS, str(folder), blocked, how, str(out)]
  subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
  return np.load(out)


def with_run(run) -> np.ndarray:
  images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3)).astype(np.uint8)
  return np.stack([*run.encode_image(list(images)), *run.encode_text(["a cat", "CAFÉ"])])


@pytest.fixture(scope="module", autouse=True)
def serialization():
  runs.needs_stablehlo()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return runs.two_towers(tmp_path_factory.mktemp("runs") / "tiny", trim=True)


@pytest.fixture(scope="module")
def folder(run):
  return export(run, "stablehlo")


def test_it_computes_what_the_run_does(run, folder):
  model = load(folder)
  images = runs.images()
  np.testing.assert_allclose(model.encode_image(images), run.encode_image(images), rtol=0, atol=1e-6)
  np.testing.assert_allclose(model.encode_text(runs.STRINGS), run.encode_text(runs.STRINGS), rtol=0, atol=1e-6)
  rows = np.stack([run.preprocess(image) for image in images])
  np.testing.assert_array_equal(model.encode_image(rows), model.encode_image(images))
  many = model.encode_text(["a cat"] * 67)  # more than one batch
  assert many.shape == (67, 8) and np.ptp(many, axis=0).max() < 1e-6
  assert model.encode_image([]).shape == (0, 8)


def test_the_manifest_says_what_was_checked(run, folder):
  manifest = json.loads((folder / "manifest.json").read_text())
  assert folder == run.workdir / "export" / "stablehlo-float32"
  assert set(manifest["files"]) == {
    "image.stablehlo", "preprocess.json", "run.py", "text.stablehlo", "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json", "weights.npz",
  }  # fmt: skip
  image, text = manifest["parts"]["image"], manifest["parts"]["text"]
  assert image["inputs"] == [{"name": "image", "shape": ["batch", 16, 16, 3], "dtype": "float32", "prepare": "image"}]
  assert text["output"] == {"shape": ["batch", 8], "dtype": "float32", "gives": "embedding"}
  assert image["checked"]["max_difference"] <= 1e-6 and image["checked"]["limit"] == 1e-5
  assert all(name.startswith("image") for name in image["weights"])
  assert manifest["logit_scale"] == pytest.approx(float(np.exp(run.params["logit_scale"])))
  assert manifest["run"] == {"name": "tiny", "step": 2, "model": "TwoTowerConfig"}


def test_programs_are_for_every_platform(folder):
  program = jax.export.deserialize(bytearray((folder / "image.stablehlo").read_bytes()))
  assert program.platforms == ("cpu", "cuda", "tpu")


def test_no_code_of_the_model_is_needed(run, folder, tmp_path):
  found = without(
    folder, "flax,optax,orbax,cv2,tensorflow_datasets,grain,matplotlib,sklearn", "load", tmp_path / "a.npy"
  )
  np.testing.assert_allclose(found, with_run(run), rtol=0, atol=1e-6)


def test_run_py_needs_no_mmjax(run, folder, tmp_path):
  found = without(folder, "mmjax,flax,optax,cv2,jaxtyping,einops,cattrs", "run", tmp_path / "a.npy")
  np.testing.assert_allclose(found, with_run(run), rtol=0, atol=1e-6)


@pytest.mark.parametrize("data", [{}, {"trim": True}, {"square": "squash", "interpolation": "bicubic"}])
def test_run_py_prepares_as_the_run_does(tmp_path, data):
  run = runs.two_towers(tmp_path / "run", **data)
  from mmjax.deploy.standalone import EvalImage, Tokenizer
  from mmjax.interop.run_image import transform_to_json

  transform = EvalImage(transform_to_json(run.transform))
  for image in runs.images():
    np.testing.assert_allclose(transform(image), run.preprocess(image), rtol=0, atol=1e-6)
  run.tokenizer.save(tmp_path)
  np.testing.assert_array_equal(Tokenizer(tmp_path)(runs.STRINGS), run.tokenizer(runs.STRINGS))


def test_classifiers_and_predictors(tmp_path):
  for make in (runs.classifier, runs.predictor):
    run = make(tmp_path / make.__name__)
    model = load(export(run, "stablehlo"))
    images = runs.images()[:3]
    if make is runs.classifier:
      assert model.classes == run.classes == ("cat", "dog", "owl")
      np.testing.assert_allclose(model.classify(images), run.classify(images), rtol=0, atol=1e-6)
      with pytest.raises(DeployError, match="has no part 'image'; it has classify"):
        model.encode_image(images)
    else:
      np.testing.assert_allclose(model.predict(images), run.predict(images), rtol=0, atol=2e-5)


def test_answers(tmp_path):
  run = runs.answerer(tmp_path / "run")
  model, images, questions = load(export(run, "stablehlo")), runs.images()[:3], ["a cat", "two hearts", ""]
  batch = {"image": np.stack([run.preprocess(image) for image in images]), "text": run.tokenizer(questions)}
  logits = run.model.apply({"params": run.params}, batch, method=answer_logits)
  wanted = np.asarray(jax.nn.softmax(logits))
  np.testing.assert_allclose(model.compute("answer", batch), wanted, rtol=0, atol=1e-6)
  assert model.answer(images, questions) == [("yes", "no", "two")[place] for place in wanted.argmax(1)]


def test_captions(tmp_path):
  run, images = runs.captioner(tmp_path / "run"), runs.images()[:3]
  assert [part.name for part in writing._parts(run, "onnx")] == ["image", "text"]
  model = Exported(export(run, "stablehlo"))
  wanted = written(run, images, WriteCaptions.of(run, beams=1), np.arange(3))
  assert model.caption(images) == wanted and len(set(wanted)) > 1 and model.caption([]) == []
  assert model.parts["caption"]["output"] == {"shape": ["batch", 7], "dtype": "int32", "gives": "ids"}


def test_models_that_do_without_a_modality_are_told_which_are_there(tmp_path):
  towers = {"image": runs.IMAGE, "other": runs.IMAGE}
  config = ClassifierConfig(towers=towers, num_classes=3, classes=("cat", "dog", "owl"), partial=True)
  run = runs.made(dataclasses.replace(tiny.EXPERIMENT, model=config, objectives=(Classify(),)), tmp_path, None)
  (part,) = parts_of(run)
  assert [one.name for one in part.inputs] == ["image", "other", "present"]
  rows = check_rows(part, run, 4, seed=0)
  assert rows["present"].dtype == bool and rows["present"].any(1).all()
  images = runs.images()[:4]
  rows |= {"image": np.stack([run.preprocess(image) for image in images]), "present": np.tile([True, False], (4, 1))}
  found = part(run.model, run.params, rows)
  np.testing.assert_allclose(found, run.classify({"image": images}), rtol=0, atol=1e-6)


def copied(folder: Path, target: Path) -> Path:
  shutil.copytree(folder, target)
  return target


def test_a_changed_or_missing_file_is_named(folder, tmp_path):
  changed = copied(folder, tmp_path / "changed")
  with (changed / "preprocess.json").open("a") as file:
    file.write(" ")
  with pytest.raises(DeployError, match=r"preprocess\.json was changed: its checksum is not that of manifest\.json"):
    load(changed)
  missing = copied(folder, tmp_path / "missing")
  (missing / "text.stablehlo").unlink()
  with pytest.raises(DeployError, match=r"text\.stablehlo is missing"):
    load(missing)
  broken = copied(folder, tmp_path / "broken")
  (broken / "manifest.json").write_text("[]")
  with pytest.raises(DeployError, match=r"manifest\.json cannot be read"):
    load(broken)
  with pytest.raises(DeployError, match="is not an export: it has no manifest"):
    load(tmp_path)


def test_bad_requests_are_refused(folder):
  model = load(folder)
  with pytest.raises(TypeError, match="wrap the one string"):
    model.encode_text("a cat")
  with pytest.raises(DataError, match="cannot be read as an image"):
    model.encode_image([b"no image"])
  with pytest.raises(
    DeployError, match=r"image as float32 \[batch, 16, 16, 3\], and it was given float32 \[2, 8, 8, 3\]"
  ):
    model.encode_image(np.zeros((2, 8, 8, 3), np.float32))
  with pytest.raises(DeployError, match="image reads image, and it was given text"):
    model.compute("image", {"text": np.zeros((2, 8), np.int32)})
  alone = Exported(folder)
  with pytest.raises(ValueError, match="the image cannot be read"):
    alone.encode_image([b"no image"])
  with pytest.raises(ExportError, match="no part 'classify'"):
    alone.classify([])


def test_an_export_that_differs_is_not_written(run, tmp_path, monkeypatch):
  lower = programs.to_stablehlo

  def changed(part, model, packed, used):
    ask = lambda m, arrays: part.ask(m, arrays) + 2e-5
    return lower(programs.Part(part.name, part.gives, part.inputs, ask), model, packed, used)

  monkeypatch.setattr(writing, "to_stablehlo", changed)
  with pytest.raises(DeployError, match=r"part 'image' differs from the model by 2e-05, more than 1e-05"):
    export(run, "stablehlo", tmp_path / "out")
  assert not list(tmp_path.iterdir())


def test_other_files_are_not_replaced(run, tmp_path, folder):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(DeployError, match="holds other files"):
    export(run, "stablehlo", tmp_path)
  mine = copied(folder, tmp_path / "export") / "node_modules"
  mine.mkdir()
  with pytest.raises(DeployError, match=r"holds other files \(node_modules\)"):
    export(run, "stablehlo", mine.parent)
  mine.rmdir()
  (mine.parent / "preprocess.json").write_text("changed")
  load(export(run, "stablehlo", mine.parent))  # an export is replaced
  with pytest.raises(DeployError, match="is a file"):
    export(run, "stablehlo", tmp_path / "notes.txt")


def test_models_that_give_nothing_are_named(tmp_path):
  run = runs.made(
    dataclasses.replace(tiny.EXPERIMENT, model=GptConfig(WordsConfig(vocab_size=64, max_length=8, **runs.TOWER))),
    tmp_path,
    None,
  )
  with pytest.raises(DeployError, match="GptConfig has no part for this format"):
    export(run, "stablehlo", tmp_path / "out")


def call(experiment, *arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    main(experiment, arguments=list(arguments))
  return stop.value.code


def test_commands(run, folder, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("mmjax.loading.load_run", lambda workdir, *, kinds=(): run)
  monkeypatch.setattr("mmjax.deploy.writing.export", lambda run, to, out, *, dtype: f"{to} {out} {dtype}")
  monkeypatch.setattr("mmjax.deploy.export", lambda run, to, out, *, dtype: f"{to} {out} {dtype}", raising=False)
  out = str(tmp_path / "out")
  assert call(run.experiment, "export", "--to", "stablehlo", "--out", out, "--dtype", "int8") == 0
  assert deploy(["export", "run", "--to", "onnx", "--out", out]) == 0
  assert capsys.readouterr().out == f"exported: stablehlo {out} int8\nexported: onnx {out} float32\n"
  assert call(run.experiment, "export", "--to", "mmjax", "--dtype", "int8") == 2
  assert "--dtype is an option of --to stablehlo and onnx" in capsys.readouterr().err
  assert call(run.experiment, "export", "--to", "onxx") == 2
  assert "big_vision, mmjax, stablehlo, onnx" in " ".join(capsys.readouterr().err.split())
  assert call(run.experiment, "export", "--to", "stablehlo", "--dtype", "int4") == 2
  with pytest.raises(SystemExit):
    deploy(["export", str(tmp_path / "nothing"), "--to", "stablehl"])
  assert deploy(["benchmark", str(tmp_path)]) == 2
  assert "is not an export" in capsys.readouterr().err
