"""Image tokenizers: codes and pixels fit each other, quantizers equal slow references, and dead codes come back."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.conv_grid import ConvGridConfig
from mmjax.models.image_codes import ImageCodesConfig
from mmjax.models.quantizers import Fsq, GumbelQuantizer, VectorQuantizer, fsq_bound
from mmjax.models.sharding import SHARDING_RULES
from mmjax.nn.channel_norm import STATISTICS, moved_statistics
from mmjax.parallel.rules import match_rules

GRID = ConvGridConfig(image_size=8, width=8)
QUANTIZERS = (Fsq((4, 3)), VectorQuantizer(codes=6, dim=3), GumbelQuantizer(codes=6, dim=3))
IMAGES = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
KEYS = jax.random.split(jax.random.key(2), 4)


@functools.cache
def trained(quantizer):
  """(module, parameters, images from codes in evaluation, Reconstruction and statistics in training)."""
  module = ImageCodesConfig(GRID, quantizer).build()

  @jax.jit
  def run():
    params = module.init(jax.random.key(0), {"image": IMAGES})["params"]
    found = module.apply({"params": params}, IMAGES, method="reconstruct")
    codes = module.apply({"params": params}, IMAGES, method="codes")
    again = module.apply({"params": params}, codes, method="pixels")
    training = module.apply({"params": params}, IMAGES, rng=KEYS, step=3, method="reconstruct", mutable=[STATISTICS])
    return params, found, codes, again, training

  return module, *run()


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: type(q).__name__)
def test_codes_decode_to_the_reconstruction(quantizer):
  _, params, found, codes, again, (_, seen) = trained(quantizer)
  np.testing.assert_array_equal(found.codes, codes)
  np.testing.assert_allclose(again, found.images, rtol=0, atol=1e-5)
  assert codes.shape == (4, 4) and codes.min() >= 0 and codes.max() < quantizer.num_codes
  assert np.asarray(seen[STATISTICS]["quantizer"]["use"]["mean"]).shape == (1, quantizer.num_codes)
  match_rules(list(SHARDING_RULES), params, purpose="placement")  # raises for an uncovered parameter


def test_fsq_rounds_to_its_levels_and_numbers_their_combinations():
  """Mentzer et al. 2023: tanh to the range of the levels, and a number in the mixed base of the levels."""
  levels = (4, 3)
  z = np.linspace(-6, 6, 241, dtype=np.float32)
  rounded = np.round(np.asarray(fsq_bound(jnp.asarray(np.stack([z, z], 1)), levels)))
  assert [sorted(set(column)) for column in rounded.T] == [[-2, -1, 0, 1], [-1, 0, 1]]
  middle = np.asarray(fsq_bound(jnp.zeros((1, 2)), levels))
  np.testing.assert_allclose(middle, 0, atol=1e-6)
  quantizer = Fsq(levels).build()
  params = quantizer.init(jax.random.key(0), jnp.zeros((1, 1, 5)))
  vectors = quantizer.apply(params, jnp.arange(12)[None], method="lookup")[0]
  expected = [(first, second) for second, first in itertools.product((-1, 0, 1), (-1, -0.5, 0, 0.5))]
  np.testing.assert_array_equal(vectors, np.array(expected, np.float32))


def test_the_gradient_passes_the_rounding():
  quantizer = Fsq((5, 5)).build()
  tokens = jax.random.normal(jax.random.key(3), (2, 3, 4))
  params = quantizer.init(jax.random.key(0), tokens)
  through = lambda t: quantizer.apply(params, t).latents.sum()
  smooth = lambda t: (fsq_bound(t @ params["params"]["projection"]["kernel"], (5, 5)) / 2).sum()
  np.testing.assert_allclose(jax.grad(through)(tokens), jax.grad(smooth)(tokens), rtol=1e-5, atol=1e-7)


def test_the_nearest_code_is_taken_and_moves_to_the_mean_of_its_vectors():
  module, params, _, _, _, (found, seen) = trained(VectorQuantizer(codes=6, dim=3))
  own = params["quantizer"]
  grid = module.apply({"params": params}, {"image": IMAGES}, method="encode")["image"].tokens
  z = np.asarray(grid) @ np.asarray(own["projection"]["kernel"]) + np.asarray(own["projection"]["bias"])
  codebook = np.asarray(own["total"]["mean"]) / np.asarray(own["use"]["mean"])[:, None]
  distance = np.square(z[:, :, None] - codebook[None, None]).sum(-1)
  np.testing.assert_array_equal(found.codes, distance.argmin(-1))
  np.testing.assert_allclose(found.penalty, 0.25 * distance.min(-1).mean(1) / 3, rtol=1e-4)
  moved = moved_statistics(params, seen[STATISTICS], jax.tree.map(lambda _: True, params))["quantizer"]
  for code in range(6):
    chosen = z[np.asarray(found.codes) == code]
    use = 0.9 / 6 + 0.1 * len(chosen) / 16
    np.testing.assert_allclose(moved["use"]["mean"][code], use, rtol=1e-5)
    total = 0.9 * codebook[code] / 6 + 0.1 * chosen.sum(0) / 16
    np.testing.assert_allclose(moved["total"]["mean"][code], total, rtol=1e-4, atol=1e-6)


def test_a_dead_code_moves_to_a_vector_of_an_image_and_others_stay():
  config = VectorQuantizer(codes=3, dim=2, revived=0.1, revival=1.0)
  quantizer = config.build()
  tokens = jax.random.normal(jax.random.key(4), (1, 5, 2))
  params = quantizer.init(jax.random.key(0), tokens)["params"]
  params["projection"] = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
  params["use"]["mean"] = jnp.array([0.5, 0.5, 1e-5])
  params["total"]["mean"] = jnp.array([[0.0, 0.0], [0.5, 0.5], [9e-4, 9e-4]])  # the last code lies at (90, 90)
  run = lambda config: config.build().apply({"params": params}, tokens, rng=KEYS[:1], mutable=[STATISTICS])
  found, seen = run(config)
  assert not (np.asarray(found.codes) == 2).any()
  moved = moved_statistics(params, seen[STATISTICS], jax.tree.map(lambda _: True, params))
  place = np.asarray(moved["total"]["mean"][2] / moved["use"]["mean"][2])
  assert np.abs(np.asarray(tokens[0]) - place).max(1).min() < 0.01
  _, unmoved = run(dataclasses.replace(config, revived=0.0))
  np.testing.assert_array_equal(unmoved[STATISTICS]["total"]["mean"][0, 2], 0)


def test_the_relaxed_codes_become_hard_as_the_temperature_falls():
  config = GumbelQuantizer(codes=6, dim=3, temperature=((0, 1.0), (10, 1e-3)), kl_weight=((0, 0.0), (10, 2.0)))
  quantizer = config.build()
  tokens = jax.random.normal(jax.random.key(5), (4, 3, 5))
  params = quantizer.init(jax.random.key(0), tokens)
  at = jax.jit(lambda step: quantizer.apply(params, tokens, rng=KEYS, step=step, mutable=[STATISTICS])[0])
  soft, hard = at(0), at(10)
  np.testing.assert_array_equal(soft.codes, hard.codes)  # the noise is that of the key
  table = np.asarray(params["params"]["code_embedding"])
  np.testing.assert_allclose(hard.latents, table[np.asarray(hard.codes)], atol=1e-3)
  assert np.abs(np.asarray(soft.latents) - table[np.asarray(soft.codes)]).max() > 0.1
  logits = np.asarray(tokens @ params["params"]["projection"]["kernel"], np.float64)
  shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  divergence = (shares * np.log(shares * 6)).sum(-1).mean(1)
  np.testing.assert_allclose(hard.penalty, 2 * divergence, rtol=1e-4)
  np.testing.assert_array_equal(soft.penalty, 0)


@pytest.mark.parametrize(
  ("make", "said"),
  [
    (lambda: Fsq((5, 1)), "levels"),
    (lambda: VectorQuantizer(codes=1), "at least 2"),
    (lambda: VectorQuantizer(revival=0.0), "revival"),
    (lambda: GumbelQuantizer(temperature=((0, 0.0),)), "positive"),
    (lambda: GumbelQuantizer(kl_weight=((5, 1.0), (0, 2.0))), "rising"),
    (lambda: ConvGridConfig(image_size=30), "divisible"),
    (lambda: ConvGridConfig(blocks=0), "at least 1"),
  ],
)
def test_settings_that_do_not_fit_are_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make()
