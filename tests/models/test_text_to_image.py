"""Text to image: masks equal brute force, a cache changes nothing, and no code reads what comes after it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.conv_grid import ConvGridConfig
from mmjax.models.drawing import DrawConfig, draw
from mmjax.models.image_codes import ImageCodesConfig
from mmjax.models.quantizers import Fsq
from mmjax.models.sharding import SHARDING_RULES
from mmjax.models.text_to_image import TextToImageConfig, readable_pairs
from mmjax.nn.words import WordsConfig
from mmjax.objectives.terms.draw import drop_texts, hidden_codes
from mmjax.parallel.rules import match_rules

CONFIG = TextToImageConfig(
  text=WordsConfig(vocab_size=11, max_length=5, width=16, depth=2, num_heads=2, mlp_dim=16),
  image=ImageCodesConfig(ConvGridConfig(image_size=16, width=4), Fsq((3, 3))),
  patterns=("row",),
  last_pattern="convolution",
)
TEXT = jnp.asarray([[2, 5, 7, 1, 0], [2, 9, 1, 0, 0], [2, 4, 4, 8, 1]], jnp.int32)
CODES = jax.random.randint(jax.random.key(7), (3, 16), 0, 9)
KEYS = jax.random.split(jax.random.key(8), 3)
NONE = jnp.full((3, 16), -1, jnp.int32)


@functools.cache
def made(decoding="autoregressive"):
  """(module, parameters far from their initial values)."""
  config = CONFIG if decoding == "autoregressive" else dataclasses.replace(
    CONFIG, decoding="masked", patterns=("full",), last_pattern=None
  )  # fmt: skip
  module = config.build()
  params = jax.jit(lambda: module.init(jax.random.key(0), module.config.example(1))["params"])()
  return module, jax.tree.map(lambda leaf: 1.5 * leaf, params)


@functools.cache
def logits_of(decoding="autoregressive"):
  module, params = made(decoding)
  return jax.jit(lambda text, codes: module.apply({"params": params}, text, codes, method="draw_logits"))


def test_masks_equal_brute_force():
  words, grid, kernel = 3, 4, 3
  patterns = ("full", "row", "column", "convolution")
  found = readable_pairs(words, grid, patterns, kernel=kernel)
  for layer, pattern in enumerate(patterns):
    for i in range(words + grid**2):
      for j in range(words + grid**2):
        (row, column), (other_row, other_column) = divmod(i - words, grid), divmod(j - words, grid)
        near = {
          "full": True,
          "row": row == other_row,
          "column": column == other_column,
          "convolution": abs(row - other_row) <= 1 and abs(column - other_column) <= 1,
        }[pattern]
        allowed = j <= i and (i < words or j < words or near)
        assert found[layer, i, j] == allowed, (pattern, i, j)


@pytest.mark.parametrize("scan", [False, True])
def test_each_layer_reads_by_its_own_mask(scan):
  """A decoder with masks equals one whose attention is computed pair by pair."""
  from mmjax.nn.decoder import Decoder

  config = dataclasses.replace(CONFIG.text, depth=2, scan=scan)
  x = jax.random.normal(jax.random.key(9), (2, 6, 16))
  pairs = jax.random.bernoulli(jax.random.key(10), 0.6, (2, 6, 6)) | jnp.eye(6, dtype=bool)[None]
  module = Decoder(config)
  variables = module.init(jax.random.key(0), x, causal=True)
  apply = jax.jit(lambda x, pairs: module.apply(variables, x, causal=True, pairs=pairs)[0])
  before = apply(x, pairs)
  moved = [np.abs(np.asarray(apply(x.at[:, place, 0].add(1.0), pairs) - before))[0].max(-1) for place in range(6)]
  reached = np.stack(moved, 1) > 0
  causal = np.tril(np.ones((6, 6), bool))
  one, two = (np.asarray(layer) & causal for layer in pairs)
  np.testing.assert_array_equal(reached, (two.astype(int) @ one.astype(int)) > 0)
  np.testing.assert_allclose(apply(x, jnp.ones_like(pairs)), module.apply(variables, x, causal=True)[0], atol=1e-5)


def test_no_token_reads_what_comes_after_it():
  words, codes = logits_of()(TEXT, CODES)
  assert words.shape == (3, 5, 11) and codes.shape == (3, 16, 9) and codes.dtype == jnp.float32
  moved = logits_of()(TEXT, CODES.at[:, 6].set((CODES[:, 6] + 1) % 9))
  np.testing.assert_array_equal(moved[0], words)
  np.testing.assert_array_equal(moved[1][:, :7], codes[:, :7])
  assert np.abs(moved[1] - codes)[:, 7:].max() > 1e-3
  other_text = logits_of()(TEXT.at[:, 3].set(6), CODES)
  np.testing.assert_array_equal(other_text[0][:, :3], words[:, :3])
  assert np.abs(other_text[1] - codes).max(axis=(1, 2)).min() > 1e-3


def test_padding_has_a_vector_for_each_place():
  module, params = made()
  changed = {
    **params,
    "words": {**params["words"], "padding_embedding": params["words"]["padding_embedding"].at[4, 0].add(1)},
  }
  logits = jax.jit(lambda p: module.apply({"params": p}, TEXT, CODES, method="draw_logits")[1])
  difference = np.abs(logits(changed) - logits(params)).max(axis=(1, 2))
  assert (difference > 1e-4).tolist() == [True, True, False]  # the last text fills all places


def test_cached_logits_are_the_uncached():
  module, params = made()
  whole = logits_of()(TEXT, CODES)[1]
  begin = jax.jit(lambda: module.apply({"params": params}, TEXT, method="begin"))
  extend = jax.jit(lambda code, place, cache: module.apply({"params": params}, code, place, cache, method="extend"))
  logits, cache = begin()
  for place in range(16):
    np.testing.assert_allclose(logits, whole[:, place], rtol=0, atol=1e-5)
    logits, cache = extend(CODES[:, place], jnp.asarray(place), cache)


def test_likeliest_codes_follow_from_the_logits():
  """Drawing without randomness, with guidance, equals a loop over uncached logits."""
  module, params = made()
  codes = np.zeros((3, 16), np.int32)
  for place in range(16):
    given, without = (np.asarray(logits_of()(text, codes)[1])[:, place] for text in (TEXT, jnp.zeros_like(TEXT)))
    codes[:, place] = (without + 2.5 * (given - without)).argmax(-1)
  found = draw(module, params, TEXT, KEYS, NONE, config=DrawConfig(guidance=2.5, temperature=0.0))
  np.testing.assert_array_equal(found, codes)


@pytest.mark.parametrize("decoding", ["autoregressive", "masked"])
def test_a_drawing_depends_on_its_own_row_and_keeps_what_is_given(decoding):
  module, params = made(decoding)
  config = DrawConfig(guidance=2.0, steps=4, top_k=5)
  places = np.array([0, 1, 2, 3, 9, 15])
  begun = NONE.at[:, places].set(CODES[:, places])
  found = draw(module, params, TEXT, KEYS, begun, config=config)
  np.testing.assert_array_equal(found[:, places], CODES[:, places])
  assert found.shape == (3, 16) and found.min() >= 0 and found.max() < 9
  turned = draw(module, params, TEXT[::-1], KEYS[::-1], begun[::-1], config=config)
  np.testing.assert_array_equal(turned[::-1], found)
  other = draw(module, params, TEXT, jax.random.split(jax.random.key(99), 3), begun, config=config)
  assert (np.asarray(other) != np.asarray(found)).any()


def test_masked_decoding_in_one_step_takes_the_likeliest_code_of_each_place():
  module, params = made("masked")
  masked = jnp.full((3, 16), 9, jnp.int32)
  expected = jnp.argmax(logits_of("masked")(TEXT, masked)[1], -1)
  found = draw(module, params, TEXT, KEYS, NONE, config=DrawConfig(temperature=0.0, steps=1))
  np.testing.assert_array_equal(found, expected)
  changed = logits_of("masked")(TEXT, masked.at[:, 15].set(2))[1]
  assert np.abs(changed - logits_of("masked")(TEXT, masked)[1])[:, 0].max() > 1e-4  # reads later codes


def test_hidden_codes_follow_the_cosine():
  keys = jax.random.split(jax.random.key(11), 4000)
  counts = np.asarray(jax.jit(lambda keys: hidden_codes(keys, 64))(keys)).sum(1)
  assert counts.min() >= 1 and counts.max() == 64
  np.testing.assert_allclose(counts.mean() / 64, 2 / np.pi, atol=0.02)  # the mean of cos(pi r / 2)


def test_texts_are_dropped_whole_and_by_their_keys():
  keys = jax.random.split(jax.random.key(12), 1000)
  ids = jnp.tile(TEXT[:1], (1000, 1))
  found = np.asarray(drop_texts(ids, keys, rate=0.25, pad_id=0))
  gone = (found == 0).all(1)
  np.testing.assert_array_equal(found[~gone], np.asarray(ids)[~gone])
  assert abs(gone.mean() - 0.25) < 0.05


def test_every_parameter_has_a_place_and_the_tokenizer_is_frozen():
  _, params = made()
  match_rules(list(SHARDING_RULES), params, purpose="placement")
  assert set(params) == {"image", "words", "code_tokens", "decoder"} and CONFIG.frozen == ("^image/",)
  dalle = dataclasses.replace(CONFIG, text=WordsConfig(depth=6), patterns=("row", "column", "row", "row"))
  assert dalle.layer_patterns == ("row", "column", "row", "row", "row", "convolution")


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (dict(decoding="masked"), "masked decoding reads all codes"),
    (dict(kernel=2), "odd"),
    (dict(patterns=()), "at least one"),
    (dict(text=dataclasses.replace(CONFIG.text, positions="rotary")), "learned"),
  ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize("change", [dict(guidance=-1.0), dict(steps=0), dict(top_p=0.0), dict(temperature=-1.0)])
def test_bad_settings_of_drawing_are_refused(change):
  with pytest.raises(ValueError, match=next(iter(change))):
    DrawConfig(**change)
