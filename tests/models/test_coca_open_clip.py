"""open_clip's CoCa: what reads what, and a cache that says the same. Parity with open_clip: tests/interop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.coca_open_clip import OpenClipCoca, OpenClipCocaConfig
from tests.models.decoders import (
  BATCH,
  IDS,
  IMAGE,
  REAL,
  TEXT,
  assert_close,
  assert_split_equals_whole,
  larger,
  stepwise,
)

QUERIES = dataclasses.replace(IMAGE, pool="queries", pool_queries=3, pool_width=8, pool_heads=2)
MODEL = OpenClipCoca(OpenClipCocaConfig(image=QUERIES, text=TEXT, multimodal_depth=1, embed_dim=4))


@functools.cache
def params():
  return larger(jax.jit(MODEL.init)(jax.random.key(0), BATCH)["params"])


def everything(model, batch):
  encoded = model.encode(batch)
  words = model.decode(batch["text"], encoded["image"], text=encoded["text"])
  return {**model.project(encoded), "words": words, "read": encoded["image"]}


def said(params, batch):
  return MODEL.apply({"params": params}, batch, method=everything)


run = jax.jit(said)


def test_words_see_neither_later_words_nor_the_class_token():
  out, later = run(params(), BATCH), run(params(), BATCH | {"text": IDS.at[:, 3].set(6)})
  np.testing.assert_array_equal(later["words"][:, :3], out["words"][:, :3])
  assert np.abs(later["text"] - out["text"])[0].max() > 1e-4  # the class token sees them all
  for name in ("class_token", "class_position"):
    other = run({**params(), name: -params()[name]}, BATCH)
    np.testing.assert_array_equal(other["words"], out["words"])
    assert np.abs(other["text"] - out["text"]).max() > 1e-4


def test_words_before_the_padding_see_none_of_it():
  out = run(params(), BATCH)
  table = params()["words"]["token_embedding"]
  words = {"position_embedding": params()["words"]["position_embedding"], "token_embedding": table.at[0].set(9.0)}
  other = run({**params(), "words": words}, BATCH)
  np.testing.assert_array_equal(np.asarray(other["words"])[REAL], np.asarray(out["words"])[REAL])


def test_cached_captions_follow_the_uncached_decoder():
  out = run(params(), BATCH)
  cached = stepwise(MODEL, params(), IDS, out["read"])
  np.testing.assert_allclose(cached[REAL], out["words"][REAL], rtol=0, atol=1e-5)


def test_split_over_eight_devices_it_is_the_same():
  assert_split_equals_whole(said, run(params(), BATCH), params(), BATCH)


def test_a_stack_scanned_over_layers_is_the_same():
  """With cross-attention as a block of its own, and its MLP."""
  scanned = OpenClipCoca(dataclasses.replace(MODEL.config, text=dataclasses.replace(TEXT, scan=True)))
  stacked = {
    name: {"blocks": jax.tree.map(lambda leaf: leaf[None], params()[name]["block_0"])}
    | {n: p for n, p in params()[name].items() if n != "block_0"}
    for name in ("unimodal", "multimodal")
  }
  out = jax.jit(lambda p: scanned.apply({"params": p}, BATCH, method=everything))({**params(), **stacked})
  assert_close(out["words"], run(params(), BATCH)["words"])
  assert jnp.isfinite(out["words"]).all()


def test_an_image_tower_that_open_clip_has_not_is_refused():
  with pytest.raises(ValueError, match='image.pool="mean" is not one of open_clip'):
    OpenClipCocaConfig(image=IMAGE)
