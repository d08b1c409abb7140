"""The papers' own configurations: as many parameters as published, and one step of each recipe once it is shrunk."""

import importlib
import json
import math
from pathlib import Path

import jax
import pytest

from mmjax.models.config import init_params
from mmjax.models.two_tower import TwoTower
from tests.experiments.paper_scale import PAPER_SCALE

ROOT = Path(__file__).parents[2]
# The recipes' own objectives, precision, scan, remat and mesh axes; widths, depths and the batch are small.
TINY = """--data.source emoji --data.source.limit 40 --data.workers 0
  --data.tokenizer.vocab-size 384 --data.tokenizer.max-length 8
  --model.image.width 16 --model.image.depth 2 --model.image.num-heads 2 --model.image.image-size 16
  --model.image.patch-size 8 --model.image.mlp-dim 32 --model.text.mlp-dim 32
  --model.text.width 16 --model.text.depth 2 --model.text.num-heads 2 --model.embed-dim 16
  --parallel.fsdp 2 --parallel.microbatches 2
  --run.batch-size 16 --run.steps 2 --run.log-every 1 --run.no-tensorboard""".split()


@pytest.fixture
def script(request, monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  return importlib.import_module(request.param)


@pytest.mark.parametrize("script", PAPER_SCALE, indirect=True)
def test_has_the_published_size(script):
  experiment = script.EXPERIMENT
  tokenizer, text = experiment.data.tokenizer, experiment.model.text
  # A run gives the text tower the tokenizer's vocabulary and length: they must be the paper's as well.
  assert (tokenizer.vocab_size, tokenizer.max_length) == (text.vocab_size, text.max_length)
  shapes = jax.eval_shape(lambda: init_params(TwoTower(experiment.model), jax.random.key(0)))
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  millions, batch_size = PAPER_SCALE[script.__name__]
  assert count / 1e6 == pytest.approx(millions, rel=1e-3)
  assert experiment.run.batch_size == batch_size


@pytest.mark.parametrize("script", ["clip_l14_1m"], indirect=True)
def test_trains_once_it_is_small(script, tmp_path):
  options = [*TINY, "--data.dir", str(tmp_path / "data"), "--run.workdir", str(tmp_path)]
  with pytest.raises(SystemExit) as stop:
    script.main(script.EXPERIMENT, description=script.__doc__, arguments=["train", *options])
  assert stop.value.code == 0
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines if "loss" in line] == [1, 2]
