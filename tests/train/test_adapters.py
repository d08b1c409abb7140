"""Low-rank adapters: the base is exact and frozen, step 0 is the base, and what is saved is the sum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from mmjax.data import ClassFolders, DataConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, RunConfig
from mmjax.interop import export_run, load
from mmjax.loading import load_run
from mmjax.models import ClassifierConfig
from mmjax.models.adapters import initial_adapters, merged
from mmjax.objectives import Classify
from mmjax.settings import AdapterConfig, OptimizerConfig
from mmjax.train.adapters import trained_besides
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.loop import train
from mmjax.train.setup import prepare
from tests.tiny import MODEL

RNG = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(RNG.normal(size=shape), jnp.float32)
PARAMS = {
  "image": {
    "transformer": {
      "blocks": {"attention": {"query": {"kernel": normal(3, 8, 6)}, "out": {"kernel": normal(3, 6, 8)}}}
    },
    "pointwise": {"kernel": normal(1, 1, 8, 4)},
    "depthwise": {"kernel": normal(3, 3, 1, 8)},
    "norm": {"scale": normal(8)},
  },
  "class_projection": {"kernel": normal(8, 2)},
}
LORA = AdapterConfig(rank=2, alpha=6.0, kernels=("query/kernel", "wise/kernel"))
DORA = dataclasses.replace(LORA, dora=True)


@pytest.mark.parametrize("config", [LORA, DORA], ids=["lora", "dora"])
def test_before_the_first_step_the_kernels_are_those_of_the_base(config):
  adapters = initial_adapters(config, PARAMS, jax.random.key(0))
  parts = {"down", "up", "magnitude"} if config.dora else {"down", "up"}
  kernels = {"image/transformer/blocks/attention/query/kernel", "image/pointwise/kernel"}
  assert set(flatten_dict(adapters, sep="/")) == {f"{kernel}/{part}" for kernel in kernels for part in parts}
  assert adapters["image"]["pointwise"]["kernel"]["down"].shape == (1, 1, 8, 2)
  down = adapters["image"]["transformer"]["blocks"]["attention"]["query"]["kernel"]["down"]
  assert down.shape == (3, 8, 2) and 0.5 < float(jnp.abs(down).max()) * 8**0.5 <= 1
  found = jax.jit(lambda params: merged(config, params))({**PARAMS, "adapters": adapters})
  jax.tree.map(np.testing.assert_array_equal, found, PARAMS)


def test_the_sum_is_the_papers():
  adapters = {"image": {"pointwise": {"kernel": {"down": normal(1, 1, 8, 2), "up": normal(1, 1, 2, 4)}}}}
  part = adapters["image"]["pointwise"]["kernel"]
  kernel, change = PARAMS["image"]["pointwise"]["kernel"][0, 0], 3.0 * part["down"][0, 0] @ part["up"][0, 0]
  found = merged(LORA, {**PARAMS, "adapters": adapters})
  np.testing.assert_allclose(found["image"]["pointwise"]["kernel"][0, 0], kernel + change, rtol=1e-5)
  assert found["image"]["depthwise"]["kernel"] is PARAMS["image"]["depthwise"]["kernel"]
  part["magnitude"] = normal(1, 1, 4)
  found = merged(DORA, {**PARAMS, "adapters": adapters})
  magnitude = np.linalg.norm(kernel, axis=0) + part["magnitude"][0, 0]
  columns = (kernel + change) / np.linalg.norm(kernel + change, axis=0, keepdims=True)
  np.testing.assert_allclose(found["image"]["pointwise"]["kernel"][0, 0], magnitude[None] * columns, rtol=1e-5)


def test_the_norm_of_the_columns_has_no_gradient():
  kernel, adapter = normal(8, 4), {"down": normal(8, 2), "up": normal(2, 4), "magnitude": normal(4)}
  params = lambda adapter: {"a": {"kernel": kernel}, "adapters": {"a": {"kernel": adapter}}}
  found = jax.grad(lambda adapter: merged(DORA, params(adapter))["a"]["kernel"].sum())(adapter)
  moved = kernel + 3.0 * adapter["down"] @ adapter["up"]
  scale = (jnp.linalg.norm(kernel, axis=0) + adapter["magnitude"]) / jnp.linalg.norm(moved, axis=0)
  expected = 3.0 * adapter["down"].T @ jnp.broadcast_to(scale[None], (8, 4))
  np.testing.assert_allclose(found["up"], expected, rtol=1e-4)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (
      dataclasses.replace(LORA, kernels=("depthwise",)),
      r"\('depthwise',\) matches no linear layer of the model; it has image",
    ),
    (dataclasses.replace(LORA, kernels=("(",)), "not a regular expression"),
  ],
)
def test_kernels_that_are_not_there_are_named(config, message):
  with pytest.raises(ConfigError, match=message):
    initial_adapters(config, PARAMS, jax.random.key(0))


def test_wrong_settings_are_refused():
  for wrong in ({"rank": -1}, {"alpha": 0.0}):
    with pytest.raises(ValueError, match=f"adapter.{next(iter(wrong))}"):
      AdapterConfig(**wrong)


def experiment(folder, workdir, **fields):
  return Experiment(
    data=DataConfig(source=ClassFolders(path=str(folder)), dir=str(workdir / "data")),
    model=ClassifierConfig(towers={"image": dataclasses.replace(MODEL.image, patch_dropout=0.0)}),
    objectives=(Classify(),),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.5),
    adapter=AdapterConfig(rank=2, kernels=("image/.*kernel",)),
    run=RunConfig(workdir=workdir, batch_size=8, steps=3, log_every=1, tensorboard=False),
    **fields,
  )


def alone(experiment, core=None, kinds=()):
  """`prepare` on one device, which compiles sooner."""
  return prepare(experiment, core, jax.devices()[:1], kinds)


@pytest.fixture
def folder(tmp_path):
  for split in ("train", "validation"):
    for name, colour in (("dark", 30), ("light", 220)):
      (tmp_path / "images" / split / name).mkdir(parents=True)
      for number in range(4):
        Image.new("RGB", (16, 16), (colour, number, 0)).save(tmp_path / "images" / split / name / f"{number}.png")
  return tmp_path / "images"


def test_a_run_trains_adapters_only_and_answers_with_their_sum(folder, tmp_path):
  config = experiment(folder, tmp_path / "run")
  run = train(config, made_by=alone).run
  made = dataclasses.replace(config, model=run.experiment.model)
  training = alone(made)
  before = training.initial_state()
  checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
  after = checkpoints.restore(training.shapes, training.shardings).state
  checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, after.params["image"], before.params["image"])  # to the bit
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, before.params)
  assert all(jax.tree.leaves(moved["class_projection"])) and all(jax.tree.leaves(moved["adapters"]))
  trained = {name: before.params[name] for name in ("adapters", "class_projection")}
  sizes = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree) if leaf.ndim)
  assert sizes(before.opt_state) == 2 * sizes(trained) < sizes(before.params["image"])
  loaded = load_run(tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, loaded.params, merged(config.adapter, after.ema))
  jax.tree.map(np.testing.assert_array_equal, run.params, loaded.params)
  assert set(loaded.params) == {"image", "class_projection"}
  model, params = load(export_run(loaded, "mmjax", tmp_path / "exported").parent / "exported")
  jax.tree.map(np.testing.assert_array_equal, params, loaded.params)
  assert model.config.classes == ("dark", "light")


def test_settings_of_the_optimiser_still_freeze():
  config = Experiment(adapter=LORA, optimizer=OptimizerConfig(frozen=("^adapters/text/",)))
  frozen = trained_besides(config).frozen
  assert frozen[0] == "^adapters/text/" and len(frozen) == 2
  assert trained_besides(Experiment()) == OptimizerConfig()
