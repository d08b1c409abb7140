"""The experiments of CLIP4Clip: a tiny run of the study, and the size of the paper's configuration."""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax import load_run
from mmjax.data.batching import row_shapes
from mmjax.models.config import image_size, init_params
from tests.data.videos import animated
from tests.experiments.tiny_study import call

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = """--data.source.concepts 6 --data.source.held-out 4 --data.source.limit 40 --data.tokenizer.vocab-size 300
  --model.image.width 16 --model.image.depth 1 --model.image.num-heads 2 --model.text.width 16 --model.text.depth 1
  --model.text.num-heads 2 --model.embed-dim 16 --model.temporal-depth 1 --model.temporal-heads 2 --run.batch-size 16
  --run.steps 2 --optimizer.warmup-steps 1 --run.log-every 1""".split()


@pytest.fixture
def script(request, monkeypatch):
  monkeypatch.syspath_prepend(str(EXPERIMENTS))
  return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["clip4clip_order"], indirect=True)
def test_scores_of_pairs_are_trained_and_retrieve(script, tmp_path, one_device):
  study = dataclasses.replace(script.STUDY, variants=[v for v in script.STUDY.variants if v.name == "tightTransf"])
  assert (
    call(study, script.EXPERIMENT, *TINY, "--data.dir", str(tmp_path), "--run.workdir", str(tmp_path / "runs")) == 0
  )
  (workdir,) = (tmp_path / "runs").glob("*/seed0")
  results = {result["dataset"]: result for result in json.loads((workdir / "results.json").read_text())}
  assert results["ordered_clips"]["n"] == 8 and results["ordered_clips"]["metrics"]["video_retrieval_recall@10"] == 1.0
  assert results["ordered_clips_shuffled"]["control"] and 0 <= results["clip_order"]["metrics"]["order"] <= 1
  report = (workdir / "report.html").read_text()
  assert report.count("data:image/webp;base64,") == 8 and "4 frames of 0.16 s" in report
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert lines[0]["pair_softmax"] == pytest.approx(math.log(16), abs=0.3)  # chance
  run, still = load_run(workdir, kinds=study.kinds), np.full((4, 32, 32, 3), 200, np.uint8)
  rows = run.encode("video", [still, list(still[:2]), animated(still)])  # arrays, images and a file
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
  np.testing.assert_allclose(rows, rows[[0, 0, 0]], atol=1e-5)  # the mean of equal frames


@pytest.mark.parametrize("script", ["clip4clip_b32"], indirect=True)
def test_the_configuration_of_the_paper_has_its_size(script):
  """CLIP's 151.3 million parameters, less 45 positions of texts, and 12.6 million of the transformer over frames."""
  experiment = script.EXPERIMENT
  model = dataclasses.replace(experiment.model, text=dataclasses.replace(experiment.model.text, max_length=32))
  shapes = jax.eval_shape(lambda: init_params(model.build(), jax.random.key(0)))
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert count == 151_277_313 - 45 * 512 + 12 * 512 + 4 * (12 * 512**2 + 13 * 512)
  shape, _ = row_shapes(experiment.data, image_size(model))["video"]
  assert shape == (12, 224, 224, 3)
