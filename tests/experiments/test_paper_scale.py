"""The papers' own configurations: as many parameters as published, and one step of each recipe once it is shrunk."""

import dataclasses
import functools
import importlib
import json
import math
import operator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.catalogue import KINDS
from mmjax.experiment import Experiment
from mmjax.models.config import init_params
from mmjax.models.two_tower import TwoTower
from mmjax.parallel.mesh import put_batch
from mmjax.plan.build import batch_arguments
from mmjax.train.optimizer import make_optimizer
from mmjax.train.setup import prepare
from tests.experiments.paper_scale import PAPER_SCALE, shrunk
from tests.experiments.paper_table import DEFAULTS, LATER, OURS, TABLE

SIZES = {"width", "depth", "num_heads", "mlp_dim", "image_size", "patch_size", "vocab_size", "max_length", "eos_id"}
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


@pytest.mark.parametrize("script", PAPER_SCALE, indirect=True)
def test_every_value_is_its_source_s(script):
  rows = TABLE[script.__name__]
  found = {field: operator.attrgetter(field)(script.EXPERIMENT) for field in rows}
  assert found == {field: value for field, (value, _) in rows.items()}


@pytest.mark.parametrize("script", PAPER_SCALE, indirect=True)
def test_every_field_of_a_recipe_is_in_the_table(script):
  experiment = script.EXPERIMENT
  parts = ("optimizer", "data.augmentation", "model.image", "model.text")
  fields = {f"{part}.{f.name}" for part in parts for f in dataclasses.fields(operator.attrgetter(part)(experiment))}
  fields |= {f"model.{f.name}" for f in dataclasses.fields(experiment.model)} - {"model.image", "model.text"}
  fields |= {"run.batch_size", "run.steps", *(f"data.{name}" for name in ("mean", "std", "interpolation", "square"))}
  fields |= {f"data.tokenizer.{name}" for name in ("vocab_size", "max_length", "lowercase", "bos_token")}
  for field in fields - TABLE[script.__name__].keys() - OURS.keys():
    *part, name = field.split(".")
    of_tower = operator.attrgetter(".".join(part))(experiment)
    assert part[0] == "model" and name in LATER, field
    assert getattr(of_tower, name) == getattr(type(of_tower), name), field


@pytest.mark.parametrize("field", DEFAULTS)
def test_defaults_that_are_a_paper_s(field):
  kind, _, rest = field.partition(".")
  (found,) = (each for each in KINDS if each.__name__ == kind)
  assert operator.attrgetter(rest)(found()) == DEFAULTS[field][0]


def test_weight_decay_and_learning_rate_move_a_kernel_as_big_vision_s_do(monkeypatch):
  # big_vision, optax.py: chain(scale_by_adam, scale(lr), add_decayed_weights(wd, kernels), scale(schedule), scale(-1)).
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  config = importlib.import_module("siglip_b16").EXPERIMENT.optimizer
  config = dataclasses.replace(config, schedule="constant", warmup_steps=0)
  params = {"up": {"kernel": np.full((2, 3), 2.0, np.float32)}, "token_embedding": np.full(3, 2.0, np.float32)}
  gradient = jax.tree.map(lambda p: np.zeros_like(p), params)
  optimizer = make_optimizer(config, params, 10)
  update, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_allclose(update["up"]["kernel"], -1e-4 * 2.0, rtol=1e-5)
  assert not np.any(update["token_embedding"])


@pytest.fixture(scope="module")
def quick_compilations():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@functools.cache  # recipes that differ in sizes alone are one when they are small
def one_step(experiment: Experiment) -> tuple[Any, Any, dict[str, Any]]:
  """(parameters before, parameters after, metrics) of a step on one device, from numbers that nothing compiles."""
  alone = dataclasses.replace(experiment, parallel=dataclasses.replace(experiment.parallel, fsdp=1))
  training, rng = prepare(alone, devices=jax.devices()[:1]), np.random.default_rng(0)
  before = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), training.shapes.params)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), training.shapes)
  state = jax.device_put(zeros.replace(params=before), training.shardings)
  rows = batch_arguments(training)
  batch = {name: rng.integers(2, 300, shape.shape, dtype=np.int32) for name, shape in rows.items()}
  batch["image"] = rng.standard_normal(rows["image"].shape).astype(np.float32)
  state, metrics = training.step(state, put_batch(batch, training.mesh))
  return before, jax.device_get(state.params), jax.device_get(metrics)


# Once for each structure: clip_l14_1m, in microbatches on eight devices, is trained below.
@pytest.mark.usefixtures("quick_compilations")
@pytest.mark.parametrize("script", [name for name in PAPER_SCALE if name != "clip_l14_1m"], indirect=True)
def test_takes_a_step_once_it_is_small(script):
  recipe, small = script.EXPERIMENT, shrunk(script.EXPERIMENT)
  for tower in ("image", "text"):
    assert changed_fields(getattr(recipe.model, tower), getattr(small.model, tower)) <= SIZES
  assert changed_fields(recipe, small) == {"data", "model", "parallel", "run"}  # losses and optimiser are its own
  before, after, metrics = one_step(small)
  # Random parameters at a scale of about 1 know nothing: the loss is near that of a guess. The sigmoid's has no
  # normaliser, so that embeddings which all point one way move it further.
  rows = small.run.batch_size
  sigmoid = small.objectives[0].loss.name == "sigmoid"
  chance, rel = (rows * math.log(2), 0.3) if sigmoid else (math.log(rows), 0.1)
  assert metrics["loss"] == pytest.approx(chance, rel=rel)
  still = jax.tree.map(lambda old, new: bool((old == new).all()), before, after)
  assert not any(jax.tree.leaves(still)), still
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def changed_fields(one: Any, other: Any) -> set[str]:
  names = (field.name for field in dataclasses.fields(one))
  return {name for name in names if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize("script", ["clip_l14_1m"], indirect=True)
def test_trains_once_it_is_small(script, tmp_path, monkeypatch):
  """What follows, the measurement and the report, tests/train/test_begin.py sees of clip_b32."""
  measured = []
  monkeypatch.setattr("mmjax.cli._measure_and_report", lambda run: measured.append(run.step) or 0)
  options = [*TINY, "--data.dir", str(tmp_path / "data"), "--run.workdir", str(tmp_path)]
  with pytest.raises(SystemExit) as stop:
    script.main(script.EXPERIMENT, description=script.__doc__, arguments=["train", *options])
  assert stop.value.code == 0 and measured == [2]
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines if "loss" in line] == [1, 2]
