"""FLAVA: towers that know only their own modality, an encoder that knows both, hidden patches that leak nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.flava import Flava, FlavaConfig
from tests.models import joint_models as joint

CONFIG = FlavaConfig(
  image=ViTConfig(image_size=8, patch_size=4, width=12, depth=1, num_heads=2, mlp_dim=12, pool="cls"),
  text=TextConfig(
    vocab_size=joint.VOCABULARY, max_length=joint.WORDS, width=8, depth=1, num_heads=2, mlp_dim=8, causal=False,
    pool="first",
  ),
  fusion_depth=1,
  embed_dim=4,
)  # fmt: skip


def test_shapes_and_names():
  out = joint.run(joint.params(CONFIG), joint.BATCH, CONFIG)
  assert {name: x.shape for name, x in out.items()} == {
    "image": (4, 4),
    "text": (4, 4),
    "match": (4, 2),
    "words": (4, 6, 20),
    "fused_words": (4, 6, 20),
    "patches": (4, 5, 48),  # the class token comes first; 4 x 4 pixels of three colours
    "fused_patches": (4, 5, 48),
  }
  assert dataclasses.replace(CONFIG, num_codes=7).patch_outputs == 7
  fusion = joint.params(CONFIG)["fusion"]
  assert set(fusion) == {"class_token", "input_0_projection", "input_1_projection", "joint"}


def test_below_the_fusion_no_modality_knows_of_the_other():
  out = joint.run(joint.params(CONFIG), joint.BATCH, CONFIG)
  pictures = joint.run(joint.params(CONFIG), {**joint.BATCH, "image": joint.IMAGES[::-1]}, CONFIG)
  texts = joint.run(joint.params(CONFIG), {**joint.BATCH, "text": joint.TEXT.at[:3, 1].set(9)}, CONFIG)
  for name in ("text", "words"):
    np.testing.assert_array_equal(pictures[name], out[name])
  for name in ("image", "patches"):
    np.testing.assert_array_equal(texts[name], out[name])
  assert (joint.moved(pictures["fused_words"], out["fused_words"])[:3] > 1e-4).all()
  assert (joint.moved(texts["fused_patches"], out["fused_patches"])[:3] > 1e-4).all()


def test_hidden_patches_leak_nothing():
  """Images that differ only where both are hidden give the same patch logits, alone and together."""
  model, values = Flava(CONFIG), {"params": joint.params(CONFIG)}
  hidden = jnp.zeros((4, 4), bool).at[:, 1].set(True)

  @jax.jit
  def guess(images, hidden):
    def both(bound):
      image, text = bound.encode_patches(images, hidden), bound.encode_words(joint.TEXT)
      fused = bound.fuse({"image": image, "text": text})["image"]
      return bound.patch_logits(image.tokens, fused=False), bound.patch_logits(fused.tokens)

    return model.apply(values, method=both)

  changed = joint.IMAGES.at[:, :4, 4:].add(1.0)  # the second patch
  for one, other in zip(guess(joint.IMAGES, hidden), guess(changed, hidden)):
    np.testing.assert_array_equal(one, other)
  for one, other in zip(guess(joint.IMAGES, ~hidden), guess(changed, ~hidden)):
    assert (joint.moved(one, other) > 1e-4).all()


def test_padding_and_others_change_nothing():
  joint.assert_padding_and_others_change_nothing(CONFIG, ["words", "fused_words"])


def test_eight_devices_equal_one():
  joint.assert_eight_devices_equal_one(CONFIG)


def test_a_text_that_reads_only_backwards_is_refused():
  with pytest.raises(ValueError, match="causal=False"):
    dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, causal=True, pool="last"))
