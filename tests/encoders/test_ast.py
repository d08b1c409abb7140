"""Audio spectrogram transformer: overlapping patches, padding that is left out, positions. Values: tests/interop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.columns.sound import PADDED
from mmjax.encoders import Ast, AstConfig
from mmjax.models.counting import traced_flops

SMALL = AstConfig(
  frames=21, bands=10, patch_size=4, time_stride=3, band_stride=2, width=8, depth=1, num_heads=2, pool="mean"
)
FEATURES = np.random.default_rng(0).standard_normal((2, 21, 10)).astype(np.float32)


def params_of(config):
  shapes = jax.eval_shape(Ast(config).init, jax.random.key(0), FEATURES)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), jnp.float32), shapes)


PARAMS = params_of(SMALL)


@functools.cache
def program(config):
  return jax.jit(lambda params, x: Ast(config).apply({"params": params}, x))


def encode(features, config=SMALL, params=PARAMS):
  return program(config)(params, jnp.asarray(features))


def test_patches_overlap_and_lie_by_bands_then_time():
  """With blocks of zeros, the tokens are the normalised patches."""
  rows, columns = SMALL.grid
  assert (rows, columns) == (4, 6)
  blocks = jax.tree.map(jnp.zeros_like, PARAMS["transformer"])
  blocks["norm"]["scale"] = jnp.ones(8)
  found = encode(FEATURES, params=PARAMS | {"transformer": blocks})
  assert found.tokens.shape == (2, 2 + 24, 8)
  kernel, bias, table = (
    np.asarray(x) for x in (*(PARAMS["projection"][n] for n in ("kernel", "bias")), PARAMS["position_embedding"])
  )
  for band, time in ((0, 0), (1, 2), (3, 5)):
    cut = FEATURES[:, 3 * time : 3 * time + 4, 2 * band : 2 * band + 4]
    slow = np.einsum("btf,ftd->bd", cut, kernel[:, :, 0]) + bias + table[band * columns + time]
    slow = (slow - slow.mean(1, keepdims=True)) / np.sqrt(slow.var(1, keepdims=True) + SMALL.norm_epsilon)
    np.testing.assert_allclose(found.tokens[:, 2 + band * columns + time], slow, atol=1e-5)


def test_positions_by_axes_are_sums():
  config = dataclasses.replace(SMALL, positions="axes")
  params = params_of(config)
  whole = {k: v for k, v in params.items() if k not in ("band_position_embedding", "time_position_embedding")}
  table = (params["band_position_embedding"] + params["time_position_embedding"]).reshape(24, 8)
  expected = encode(FEATURES, params=whole | {"position_embedding": table}).pooled
  np.testing.assert_allclose(encode(FEATURES, config, params).pooled, expected, atol=1e-6)


def test_padding_moves_nothing_where_it_is_masked():
  """A clip of 13 frames has patches at 0, 3, ..., 12; what fills frames 13 to 15 of the last ones is zero in both."""
  config = dataclasses.replace(SMALL, masked=True)
  padded = FEATURES.copy()
  padded[:, 13:] = PADDED
  found = encode(padded, config)
  real = np.asarray(found.mask)[0, 2:].reshape(4, 6)
  assert (real == (np.arange(6) * 3 < 13)).all() and np.asarray(found.mask)[:, :2].all()
  short = dataclasses.replace(config, frames=16)
  zeros = np.where(padded == np.float32(PADDED), 0, padded)[:, :16]
  table = PARAMS["position_embedding"].reshape(4, 6, 8)[:, :5].reshape(20, 8)
  expected = encode(zeros, short, {**PARAMS, "position_embedding": table})
  np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-5)
  unmasked = encode(padded)
  np.testing.assert_allclose(unmasked.pooled, encode(np.where(padded == np.float32(PADDED), 0, padded)).pooled)
  assert np.abs(unmasked.pooled - found.pooled).max() > 1e-3 and np.asarray(unmasked.mask).all()


def test_silence_alone_is_finite():
  found = encode(np.full((2, 21, 10), PADDED, np.float32), dataclasses.replace(SMALL, masked=True))
  assert np.isfinite(np.asarray(found.pooled)).all()


@pytest.mark.parametrize("pool", ["cls", "cls_distillation"])
def test_pooling(pool):
  tokens, first = encode(FEATURES).tokens, {"cls": 1, "cls_distillation": 2}[pool]
  found = encode(FEATURES, dataclasses.replace(SMALL, pool=pool))
  np.testing.assert_allclose(found.pooled, tokens[:, :first].mean(1), atol=1e-5)


def test_patches_of_all_bands_side_by_side():
  config = dataclasses.replace(SMALL, patch_bands=10, pool="flat")
  assert config.grid == (1, 6) and config.pooled_width == 48
  found = encode(FEATURES, config, params_of(config))
  np.testing.assert_array_equal(found.pooled, np.asarray(found.tokens)[:, 2:].reshape(2, 48))


def test_flops_are_those_of_the_program():
  """The program also computes the class token of the last block by itself, which the formula leaves out."""
  config = dataclasses.replace(SMALL, depth=6)
  params = jax.eval_shape(Ast(config).init, jax.random.key(0), FEATURES[:1])
  traced = traced_flops(lambda params, x: Ast(config).apply(params, x).pooled, params, jnp.asarray(FEATURES[:1]))
  assert config.flops() == pytest.approx(traced, rel=0.05)


def test_features_of_another_size_are_refused():
  with pytest.raises(ValueError, match="features are 20 frames x 10, but frames=21 and bands=10"):
    encode(FEATURES[:, :20])


@pytest.mark.parametrize(
  "fields", [dict(frames=8), dict(bands=8), dict(time_stride=0), dict(patch_bands=21), dict(pool="flat", masked=True)]
)
def test_settings_that_cannot_be_are_refused(fields):
  with pytest.raises(ValueError, match="must"):
    AstConfig(**{"frames": 100, "bands": 20, **fields})
