"""Size, latency, cosine and metrics of a run in several dtypes."""

import jax
import numpy as np
import pytest

from mmjax.deploy.__main__ import main
from mmjax.deploy.comparing import compare, metrics, weight_bytes
from mmjax.nn.int8 import Int8Kernel
from tests.deploy import runs


@pytest.fixture
def run(tmp_path, monkeypatch):
  def evaluate(run):
    value = float(np.abs(np.asarray(run.params["image_projection"]["kernel"])).sum())
    return [{"title": "weights", "metrics": {"sum": value}}]

  monkeypatch.setattr("mmjax.evaluate.evaluate", evaluate, raising=False)
  return runs.two_towers(tmp_path / "run")


def test_rows(run, tmp_path, monkeypatch, capsys):
  runs.needs_stablehlo()
  exact, small = compare(run, calls=2, dtypes=("float32", "int8"))
  kernel = run.params["image_projection"]["kernel"]
  assert exact["metrics"] == {"weights, sum": float(np.abs(kernel).sum())}
  assert exact["metrics"] != small["metrics"] == pytest.approx(exact["metrics"], rel=1e-2)
  assert exact["bytes"] == sum(array.nbytes for array in jax.tree.leaves(run.params))
  assert small["cosine"] < exact["cosine"] == pytest.approx(1, abs=1e-6) and small["cosine"] > 0.999
  assert set(exact["p50_ms"]) == {"image", "text"} and not list(run.workdir.parent.glob("*/export"))

  monkeypatch.setattr("mmjax.loading.load_run", lambda workdir: run)
  monkeypatch.setattr("mmjax.deploy.comparing.compare", lambda run, to: [exact, small])
  assert main(["compare", "run", "--json", str(tmp_path / "a.json")]) == 0
  shown = " ".join(capsys.readouterr().out.split())
  assert "weights, sum" in shown and "int8" in shown and f"{exact['bytes'] / small['bytes']:.2f}" in shown
  assert (tmp_path / "a.json").exists()


def test_int8_is_a_quarter_where_matrices_are_large(tmp_path):
  params = {"mlp": {"kernel": np.ones((512, 2048), np.float32), "bias": np.ones(2048, np.float32)}}
  run = runs.dataclasses.replace(runs.two_towers(tmp_path), params=params)
  assert 3.9 < weight_bytes(run, "float32") / weight_bytes(run, "int8") < 4
  assert 1.99 < weight_bytes(run, "float32") / weight_bytes(run, "float16") < 2


def test_integers_are_multiplied_in_the_evaluation(run, monkeypatch):
  seen = {}

  def evaluate(run):
    seen["kernel"] = run.params["image_projection"]["kernel"]
    seen["rows"] = run.encode_text(["a cat"])
    return []

  monkeypatch.setattr("mmjax.evaluate.evaluate", evaluate, raising=False)
  assert metrics(run, "int8-dynamic") == {}
  assert isinstance(seen["kernel"], Int8Kernel) and 0.98 < float(seen["rows"][0] @ run.encode_text(["a cat"])[0]) < 1


def test_the_run_itself_is_not_changed(run):
  before = jax.tree.map(np.array, run.params)
  metrics(run, "int8")
  assert jax.tree.all(jax.tree.map(np.array_equal, before, run.params))
