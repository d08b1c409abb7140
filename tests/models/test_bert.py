"""BERT: heads, segments, padding, and the same on eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import TextConfig, bert_config
from mmjax.models import SHARDING_RULES
from mmjax.models.bert import Bert, BertConfig
from mmjax.objectives import batch_mean, mask_tokens, masked_word_loss, next_sentence_loss
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings
from tests.models.random_params import random_params
from tests.objectives.per_example import keys

CONFIG = BertConfig(bert_config(width=8, depth=1, num_heads=2, mlp_dim=8, vocab_size=20, max_length=8))
CLS, SEP, MASK = 1, 2, 3
BATCH = {
  "text": jnp.asarray(
    [
      [CLS, 5, 6, SEP, 7, 8, SEP, 0],
      [CLS, 9, SEP, 4, SEP, 0, 0, 0],
      [CLS, 5, 5, SEP, 19, 8, 9, SEP],
      [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    jnp.int32,
  ),
  "segment": jnp.asarray([[0] * 4 + [1] * 3 + [0], [0] * 3 + [1, 1, 0, 0, 0], [0] * 4 + [1] * 4, [0] * 8], jnp.int32),
  "next": jnp.asarray([1, 0, 1, -1], jnp.int32),
}


@functools.cache
def params():
  return random_params(Bert(CONFIG), BATCH)


run = jax.jit(lambda params, batch: Bert(CONFIG).apply({"params": params}, batch))


def test_heads_give_float32_scores_by_the_promised_names():
  out = run(params(), BATCH)
  assert out["words"].shape == (4, 8, 20) and out["next"].shape == (4, 2)
  assert out["words"].dtype == out["next"].dtype == jnp.float32
  assert set(params()) == {"text", "word_head", "next_projection"}
  assert set(params()["word_head"]) == {"word_projection", "norm", "word_bias"}  # scores by the text's own table


def test_segments_are_told_apart_and_padding_changes_nothing():
  out = run(params(), BATCH)
  one = run(params(), {**BATCH, "segment": jnp.zeros_like(BATCH["segment"])})
  assert (np.abs(one["next"] - out["next"])[:3].max(1) > 1e-5).all()
  without = run(params(), {"text": BATCH["text"]})  # no segments: all are the first
  np.testing.assert_array_equal(without["next"], one["next"])
  short = run(params(), {name: BATCH[name][:2, :7] for name in ("text", "segment")})
  np.testing.assert_allclose(short["words"], out["words"][:2, :7], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(short["next"], out["next"][:2], rtol=1e-4, atol=1e-5)


def test_every_word_is_guessed_from_both_sides_and_an_example_from_itself():
  moved = run(params(), {**BATCH, "text": BATCH["text"].at[0, 4].set(9)})["words"] - run(params(), BATCH)["words"]
  assert (np.abs(moved[0, :7]).max(-1) > 1e-5).all()
  np.testing.assert_allclose(moved[1:], 0, atol=1e-6)


def _loss(params, batch):
  ids, chosen = mask_tokens(batch["text"], batch["keys"], mask_id=MASK, vocab_size=20, pad_id=0, special_ids=(CLS, SEP))
  out = run(params, {**batch, "text": ids})
  parts = masked_word_loss(out["words"], batch["text"], chosen), next_sentence_loss(out["next"], batch["next"])
  return sum(batch_mean(*part) for part in parts)


def test_on_eight_devices_masking_losses_and_gradients_are_the_same():
  batch = {**BATCH, "keys": keys(4)}
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  shardings = parameter_shardings(SHARDING_RULES, params(), mesh)
  assert "model" in str(shardings["text"]["transformer"]["block_0"]["mlp"]["up"]["kernel"].spec)
  split = jax.jit(jax.value_and_grad(_loss), in_shardings=(shardings, batch_sharding(mesh)))(params(), batch)
  whole = jax.jit(jax.value_and_grad(_loss))(params(), batch)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), split, whole)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))


def test_a_tower_that_reads_only_backwards_is_refused():
  with pytest.raises(ValueError, match="text.causal=False"):
    BertConfig(TextConfig())
