"""The vision transformer: shapes, pooling, and randomness that belongs to the example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ViT, ViTConfig
from mmjax.nn.stochastic import drop_patches

SMALL = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 1, "num_heads": 2}
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 3)), jnp.float32)
RNG = jax.random.split(jax.random.key(1), 3)


def _vit(**fields):
  model = ViT(ViTConfig(**{**SMALL, **fields}))
  params = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]
  return params, jax.jit(lambda images, rng=None: model.apply({"params": params}, images, rng=rng))


@pytest.mark.parametrize(
  ("fields", "length"),
  [
    ({"pool": "cls"}, 5),
    ({"pool": "cls", "positions": "offsets", "offset_width": 4}, 5),
    ({"pool": "mean", "positions": "sincos2d"}, 4),
    ({"pool": "map", "stem": "conv"}, 4),
    ({"pool": "flat"}, 4),
    ({"pool": "cls_mean", "positions": "none"}, 5),
    ({"pool": "cls_map", "map_heads": 4, "map_mlp_dim": 6}, 5),
    ({"pool": "cls_mean", "registers": 2, "register_position": True}, 7),
    ({"pool": "cls_and_mean", "registers": 3, "rotary": "centered"}, 8),
  ],
)
def test_tokens_mask_and_pooled(fields, length):
  params, encode = _vit(**fields)
  out = encode(IMAGES)
  width = {"flat": 32, "cls_and_mean": 16}.get(fields["pool"], 8)
  assert (out.tokens.shape, out.pooled.shape) == ((3, length, 8), (3, width))
  assert ViTConfig(**{**SMALL, **fields}).pooled_width == width
  assert bool(out.mask.all()) and out.mask.shape == (3, length)
  assert ("position_embedding" in params) == ("positions" not in fields)
  t = np.asarray(out.tokens)
  patches = t[:, length - 4 :].mean(1)
  expected = {"cls": t[:, 0], "mean": t.mean(1), "flat": t.reshape(3, -1), "cls_mean": patches}
  expected["cls_and_mean"] = np.concatenate([t[:, 0], patches], axis=1)
  if fields["pool"] in expected:
    np.testing.assert_allclose(out.pooled, expected[fields["pool"]], rtol=1e-5, atol=1e-6)


def test_queries_read_every_token_and_one_is_the_image():
  params, encode = _vit(pool="queries", pool_queries=3, pool_width=6, pool_heads=3)
  out = encode(IMAGES)
  assert (out.tokens.shape, out.mask.shape, out.pooled.shape) == ((3, 2, 6), (3, 2), (3, 6))
  assert params["pool"]["probe"].shape == (3, 6) and params["class_token"].shape == (1, 8)
  moved = encode(IMAGES.at[:, 5, 5].add(1.0))  # in the last patch
  assert min(np.abs(moved.tokens - out.tokens).max(), np.abs(moved.pooled - out.pooled).max()) > 1e-5


def test_patch_dropout_and_drop_path_follow_the_example_in_any_order():
  _, encode = _vit(pool="mean", patch_dropout=0.5, drop_path=0.0)
  out, order = encode(IMAGES, RNG), jnp.asarray([2, 0, 1])
  assert out.tokens.shape == (3, 2, 8)
  np.testing.assert_allclose(encode(IMAGES[order], RNG[order]).pooled, out.pooled[order], rtol=1e-5, atol=1e-6)
  assert encode(IMAGES).tokens.shape == (3, 4, 8)  # evaluation reads every patch


@pytest.mark.parametrize("rotary", ["patches", "centered"])
def test_rotary_positions_stay_with_their_patches(rotary):
  _, encode = _vit(pool="mean", positions="none", rotary=rotary, num_heads=1)
  assert np.abs(encode(jnp.roll(IMAGES, 4, axis=1)).tokens[:, 2:] - encode(IMAGES).tokens[:, :2]).max() > 1e-4
  model = ViT(ViTConfig(**SMALL, pool="cls", rotary=rotary, patch_dropout=0.5))
  whole, kept = (model.apply({}, rng, 3, method="_rotation") for rng in (None, RNG))
  numbers = drop_patches(jnp.tile(jnp.arange(1.0, 5.0)[None, :, None], (3, 1, 1)), rate=0.5, rng=RNG)[:, :, 0]
  np.testing.assert_array_equal(kept.sin[:, 1:], whole.sin[0][numbers.astype(jnp.int32)])
  assert (np.asarray(kept.sin[:, 0]) == 0).all() and whole.sin.shape == (1, 5, 2)


def test_pixels_that_fill_no_patch_are_left_out():
  model = ViT(ViTConfig(**{**SMALL, "patch_size": 3}, drop_remainder=True, pool="mean"))
  params = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]
  encode = jax.jit(lambda images: model.apply({"params": params}, images).pooled)
  np.testing.assert_array_equal(encode(IMAGES.at[:, 6:].set(9.0).at[:, :, 6:].set(9.0)), encode(IMAGES))
  assert params["position_embedding"].shape == (4, 8)


def test_positions_matter():
  _, encode = _vit(pool="mean")
  moved = jnp.roll(IMAGES, 4, axis=1)
  assert np.abs(encode(moved).pooled - encode(IMAGES).pooled).max() > 1e-3


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"pool": "flat", "patch_dropout": 0.5}, 'pool="flat" needs every patch'),
    ({"patch_size": 3}, "image_size=8 must be divisible by patch_size=3"),
    ({"image_size": 9, "patch_size": 3, "stem": "conv"}, "patch_size=3 must be a power of two"),
    ({"width": 6, "positions": "sincos2d"}, "width=6 must be divisible by 4"),
    ({"positions": "offsets", "patch_dropout": 0.5}, 'positions="offsets" needs every patch'),
    ({"stem": "mbconv"}, 'patch_size=4 must be 16 for stem="mbconv"'),
    ({"image_size": 16, "patch_size": 16, "width": 6, "stem": "mobileclip"}, "width=6 must be divisible by 4"),
    ({"patch_dropout": 1.0}, "patch_dropout=1.0"),
    ({"pool": "flat", "patch_dropout": 0.5}, 'pool="flat" needs every patch'),
    ({"pool": "queries", "pool_width": 9}, "pool_width=9 must be divisible by pool_heads=8"),
    ({"pool": "queries", "pool_queries": 1}, "pool_queries=1 must be at least 2"),
    ({"depth": 0}, "depth=0 must be at least 1"),
    ({"pool": "mean", "class_position": True}, 'pool="mean" has no class token'),
    ({"num_heads": 4, "rotary": "patches"}, "rotary needs heads of 4, 8, ... features, not of 2: width=8, num_heads=4"),
    ({"pool": "map", "registers": 1}, "registers=1 needs a class token"),
    ({"pool": "cls", "register_position": True}, "register_position=True needs registers"),
    ({"pool": "cls_and_mean", "tanh_pool": True}, 'choose a pool other than "cls_and_mean"'),
    ({"map_heads": 3}, "width=8 must be divisible by map_heads=3"),
  ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    ViTConfig(**{**SMALL, **fields})


def test_an_image_of_another_size_is_refused():
  with pytest.raises(ValueError, match="images are 4x4, but image_size=8"):
    ViT(ViTConfig(**SMALL)).init(jax.random.key(0), IMAGES[:, :4, :4])
