"""Rotary positions against complex numbers, and in the transformer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.rotary import angles_2d, centered_positions, patch_positions, rotate, rotation
from mmjax.nn.transformer import Transformer, TransformerConfig

_rng = np.random.default_rng(0)
HEADS = _rng.standard_normal((2, 5, 3, 8)).astype(np.float32)
CONFIG = TransformerConfig(width=16, depth=2, num_heads=2, mlp_dim=12)
X = jnp.asarray(_rng.standard_normal((3, 5, 16)), jnp.float32)
TURN = rotation(angles_2d(np.arange(2.0), 8, temperature=100.0, axes="yx")[None], prefix=1)


def test_pairs_of_features_are_complex_numbers_that_turn():
  angles = angles_2d(np.array([0.5, 2.0]), 8, temperature=100.0, axes="xy")
  turned = rotate(jnp.asarray(HEADS), rotation(angles[None], prefix=1))
  np.testing.assert_array_equal(turned[:, 0], HEADS[:, 0])  # the prefix
  # of rows 0.5, 2 and columns 0.5, 2: frequencies 1 and 1 / 10 of the column, and then of the row
  expected = [[x, x / 10, y, y / 10] for y in (0.5, 2.0) for x in (0.5, 2.0)]
  numbers = (HEADS[..., :4] + 1j * HEADS[..., 4:])[:, 1:] * np.exp(1j * np.array(expected))[None, :, None]
  np.testing.assert_allclose(turned[:, 1:], np.concatenate([numbers.real, numbers.imag], -1), rtol=1e-5, atol=1e-5)
  assert rotate(jnp.asarray(HEADS, jnp.bfloat16), rotation(angles[None], prefix=1)).dtype == jnp.bfloat16


def test_positions_of_patches():
  np.testing.assert_allclose(patch_positions(4, stretched_to=2, start=1.0), [0.5, 1.0, 1.5, 2.0])
  np.testing.assert_allclose(centered_positions(4) / (2 * np.pi), [-0.75, -0.25, 0.25, 0.75])


def test_a_product_depends_on_the_distance():
  query, key = jnp.asarray(HEADS[:1, :1]), jnp.asarray(HEADS[1:, :1])
  angles = angles_2d(np.arange(4.0), 8, temperature=100.0, axes="yx").reshape(4, 4, 4)
  at = lambda heads, y, x: rotate(heads, rotation(angles[y, x][None, None], prefix=0))
  product = lambda a, b: float((at(query, *a) * at(key, *b)).sum())
  assert product((0, 1), (2, 0)) == pytest.approx(product((1, 3), (3, 2)), abs=1e-5)
  assert abs(product((0, 1), (2, 0)) - product((0, 1), (2, 1))) > 1e-3


def test_the_rotation_of_one_token():
  for turn in (TURN, jax.tree.map(lambda a: jnp.repeat(a, 3, axis=0), TURN)):
    at = turn.at(jnp.asarray([4, 2, 0])).sin
    np.testing.assert_array_equal(at[:, 0], TURN.sin[0, jnp.asarray([4, 2, 0])])
    np.testing.assert_array_equal(turn.at(2).cos[0], TURN.cos[0, 2:3])


def test_the_picked_token_and_a_scan_turn_likewise():
  pick = jnp.asarray([4, 2, 0])
  run = lambda c: jax.jit(lambda params, x: Transformer(c).apply({"params": params}, x, pick=pick, rotation=TURN))
  params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), X)["params"]
  tokens, picked = run(CONFIG)(params, X)
  np.testing.assert_allclose(picked, tokens[jnp.arange(3), pick], rtol=1e-5, atol=1e-6)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), params["block_0"], params["block_1"])
  again, _ = run(dataclasses.replace(CONFIG, scan=True))({"blocks": stacked, "norm": params["norm"]}, X)
  np.testing.assert_allclose(again, tokens, rtol=1e-5, atol=1e-5)
