"""Steps of image tokenizers and of text-to-image models do not depend on devices or microbatches."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.encoders import ConvGridConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, RunConfig
from mmjax.interop.shapes import flatten
from mmjax.models import Fsq, GumbelQuantizer, ImageCodesConfig, TextToImageConfig, VectorQuantizer
from mmjax.models.config import init_params
from mmjax.nn import WordsConfig
from mmjax.objectives import Deceive, Discriminate, DrawCodes, DrawMaskedCodes, Reconstruct
from mmjax.objectives.terms.base import Forward
from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.loss import _reached
from mmjax.train.setup import prepare
from tests.train.systems import ROWS, batch

pytestmark = pytest.mark.usefixtures("quick_compilations")

GRID = ConvGridConfig(image_size=8, width=8)
DRAWING = TextToImageConfig(
  text=WordsConfig(vocab_size=24, max_length=8, width=16, depth=2, num_heads=2, mlp_dim=16),
  image=ImageCodesConfig(GRID, Fsq((3, 3))),
  patterns=("row", "column"),
)
SYSTEMS = {
  # Few codes are chosen at first. Two steps revive dead ones, and which they are depends on the images alone.
  "nearest": (ImageCodesConfig(GRID, VectorQuantizer(codes=16, dim=4, revived=0.95, revival=0.25)), Reconstruct()),
  "gumbel": (ImageCodesConfig(GRID, GumbelQuantizer(codes=6, kl_weight=((0, 0.1),))), Reconstruct(distance="l2")),
  "draw": (DRAWING, DrawCodes(dropped=0.3)),
  "masked": (dataclasses.replace(DRAWING, decoding="masked", patterns=("full",)), DrawMaskedCodes(dropped=0.3)),
}


@functools.cache
def two_steps(system, devices, microbatches=1):
  """(metrics of two steps, parameters before, parameters after)."""
  model, term = SYSTEMS[system]
  experiment = Experiment(
    model=model,
    objectives=(term,),
    optimizer=OptimizerConfig(warmup_steps=0, schedule="constant"),
    parallel=ParallelConfig(microbatches=microbatches),
    run=RunConfig(batch_size=ROWS, steps=4),
  )
  training = prepare(experiment, optax.scale(100.0), jax.devices()[:devices])
  state = training.fresh(jnp.uint32(0))
  before, seen = jax.device_get(state.params), []
  for _ in range(2):
    state, metrics = training.step(state, put_batch(batch(), training.mesh))
    seen.append({name: float(value) for name, value in metrics.items() if name not in ("bad_parameters", "usual_loss")})
  return seen, flatten(before), flatten(jax.device_get(state.params))


@pytest.mark.parametrize("system", ["nearest", "draw", "masked"])
def test_devices_and_microbatches_change_nothing(system):
  (one, _, params) = two_steps(system, 1)
  (many, _, others) = two_steps(system, 4, microbatches=1 if system == "nearest" else 2)
  for step in range(2):
    assert many[step] == pytest.approx(one[step], rel=2e-4, abs=1e-6)
  for name, leaf in params.items():
    np.testing.assert_allclose(others[name], leaf, rtol=2e-3, atol=2e-5, err_msg=name)


def test_statistics_of_codes_are_of_the_whole_batch():
  with pytest.raises(ConfigError, match="counts the use of its codes over the global batch"):
    two_steps("nearest", 1, microbatches=2)


def test_a_step_moves_the_codebook_by_the_batch_alone():
  (first, second), before, after = two_steps("nearest", 1)
  for name in ("quantizer/use/mean", "quantizer/total/mean"):
    assert np.abs(after[name] - before[name]).max() > 1e-3
  assert first["reconstruct_codes_used"] == 1.0  # at the beginning all count as used
  assert first["reconstruct_code_perplexity"] == pytest.approx(16)
  assert second["reconstruct_code_perplexity"] < 15.9
  assert first["reconstruct"] > first["reconstruct_error"] > 0  # the commitment


def test_the_divergence_of_the_relaxed_codes_is_part_of_the_loss():
  (first, _), _, _ = two_steps("gumbel", 1)
  assert 0 < first["reconstruct"] - first["reconstruct_error"] < 0.1 * math.log(6)


def test_adversaries_move_their_own_parameters():
  """Goodfellow et al. 2014: D rises E[log D(x)] + E[log(1 - D(G))], G lowers E[log(1 - D(G))]. Chance is 2 log 2."""
  model = ImageCodesConfig(GRID, Fsq((3, 3)), discriminator=dataclasses.replace(GRID, width=4))
  module, images = model.build(), batch()["image"]
  terms = Discriminate(), Deceive(form="minimax")

  def loss(params, term):
    keys = jax.random.split(jax.random.key(0), ROWS)
    forward = lambda module: Forward(module, {"image": images}, keys, jnp.int32(0), (), training=False)
    score = lambda module: term.over_rows(forward(module), None)["loss"][0].mean()
    return module.apply({"params": _reached(params, term.moves)}, method=score)

  @jax.jit
  def run():
    params = init_params(module, jax.random.key(1))
    apply = functools.partial(module.apply, {"params": params})
    made = apply(images, method="reconstruct").images
    logits = apply(images, method="reality_logits"), apply(made, method="reality_logits")
    return logits, [jax.value_and_grad(functools.partial(loss, term=term))(params) for term in terms]

  logits, ((discriminate, own), (deceive, others)) = run()
  real, fake = (1 / (1 + np.exp(-np.asarray(each, np.float64))) for each in logits)
  assert discriminate == pytest.approx(-np.log(real).mean() - np.log(1 - fake).mean(), rel=1e-4)
  assert deceive == pytest.approx(np.log(1 - fake).mean(), rel=1e-4)
  assert terms[0].chance(1, model) == pytest.approx(2 * math.log(2)) == -2 * terms[1].chance(1, model)
  for gradient, discriminator in ((own, True), (others, False)):
    moved = {name for name, leaf in flatten(gradient).items() if np.abs(leaf).max() > 0}
    assert moved and all(name.startswith("discriminator/") == discriminator for name in moved)


def test_text_and_image_are_weighted():
  """Ramesh et al. 2021, section 2.2: 1/8 for the text, 7/8 for the image. A dropped text has no loss."""
  (first, _), before, after = two_steps("draw", 1)
  texts = 15 / ROWS  # rows with a text, before any is dropped
  assert first["draw_text"] == pytest.approx(math.log(24), rel=0.02)
  assert first["draw_image"] == pytest.approx(math.log(9), rel=0.02)
  least = first["draw_image"] * 7 / 8
  assert least < first["draw"] < least + texts * first["draw_text"] / 8
  changed = {name for name, leaf in after.items() if (leaf != before[name]).any()}
  assert changed and not any(name.startswith("image/") for name in changed)
  model, term = SYSTEMS["draw"]
  assert term.chance(ROWS, model) == pytest.approx(0.7 * math.log(24) / 8 + math.log(9) * 7 / 8)


def test_only_masked_codes_are_predicted():
  (first, second), _, _ = two_steps("masked", 1)
  assert first["draw_masked"] == pytest.approx(math.log(9), rel=0.02) and second["draw_masked"] < first["draw_masked"]
