"""An export in ONNX runs in ONNX Runtime, without JAX, and computes what the run does."""

import json

import numpy as np
import pytest

from mmjax.deploy import DeployError, export, load
from tests.deploy import runs
from tests.deploy.test_stablehlo import with_run, without
from tests.interop.references import reference

pytestmark = pytest.mark.references


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return runs.two_towers(tmp_path_factory.mktemp("runs") / "tiny", trim=True)


@pytest.fixture(scope="module")
def folder(run):
  reference("jax2onnx")
  return export(run, "onnx")


def test_it_computes_what_the_run_does(run, folder):
  model, images = load(folder), runs.images()
  np.testing.assert_allclose(model.encode_image(images), run.encode_image(images), rtol=0, atol=1e-6)
  np.testing.assert_allclose(model.encode_text(runs.STRINGS), run.encode_text(runs.STRINGS), rtol=0, atol=1e-6)
  assert model.encode_text(["a cat"] * 67).shape == (67, 8)


def test_no_jax_and_no_mmjax_are_needed(run, folder, tmp_path):
  found = without(folder, "mmjax,jax,jaxlib,flax,jax2onnx,onnx,ml_dtypes,cattrs", "run", tmp_path / "a.npy")
  np.testing.assert_allclose(found, with_run(run), rtol=0, atol=1e-6)


def test_the_page_is_beside_it_with_samples(folder):
  assert {"index.html", "model.mjs", "run.py"} <= {path.name for path in folder.iterdir()}
  samples, model = json.loads((folder / "manifest.json").read_text())["samples"], load(folder)
  assert model.tokenizer(samples["texts"]).tolist() == samples["ids"]
  np.testing.assert_array_equal(np.float32(samples["embeddings"]["text"]), model.encode_text(samples["texts"]))


def test_int8_is_stored_as_int8(run, folder, tmp_path):
  small = export(run, "onnx", tmp_path / "int8", dtype="int8")
  import onnx

  kinds = [tensor.data_type for tensor in onnx.load(small / "image.onnx").graph.initializer]
  assert onnx.TensorProto.INT8 in kinds
  cosines = (load(small).encode_image(runs.images()) * run.encode_image(runs.images())).sum(1)
  assert 0.999 < cosines.min() < 1 - 1e-9


def test_linear_layers_multiply_integers(run, folder, tmp_path):
  small = export(run, "onnx", tmp_path / "dynamic", dtype="int8-dynamic")
  import onnx

  graph = onnx.load(small / "image.onnx").graph
  constants, nodes = {one.name for one in graph.initializer}, graph.node
  linear = [node for node in nodes if node.op_type in ("MatMul", "Gemm", "MatMulInteger") and constants & {*node.input}]
  assert len(linear) > 7 and {node.op_type for node in linear} == {"MatMulInteger"}
  assert not any(node.op_type == "Einsum" and constants & {*node.input} for node in nodes)
  model = load(small)
  cosines = (model.encode_image(runs.images()) * run.encode_image(runs.images())).sum(1)
  assert 0.98 < cosines.min() < 1 - 1e-6
  checked = model.manifest["parts"]["image"]["checked"]
  assert checked["limit"] is None and 0.98 < checked["least_cosine_to_float32"] < 1


def test_classifier(folder, tmp_path):
  run = runs.classifier(tmp_path / "run")
  model = load(export(run, "onnx"))
  np.testing.assert_allclose(model.classify(runs.images()), run.classify(runs.images()), rtol=0, atol=1e-6)
  assert not (model.folder / "index.html").exists()  # there are no captions to compare


def test_bfloat16_is_refused(run, tmp_path):
  with pytest.raises(DeployError, match="ONNX Runtime has no bfloat16"):
    export(run, "onnx", tmp_path / "out", dtype="bfloat16")
