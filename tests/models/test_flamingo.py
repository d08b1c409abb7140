"""Flamingo: masks equal brute force, closed gates change nothing, and no token reads what it may not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ViTConfig
from mmjax.errors import ConfigError
from mmjax.models.flamingo import FlamingoConfig
from mmjax.models.generate import generate
from mmjax.models.gpt import GptConfig
from mmjax.models.interleaved import IMAGES, InterleavedWordsConfig
from mmjax.models.next_word import GenerateConfig
from mmjax.models.sharding import SHARDING_RULES
from mmjax.nn.gated_cross import GatedCrossBlock, last_image_mask
from mmjax.nn.resampler import Resampler
from mmjax.nn.transformer import TransformerConfig
from mmjax.parallel.rules import match_rules

VOCABULARY, IMAGE, CHUNK = 12, 12, 13
CONFIG = FlamingoConfig(
  image=ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2),
  text=InterleavedWordsConfig(
    vocab_size=VOCABULARY + 2, max_length=10, image_id=IMAGE, width=16, depth=3, num_heads=2, mlp_dim=16
  ),
  resampler=TransformerConfig(width=12, depth=1, num_heads=2, linear_bias=False),
  latents=2,
  images=3,
  cross_every=2,
  cross_heads=2,
  cross_head_dim=8,
)
# Words, images (12), ends of texts (13) and padding (0); the rows see 2, 3, 0 and 1 images.
IDS = jnp.asarray(
  [
    [2, 4, IMAGE, 5, CHUNK, IMAGE, 6, 7, 1, 0],
    [2, IMAGE, IMAGE, 9, 4, CHUNK, IMAGE, 8, 3, 1],
    [2, 8, 8, 3, 1, 0, 0, 0, 0, 0],
    [2, 3, 4, 5, IMAGE, 6, CHUNK, 1, 0, 0],
  ],
  jnp.int32,
)
PIXELS = jax.random.normal(jax.random.key(3), (4, 3, 1, 8, 8, 3))


@functools.cache
def made():
  """(module, random parameters with closed gates, with open gates)."""
  module = CONFIG.build()
  closed = jax.jit(lambda: module.init(jax.random.key(0), CONFIG.example(1))["params"])()
  opened = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full_like(leaf, 0.7) if path[-1].key.endswith("_gate") else 1.5 * leaf, closed
  )
  return module, closed, opened


@functools.cache
def program():
  module = made()[0]
  return jax.jit(
    lambda params, ids, pixels: module.apply(
      {"params": params},
      ids,
      pixels,
      method=lambda m, ids, pixels: m.decode(ids, m.encode({IMAGES: pixels})[IMAGES]),
    )
  )


@functools.cache
def encoded():
  """PIXELS, encoded with the opened gates."""
  module, _, params = made()
  return jax.jit(lambda params: module.apply({"params": params}, {IMAGES: PIXELS}, method="encode")[IMAGES])(params)


def said(ids=IDS, pixels=PIXELS, params=None):
  return np.asarray(program()(made()[2] if params is None else params, ids, pixels))


def test_a_word_reads_the_last_image_before_it():
  seen = np.cumsum(np.asarray(IDS) == IMAGE, axis=1)
  found = np.asarray(last_image_mask(jnp.asarray(seen), images=3, tokens=2))
  for row, ids in enumerate(np.asarray(IDS)):
    for place in range(len(ids)):
      images = [number for number in range(place + 1) if ids[number] == IMAGE]
      for key in range(6):
        allowed = bool(images) and key // 2 == len(images) - 1
        assert found[row, place, key] == allowed, (row, place, key)


def test_with_closed_gates_the_logits_are_those_of_the_language_model_to_the_bit():
  _, closed, opened = made()
  language = GptConfig(CONFIG.text.language).build()
  words = jnp.where(IDS < VOCABULARY, IDS, 5)
  alone = jax.jit(lambda p: language.apply({"params": p}, words, None, method="decode"))(closed["language"])
  logits = said(words, PIXELS, closed)
  np.testing.assert_array_equal(logits[..., :VOCABULARY], alone)
  assert (logits[..., IMAGE] == np.finfo(np.float32).min).all() and np.isfinite(logits[..., CHUNK]).all()
  assert (said(IDS, PIXELS, closed)[:, :1, :VOCABULARY] == alone[:, :1]).all()
  assert np.abs(said(words, PIXELS, opened) - logits)[..., :VOCABULARY].max() > 1e-3


def test_no_word_reads_a_later_word_or_image():
  before = said()
  later = said(IDS.at[:, 6].set(10))
  np.testing.assert_array_equal(later[:, :6], before[:, :6])
  assert np.abs(later - before)[:, 6:].max() > 1e-3
  for image, first in ((0, (2, 1, 10, 4)), (1, (5, 2, 10, 10)), (2, (10, 6, 10, 10))):
    moved = np.abs(said(pixels=PIXELS.at[:, image].add(1.0)) - before).max(-1)
    for row, place in enumerate(first):
      assert (moved[row, :place] == 0).all(), (image, row)
      assert place == 10 or moved[row, place] > 1e-4, (image, row)


@functools.cache
def layer():
  """A gated block with open gates, and what it makes of images."""
  block = GatedCrossBlock(dataclasses.replace(CONFIG.cross, depth=1))
  x, images = jax.random.normal(jax.random.key(4), (1, 5, 16)), jax.random.normal(jax.random.key(5), (1, 6, 12))
  readable = last_image_mask(jnp.array([[0, 1, 1, 2, 3]]), images=3, tokens=2)
  params = block.init(jax.random.key(6), x, images, readable)["params"]
  params = params | {"attention_gate": jnp.array(0.5), "mlp_gate": jnp.array(0.5)}
  return jax.jit(lambda x, images: block.apply({"params": params}, x, images, readable)[0]), x, images


def test_gradients_to_images_that_are_not_the_last_are_zero_at_the_layer():
  apply, x, images = layer()
  jacobian = np.asarray(jax.jacrev(lambda images: apply(x, images).sum(-1)[0])(images))[:, 0]  # [words, image tokens]
  reached = (np.abs(jacobian).max(-1) > 0).reshape(5, 3, 2).all(-1)
  np.testing.assert_array_equal(reached, [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
  assert (jacobian[~np.repeat(reached, 2, axis=1)] == 0).all()


def test_words_before_any_image_read_zeros():
  apply, x, images = layer()
  np.testing.assert_array_equal(apply(x, images)[:, 0], apply(x, 100.0 * images)[:, 0])
  text_alone = said(IDS[2:3].repeat(4, 0))
  np.testing.assert_array_equal(text_alone[0], text_alone[3])  # without an image token, images do not matter


def test_cached_logits_are_the_uncached_with_images_on_the_way():
  module, _, params = made()
  context = encoded()
  step = jax.jit(
    lambda ids, context, cache: module.apply({"params": params}, ids, context, cache=cache, method="decode")
  )
  cache, parts = module.empty_cache(4, 10), []
  for first, last in ((0, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)):
    logits, cache = step(IDS[:, first:last], None if first else context, cache)
    parts.append(logits)
  np.testing.assert_allclose(np.concatenate(parts, 1), said()[:, :8], rtol=0, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 2])
def test_generation_with_images_follows_from_the_logits(beams):
  module, _, params = made()
  context = encoded()
  prompt = jnp.asarray([[2, 4, IMAGE, 5, 0], [2, IMAGE, IMAGE, 9, 4], [2, 8, 0, 0, 0], [2, 3, 4, 5, IMAGE]], jnp.int32)
  config = GenerateConfig(max_new_tokens=3, beams=beams)
  found = np.asarray(generate(module, params, prompt, context, config=config).ids)
  assert (found != IMAGE).sum() == (found.size - (np.asarray(prompt) == IMAGE).sum())  # no image is written
  if beams == 1:
    lengths, ids = [4, 5, 2, 5], np.pad(np.asarray(prompt), ((0, 0), (0, 5)))
    for row, length in enumerate(lengths):
      for place in range(length, length + 3):
        logits = said(jnp.asarray(ids))[row, place - 1].copy()
        logits[0] = -np.inf
        ids[row, place] = logits.argmax()
        if ids[row, place] == 1:
          break
    np.testing.assert_array_equal(found, ids[:, :8])


def test_frames_of_a_video_have_times_and_padding_is_not_read():
  module = Resampler(TransformerConfig(width=8, depth=1, num_heads=2), latents=3, frames=3)
  x = jax.random.normal(jax.random.key(7), (2, 3, 4, 6))
  mask = jnp.ones((2, 3, 4), bool).at[1, 2].set(False)
  params = module.init(jax.random.key(8), x, mask)["params"]
  params = params | {"time_embedding": jax.random.normal(jax.random.key(9), (3, 8))}
  apply = jax.jit(lambda x: module.apply({"params": params}, x, mask))
  whole = apply(x)
  assert whole.shape == (2, 3, 8) and np.abs(apply(x[:, ::-1]) - whole)[0].max() > 1e-3  # order matters
  np.testing.assert_array_equal(apply(x.at[:, 2].add(5.0))[1], whole[1])
  assert np.abs(apply(x.at[:, 2].add(5.0)) - whole)[0].max() > 1e-3
  with pytest.raises(ValueError, match="4 frames, more than frames=3"):
    module.apply({"params": params}, jnp.ones((1, 4, 4, 6)), None)


def test_only_new_parts_are_trained_and_every_parameter_has_a_place():
  _, closed, _ = made()
  assert set(closed) == {"image", "language", "token_embedding", "resampler", "cross_0", "cross_1"}
  assert closed["token_embedding"].shape == (2, 16) and CONFIG.frozen == ("^image/", "^language/")
  assert closed["language"]["words"]["token_embedding"].shape == (VOCABULARY, 16)
  match_rules(list(SHARDING_RULES), closed, purpose="placement")
  frozen = jax.grad(lambda p: said_sum(p))(closed)
  assert not np.abs(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(frozen["image"])])).any()


def said_sum(params):
  return program()(params, IDS, PIXELS)[..., :VOCABULARY].sum()


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (lambda: dataclasses.replace(CONFIG, latents=0), "latents=0"),
    (lambda: dataclasses.replace(CONFIG, images=0), "images=0"),
    (lambda: dataclasses.replace(CONFIG.text, new_tokens=0), "new_tokens=0"),
  ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
  with pytest.raises(ValueError, match=said):
    change()


def test_a_context_of_other_images_is_refused():
  module, _, params = made()
  context = encoded()
  cut = dataclasses.replace(context, tokens=context.tokens[:, :3])
  with pytest.raises(ConfigError, match="3 tokens, which are no images of latents=2"):
    module.apply({"params": params}, IDS, cut, method="decode")
