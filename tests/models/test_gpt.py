"""GPT: no word knows what follows it, one table embeds and scores, and a cache changes nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.models.gpt import Gpt, GptConfig
from mmjax.models.sharding import SHARDING_RULES
from mmjax.nn.cache import rewind
from mmjax.nn.words import WordsConfig
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings
from tests.models.decoders import stepwise
from tests.models.random_params import random_params

CONFIG = GptConfig(WordsConfig(vocab_size=11, max_length=8, width=16, depth=2, num_heads=2, mlp_dim=16))
MODEL = Gpt(CONFIG)
IDS = jnp.asarray([[2, 5, 7, 3, 1, 0], [2, 9, 1, 0, 0, 0], [2, 4, 4, 8, 10, 1], [0, 0, 0, 0, 0, 0]], jnp.int32)


@functools.cache
def params():
  return jax.jit(MODEL.init)(jax.random.key(0), {"text": IDS})["params"]


decode = jax.jit(lambda params, ids: MODEL.apply({"params": params}, ids, method="decode"))


def test_a_later_word_moves_no_earlier_logit():
  logits, moved = decode(params(), IDS), decode(params(), IDS.at[:, 3].set(6))
  np.testing.assert_array_equal(moved[:, :3], logits[:, :3])
  assert np.abs(moved - logits)[0, 3:].min(axis=1).max() > 1e-4
  assert logits.dtype == jnp.float32 and logits.shape == (4, 6, 11)


def test_the_table_embeds_and_scores():
  assert set(params()) == {"words", "decoder"}
  assert set(params()["words"]) == {"token_embedding", "position_embedding"}
  bigger = jax.tree.map(lambda p: p, params())
  bigger["words"]["token_embedding"] = params()["words"]["token_embedding"].at[10].multiply(3.0)
  row = slice(0, 2)  # texts without the word 10
  np.testing.assert_allclose(decode(bigger, IDS)[row, :, 10], 3 * decode(params(), IDS)[row, :, 10], rtol=1e-4)
  np.testing.assert_array_equal(decode(bigger, IDS)[row, :, :10], decode(params(), IDS)[row, :, :10])


def test_cached_logits_are_the_uncached():
  step = jax.jit(lambda ids, cache: MODEL.apply({"params": params()}, ids, cache=cache, method="decode"))
  cache, parts = MODEL.empty_cache(4, 8), []
  for ids in (IDS[:, :2], IDS[:, 2:3], IDS[:, 3:4], IDS[:, 4:5], IDS[:, 5:]):
    logits, cache = step(ids, cache)
    parts.append(logits)
  np.testing.assert_allclose(jnp.concatenate(parts, 1), decode(params(), IDS), rtol=0, atol=1e-5)


def test_a_context_is_refused():
  """The term TargetText would otherwise train it without its input."""
  encoded = jax.eval_shape(lambda p: MODEL.apply({"params": p}, {"text": IDS}, method="encode"), params())["text"]
  with pytest.raises(ConfigError, match="a GPT reads no other text and no image"):
    jax.eval_shape(lambda p, e: MODEL.apply({"params": p}, IDS, e, method="decode"), params(), encoded)


def test_encode_pools_the_end_token():
  encoded = jax.jit(lambda p: MODEL.apply({"params": p}, {"text": IDS}, method="encode"))(params())["text"]
  np.testing.assert_array_equal(encoded.pooled[:3], encoded.tokens[jnp.arange(3), jnp.asarray([4, 2, 5])])
  np.testing.assert_array_equal(encoded.mask, IDS != 0)


def test_split_over_eight_devices_it_is_the_same():
  """Batch over four, heads and widths over two; the gradient too, with a text that is all padding."""
  ids = jnp.concatenate([IDS, IDS])
  loss = lambda params, ids: jnp.square(jax.nn.log_softmax(decode(params, ids))).mean()
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  shardings = parameter_shardings(SHARDING_RULES, params(), mesh)
  assert "model" in str(shardings["decoder"]["block_0"]["attention"]["query"]["kernel"].spec)
  split = jax.jit(jax.value_and_grad(loss), in_shardings=(shardings, batch_sharding(mesh)))(params(), ids)
  whole = jax.jit(jax.value_and_grad(loss))(params(), ids)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), split, whole)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))


def test_what_does_not_fit_is_named():
  with pytest.raises(ValueError, match="9 tokens, more than max_length=8"):
    decode(params(), jnp.ones((1, 9), jnp.int32))
  with pytest.raises(ValueError, match="cache of 9 tokens is more than max_length=8"):
    MODEL.empty_cache(1, 9)
  with pytest.raises(ValueError, match="eos_id=11"):
    WordsConfig(vocab_size=11, eos_id=11)


def test_the_options_of_llama():
  """A cache, whose rows begin at positions of their own, changes nothing. Words are told apart by their distance."""
  options = dict(positions="rotary", rotary_temperature=50.0, tied=False, rms_norm=True, mlp_gated=True, depth=1)
  options |= dict(linear_bias=False, attention_bias="only", num_heads=4, key_heads=2, head_dim=6)
  model = Gpt(GptConfig(dataclasses.replace(CONFIG.text, **options)))
  params = jax.jit(model.init)(jax.random.key(0), {"text": IDS})["params"]
  attention = jax.tree.map(jnp.shape, params["decoder"]["block_0"]["attention"])
  assert attention["key"] == {"kernel": (16, 12), "bias": (12,)} and attention["out"] == {"kernel": (24, 16)}
  assert set(params["words"]) == {"token_embedding", "output_embedding"}
  run = jax.jit(lambda p, ids, cache=None: model.apply({"params": p}, ids, cache=cache, method="decode"))
  whole = run(params, IDS)
  _, cache = run(params, IDS[:, :3], model.empty_cache(4, 8))
  assert cache.layers[0].own.key.shape == (4, 2, 8, 6)
  length = jnp.asarray([3, 2, 1, 3])
  places = jnp.arange(4)[:, None], length[:, None] + jnp.arange(2)[None]
  logits, _ = run(params, IDS[places], rewind(cache, length))
  np.testing.assert_allclose(logits, whole[places], atol=1e-5)
  swapped = run(params, IDS.at[0, :2].set(IDS[0, 1::-1]))
  assert np.abs(swapped - whole)[0, 3:].max() > 1e-4
  words = params["words"] | {"output_embedding": params["words"]["output_embedding"].at[10].multiply(3.0)}
  np.testing.assert_allclose(run(params | {"words": words}, IDS)[..., 10], 3 * whole[..., 10], rtol=1e-4)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(key_heads=3), "key_heads=3 must divide num_heads=4"),
    (dict(head_dim=3, positions="rotary"), "the width of a head .* must be even"),
  ],
)
def test_heads_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    WordsConfig(width=16, num_heads=4, **change)


def test_embeddings_of_another_dimension_are_mapped_both_ways():
  """OPT-350M: the table has 4 dimensions, the transformer 16."""
  model = Gpt(GptConfig(dataclasses.replace(CONFIG.text, embedding_dim=4)))
  weights = random_params(model, {"text": IDS})
  words = weights["words"]
  assert words["token_embedding"].shape == (11, 4) and words["output_projection"]["kernel"].shape == (16, 4)
  out = jax.jit(lambda p: model.apply({"params": p}, IDS, method="decode"))(weights)
  np.testing.assert_allclose(stepwise(model, weights, IDS, None), out, rtol=0, atol=1e-5)
  low = dataclasses.replace(model.config.text, dtype="bfloat16")
  shapes = jax.eval_shape(Gpt(GptConfig(low)).init_with_output, jax.random.key(0), {"text": IDS})
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
