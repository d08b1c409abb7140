"""What an export needs is named where it is missing. Nothing here needs it."""

import json
import sys

import pytest

from mmjax.deploy import DeployError, export, load
from tests.deploy import runs


@pytest.mark.parametrize(
  ("form", "module", "remedy"), [("onnx", "onnxruntime", "ONNX Runtime"), ("stablehlo", "flatbuffers", "flatbuffers")]
)
def test_a_missing_runtime_is_named(tmp_path, monkeypatch, form, module, remedy):
  (tmp_path / "manifest.json").write_text(json.dumps({"format": form, "version": 1, "files": {}, "parts": {}}))
  monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
  with pytest.raises(DeployError, match=f"needs .*{remedy}: pip install"):
    load(tmp_path)


def test_a_missing_converter_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "jax2onnx", None)
  with pytest.raises(DeployError, match=r"needs jax2onnx: pip install 'mmjax\[onnx\]'"):
    export(runs.classifier(tmp_path / "run"), "onnx", tmp_path / "out")
  assert [path.name for path in tmp_path.iterdir()] == []


def test_another_version_is_refused(tmp_path):
  (tmp_path / "manifest.json").write_text(json.dumps({"format": "onnx", "version": 2, "files": {}}))
  with pytest.raises(DeployError, match="is of another version of mmjax"):
    load(tmp_path)


@pytest.mark.parametrize(("to", "dtype", "hint"), [("onxx", "float32", "'onnx'"), ("onnx", "int4", "int8")])
def test_a_typo_is_answered(tmp_path, to, dtype, hint):
  with pytest.raises(DeployError, match=hint):
    export(None, to, tmp_path / "out", dtype=dtype)
