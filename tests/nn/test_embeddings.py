"""Patches, convolutions and positions against numpy and lax.conv."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mmjax.encoders import ViTConfig
from mmjax.nn.embeddings import ConvStem, NestedStem, PatchEmbed, sincos_1d, sincos_2d, stem_widths, windows

IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), jnp.float32)


def _conv(x, kernel, stride, padding):
  return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_patch_embedding_is_a_strided_convolution():
  module = PatchEmbed(6, 4, "float32")
  params = module.init(jax.random.key(0), IMAGES)["params"]
  kernel = params["projection"]["kernel"].reshape(4, 4, 3, 6)
  expected = _conv(IMAGES, kernel, 4, "VALID")
  np.testing.assert_allclose(module.apply({"params": params}, IMAGES), expected, rtol=1e-5, atol=1e-5)


def test_windows_and_a_matmul_are_a_convolution():
  kernel = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3, 3, 5)), jnp.float32)
  expected = _conv(IMAGES, kernel, 2, ((1, 1), (1, 1)))
  np.testing.assert_allclose(windows(IMAGES) @ kernel.reshape(27, 5), expected, rtol=1e-5, atol=1e-5)


def test_the_convolutional_stem_halves_the_sides_and_doubles_the_channels():
  module = ConvStem(32, 4, "float32", 1e-6)
  out, variables = module.init_with_output(jax.random.key(0), IMAGES)
  assert out.shape == (2, 2, 2, 32)
  kernels = [variables["params"][f"conv_{i}"]["kernel"].shape for i in range(2)]
  assert kernels == [(27, 8), (72, 16)]
  assert stem_widths(32, 4) == [8, 16]


def test_the_nested_stem_is_convolutions_with_norms_between():
  module = NestedStem(8, "frozen", "float32")
  images = jnp.concatenate([jnp.concatenate([IMAGES] * 2, 1)] * 2, 2)
  out, variables = module.init_with_output(jax.random.key(0), images, training=False)
  params, x = variables["params"], images
  for i, side in enumerate((4, 2)):
    kernel = params[f"conv_{i}"]["kernel"].reshape(side, side, -1, 2)
    x = jax.nn.gelu(_conv(x, kernel, side, "VALID") / np.sqrt(1 + 1e-5), approximate=False)
  expected = _conv(x, params["projection"]["kernel"].reshape(2, 2, 2, 8), 2, "VALID")
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  fields = dict(image_size=16, patch_size=16, width=8, depth=1, num_heads=2)
  plain, nested = ViTConfig(**fields), ViTConfig(**fields, stem="mobileclip", stem_norm="batch")
  multiplications = 16 * 48 * 2 + 4 * (4 * 2) * 2 + (4 * 2) * 8
  assert nested.flops() - 2 * multiplications == plain.flops() - 2 * 3 * 16**2 * 8
  assert nested.batch_statistics and not plain.batch_statistics


def test_sincos_positions_by_hand():
  table = np.asarray(sincos_2d(2, 3, 8))
  assert table.shape == (6, 8)
  y, x = 1, 2  # the last patch; frequencies are 1 and 1 / 10000
  angles = np.array([x, x * 1e-4, y, y * 1e-4])
  expected = [*np.sin(angles[:2]), *np.cos(angles[:2]), *np.sin(angles[2:]), *np.cos(angles[2:])]
  np.testing.assert_allclose(table[5], expected, atol=1e-6)
  with pytest.raises(ValueError, match="width=6 must be divisible by 4"):
    sincos_2d(2, 2, 6)


def test_sinusoidal_positions_by_the_formula():
  table = np.asarray(sincos_1d(50, 6))
  for t in (0, 1, 7, 49):
    for i in range(3):
      angle = t / 10_000 ** (2 * i / 6)
      np.testing.assert_allclose(table[t, 2 * i : 2 * i + 2], [math.sin(angle), math.cos(angle)], atol=1e-6)
  with pytest.raises(ValueError, match="width=5 must be even"):
    sincos_1d(4, 5)
