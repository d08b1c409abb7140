"""ALBEF: what its halves may know of each other, what its heads read, and the same on eight devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.models import SHARDING_RULES
from mmjax.models.albef import Albef, AlbefConfig
from mmjax.objectives import choose_positions, mask_tokens, take_positions
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings
from tests.models.random_params import random_params
from tests.objectives.per_example import keys

CONFIG = AlbefConfig(
  image=ViTConfig(image_size=8, patch_size=4, width=12, depth=1, num_heads=2, mlp_dim=12, pool="cls"),
  text=TextConfig(
    vocab_size=20, max_length=6, width=8, depth=1, num_heads=2, mlp_dim=8, causal=False, pool="first", norm="post"
  ),
  fusion_depth=1,
  embed_dim=4,
)
CLS, MASK = 1, 2
TEXT = jnp.asarray([[CLS, 4, 7, 5, 0, 0], [CLS, 6, 7, 8, 9, 3], [CLS, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], jnp.int32)
BATCH = {"image": jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32), "text": TEXT}


@functools.cache
def params():
  return random_params(Albef(CONFIG), BATCH)


@functools.partial(jax.jit, static_argnames="config")
def run(params, batch, config=CONFIG):
  return Albef(config).apply({"params": params}, batch)


def test_what_is_said_of_a_pair_has_the_promised_shapes_and_names():
  out = run(params(), BATCH)
  assert {name: (x.shape, x.dtype) for name, x in out.items()} == {
    "image": ((4, 4), jnp.float32),
    "text": ((4, 4), jnp.float32),
    "match": ((4, 2), jnp.float32),
    "words": ((4, 6, 20), jnp.float32),
  }
  extra = {"fusion", "match_projection", "word_head"}
  assert set(params()) == {"image", "text", "image_projection", "text_projection", "logit_scale"} | extra
  assert set(params()["fusion"]["decoder"]) == {"block_0"}  # post-norm: no norm at the end


def test_pictures_and_texts_are_embedded_one_by_one_as_well():
  out = run(params(), BATCH)
  for name in ("image", "text"):
    embed = jax.jit(functools.partial(Albef(CONFIG).apply, method=f"encode_{name}"))
    alone = embed({"params": params()}, BATCH[name])
    np.testing.assert_allclose(alone, out[name], rtol=1e-5, atol=1e-6)


def test_below_the_fusion_no_modality_knows_of_the_other_and_above_it_the_words_know_the_picture():
  out, other = run(params(), BATCH), run(params(), {**BATCH, "image": BATCH["image"][::-1]})
  np.testing.assert_array_equal(other["text"], out["text"])
  for name in ("match", "words"):
    moved = np.abs(other[name] - out[name]).reshape(4, -1).max(1)
    assert (moved > 1e-4).all() or (name == "words" and (moved[:3] > 1e-4).all())
  changed = run(params(), {**BATCH, "text": TEXT.at[:, 2].set(8)})
  np.testing.assert_array_equal(changed["image"], out["image"])


def test_a_hidden_word_moves_no_logit():
  """Texts that differ where both say [MASK] are the same to the model: the answer does not leak past mask_tokens."""
  options = dict(mask_id=MASK, vocab_size=20, pad_id=0, special_ids=(CLS,), rate=0.5)
  mask = jax.jit(lambda ids, rng: mask_tokens(ids, rng, **options))
  texts = TEXT[:2], TEXT[:2].at[:, 2].set(11)
  rng = next(rng for rng in map(functools.partial(keys, 2), range(50)) if (mask(texts[0], rng)[0][:, 2] == MASK).all())
  (masked, chosen), (other, _) = (mask(text, rng) for text in texts)
  assert chosen[:, 2].all()
  np.testing.assert_array_equal(masked, other)
  positions, there = choose_positions(chosen, 3)

  @jax.jit
  def say(ids):
    def both(model):
      image = model.encode({"image": BATCH["image"][:2]})
      tokens = model.fuse({**image, "text": model.encode_words(ids)})["text"].tokens
      return model.word_logits(tokens), model.word_logits(take_positions(tokens, positions))

    return Albef(CONFIG).apply({"params": params()}, method=both)

  hidden, few = say(masked)
  assert np.abs(hidden - say(texts[1])[0])[:, 2].max() > 1e-3  # a word that is not hidden does move it
  np.testing.assert_allclose(few, take_positions(hidden, positions), rtol=1e-5, atol=1e-5)
  assert there[:, 0].all()


def test_padding_and_other_examples_change_nothing():
  out = run(params(), BATCH)
  shorter = run(params(), {**BATCH, "text": TEXT[:, :4].at[1, 3].set(0)})
  for row in (0, 2):
    np.testing.assert_allclose(shorter["match"][row], out["match"][row], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shorter["words"][row], out["words"][row, :4], rtol=1e-4, atol=1e-5)
  turned = run(params(), jax.tree.map(lambda x: x[::-1], BATCH))
  for name in out:
    np.testing.assert_allclose(turned[name][::-1], out[name], rtol=1e-4, atol=1e-5)


def test_the_word_head_scores_with_the_towers_own_table():
  table = params()["text"]["token_embedding"]
  bigger = {**params(), "text": {**params()["text"], "token_embedding": table.at[19].multiply(3.0)}}  # nobody says 19
  out, scaled = run(params(), BATCH)["words"], run(bigger, BATCH)["words"]
  bias = params()["word_head"]["word_bias"][19]
  np.testing.assert_allclose(scaled[..., 19] - bias, 3 * (out[..., 19] - bias), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(scaled[..., :19], out[..., :19], rtol=1e-5, atol=1e-6)


def test_split_over_eight_devices_it_is_the_same():
  """Batch over four, heads and widths over two, with a text that is all padding; train/test_meshes.py: gradients."""
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  shardings = parameter_shardings(SHARDING_RULES, params(), mesh)
  block = shardings["fusion"]["decoder"]["block_0"]
  assert "model" in str(block["cross_attention"]["query"]["kernel"].spec)
  given = jax.device_get((params(), BATCH))
  split, whole = jax.jit(run, in_shardings=(shardings, batch_sharding(mesh)))(*given), run(params(), BATCH)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), split, whole)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))


def test_bfloat16_computes_nearly_the_same_and_gives_float32():
  low = dataclasses.replace(
    CONFIG,
    image=dataclasses.replace(CONFIG.image, dtype="bfloat16"),
    text=dataclasses.replace(CONFIG.text, dtype="bfloat16"),
  )
  out, rough = run(params(), BATCH), run(params(), BATCH, low)
  for name in out:
    assert rough[name].dtype == jnp.float32
    np.testing.assert_allclose(rough[name][:3], out[name][:3], atol=0.1 * float(jnp.abs(out[name]).max()))


def test_a_text_half_that_cannot_serve_is_refused():
  with pytest.raises(ValueError, match="text.causal=False"):
    dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, causal=True, pool="last"))
  with pytest.raises(ValueError, match='text.pool="first", not "mean"'):
    dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, pool="mean"))
