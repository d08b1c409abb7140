"""ViLT: one stream; nothing is read before it, everything in it."""

import dataclasses

import jax
import numpy as np
import pytest

from mmjax.encoders.text import TextConfig
from mmjax.models.vilt import PatchesConfig, Vilt, ViltConfig
from tests.models import joint_models as joint

CONFIG = ViltConfig(
  image=PatchesConfig(image_size=8, patch_size=4),
  text=TextConfig(
    vocab_size=joint.VOCABULARY, max_length=joint.WORDS, width=8, depth=2, num_heads=2, mlp_dim=8, causal=False,
    pool="first",
  ),
)  # fmt: skip


def test_shapes_and_names():
  out = joint.run(joint.params(CONFIG), joint.BATCH, CONFIG)
  assert {name: x.shape for name, x in out.items()} == {"match": (4, 2), "words": (4, 6, 20)}
  stream = joint.params(CONFIG)["stream"]
  assert set(stream) == {"token_type_embedding", "joint"} and stream["token_type_embedding"].shape == (2, 8)


def test_embeddings_read_nothing_and_the_stream_reads_both():
  model, values = Vilt(CONFIG), {"params": joint.params(CONFIG)}
  encode = jax.jit(lambda batch: model.apply(values, batch, method="encode"))
  encoded, other = encode(joint.BATCH), encode({"image": joint.IMAGES, "text": joint.TEXT.at[:, 1].set(9)})
  np.testing.assert_array_equal(encoded["image"].tokens, other["image"].tokens)
  np.testing.assert_array_equal(encoded["text"].tokens[:, 2:], other["text"].tokens[:, 2:])
  out = joint.run(joint.params(CONFIG), joint.BATCH, CONFIG)
  pictures = joint.run(joint.params(CONFIG), {**joint.BATCH, "image": joint.IMAGES[::-1]}, CONFIG)
  assert (joint.moved(out["match"], pictures["match"]) > 1e-4).all()
  assert (joint.moved(out["words"], pictures["words"])[:3] > 1e-4).all()


def test_an_image_class_token_comes_first_and_has_its_own_position():
  config = dataclasses.replace(CONFIG, image_class_token=True)
  params = joint.params(config)
  assert params["image_class_token"].shape == (1, 8) and params["image_position_embedding"].shape == (5, 8)

  def tokens(params, config):
    return config.build().apply({"params": params}, joint.BATCH, method="encode")["image"].tokens

  with_class = tokens(params, config)
  expected = params["image_class_token"][0] + params["image_position_embedding"][0]
  np.testing.assert_allclose(with_class[:, 0], np.broadcast_to(expected, (4, 8)), rtol=1e-6)
  patches = {**params, "image_position_embedding": params["image_position_embedding"][1:]}
  del patches["image_class_token"]
  np.testing.assert_allclose(with_class[:, 1:], tokens(patches, CONFIG), rtol=1e-6)
  moved = {**params, "image_class_token": -params["image_class_token"]}
  out, other = joint.run(params, joint.BATCH, config), joint.run(moved, joint.BATCH, config)
  assert (joint.moved(out["match"], other["match"]) > 1e-4).all(), "the words read it"


def test_padding_and_others_change_nothing():
  joint.assert_padding_and_others_change_nothing(CONFIG, ["words"])


def test_eight_devices_equal_one():
  joint.assert_eight_devices_equal_one(CONFIG)


def test_misfits_are_refused():
  with pytest.raises(ValueError, match="causal=False"):
    dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, causal=True, pool="last"))
  with pytest.raises(ValueError, match="divisible"):
    PatchesConfig(image_size=8, patch_size=3)
