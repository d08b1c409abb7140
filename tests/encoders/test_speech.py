"""The speech encoder against a slow convolution, and what it refuses."""

import jax
import numpy as np
import pytest
from jax import lax

from mmjax.encoders import SpeechConfig, SpeechTransformer
from mmjax.nn.embeddings import sines_and_cosines
from mmjax.nn.flops import transformer_flops
from mmjax.nn.mlp import gelu
from mmjax.nn.transformer import Transformer
from tests.models.random_params import random_params

CONFIG = SpeechConfig(width=8, depth=1, num_heads=2, mel_bins=5, frames=12)
MODEL = SpeechTransformer(CONFIG)
SOUND = np.random.default_rng(0).standard_normal((2, 12, 5)).astype(np.float32)


def slowly(params, x):
  """The stem by convolutions over time, as the paper has it."""
  for i, stride in enumerate((1, 2)):
    kernel = params[f"conv_{i}"]["kernel"].reshape(3, x.shape[-1], 8)
    numbers = ("NWC", "WIO", "NWC")
    x = lax.conv_general_dilated(x, kernel, (stride,), [(1, 1)], dimension_numbers=numbers)
    x = gelu(x + params[f"conv_{i}"]["bias"][None, None])
  x = x + params["fixed_positions"][None, : x.shape[1]]
  return Transformer(CONFIG).apply({"params": params["transformer"]}, x)[0]


@pytest.mark.parametrize("frames", [12, 7])
def test_it_is_two_convolutions_and_a_transformer(frames):
  params = random_params(MODEL, SOUND)
  encoded = jax.jit(MODEL.apply)({"params": params}, SOUND[:, :frames])
  expected = jax.jit(slowly)(params, SOUND[:, :frames])
  assert encoded.tokens.shape == (2, (frames + 1) // 2, 8) and bool(encoded.mask.all())
  np.testing.assert_allclose(encoded.tokens, expected, atol=1e-5)
  np.testing.assert_allclose(encoded.pooled, expected.mean(1), atol=1e-5)


def test_positions_are_fixed_and_keys_have_no_bias():
  params = jax.jit(MODEL.init)(jax.random.key(0), SOUND)["params"]
  np.testing.assert_array_equal(params["fixed_positions"], sines_and_cosines(6, 8))
  slopes = jax.jit(jax.grad(lambda p: MODEL.apply({"params": p}, SOUND).tokens.std()))(params)
  assert not np.any(slopes["fixed_positions"]) and np.any(slopes["conv_0"]["kernel"])
  attention = params["transformer"]["block_0"]["attention"]
  assert "bias" in attention["query"] and "bias" not in attention["key"]


def test_flops_are_those_of_the_convolutions_and_the_blocks():
  assert CONFIG.flops() == 2 * 12 * 15 * 8 + 2 * 6 * 24 * 8 + transformer_flops(CONFIG, 6)


def test_bad_sizes_are_refused():
  with pytest.raises(ValueError, match="clips have 13 frames of 5 frequencies, but the model takes at most frames=12"):
    MODEL.init(jax.random.key(0), np.zeros((1, 13, 5), np.float32))
  with pytest.raises(ValueError, match="12 frames of 4 frequencies"):
    MODEL.init(jax.random.key(0), np.zeros((1, 12, 4), np.float32))
  with pytest.raises(ValueError, match="frames=11 must be even"):
    SpeechConfig(frames=11)
  with pytest.raises(ValueError, match="mel_bins=0"):
    SpeechConfig(mel_bins=0)
