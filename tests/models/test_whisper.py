"""Whisper: what is written depends on the whole sound, with and without a cache, and no suppressed word is written."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import SpeechConfig
from mmjax.models import GenerateConfig, WhisperConfig
from mmjax.models.generate import generate
from tests.models.decoders import IDS, TEXT, stepwise
from tests.models.random_params import random_params

CONFIG = WhisperConfig(SpeechConfig(width=8, depth=1, num_heads=2, mel_bins=5, frames=8), TEXT, begin_id=2)
MODEL = CONFIG.build()
SOUND = jnp.asarray(np.random.default_rng(0).standard_normal((8, 8, 5)), jnp.float32)


@functools.cache
def params():
  return random_params(MODEL, {"audio": SOUND, "text": IDS})


@jax.jit
def run(params, sound):
  context = MODEL.apply({"params": params}, {"audio": sound}, method="encode")["audio"]
  return MODEL.apply({"params": params}, IDS, context, method="decode"), context


def test_cached_logits_are_the_uncached_and_the_sound_decides():
  out, context = run(params(), SOUND)
  np.testing.assert_allclose(stepwise(MODEL, params(), IDS, context), out, rtol=0, atol=1e-5)
  other, _ = run(params(), SOUND.at[0, 7].add(1.0))
  assert np.abs(other - out)[0].max() > 1e-5
  np.testing.assert_array_equal(other[1:], out[1:])


def written(**settings):
  context, prompt = run(params(), SOUND)[1], jnp.full((8, 1), CONFIG.begin_id, jnp.int32)
  config = GenerateConfig(max_new_tokens=3, **settings)
  return np.asarray(generate(MODEL, params(), prompt, context, config=config).ids)[:, 1:]


def test_suppressed_words_are_not_written():
  """What begins the first text begins no text; the word after it is in no text."""
  free = written()
  first, later = int(free[0, 0]), int(free[0, 1])
  for beams in (1, 3):
    bound = written(beams=beams, suppress=(later,), suppress_first=(first,))
    assert (bound != later).all() and (bound[:, 0] != first).all()


def test_a_begin_token_outside_of_the_vocabulary_is_refused():
  with pytest.raises(ValueError, match="begin_id=99 must lie in"):
    dataclasses.replace(CONFIG, begin_id=99)
