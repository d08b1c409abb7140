"""Projector models: images take the places of words, later words read them, and bridges have their sizes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.blip2 import QFormerConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.interleaved import IMAGES
from mmjax.models.projector import LinearBridge, MlpBridge, ProjectorConfig, QFormerBridge
from mmjax.models.sharding import SHARDING_RULES
from mmjax.parallel.rules import match_rules
from tests.models.test_flamingo import CHUNK, IMAGE, VOCABULARY
from tests.models.test_flamingo import CONFIG as FLAMINGO

FORMER = QFormerConfig(width=8, depth=1, num_heads=2, queries=2)
CONFIG = ProjectorConfig(image=FLAMINGO.image, text=FLAMINGO.text, bridge=QFormerBridge(FORMER), images=2)
IDS = jnp.asarray(
  [[2, 4, IMAGE, IMAGE, 5, CHUNK, IMAGE, IMAGE, 6, 1], [2, IMAGE, IMAGE, 7, 9, 1, 0, 0, 0, 0]], jnp.int32
)
PIXELS = jax.random.normal(jax.random.key(3), (2, 2, 1, 8, 8, 3))


@functools.cache
def made():
  module = CONFIG.build()
  params = jax.jit(lambda: module.init(jax.random.key(0), CONFIG.example(1))["params"])()
  both = lambda m, ids, pixels: m.decode(ids, m.encode({IMAGES: pixels})[IMAGES])
  return module, params, jax.jit(lambda ids, pixels: module.apply({"params": params}, ids, pixels, method=both))


@functools.cache
def encoded():
  module, params, _ = made()
  return jax.jit(lambda params: module.apply({"params": params}, {IMAGES: PIXELS}, method="encode")[IMAGES])(params)


def test_images_take_the_places_of_words():
  """The logits are those of the language model on embeddings in which image tokens were replaced one by one."""
  _, params, said = made()
  images = np.asarray(encoded().tokens)
  assert images.shape == (2, 4, 16)
  table = np.concatenate([params["language"]["words"]["token_embedding"], params["token_embedding"]])
  x = table[np.asarray(IDS)]
  for row, ids in enumerate(np.asarray(IDS)):
    for number, place in enumerate(np.flatnonzero(ids == IMAGE)):
      x[row, place] = images[row, number]
  language = GptConfig(CONFIG.text.language).build()

  def through(m, x):
    tokens, _ = m.decoder(m.words.placed(x), causal=True)
    return m.words.logits(tokens)

  expected = jax.jit(lambda p, x: language.apply({"params": p}, x, method=through))(params["language"], jnp.asarray(x))
  found = said(IDS, PIXELS)
  np.testing.assert_allclose(found[..., :VOCABULARY], expected, rtol=0, atol=1e-5)
  assert (found[..., IMAGE] == np.finfo(np.float32).min).all()


def test_words_without_images_are_those_of_the_language_model_to_the_bit():
  _, params, said = made()
  words = jnp.where(IDS < VOCABULARY, IDS, 5)
  alone = jax.jit(lambda p: GptConfig(CONFIG.text.language).build().apply({"params": p}, words, None, method="decode"))
  np.testing.assert_array_equal(said(words, PIXELS)[..., :VOCABULARY], alone(params["language"]))


def test_nothing_reads_a_later_word_or_image():
  _, _, said = made()
  before = said(IDS, PIXELS)
  moved = np.abs(said(IDS, PIXELS.at[:, 1].add(1.0)) - before).max(-1)
  assert (moved[0, :6] == 0).all() and (moved[0, 6:] > 0).all() and (moved[1] == 0).all()
  np.testing.assert_array_equal(said(IDS.at[:, 8].set(3), PIXELS)[:, :8], before[:, :8])
  assert np.abs(said(IDS, PIXELS.at[:, 0].add(1.0)) - before)[0, 9].max() > 1e-5  # earlier images stay readable


def test_cached_logits_are_the_uncached():
  module, params, said = made()
  context = encoded()
  step = jax.jit(lambda i, c, cache: module.apply({"params": params}, i, c, cache=cache, method="decode"))
  first, cache = step(IDS[:, :8], context, module.empty_cache(2, 10))
  rest, _ = step(IDS[:, 8:], None, cache)
  np.testing.assert_allclose(np.concatenate([first, rest], 1), said(IDS, PIXELS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("bridge", "places", "names"),
  [
    (LinearBridge(), 4, {"projection"}),
    (MlpBridge(), 4, {"projection", "hidden_projection"}),
    (MlpBridge(hidden=6), 4, {"projection", "hidden_projection"}),
    (QFormerBridge(FORMER), 2, {"projection", "former"}),
  ],
)
def test_bridges_have_their_parameters_and_numbers_of_tokens(bridge, places, names):
  config = dataclasses.replace(CONFIG, bridge=bridge)
  params = jax.eval_shape(config.build().init, jax.random.key(0), config.example(1))["params"]
  assert set(params["bridge"]) == names and config.places == places
  assert params["bridge"]["projection"]["kernel"].shape[1] == 16
  if getattr(bridge, "hidden", 0):
    assert params["bridge"]["hidden_projection"]["kernel"].shape == (8, 6)
  match_rules(list(SHARDING_RULES), params, purpose="placement")


def test_videos_are_refused():
  with pytest.raises(ValueError, match="frames=2 must be 1"):
    dataclasses.replace(CONFIG, frames=2)
