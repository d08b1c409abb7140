"""BLIP and CoCa in the one training step: the same on any mesh, and every tower run once however many terms read it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.experiment import Experiment, RunConfig
from mmjax.models.blip import Blip, BlipConfig
from mmjax.models.blip_transformers import BlipCaptionerConfig
from mmjax.models.coca import CocaConfig
from mmjax.models.coca_open_clip import OpenClipCocaConfig
from mmjax.objectives import Caption, Contrastive, Matching
from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import prepare
from tests.models.decoders import BATCH, IMAGE, TEXT

DROPPING = dataclasses.replace(IMAGE, patch_dropout=0.5)  # something random, which follows the example
POST = dataclasses.replace(TEXT, norm="post", input_norm=True)
RUNS = {
  "blip": (BlipConfig(image=DROPPING, text=TEXT, embed_dim=4), (Contrastive(), Matching(group=2), Caption())),
  "coca": (
    CocaConfig(image=DROPPING, text=TEXT, multimodal_depth=1, caption_queries=3, embed_dim=4),
    (Contrastive(), Caption(weight=2.0)),
  ),
  "coca, as open_clip has it": (
    OpenClipCocaConfig(
      image=dataclasses.replace(DROPPING, pool="queries", pool_queries=3, pool_width=8, pool_heads=2),
      text=TEXT,
      multimodal_depth=1,
      embed_dim=4,
    ),
    (Contrastive(), Caption(weight=2.0)),
  ),
  "blip's captioner": (BlipCaptionerConfig(image=DROPPING, text=POST), (Caption(),)),
}


def training(model, objectives, devices, **parallel):
  experiment = Experiment(
    model=model,
    objectives=objectives,
    optimizer=OptimizerConfig(warmup_steps=1, schedule="constant"),
    run=RunConfig(batch_size=8, steps=4),
    parallel=ParallelConfig(**parallel),
  )
  return prepare(experiment, optax.scale(100.0), jax.devices()[:devices])  # keeps nothing: it compiles sooner than Adam


def host_batch():
  numbers = np.arange(8, dtype=np.int32)
  return {**jax.tree.map(np.asarray, BATCH), "index": numbers, "concept": numbers}


def two_steps(run, beginning):
  state, seen = jax.device_put(beginning, run.shardings, may_alias=False), []
  for _ in range(2):
    state, metrics = run.step(state, put_batch(host_batch(), run.mesh))
    seen.append({name: float(value) for name, value in metrics.items() if name != "bad_parameters"})
  return seen


# tests/train/test_meshes.py has BLIP, among whose terms is the published captioner's one.
def test_two_steps_are_the_same_on_two_devices_in_microbatches_as_on_one():
  coca = RUNS["coca, as open_clip has it"]
  runs = training(*coca, 1), training(*coca, 2, fsdp=2, microbatches=2)
  beginning = jax.device_get(runs[0].initial_state())
  one, two = (two_steps(run, beginning) for run in runs)
  assert np.isfinite([step["loss"] for step in one]).all() and one[1]["caption"] != one[0]["caption"]
  for left, right in zip(one, two, strict=True):
    assert left == pytest.approx(right, rel=1e-4, nan_ok=True)  # what is usual is not known in the first steps


def test_a_tower_runs_once_however_many_terms_read_it():
  """FLOPs of BLIP's whole step, forward and backward, as traced: two terms more cost less than half an image tower."""
  config, objectives = RUNS["blip"]
  config = dataclasses.replace(config, image=dataclasses.replace(IMAGE, width=64, depth=4, mlp_dim=256))

  def flops(terms):
    run = training(config, terms, 1)
    return run.step.lower(run.shapes, put_batch(host_batch(), run.mesh)).cost_analysis()["flops"]

  params = jax.eval_shape(config.build().init, jax.random.key(0), BATCH)["params"]
  forward = jax.jit(lambda p: Blip(config).apply({"params": p}, BATCH["image"], method=lambda m, x: m.image(x).tokens))
  image = 3 * forward.lower(params).cost_analysis()["flops"]
  alone, every = flops(objectives[:1]), flops(objectives)
  assert 0.9 * image < alone < 2 * image
  assert every - alone < 0.5 * image


@pytest.mark.parametrize("name", RUNS)
def test_bfloat16_is_computed_in_and_float32_comes_out(name):
  low = {part: dataclasses.replace(getattr(RUNS[name][0], part), dtype="bfloat16") for part in ("image", "text")}
  model = dataclasses.replace(RUNS[name][0], **low).build()
  out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), BATCH))
  assert {leaf.dtype for leaf in jax.tree.leaves((out, variables))} == {jnp.dtype("float32")}
