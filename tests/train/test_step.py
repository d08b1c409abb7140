"""One step is the same on any mesh, in any number of microbatches; and what it does with NaN, freezing, EMA."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.objectives import Contrastive, clip_loss
from mmjax.parallel.mesh import put_batch
from mmjax.train.step import example_keys, first_bad_parameter
from tests.golden import values
from tests.tiny import experiment, host_batch, training_on
from tests.train.systems import SYSTEMS

STEPS = 20
SAME_VIEWS = (Contrastive(between=("image", "image2")),)


def losses(devices: int, **parallel) -> np.ndarray:
  """Loss and gradient norm of STEPS steps on the same batches."""
  training = training_on(devices, experiment(parallel=parallel))
  state, rows = training.initial_state(), []
  for number in range(STEPS):
    state, metrics = training.step(state, put_batch(host_batch(seed=number % 3), training.mesh))
    rows.append((float(metrics["loss"]), float(metrics["grad_norm"])))
  assert int(state.step) == STEPS
  return np.array(rows)


@pytest.mark.parametrize(
  ("devices", "parallel"),
  [
    (8, dict()),
    (1, dict(microbatches=4)),
    (4, dict(fsdp=2, model=2)),
    (8, dict(fsdp=2, model=2, microbatches=2)),
  ],
)
def test_twenty_steps_do_not_depend_on_devices_or_microbatches(devices, parallel):
  np.testing.assert_allclose(losses(devices, **parallel), losses(1), rtol=1e-5, atol=1e-5)


def test_two_steps_are_the_golden_ones():
  values.check("steps", "tests.tiny", losses(1)[:2].tolist(), rel=1e-6)


def test_the_first_loss_is_the_dense_one():
  training = training_on(1, experiment(model=dict(image=_without_patch_dropout())))
  state, batch = training.initial_state(), host_batch()
  embeddings = jax.jit(training.model.apply)({"params": state.params}, batch)
  scale = training.experiment.model.init_logit_scale
  expected = clip_loss(embeddings["image"], embeddings["text"], logit_scale=scale)
  _, metrics = training.step(state, put_batch(batch, training.mesh))
  assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-6)


def test_a_step_written_with_pmap_has_the_trainers_loss_and_gradient():
  training = training_on(8, experiment())
  state, batch = training.initial_state(), host_batch()
  keys = np.asarray(jax.random.key_data(example_keys(state.rng, state.step, jnp.asarray(batch["index"]))))
  params = jax.device_get(state.params)

  def loss(params, batch, keys):
    model = training.model.bind({"params": params})
    embeddings = model.project(model.encode(batch, rng=jax.random.wrap_key_data(keys)))
    return clip_loss(embeddings["image"], embeddings["text"], logit_scale=model.logit_scale(), axis_name="batch")

  def local(params, batch, keys):
    value, gradient = jax.value_and_grad(loss)(params, batch, keys)
    return value, optax.tree.norm(jax.lax.pmean(gradient, "batch"))

  split = jax.tree.map(lambda rows: rows.reshape(8, -1, *rows.shape[1:]), ({**batch}, keys))
  value, norm = jax.pmap(local, axis_name="batch", in_axes=(None, 0, 0))(params, *split)
  _, metrics = training.step(state, put_batch(batch, training.mesh))
  np.testing.assert_allclose(value, np.full(8, metrics["loss"]), rtol=1e-6)
  np.testing.assert_allclose(norm, np.full(8, metrics["grad_norm"]), rtol=1e-5)


def test_gradients_are_reduced_once_after_the_microbatch_loop():
  training = training_on(4, experiment(parallel=dict(fsdp=2, microbatches=2)))
  batch = jax.tree.map(
    lambda rows: jax.ShapeDtypeStruct(rows.shape, rows.dtype), put_batch(host_batch(), training.mesh)
  )
  text = training.step.lower(training.shapes, batch).compile().as_text()
  assert "all-reduce" in text
  loops = re.findall(r"body=%?([\w.\-]+)", text)
  assert loops, "the microbatch loop is gone"
  for name in loops:
    body = re.search(rf"^%?{re.escape(name)} .*?^}}", text, flags=re.MULTILINE | re.DOTALL)
    assert body and "all-reduce" not in body.group(0)


def test_a_step_that_is_not_finite_changes_nothing_and_names_the_parameter():
  training = training_on(1, experiment())
  state = training.initial_state()
  before = jax.tree.map(np.asarray, jax.device_get(state))
  batch = host_batch()
  batch["image"][3, 0, 0, 0] = np.nan
  after, metrics = training.step(state, put_batch(batch, training.mesh))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), before)
  assert not np.isfinite(metrics["loss"])
  bad = first_bad_parameter(training.shapes.params, metrics["bad_parameters"])
  assert bad is not None and bad.startswith("image")


def test_frozen_towers_do_not_move_and_averages_follow():
  training = training_on(1, experiment(optimizer=dict(frozen=("^text/",), warmup_steps=0)))
  state = training.initial_state()
  start = jax.device_get(state.params)
  state, _ = training.step(state, put_batch(host_batch(), training.mesh))
  params, ema = jax.device_get((state.params, state.ema))
  jax.tree.map(np.testing.assert_array_equal, params["text"], start["text"])
  kernel = lambda tree: tree["image_projection"]["kernel"]
  assert not np.array_equal(kernel(params), kernel(start))
  np.testing.assert_allclose(kernel(ema), kernel(start) + 0.9 * (kernel(params) - kernel(start)), rtol=1e-5, atol=1e-7)


def test_the_scale_is_clamped_after_every_step():
  # Two views that are one image: the loss falls for ever as the scale grows, by about 1 in its logarithm each step.
  optimizer = dict(learning_rate=1.0, warmup_steps=0, schedule="constant", frozen=("^(?!logit_scale$)",))
  model = dict(image=_without_patch_dropout())
  training = training_on(1, dataclasses.replace(experiment(optimizer=optimizer, model=model), objectives=SAME_VIEWS))
  batch = put_batch(host_batch() | {"image2": host_batch()["image"]}, training.mesh)
  state, scales = training.initial_state(), []
  for _ in range(50):
    state, metrics = training.step(state, batch)
    scales.append(float(state.params["logit_scale"]))
  assert max(scales) == pytest.approx(math.log(100), rel=1e-6) and scales[-1] == max(scales)
  assert float(metrics["logit_scale"]) == pytest.approx(100, rel=1e-5)
  assert float(state.ema["logit_scale"]) <= max(scales)


@pytest.mark.parametrize("name", ["albef", "blip", "coca", "flava", "two_tower"])
def test_every_model_with_a_scale_clamps_it(name):
  config, _ = SYSTEMS[name]
  wild = {"logit_scale": jnp.float32(50.0), "logit_bias": jnp.float32(-500.0), "image": {}}
  clamped = config.clamped(wild)
  assert float(clamped["logit_scale"]) == pytest.approx(math.log(config.max_logit_scale))
  assert float(clamped["logit_bias"]) == (-config.max_logit_bias if name == "two_tower" else -500.0)
  assert clamped["image"] is wild["image"]
  free = dataclasses.replace(config, max_logit_scale=math.inf)
  assert float(free.clamped(wild)["logit_scale"]) == 50.0


def test_objectives_are_weighted_and_logged_separately():
  both = (Contrastive(weight=2.0), Contrastive(between=("image", "image2"), weight=0.5))
  training = training_on(1, dataclasses.replace(experiment(), objectives=both))
  batch = host_batch() | {"image2": host_batch(seed=1)["image"]}
  _, metrics = training.step(training.initial_state(), put_batch(batch, training.mesh))
  total = 2.0 * metrics["softmax_image_text"] + 0.5 * metrics["softmax_image_image2"]
  assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-6)


def test_randomness_is_keyed_on_the_example_not_on_its_row():
  training = training_on(1, experiment())
  batch = host_batch()
  turned = {name: rows[::-1].copy() for name, rows in batch.items()}
  values = [
    float(training.step(training.initial_state(), put_batch(b, training.mesh))[1]["loss"]) for b in (batch, turned)
  ]
  assert values[0] == pytest.approx(values[1], rel=1e-6)
  other = batch | {"index": batch["index"] + 1000}  # other examples, hence other dropped patches
  assert float(training.step(training.initial_state(), put_batch(other, training.mesh))[1]["loss"]) != values[0]
  assert jnp.isfinite(values[0])


def _without_patch_dropout():
  return dataclasses.replace(experiment().model.image, patch_dropout=0.0)
