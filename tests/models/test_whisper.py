"""Whisper: what is written depends on the whole sound, with and without a cache, and no suppressed word is written."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.encoders import SpeechConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import GenerateConfig, WhisperConfig
from mmjax.models.generate import generate
from mmjax.nn.embeddings import sines_and_cosines
from mmjax.objectives import TargetText
from mmjax.parallel.mesh import put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import prepare
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


def test_speech_recognition_is_trained_by_the_term_of_texts():
  """Four sounds have a word each. Who does not hear knows it at log 4, half of the tokens' mean."""
  experiment = Experiment(
    model=CONFIG,
    objectives=(TargetText(label_smoothing=0.0, source="audio"),),
    optimizer=OptimizerConfig(warmup_steps=1, schedule="constant", learning_rate=0.02),
    run=RunConfig(batch_size=8, steps=60),
  )
  run = prepare(experiment, devices=jax.devices()[:1])
  which, numbers = np.arange(8) % 4, np.arange(8, dtype=np.int32)
  audio = np.zeros((8, 8, 5), np.float32)
  audio[np.arange(8), :, which] = 1.0
  target = np.stack([np.full(8, 2), which + 3, np.ones(8), *np.zeros((3, 8))], axis=1).astype(np.int32)
  batch = {"audio": audio, "target": target, "index": numbers, "concept": numbers}
  state, losses = run.initial_state(), []
  for _ in range(60):
    state, metrics = run.step(state, put_batch(batch, run.mesh))
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.1 and max(losses) > np.log(4) / 2
  np.testing.assert_array_equal(state.params["audio"]["fixed_positions"], sines_and_cosines(4, 8))  # nor decayed
