"""CoCa: what the words and the class token can and cannot see, and a unimodal half that runs once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ViTConfig
from mmjax.encoders.vit import ViT
from mmjax.models.coca import Coca, CocaConfig
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.nn.pooling import QueryPool
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

CONFIG = CocaConfig(image=IMAGE, text=TEXT, multimodal_depth=1, caption_queries=3, embed_dim=4)
MODEL = Coca(CONFIG)


@functools.cache
def params():
  return random_params(MODEL, BATCH)


def everything(model, batch):
  encoded = model.encode(batch)
  words = model.decode(batch["text"], encoded["image"], text=encoded["text"])
  return {**model.project(encoded), "words": words, "unimodal": encoded["text"], "read": encoded["image"]}


def said(params, batch):
  return MODEL.apply({"params": params}, batch, method=everything)


@jax.jit
def gradient(params, batch, weights):
  """Of the embeddings' and the captions' terms, weighted row by row; and everything that was said."""

  def loss(params):
    out = said(params, batch)
    terms = (out["image"] * out["text"]).sum(1), jax.nn.log_softmax(out["words"]).mean((1, 2))
    return (weights * jnp.stack(terms, 1)).sum(), out

  return jax.grad(loss, has_aux=True)(params)


def run(params, batch):
  return gradient(params, batch, jnp.ones((8, 2)))[1]


def test_words_see_neither_later_words_nor_the_class_token():
  out, later = run(params(), BATCH), run(params(), BATCH | {"text": IDS.at[:, 3].set(6)})
  np.testing.assert_array_equal(later["words"][:, :3], out["words"][:, :3])
  assert np.abs(later["text"] - out["text"])[0].max() > 1e-4  # the class token sees them all
  other = run({**params(), "class_token": -params()["class_token"]}, BATCH)
  np.testing.assert_array_equal(other["words"], out["words"])
  assert np.abs(other["text"] - out["text"]).max() > 1e-4


def test_the_first_half_sees_no_picture():
  out, other = run(params(), BATCH), run(params(), BATCH | {"image": -BATCH["image"]})
  assert_close((other["text"], other["unimodal"]), (out["text"], out["unimodal"]), 0)
  assert np.abs(other["words"] - out["words"])[0].max() > 1e-4


def test_padding_changes_nothing_and_neither_do_other_examples():
  out, order = run(params(), BATCH), jnp.asarray([2, 0, 3, 1, 7, 5, 6, 4])
  padded = {"image": BATCH["image"], "text": jnp.pad(IDS, ((0, 0), (0, 2)))}
  wide = jax.jit(said)(params(), jax.tree.map(lambda leaf: leaf[order], padded))
  assert_close((wide["text"], wide["image"]), (out["text"][order], out["image"][order]))
  assert_close(wide["words"][:, :6][REAL[order]], out["words"][order][REAL[order]])


def test_captions_read_the_caption_queries_and_comparison_reads_the_other():
  """The contrastive query's gradient comes from the embedding alone, the others' from the captions alone."""

  def used(*weights):
    grads, _ = gradient(params(), BATCH, jnp.tile(jnp.asarray(weights), (8, 1)))
    return (np.abs(grads["pool"]["probe"]).max(1) > 0).tolist()

  assert used(1.0, 0.0) == [False, False, False, True]
  assert used(0.0, 1.0) == [True, True, True, False]


@pytest.mark.parametrize("poolers", ["parallel", "cascade"])
def test_the_contrastive_pooler_reads_patches_or_what_the_captioning_pooler_gives(poolers):
  config = dataclasses.replace(CONFIG, poolers=poolers)
  model = Coca(config)
  params = random_params(model, BATCH)
  assert params["pool"]["probe"].shape == (3, TEXT.width) and params["contrastive_pool"]["probe"].shape == (
    1,
    TEXT.width,
  )

  def pool(params, name, count, tokens):
    return QueryPool(TEXT, count).apply({"params": params[name]}, tokens, None)

  def by_hand(params):
    patches = ViT(IMAGE).apply({"params": params["image"]}, BATCH["image"]).tokens
    captions = pool(params, "pool", 3, patches)
    return captions, pool(params, "contrastive_pool", 1, captions if poolers == "cascade" else patches)[:, 0]

  def encode(params):
    encoded = model.apply({"params": params}, {"image": BATCH["image"]}, method="encode")["image"]
    return encoded.tokens, encoded.pooled

  @jax.jit
  def run(params):
    total = lambda which: lambda params: (encode(params)[which] ** 3).sum()
    return encode(params), by_hand(params), [jax.grad(total(which))(params) for which in (0, 1)]

  got, want, gradients = run(params)
  assert_close(got, want)
  used = [[bool(np.abs(g[name]["probe"]).max() > 0) for name in ("pool", "contrastive_pool")] for g in gradients]
  assert used == [[True, False], [poolers == "cascade", True]]


def test_the_unimodal_half_is_reused():
  """decode of what encode gave costs the second half only, and says the same as decode from the start."""
  out = run(params(), BATCH)
  decode = lambda text: jax.jit(lambda p: MODEL.apply({"params": p}, IDS, out["read"], text=text, method="decode"))
  assert_close(decode(None)(params())[REAL], out["words"][REAL])
  flops = lambda fn: fn.lower(params()).cost_analysis()["flops"]
  first = jax.jit(lambda p: MODEL.apply({"params": p}, IDS, method="encode_words"))
  assert flops(decode(None)) - flops(decode(out["unimodal"])) == pytest.approx(flops(first), rel=0.02)


def test_cached_captions_and_generation_follow_the_uncached_decoder():
  out = run(params(), BATCH)
  image, words = out["read"], out["words"]
  cached = stepwise(MODEL, params(), IDS, image)
  np.testing.assert_allclose(cached[REAL], words[REAL], rtol=0, atol=1e-5)
  made = generate(MODEL, params(), IDS[:, :2], image, config=GenerateConfig(max_new_tokens=1, beams=2))
  real = np.asarray(IDS[:, 1] > 1)  # prompts of two words that have not ended
  np.testing.assert_array_equal(made.ids[real, 2], np.argmax(words[real, 1, 1:], axis=1) + 1)


def test_split_over_eight_devices_it_is_the_same_and_all_padding_is_finite():
  assert_split_equals_whole(said, run(params(), BATCH), params(), BATCH)


def test_a_pooling_image_tower_is_refused():
  with pytest.raises(ValueError, match='image.pool="map" would be left unused'):
    CocaConfig(image=ViTConfig(pool="map"))
