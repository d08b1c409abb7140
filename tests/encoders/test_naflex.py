"""The tower for images of any shape: a ViT's embeddings for squares, nothing from padding, resampled positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.images.native import PADDED, to_row
from mmjax.encoders import NaFlexConfig, ViTConfig
from mmjax.nn.embeddings import resampled_positions

SIZES = dict(image_size=12, patch_size=4, width=8, depth=1, num_heads=2)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 12, 12, 3)).astype(np.float32)
WIDE, TALL = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 20, 3), (16, 8, 3)))


def rows(images, length):
  return np.stack([to_row(image, 4, length) for image in images])


@pytest.fixture(scope="module", params=["map", "mean"])
def tower(request):
  """(tower, parameters, a function that encodes)."""
  config = NaFlexConfig(**SIZES, pool=request.param, patches=9)
  model = config.build()
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), config.example(1)))["params"]
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)
  return config, params, jax.jit(lambda params, images: model.apply({"params": params}, images))


def test_squares_are_encoded_as_by_a_vit(tower):
  config, params, encode = tower
  square = ViTConfig(**SIZES, pool=config.pool).build()
  expected = square.apply({"params": params}, IMAGES)
  found = encode(params, rows(IMAGES, 11))
  np.testing.assert_allclose(found.pooled, expected.pooled, atol=2e-6)
  np.testing.assert_allclose(found.tokens[:, :9], expected.tokens, atol=2e-6)
  assert found.mask.tolist() == [[True] * 9 + [False] * 2] * 2
  np.testing.assert_allclose(encode(params, IMAGES).pooled, expected.pooled, atol=2e-6)


def test_padding_and_the_other_images_of_a_batch_change_nothing(tower):
  _, params, encode = tower
  both = rows([WIDE, TALL], 11)
  found = encode(params, both).pooled
  assert np.abs(found[0] - found[1]).max() > 1e-2
  for image, mine in zip((WIDE, TALL), found, strict=True):
    np.testing.assert_allclose(encode(params, image[None]).pooled[0], mine, atol=2e-6)
  noisy = np.where(both[..., -1:] == PADDED, RNG.normal(size=both.shape), both).astype(np.float32)
  noisy[..., -2:] = both[..., -2:]
  np.testing.assert_allclose(encode(params, noisy).pooled, found, atol=2e-6)
  slopes = jax.grad(lambda images: encode(params, images).pooled.sum())(both)[..., :-2]
  assert np.abs(slopes[0, :5]).max() > 1e-4 and not slopes[0, 5:].any() and not slopes[1, 8:].any()


def test_the_place_of_a_patch_counts(tower):
  _, params, encode = tower
  wide = rows([WIDE], 5)
  tall = wide.copy()
  tall[..., -2:] = wide[..., :-3:-1]  # the same patches, one below the other
  assert np.abs(encode(params, wide).pooled - encode(params, tall).pooled).max() > 1e-3


@pytest.mark.parametrize("shape", [(5, 5), (1, 9), (12, 3), (2, 2), (7, 11)])
def test_positions_are_resampled_as_an_image_is(shape):
  """Beside jax.image.resize of the whole grid, whose filter is the same; three rows of padding follow."""
  grid = RNG.normal(size=(5, 5, 3)).astype(np.float32)
  count = np.prod(shape)
  places = np.full((2, count + 3, 2), PADDED, np.float32)
  places[0, :count] = np.stack(np.divmod(np.arange(count), shape[1]), axis=1)
  places[1, :1] = 0
  found = resampled_positions(jnp.asarray(grid), jnp.asarray(places))
  expected = jax.image.resize(grid, (*shape, 3), "linear", antialias=True).reshape(-1, 3)
  np.testing.assert_allclose(found[0, :count], expected, atol=1e-6)
  np.testing.assert_allclose(found[1, 0], grid.mean((0, 1)), atol=0.5)  # one patch sees all of the grid
  assert np.isfinite(found).all()


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(pool="cls"), 'pool="cls" is not an option of a NaFlex tower'),
    (dict(positions="sincos2d"), "positions='sincos2d' is not an option of a NaFlex tower"),
    (dict(patch_dropout=0.5), "patch_dropout=0.5 is not an option"),
    (dict(patches=0), "patches=0 must be at least 1"),
  ],
)
def test_settings_that_do_not_fit_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(NaFlexConfig(**SIZES), **fields)


@pytest.mark.parametrize("shape", [(2, 9, 48), (2, 13, 12, 3), (9, 50)])
def test_other_arrays_are_refused(shape, tower):
  config, params, _ = tower
  with pytest.raises(ValueError, match=r"rows of patches \[batch, length, 50\], or images"):
    jax.eval_shape(lambda images: config.build().apply({"params": params}, images), np.zeros(shape, np.float32))
