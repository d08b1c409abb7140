"""BLIP-2's captioner: what is written reads the image, with and without a cache; parity is in tests/interop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, RunConfig
from mmjax.models.blip2 import QFormerConfig
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.models.protocols import Fuses, missing
from mmjax.objectives import AnswerText, Caption
from mmjax.parallel.mesh import put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import prepare
from tests.models.decoders import BATCH, IDS, IMAGE, TEXT, assert_split_equals_whole, stepwise
from tests.models.random_params import random_params

CLS = dataclasses.replace(IMAGE, pool="cls", class_position=True)
QUERIES = QFormerConfig(width=12, depth=1, num_heads=2, mlp_dim=12, queries=3)
T5 = dataclasses.replace(TEXT, positions="none", relative_buckets=4, relative_distance=5)
CONFIGS = {
  "opt": Blip2CaptionerConfig(CLS, QUERIES, dataclasses.replace(TEXT, padding_positions=2)),
  "t5": Blip2CaptionerConfig(CLS, QUERIES, T5, encoder_depth=1, begin_id=0),
}
MODELS = {name: config.build() for name, config in CONFIGS.items()}


@functools.cache
def params(name):
  return random_params(MODELS[name], BATCH)


def _both(model, batch):
  encoded = model.encode(batch)
  context = encoded["image"] if "text" not in encoded else model.fuse(encoded)["text"]
  return model.decode(IDS, context), context


@functools.cache
def said(name):
  return jax.jit(lambda params, batch: MODELS[name].apply({"params": params}, batch, method=_both))


@pytest.mark.parametrize("name", MODELS)
def test_cached_texts_follow_the_uncached_decoder_and_the_image_decides(name):
  model, weights = MODELS[name], params(name)
  words, context = said(name)(weights, BATCH)
  np.testing.assert_allclose(stepwise(model, weights, IDS, context), words, rtol=0, atol=1e-5)
  other, _ = said(name)(weights, BATCH | {"image": BATCH["image"].at[0].add(1.0)})
  assert np.abs(other - words)[0].max() > 1e-4
  np.testing.assert_array_equal(other[1:], words[1:])


@pytest.mark.parametrize("name", MODELS)
def test_one_beam_is_greedy_and_more_are_no_worse(name):
  _, context = said(name)(params(name), BATCH)
  prompt = jnp.full((8, 1), 2, jnp.int32)
  run = lambda **fields: generate(
    MODELS[name], params(name), prompt, context, config=GenerateConfig(max_new_tokens=4, **fields)
  )
  assert (np.asarray(run(beams=3).score) >= np.asarray(run().score) - 1e-5).all()


def test_split_over_eight_devices_it_is_the_same():
  model = MODELS["t5"]
  words = jax.jit(lambda params, batch: model.apply({"params": params}, batch))
  assert_split_equals_whole(words, words(params("t5"), BATCH), params("t5"), BATCH)


def test_without_an_image_nothing_is_written():
  for name, model in MODELS.items():
    apply = functools.partial(model.apply, {"params": params(name)}, IDS, None, method="decode")
    for cache in (None, model.empty_cache(8, 7)):
      with pytest.raises(ConfigError, match="BLIP-2 writes of an image"):
        jax.eval_shape(lambda apply=apply, cache=cache: apply(cache=cache))


def test_only_an_encoder_reads_questions():
  assert missing(MODELS["opt"], Fuses) == ["fuse"] and not missing(MODELS["t5"], Fuses)
  assert "query_position" not in params("t5") and params("opt")["query_position"].shape == (3, 16)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_trained_by_the_terms_of_texts(name):
  term = Caption() if name == "opt" else AnswerText()
  experiment = Experiment(
    model=CONFIGS[name],
    objectives=(term,),
    optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=1, schedule="constant"),
    run=RunConfig(batch_size=8, steps=40),
  )
  training = prepare(experiment, devices=jax.devices()[:1])
  numbers = np.arange(8, dtype=np.int32)
  batch = jax.tree.map(np.asarray, BATCH) | {"answer_text": np.asarray(IDS), "index": numbers, "concept": numbers}
  state, losses = training.initial_state(), []
  for _ in range(40):
    state, metrics = training.step(state, put_batch(batch, training.mesh))
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(text=dataclasses.replace(TEXT, positions="none")), "needs positions=\"learned\", not 'none'"),
    (dict(text=dataclasses.replace(TEXT, embedding_dim=4)), "set embedding_dim=None"),
    (dict(begin_id=11), r"begin_id=11 must lie in \[0, vocab_size=11\)"),
    (dict(encoder_depth=-1), "encoder_depth=-1 must not be negative"),
  ],
)
def test_bad_settings_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(CONFIGS["opt"], **fields)
