"""Recommender: embedding bags, and two towers over ids, texts, images and tables."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import EmbeddingBagConfig, FTTransformerConfig, TextConfig, ViTConfig
from mmjax.errors import ConfigError
from mmjax.models import RecommenderConfig
from mmjax.objectives import SampledSoftmax

IDS = jnp.asarray([[2, 5, 0], [3, 3, 6], [0, 0, 0], [1, 0, 0]], jnp.int32)
BAG = EmbeddingBagConfig(width=4, length=3, names=5)
TINY = dict(width=8, depth=1, num_heads=2, mlp_dim=8)


@pytest.fixture(scope="module")
def params():
  drawn = jax.jit(BAG.build().init)(jax.random.key(0), IDS)["params"]
  assert not drawn["token_embedding"][:2].any()  # padding and unknown names
  return dict(drawn) | {"place_bias": jnp.asarray([0.5, -1.0, 0.0])}


def test_a_bag_is_a_weighted_mean_of_what_is_no_padding(params):
  encoded = BAG.build().apply({"params": params}, IDS)
  table, weights = np.asarray(params["token_embedding"]), np.exp([0.5, -1.0, 0.0])
  want = [
    (weights[0] * table[2] + weights[1] * table[5]) / weights[:2].sum(),
    (weights[0] * table[3] + weights[1] * table[3] + weights[2] * table[6]) / weights.sum(),
    np.zeros(4),
    np.zeros(4),
  ]
  np.testing.assert_allclose(encoded.pooled, want, rtol=1e-5, atol=1e-7)
  assert encoded.mask.tolist() == (np.asarray(IDS) != 0).tolist()


def test_dropped_ids_are_unknown_and_depend_on_the_example_alone(params):
  dropping = dataclasses.replace(BAG, id_dropout=0.5, dropout=0.25).build()
  rows, keys = jnp.tile(IDS[1:2], (400, 1)), jax.random.split(jax.random.key(1), 400)
  encode = jax.jit(lambda rows, keys: dropping.apply({"params": params}, rows, rng=keys))
  found = encode(rows, keys)
  gone = (np.asarray(found.tokens) == 0).all(axis=2).mean()
  assert 0.45 < gone < 0.55 and found.mask.all()
  backwards = encode(rows[::-1], keys[::-1])
  np.testing.assert_array_equal(found.pooled, backwards.pooled[::-1])
  assert EmbeddingBagConfig().fitted({"ids": ["a", "b"]}).names == 2


def test_users_and_items_are_encoded_from_all_their_arrays_and_the_second_item_like_the_first():
  towers = {
    "history": EmbeddingBagConfig(width=8, length=3, names=5),
    "profile": FTTransformerConfig(**TINY, numeric=1, categories=(2,)),
    "item": EmbeddingBagConfig(width=8, names=5),
    "text": TextConfig(**TINY, vocab_size=9, max_length=4, eos_id=1),
    "image": ViTConfig(**TINY, image_size=8, patch_size=4),
  }
  config = RecommenderConfig(towers=towers, of_user=("history", "profile"), embed_dim=4)
  rng = np.random.default_rng(0)
  batch = {
    "history": IDS,
    "profile": jnp.asarray(rng.normal(size=(4, 2, 2)), jnp.float32),
    "item": jnp.asarray([[2], [3], [4], [5]], jnp.int32),
    "text": jnp.asarray(rng.integers(2, 9, (4, 4)), jnp.int32),
    "image": jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.float32),
  }
  second = {f"{name}2": batch[name][::-1] for name in ("item", "text", "image")}
  model = config.build()
  params = jax.jit(model.init)(jax.random.key(0), {**batch, **second})["params"]
  assert set(params) == {"user", "item", "user_projection", "item_projection", "logit_scale"}
  assert set(params["item"]) == {"item", "text", "image"}
  embed = jax.jit(lambda batch: model.apply({"params": params}, batch))
  found = embed({**batch, **second})
  assert set(found) == {"user", "item", "item2"} and found["item"].shape == (4, 4)
  np.testing.assert_allclose(found["item2"], found["item"][::-1], rtol=1e-5, atol=1e-6)
  for name in batch:
    side = "user" if name in config.of_user else "item"
    changed = embed({**batch, **second, name: batch[name][::-1]})
    assert np.abs(np.asarray(changed[side] - found[side])).max() > 1e-3, name
  alone = jax.eval_shape(lambda: model.apply({"params": params}, {name: batch[name] for name in config.of_user}))
  assert set(alone) == {"user"}
  with pytest.raises(
    ValueError, match="the tower of the item reads item, text, image, and the batch lacks text2, image2"
  ):
    jax.eval_shape(lambda: model.apply({"params": params}, {"item2": batch["item"]}))


def test_settings_that_do_not_fit_are_named():
  with pytest.raises(ValueError, match=r"of_user=\('histori',\) must name some of the towers, not all: there are hist"):
    RecommenderConfig(of_user=("histori",))
  with pytest.raises(ValueError, match="must name some of the towers, not all"):
    RecommenderConfig(of_user=("history", "item"))
  with pytest.raises(ConfigError, match="reads history, and the model encodes 'item' too"):
    SampledSoftmax(inputs=("history",)).check(RecommenderConfig(), {})
  with pytest.raises(ConfigError, match="the model encodes 'item2' too"):
    SampledSoftmax(mixed=True).check(RecommenderConfig(), {})
  for fields in (dict(share=0.0), dict(slots=0), dict(hashes=6)):
    with pytest.raises(ValueError, match="must"):
      SampledSoftmax(**fields)
  for fields in (dict(length=0), dict(dropout=1.0), dict(id_dropout=-0.1)):
    with pytest.raises(ValueError, match="must"):
      EmbeddingBagConfig(**fields)
