"""The two published parts of BLIP: what they see, and a cache that says the same; parity is in tests/interop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.blip_transformers import BlipCaptioner, BlipCaptionerConfig, BlipRetrieval, BlipRetrievalConfig
from tests.models.decoders import (
  BATCH,
  IDS,
  IMAGE,
  REAL,
  TEXT,
  assert_close,
  assert_split_equals_whole,
  stepwise,
)
from tests.models.random_params import random_params

TOWERS = dict(
  image=dataclasses.replace(IMAGE, pool="cls", class_position=True),
  text=dataclasses.replace(TEXT, norm="post", input_norm=True),
)
MODELS = {
  "retrieval": BlipRetrieval(BlipRetrievalConfig(**TOWERS, embed_dim=4)),
  "captioner": BlipCaptioner(BlipCaptionerConfig(**TOWERS)),
}


@functools.cache
def params(name):
  return random_params(MODELS[name], BATCH)


@functools.cache
def said(name):
  return jax.jit(lambda params, batch: MODELS[name].apply({"params": params}, batch))


@pytest.mark.parametrize("name", MODELS)
def test_split_over_eight_devices_it_is_the_same(name):
  assert_split_equals_whole(said(name), said(name)(params(name), BATCH), params(name), BATCH)


def test_embeddings_see_one_side_and_matching_sees_both_but_no_padding():
  run = functools.partial(said("retrieval"), params("retrieval"))
  out, other = run(BATCH), run(BATCH | {"image": -BATCH["image"]})
  np.testing.assert_array_equal(other["text"], out["text"])
  assert np.abs(other["match"] - out["match"]).max() > 1e-4
  padded = run({"image": BATCH["image"], "text": jnp.pad(IDS, ((0, 0), (0, 2)))})
  assert_close({n: padded[n] for n in ("text", "match")}, {n: out[n] for n in ("text", "match")})


def test_cached_captions_follow_the_uncached_decoder():
  model, weights = MODELS["captioner"], params("captioner")
  image = jax.jit(lambda p: model.apply({"params": p}, BATCH, method="encode"))(weights)["image"]
  words = said("captioner")(weights, BATCH)["words"]
  np.testing.assert_allclose(stepwise(model, weights, IDS, image)[REAL], words[REAL], rtol=0, atol=1e-5)
