"""BLIP: three modes of one text stack, what they share, and what each can and cannot see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models.blip import Blip, BlipConfig
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from tests.models.decoders import (
  BATCH,
  IDS,
  IMAGE,
  REAL,
  TEXT,
  assert_close,
  assert_split_equals_whole,
  rows,
  stepwise,
)
from tests.models.random_params import random_params

CONFIG = BlipConfig(image=IMAGE, text=TEXT, embed_dim=4)
MODEL = Blip(CONFIG)


@functools.cache
def params():
  return random_params(MODEL, BATCH)


def everything(model, batch):
  """Embeddings, matching logits of true and of shifted pairs, and captions."""
  encoded = model.encode(batch)
  image, text = encoded["image"], encoded["text"]
  others = rows(text, jnp.roll(jnp.arange(len(text.mask)), 1))
  true, false = model.fuse({"image": image, "text": text}), model.fuse({"image": image, "text": others})
  match = [model.match_logits(f["text"].pooled) for f in (true, false)]
  words = model.decode(batch["text"], image)
  return {**model.project(encoded), "match": match, "words": words, "grounded": true["text"].tokens, "read": image}


def said(params, batch):
  return MODEL.apply({"params": params}, batch, method=everything)


@jax.jit
def gradient(params, batch, weights):
  """Of the embeddings', the matching's and the captions' terms, weighted row by row; and everything that was said."""

  def loss(params):
    out = said(params, batch)
    match = out["match"][0][:, 1] - out["match"][1][:, 1]
    terms = (out["image"] * out["text"]).sum(1), match, jax.nn.log_softmax(out["words"]).mean((1, 2))
    return (weights * jnp.stack(terms, 1)).sum(), out

  return jax.grad(loss, has_aux=True)(params)


WEIGHTS = jnp.broadcast_to(jnp.asarray([1.0, 0.5, 2.0]), (8, 3))


def run(params, batch):
  return gradient(params, batch, WEIGHTS)[1]


def test_words_see_what_their_mode_lets_them_see():
  out = run(params(), BATCH)
  later = run(params(), BATCH | {"text": IDS.at[:, 3].set(6)})
  np.testing.assert_array_equal(later["words"][:, :3], out["words"][:, :3])  # causal
  assert np.abs(later["grounded"] - out["grounded"])[0, 0].max() > 1e-4  # bidirectional
  other = run(params(), BATCH | {"image": -BATCH["image"]})
  np.testing.assert_array_equal(other["text"], out["text"])  # unimodal
  for name in ("words", "grounded"):
    assert np.abs(other[name] - out[name])[0].max() > 1e-4


def test_padding_changes_nothing_and_neither_do_other_examples():
  out = run(params(), BATCH)
  padded = {"image": BATCH["image"], "text": jnp.pad(IDS, ((0, 0), (0, 2)))}
  order = jnp.asarray([2, 0, 3, 1, 7, 5, 6, 4])
  wide = jax.jit(said)(params(), jax.tree.map(lambda leaf: leaf[order], padded))
  assert_close((wide["text"], wide["match"][0]), (out["text"][order], out["match"][0][order]))
  for name in ("words", "grounded"):
    assert_close(wide[name][:, :6][REAL[order]], out[name][order][REAL[order]])


def test_self_attention_is_the_modes_own_and_the_rest_is_shared():
  block = params()["text"]["block_0"]
  assert set(block) == {"attention", "causal_attention", "cross_attention", "mlp", "norm1", "norm2", "norm_cross"}

  def used(term):
    grads, _ = gradient(params(), BATCH, jnp.zeros((8, 3)).at[:, term].set(1.0))
    touched = lambda tree: any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))
    names = {name for name, leaves in grads["text"]["block_0"].items() if touched(leaves)}
    return names, [touched(mode) for mode in grads["mode_embedding"]]

  alone = {"causal_attention", "cross_attention", "norm_cross"}
  assert used(0) == (set(block) - alone, [True, False, False])
  assert used(1) == (set(block) - {"causal_attention"}, [False, True, False])
  assert used(2) == (set(block) - {"attention"}, [False, False, True])


def test_cached_captions_and_generation_follow_the_uncached_decoder():
  out = run(params(), BATCH)
  image, words = out["read"], out["words"]
  np.testing.assert_allclose(stepwise(MODEL, params(), IDS, image), words, rtol=0, atol=1e-5)
  made = generate(MODEL, params(), IDS[:, :2], image, config=GenerateConfig(max_new_tokens=1))
  real = np.asarray(IDS[:, 1] > 1)  # prompts of two words that have not ended
  expected = np.argmax(words[:, 1, 1:], axis=1) + 1  # padding is never generated
  np.testing.assert_array_equal(made.ids[real, 2], expected[real])


def test_split_over_eight_devices_it_is_the_same_and_all_padding_is_finite():
  """The gradients of a split model are those of a training step: tests/train/test_meshes.py."""
  assert_split_equals_whole(said, run(params(), BATCH), params(), BATCH)
